// The storage of 16-bit floats, for kernels and what blocks them. Without functions, so that files compiled
// per instruction set may share it.
#pragma once

#include <cstdint>

namespace opsin::cpu {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

/// What elements of S are computed in.
template <class S>
struct ComputeOf {
  using Type = S;
};
template <>
struct ComputeOf<BFloat16> {
  using Type = float;
};
template <>
struct ComputeOf<Float16> {
  using Type = float;
};
template <class S>
using Compute = typename ComputeOf<S>::Type;

}  // namespace opsin::cpu
