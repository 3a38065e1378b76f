// Joining tensors. Dtypes promote to the common one; all sizes but the joined one must agree (ShapeError
// otherwise).
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// The tensors one after the other along an existing dimension. Tensors of shape [0] are skipped.
OPSIN_API Tensor cat(TensorSpan tensors, int64_t dim = 0);
/// Tensors of one shape along a new dimension.
OPSIN_API Tensor stack(TensorSpan tensors, int64_t dim = 0);
/// Along dimension 1, or 0 for vectors.
OPSIN_API Tensor hstack(TensorSpan tensors);
/// Along dimension 0; vectors are rows.
OPSIN_API Tensor vstack(TensorSpan tensors);
/// Along dimension 2; vectors are [1, n, 1] and matrices [m, n, 1].
OPSIN_API Tensor dstack(TensorSpan tensors);
/// Along dimension 1; vectors are columns.
OPSIN_API Tensor column_stack(TensorSpan tensors);
/// The tensors along the diagonal of a matrix of zeros; vectors are rows, 0-d tensors [1, 1].
OPSIN_API Tensor block_diag(TensorSpan tensors);

}  // namespace opsin
