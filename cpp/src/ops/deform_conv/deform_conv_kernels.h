// The contract of deformable sampling. All of it is one trilinear form in x, a coefficient for each corner of
// each sampled point, and the columns (the sampled points, in the order of the rows of a matrix product):
//
//     sum over rows r, taps t, corners j, channels c:  coefficient[r, t, j] x[corner(r, t, j), c] column[r,
//     t, c]
//
// where corner(r, t, j) are the 2^spatial pixels around the point and those outside of x are left out. Its
// three kernels are its derivatives by the columns, by x and by the coefficients.
#pragma once

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Sizes; axes as in a convolution of the CPU backend: always three, the leading ones trivial with fewer.
struct DeformGeometry {
  int spatial = 2;
  int64_t batch = 0, channels = 0, groups = 1, offset_groups = 1;
  int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1}, pad[3] = {0, 0, 0};
};

/// Some rows, each an output position of [N, out...], of a deformable convolution. Everything is dense. S is
/// the type of `dtype`, T that of its computation (float32 for 16-bit floats). Point t of row r with output
/// position o is at o * stride - pad + t * dilation + offset.
struct DeformPart {
  DeformGeometry geometry;
  DType dtype;
  int64_t first, rows;       ///< Which rows.
  const void* offset;        ///< S [N, out..., offset_groups, taps, spatial], from the first row of all
  const void* mask;          ///< S [N, out..., offset_groups, taps], or null for ones
  const void* coefficients;  ///< T [N, out..., offset_groups, taps, corners], or null: those of bilinear
                             ///< interpolation times mask
  const void* x;             ///< S [N, in..., C]
  void* columns;             ///< S [groups, rows, taps, C / groups], from row `first`
  void* sums;                ///< T [N, in..., C]
  void* grad_coefficients;   ///< T as coefficients, or null: the gradients by offset and mask, where wanted
  void* grad_offset;         ///< S as offset, or null
  void* grad_mask;           ///< S as mask, or null
};

/// columns = the sums over corners of coefficient * x.
extern OPSIN_API KernelSlot<void (*)(const DeformPart&)> deform_columns;
/// sums += coefficient * column at the corners.
extern OPSIN_API KernelSlot<void (*)(const DeformPart&)> deform_spread;
/// The gradients by the coefficients, or by offset and mask: products of x and columns, added over channels.
extern OPSIN_API KernelSlot<void (*)(const DeformPart&)> deform_products;

void register_deform_conv_cpu();

namespace cpu {

/// Loops over rows [begin, end) of the part; by dtype: float32, float64, float16, bfloat16.
struct DeformTable {
  void (*columns[4])(const DeformPart& part, int64_t begin, int64_t end);
  /// Of channels [from, to) alone.
  void (*spread[4])(const DeformPart& part, int64_t begin, int64_t end, int64_t from, int64_t to);
  void (*products[4])(const DeformPart& part, int64_t begin, int64_t end);
};
OPSIN_ISA_TABLE(DeformTable, deform_table)

}  // namespace cpu

}  // namespace opsin
