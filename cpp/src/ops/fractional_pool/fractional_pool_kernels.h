// The contract of fractional max pooling and its kernels.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "core/math_parts.h"

namespace opsin {

/// Row-major planes of three axes (leading ones of size 1 where there are fewer). `samples` [planes, axes]:
/// for axis a entry `sample[a]`, none where that is negative.
struct FractionalPoolParams {
  const void* x;
  const void* samples;
  void* y;
  int64_t* positions;
  int64_t planes, axes;
  int64_t in[3], kernel[3], out[3];
  int sample[3];
  DType dtype;
};

extern OPSIN_API KernelSlot<void (*)(const FractionalPoolParams&)> fractional_max_pool_forward;

void register_fractional_pool_cpu();

/// Where window o of an axis starts; inside for any sample.
template <class T>
OPSIN_FN int64_t fractional_start(int64_t o, int64_t in, int64_t kernel, int64_t out, T sample) {
  if (o == out - 1) return in - kernel;
  const T u = sample > 0 ? sample < 1 ? sample : T(1) : T(0);  // A NaN is 0.
  const T step = static_cast<T>(in - kernel) / static_cast<T>(out - 1);
  const int64_t start = static_cast<int64_t>((static_cast<T>(o) + u) * step) - static_cast<int64_t>(u * step);
  return start < in - kernel ? start : in - kernel;
}

}  // namespace opsin
