// Other shapes and parts of the same memory. All results share the storage of `self`, and in-place changes of
// one are seen by the other; reshape(), flatten() and ravel() copy where that is impossible. The functions of
// rearrange.h copy.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// Any geometry over the storage of `self`.
OPSIN_API Tensor as_strided(const Tensor& self, IntSpan size, IntSpan stride,
                            std::optional<int64_t> storage_offset = std::nullopt);
/// The same elements in row-major order as `size`; one entry may be -1. ShapeError if the strides don't allow
/// it.
OPSIN_API Tensor view(const Tensor& self, IntSpan size);
/// The same bytes as another dtype; the last dimension grows or shrinks with the size of an element. No
/// gradient.
OPSIN_API Tensor view(const Tensor& self, DType dtype);
/// As view(), copying if needed.
OPSIN_API Tensor reshape(const Tensor& self, IntSpan shape);
/// Dimension i of the result is dimension dims[i] of `self`.
OPSIN_API Tensor permute(const Tensor& self, IntSpan dims);
OPSIN_API Tensor transpose(const Tensor& self, int64_t dim0, int64_t dim1);
/// The transpose of a matrix; vectors and numbers as they are.
OPSIN_API Tensor t(const Tensor& self);
/// Dimension source[i] goes to destination[i]; the others keep their order.
OPSIN_API Tensor movedim(const Tensor& self, IntSpan source, IntSpan destination);
/// Repeats dimensions of size 1 without copying; -1 keeps a size.
OPSIN_API Tensor expand(const Tensor& self, IntSpan size);
/// All tensors expanded to their common shape.
OPSIN_API TensorList broadcast_tensors(TensorSpan tensors);
/// Index `index` of dimension `dim`, which goes away.
OPSIN_API Tensor select(const Tensor& self, int64_t dim, int64_t index);
/// Indices start, start + step, ... below end of dimension `dim`.
OPSIN_API Tensor slice(const Tensor& self, int64_t dim, int64_t start, int64_t end, int64_t step = 1);
/// `length` indices of dimension `dim` from `start`.
OPSIN_API Tensor narrow(const Tensor& self, int64_t dim, int64_t start, int64_t length);
OPSIN_API Tensor unsqueeze(const Tensor& self, int64_t dim);
/// Drops the given dimensions where their size is 1; all of size 1 if none are given.
OPSIN_API Tensor squeeze(const Tensor& self, IntSpan dims);
OPSIN_API Tensor squeeze(const Tensor& self);
/// Dimensions start_dim to end_dim as one; a number becomes [1].
OPSIN_API Tensor flatten(const Tensor& self, int64_t start_dim = 0, int64_t end_dim = -1);
/// Dimension `dim` as several; one entry of `sizes` may be -1.
OPSIN_API Tensor unflatten(const Tensor& self, int64_t dim, IntSpan sizes);
/// The elements with equal indices (plus `offset`) of two dimensions, as a new last dimension.
OPSIN_API Tensor diagonal(const Tensor& self, int64_t offset = 0, int64_t dim1 = 0, int64_t dim2 = 1);
/// All windows of `size` elements, `step` apart, of dimension `dimension`; their elements are a new last
/// dimension.
OPSIN_API Tensor unfold(const Tensor& self, int64_t dimension, int64_t size, int64_t step);

/// Parts of the given sizes along `dim`, which must add up to its size.
OPSIN_API TensorList split(const Tensor& self, IntSpan split_sizes, int64_t dim = 0);
/// Parts of `split_size`, the last one maybe smaller.
OPSIN_API TensorList split(const Tensor& self, int64_t split_size, int64_t dim = 0);
/// At most `chunks` parts of equal size, the last one maybe smaller.
OPSIN_API TensorList chunk(const Tensor& self, int64_t chunks, int64_t dim = 0);
/// Exactly `sections` parts, the first ones one longer if it doesn't come out even.
OPSIN_API TensorList tensor_split(const Tensor& self, int64_t sections, int64_t dim = 0);
/// Parts that end before each of the given indices, and the rest.
OPSIN_API TensorList tensor_split(const Tensor& self, IntSpan indices, int64_t dim = 0);
/// All indices of dimension `dim`, which goes away.
OPSIN_API TensorList unbind(const Tensor& self, int64_t dim = 0);

}  // namespace opsin
