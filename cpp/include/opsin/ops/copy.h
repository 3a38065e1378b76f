// Copies and conversions.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// A copy with its own memory, in the same order of dimensions.
OPSIN_API Tensor clone(const Tensor& self);
/// Writes `src`, broadcast and converted, over `self`; they may lie on different devices. `non_blocking`
/// returns before a copy between a GPU and pinned memory has ended.
OPSIN_API Tensor copy_(const Tensor& self, const Tensor& src, bool non_blocking = false);
/// `self` as `dtype`; `self` itself if it already is.
OPSIN_API Tensor to(const Tensor& self, DType dtype);
/// `self` on `device`, in the same order of memory; `self` itself if it already is there. RuntimeError where
/// the device does not exist.
OPSIN_API Tensor to(const Tensor& self, Device device, bool non_blocking = false);
/// `self` with row-major strides; `self` itself if it already has them.
OPSIN_API Tensor contiguous(const Tensor& self);

}  // namespace opsin
