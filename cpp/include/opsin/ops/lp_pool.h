// Power-average pooling of input [N, C, spatial...] or [C, spatial...].
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// (sum of x^norm_type over the window)^(1 / norm_type): the sum for norm_type 1, the Euclidean norm for 2,
/// the largest magnitude for infinity (Sermanet et al. 2012, "Convolutional neural networks applied to house
/// numbers digit classification"). Lists have one entry for each spatial axis or one for all; an empty stride
/// means the kernel's size. With `ceil_mode` the sum of a window that reaches beyond the input is scaled up
/// to a whole one. Padding, in numbers or by name as pool.h has it, adds nothing to a sum. The gradient of a
/// window whose sum is zero is zero. ValueError for a norm_type of 0 or NaN.
OPSIN_API Tensor lp_pool1d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride = {},
                           bool ceil_mode = false, IntSpan padding = {});
OPSIN_API Tensor lp_pool1d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride,
                           bool ceil_mode, std::string_view padding);
OPSIN_API Tensor lp_pool2d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride = {},
                           bool ceil_mode = false, IntSpan padding = {});
OPSIN_API Tensor lp_pool2d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride,
                           bool ceil_mode, std::string_view padding);
OPSIN_API Tensor lp_pool3d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride = {},
                           bool ceil_mode = false, IntSpan padding = {});
OPSIN_API Tensor lp_pool3d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride,
                           bool ceil_mode, std::string_view padding);

}  // namespace opsin
