// Elements picked along one dimension, and the reverse: what functions that choose elements need for their
// gradients.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// y[..., i, ...] = x[..., index[..., i, ...], ...]; `index` (int64, in range) has the sizes of x but along
/// `dim`.
Tensor take_along(const Tensor& x, int64_t dim, const Tensor& index);
/// The transpose of take_along: y of size `size` along `dim`, zero where nothing goes; repeated positions add
/// up.
Tensor put_along(const Tensor& x, int64_t dim, const Tensor& index, int64_t size);

}  // namespace opsin
