// What the user may ask of the libraries behind a backend, for the whole process, and what they could not do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <opsin/api.h>

namespace opsin {

/// float32 operands of convolutions may be rounded to TF32 (10 bits of mantissa) on a GPU's tensor cores. On,
/// as in PyTorch.
OPSIN_API bool allow_tf32_convolution();
OPSIN_API void set_allow_tf32_convolution(bool allow);

/// The same for matrix products. Off, as in PyTorch.
OPSIN_API bool allow_tf32_matmul();
OPSIN_API void set_allow_tf32_matmul(bool allow);

/// Only algorithms that give the same bits in every run. On, unlike in PyTorch.
OPSIN_API bool deterministic_algorithms();
OPSIN_API void set_deterministic_algorithms(bool deterministic);

/// The first call of each kind times a few algorithms and keeps the fastest. Off, as in PyTorch.
OPSIN_API bool benchmark_algorithms();
OPSIN_API void set_benchmark_algorithms(bool benchmark);

/// Counts that a library had no algorithm for `what`, so that the engine's own, slower kernel ran.
OPSIN_API void count_fallback(std::string_view what);
/// What was counted since the start or the last clear_fallbacks(), by name; at most a few thousand entries.
OPSIN_API std::vector<std::pair<std::string, int64_t>> fallbacks();
OPSIN_API void clear_fallbacks();

}  // namespace opsin
