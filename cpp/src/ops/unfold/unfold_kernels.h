// The contract of the kernels of windows as columns.
#pragma once

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// With fewer than three axes the leading ones have size, kernel, stride and dilation 1 and no padding.
///     columns [planes, kernel..., out...], images [planes, in...]
struct UnfoldGeometry {
  int64_t planes = 0;
  int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1}, pad[3] = {0, 0, 0};
};

/// geometry, dtype, images, columns
extern OPSIN_API KernelSlot<void (*)(const UnfoldGeometry&, DType, const void*, void*)> unfold_forward;
/// geometry, dtype, columns, images
extern OPSIN_API KernelSlot<void (*)(const UnfoldGeometry&, DType, const void*, void*)> fold_columns;

void register_unfold_cpu();

namespace cpu {

/// The windows [begin, end) of an axis whose tap lies inside the image, and where it lies in the first one.
struct UnfoldReach {
  int64_t begin, end, first;
};

/// Rows of windows; 16-bit floats are summed in float32.
struct UnfoldTable {
  /// to[i] = from[i * step], i < n, by element size in bytes: 2, 4, 8.
  void (*take[3])(const void* from, int64_t n, int64_t step, void* to);
  /// Adds the rows of `taps` taps, which lie `apart` elements from each other, to the pixels that they lie
  /// on, `step` from window to window: float32, float64, float16, bfloat16.
  void (*add[4])(const void* rows, const UnfoldReach* reach, int64_t taps, int64_t apart, int64_t step,
                 void* sums);
  /// Rounds sums to float16 and bfloat16.
  void (*round[2])(const float* sums, int64_t n, void* to);
};
OPSIN_ISA_TABLE(UnfoldTable, unfold_table)

}  // namespace cpu

}  // namespace opsin
