// The calls that all binary and ternary ops share, by their place in the tables.
#pragma once

#include "binary_functors.h"
#include "binary_kernels.h"

#include <opsin/tensor.h>

namespace opsin::binary {

/// y = op(a, b), recorded.
Tensor apply(BinaryOp op, const Tensor& a, const Tensor& b);
/// The same, written over a.
Tensor apply_(BinaryOp op, const Tensor& a, const Tensor& b);

}  // namespace opsin::binary

namespace opsin::ternary {

/// y = op(a, b, c), recorded; `value` is the number it takes besides.
Tensor apply(TernaryOp op, const Tensor& a, const Tensor& b, const Tensor& c, const Scalar& value);
Tensor apply_(TernaryOp op, const Tensor& a, const Tensor& b, const Tensor& c, const Scalar& value);

}  // namespace opsin::ternary
