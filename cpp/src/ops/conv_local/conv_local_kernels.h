// The contract of unshared convolution: its three products, as those of a convolution (cpu/conv.h) but for
// the weight, which is [out..., K, C / groups, kernel...].
#pragma once

#include "core/kernel.h"
#include "cpu/conv.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Operands are dense, x and y channels last. Results are overwritten.
struct LocalConv {
  cpu::ConvGeometry geometry;
  DType dtype;
  const void* x;       ///< [N, in..., C]; null for the gradient of x
  const void* weight;  ///< [out..., K, C / groups, kernel...]; null for its own gradient
  const void* y;       ///< [N, out..., K]; null for y
  void* result;        ///< The one that is null.
};

extern OPSIN_API KernelSlot<void (*)(const LocalConv&)> conv_local_forward;
extern OPSIN_API KernelSlot<void (*)(const LocalConv&)> conv_local_backward_input;
extern OPSIN_API KernelSlot<void (*)(const LocalConv&)> conv_local_backward_weight;

void register_conv_local_cpu();

namespace cpu {

/// What a loop needs besides: `pixels` has an entry for each tap, `values` is of the type of computation.
struct LocalScratch {
  int64_t* pixels;
  void* values;
};

/// By dtype: float32, float64, float16, bfloat16.
struct LocalConvTable {
  /// Positions [begin, end); values [4, C / groups * taps].
  void (*forward[4])(const LocalConv& conv, int64_t begin, int64_t end, const LocalScratch& scratch);
  /// Positions [begin, end); values [N, C / groups * taps].
  void (*backward_weight[4])(const LocalConv& conv, int64_t begin, int64_t end, const LocalScratch& scratch);
  /// Channels [from, to) of a group, for `images` <= 4 images; values [images, in... + taps, to - from].
  void (*backward_input[4])(const LocalConv& conv, int64_t image, int64_t images, int64_t group, int64_t from,
                            int64_t to, const LocalScratch& scratch);
};
OPSIN_ISA_TABLE(LocalConvTable, local_conv_table)

}  // namespace cpu

}  // namespace opsin
