// Division of 64-bit numbers in kernels.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace opsin::cuda {

/// a / b, as a call: GPUs take a hundred instructions for it, which would be copied to wherever an address is
/// made.
__device__ OPSIN_NOINLINE inline int64_t wide_quotient(int64_t a, int64_t b) { return a / b; }

}  // namespace opsin::cuda
