// Deformable convolution: a convolution whose taps are moved by offsets that are computed too, and with a
// mask also weighted.
//
//     y[n, k, o] = bias[k] + sum over taps t and channels c of the group of k:
//                  weight[k, c, t] mask[n, g, t, o] x(n, c, o * stride - padding + t * dilation + offset[n,
//                  g, t, :, o])
//
// where x(n, c, p) is linear interpolation between the pixels around p, those outside of x being zero, and g
// is the offset group of c. input [N, C, spatial...]; weight [K, C / groups, kernel...], whose second size
// tells the number of groups; offset [N, offset groups * taps * axes, out...], the axes of a tap in their
// order (y, x in two dimensions); mask [N, offset groups * taps, out...] or undefined; bias [K] or undefined;
// output [N, K, out...] with the sizes of a convolution. All of one dtype; 16-bit floats are added in
// float32. Every argument has a gradient, and that one too. ShapeError when sizes don't fit.
//
// Source: Dai et al., Deformable Convolutional Networks (2017); with a mask: Zhu et al., Deformable ConvNets
// v2 (2019). In two dimensions torchvision's deform_conv2d.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

OPSIN_API Tensor deform_conv1d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                               const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                               IntSpan dilation = {}, const Tensor& mask = {});
OPSIN_API Tensor deform_conv2d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                               const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                               IntSpan dilation = {}, const Tensor& mask = {});
OPSIN_API Tensor deform_conv3d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                               const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                               IntSpan dilation = {}, const Tensor& mask = {});

/// The transpose of deform_convNd in its input: each position of input [N, K, in...] is spread over the
/// pixels around its moved taps. weight [K, C / groups, kernel...], offset [N, offset groups * taps * axes,
/// in...], mask [N, offset groups * taps, in...], bias [C]; output [N, C, out...] with out = (in - 1) *
/// stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1 for each axis.
OPSIN_API Tensor deform_conv_transpose1d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                                         const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                                         IntSpan output_padding = {}, int64_t groups = 1,
                                         IntSpan dilation = {}, const Tensor& mask = {});
OPSIN_API Tensor deform_conv_transpose2d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                                         const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                                         IntSpan output_padding = {}, int64_t groups = 1,
                                         IntSpan dilation = {}, const Tensor& mask = {});
OPSIN_API Tensor deform_conv_transpose3d(const Tensor& input, const Tensor& offset, const Tensor& weight,
                                         const Tensor& bias = {}, IntSpan stride = {}, IntSpan padding = {},
                                         IntSpan output_padding = {}, int64_t groups = 1,
                                         IntSpan dilation = {}, const Tensor& mask = {});

}  // namespace opsin
