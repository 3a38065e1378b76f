// Reading and writing at positions that tensors give. Indices are int64 or int32; IndexError names one that
// is out of range, its dimension and the size. What is added to one element is added in the order of the
// indices, so results have the same bits for any number of threads. Names ending in `_` write to `self` and
// return it.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// self[indices[0], indices[1], ...] by NumPy's rules: integer tensors broadcast together, bool tensors stand
/// for their nonzero() positions, undefined entries for whole dimensions. Always a copy. IndexError names an
/// index out of range.
OPSIN_API Tensor index(const Tensor& self, TensorSpan indices);
/// self[indices] = values, or += with `accumulate`. Where positions repeat, the last value wins without
/// `accumulate`.
OPSIN_API Tensor index_put_(const Tensor& self, TensorSpan indices, const Tensor& values,
                            bool accumulate = false);
OPSIN_API Tensor index_put(const Tensor& self, TensorSpan indices, const Tensor& values,
                           bool accumulate = false);

/// The entries `index` [n] of dimension `dim`, which becomes n long.
OPSIN_API Tensor index_select(const Tensor& self, int64_t dim, const Tensor& index);
/// alpha * source added to the entries `index` of dimension `dim`.
OPSIN_API Tensor index_add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                           const Scalar& alpha = 1);
OPSIN_API Tensor index_add_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                            const Scalar& alpha = 1);
/// `source` written over the entries `index` of dimension `dim`.
OPSIN_API Tensor index_copy(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source);
OPSIN_API Tensor index_copy_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source);
/// `value` [] written over the entries `index` of dimension `dim`.
OPSIN_API Tensor index_fill(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& value);
OPSIN_API Tensor index_fill_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& value);
/// The elements at the row-major positions `index`, in its shape. Negative ones count from the end.
OPSIN_API Tensor take(const Tensor& self, const Tensor& index);

/// y[i, j, k] = self[index[i, j, k], j, k] for dim 0, and so on; shaped like `index`, which may be smaller
/// than `self`.
OPSIN_API Tensor gather(const Tensor& self, int64_t dim, const Tensor& index);
/// self[index[i, j, k], j, k] = src[i, j, k] for dim 0, and so on; the last of repeated indices wins.
OPSIN_API Tensor scatter(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src);
OPSIN_API Tensor scatter_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src);
OPSIN_API Tensor scatter(const Tensor& self, int64_t dim, const Tensor& index, const Scalar& value);
OPSIN_API Tensor scatter_(const Tensor& self, int64_t dim, const Tensor& index, const Scalar& value);
/// As scatter, adding.
OPSIN_API Tensor scatter_add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src);
OPSIN_API Tensor scatter_add_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src);
/// As scatter, with the values of one place combined by `reduce`: "sum", "prod", "mean", "amax" or "amin";
/// what was there before takes part with `include_self`. Ties share the gradient of an extreme evenly.
OPSIN_API Tensor scatter_reduce(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src,
                                std::string_view reduce, bool include_self = true);
OPSIN_API Tensor scatter_reduce_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src,
                                 std::string_view reduce, bool include_self = true);
/// gather() with broadcasting; over all elements without `dim`.
OPSIN_API Tensor take_along_dim(const Tensor& self, const Tensor& indices,
                                std::optional<int64_t> dim = std::nullopt);

/// `value` [] where `mask` (bool) is true, `self` elsewhere; both broadcast.
OPSIN_API Tensor masked_fill(const Tensor& self, const Tensor& mask, const Tensor& value);
OPSIN_API Tensor masked_fill_(const Tensor& self, const Tensor& mask, const Tensor& value);
/// The elements [count] where `mask` is true, in row-major order; both broadcast.
OPSIN_API Tensor masked_select(const Tensor& self, const Tensor& mask);
/// The first elements of `source`, in order, where `mask` is true.
OPSIN_API Tensor masked_scatter(const Tensor& self, const Tensor& mask, const Tensor& source);
OPSIN_API Tensor masked_scatter_(const Tensor& self, const Tensor& mask, const Tensor& source);

/// The indices of the nonzero elements in row-major order, int64 [count, rank].
OPSIN_API Tensor nonzero(const Tensor& self);
/// int64 [..., num_classes] with a 1 at each class of `self` (int64 [...]); -1 takes as many classes as
/// needed.
OPSIN_API Tensor one_hot(const Tensor& self, int64_t num_classes = -1);

}  // namespace opsin
