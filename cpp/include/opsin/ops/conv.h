// Convolution (cross-correlation, as networks use the word). Input [N, C, spatial...] or [C, spatial...],
// weight [K, C / groups, kernel...], bias [K] or undefined, output [N, K, out...] with out = floor((in +
// padding_begin + padding_end - dilation * (kernel - 1) - 1) / stride) + 1 for each axis. Lists have one
// entry for each spatial axis. ShapeError when sizes don't fit.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Padding by numbers, the same on both sides of an axis. One entry stands for all axes.
OPSIN_API Tensor conv1d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1);
OPSIN_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1);
OPSIN_API Tensor conv3d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1);
/// Padding by name: "valid" (none) or "same" (the output has the size of the input; stride 1 only; where the
/// total is odd the end gets one more).
OPSIN_API Tensor conv1d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1);
OPSIN_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1);
OPSIN_API Tensor conv3d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1);

}  // namespace opsin
