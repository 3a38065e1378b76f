// The call that all unary ops share, by their place in the table.
#pragma once

#include "unary_kernels.h"

#include <opsin/tensor.h>

namespace opsin::unary {

/// y = op(x), recorded.
Tensor apply(UnaryOp op, const Tensor& x, const UnaryArgs& args = {});
/// The same, written over x.
Tensor apply_(UnaryOp op, const Tensor& x, const UnaryArgs& args = {});
/// `apply_` if `inplace`.
inline Tensor apply(UnaryOp op, const Tensor& x, const UnaryArgs& args, bool inplace) {
  return inplace ? apply_(op, x, args) : apply(op, x, args);
}

}  // namespace opsin::unary
