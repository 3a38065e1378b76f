// Copies and conversions.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// A copy with its own memory, in the same order of dimensions.
OPSIN_API Tensor clone(const Tensor& self);
/// Writes `src`, broadcast and converted, over `self`.
OPSIN_API Tensor copy_(const Tensor& self, const Tensor& src);
/// `self` as `dtype`; `self` itself if it already is.
OPSIN_API Tensor to(const Tensor& self, DType dtype);
/// `self` with row-major strides; `self` itself if it already has them.
OPSIN_API Tensor contiguous(const Tensor& self);

}  // namespace opsin
