// What all indexing comes to: picking, placing and adding rows of a tensor seen as [outer, size, inner], by a
// list of row numbers; and the same along one dimension with a number for each element.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

class Registry;

/// `count` rows out of `size`, each of `inner` elements, in each of `outer` blocks.
struct RowGeometry {
  int64_t outer, size, count, inner;
  /// On a GPU kernels check the indices as they read them, and report those out of range as errors of `op`;
  /// null where they are known to be in [0, size).
  const char* op = nullptr;
  bool wraps = false;    ///< Negative ones count from the end; on the CPU checked_indices() has seen to that.
  bool ascends = false;  ///< Each row is larger than the one before.
};

/// The rows as a tensor of shape `sizes` (outer * count * inner elements). `rows` is int64 [count], checked.
Tensor select_rows(const Tensor& x, const Tensor& rows, const RowGeometry& geometry, IntSpan sizes);
/// x with values [outer, count, inner] written over the rows, or added to them. The order of `rows` is kept,
/// so that the last value wins and sums have the same bits for any number of threads.
Tensor put_rows(const Tensor& x, const Tensor& rows, const Tensor& values, const RowGeometry& geometry,
                bool accumulate);
Tensor put_rows_(const Tensor& x, const Tensor& rows, const Tensor& values, const RowGeometry& geometry,
                 bool accumulate);

/// y[o, c, i] = x[o, at[o, c, i], i], shaped like `at` (int64, checked).
Tensor gather_along(const Tensor& x, const Tensor& at, const RowGeometry& geometry);
/// x[o, at[o, c, i], i] = or += values[o, c, i].
Tensor scatter_along_(const Tensor& x, const Tensor& at, const Tensor& values, const RowGeometry& geometry,
                      bool accumulate);

enum class Fold { kSum, kProduct, kLargest, kSmallest };
/// A copy of `x` with the product or extreme of all values[.., c, ..] whose index at[.., c, ..] along `dim`
/// names the place, and of what was there with `include_self`. `at` has the sizes of `x` in all other
/// dimensions.
Tensor fold_along(const Tensor& x, int64_t dim, const Tensor& at, const Tensor& values, Fold fold,
                  bool include_self);

/// Indices as a dense int64 tensor of the same shape, each in [0, size); negative ones count from the end if
/// allowed. IndexError that names the index, `dim` and `size` otherwise. On a GPU they are left to the
/// kernel, to which RowGeometry::op says so. Not the memory of `index` if `own`: the caller may write to it
/// before a backward pass reads the result, or by the very op that reads it.
Tensor checked_indices(const Tensor& index, int64_t dim, int64_t size, bool allow_negative, const char* op,
                       bool own = true);
/// Whether the indices of a selection from `x` are kept for a backward pass.
bool keeps_indices(const Tensor& x);
/// The row-major positions of the nonzero elements, int64 [count].
Tensor flat_nonzero(const Tensor& x);
/// A 0-d tensor as one of `dtype` on `device`; only the CPU's travel.
Tensor number_on(const Tensor& value, DType dtype, Device device);

/// [outer, size, inner] around dimension `dim` of `x`; a 0-d tensor counts as [1]. `op` checks the indices.
RowGeometry geometry_along(const Tensor& x, int64_t dim, int64_t count, const char* op, bool wraps = false);
/// The size of dimension `dim`, 1 for a 0-d tensor.
int64_t size_along(const Tensor& x, int64_t dim);

void register_index_along(Registry& registry);
void register_index_masked(Registry& registry);
void register_index_nonzero(Registry& registry);

}  // namespace opsin
