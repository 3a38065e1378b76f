// Unshared convolution (locally connected layers): a convolution whose every output position has filters of
// its own.
//
//     y[n, k, o] = bias[k, o] + sum over taps t and channels c of the group of k:
//                  weight[o, k, c, t] x[n, c, o * stride - padding + t * dilation]          (zero outside of
//                  x)
//
// input [N, C, spatial...] or [C, spatial...]; weight [out..., K, C / groups, kernel...], for each position
// what the weight of a convolution is; bias [K, out...], or [K] for all positions, or undefined; output [N,
// K, out...] with the sizes of a convolution. All of one dtype; 16-bit floats are added in float32.
// ShapeError when sizes don't fit.
//
// Source: LeCun, Generalization and network design strategies (1989); Taigman et al., DeepFace (2014).
#pragma once

#include <opsin/tensor.h>

namespace opsin {

OPSIN_API Tensor conv_local1d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                              IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {},
                              int64_t groups = 1);
OPSIN_API Tensor conv_local2d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                              IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {},
                              int64_t groups = 1);
OPSIN_API Tensor conv_local3d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                              IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {},
                              int64_t groups = 1);

/// The transpose of conv_localNd in its input: input [N, K, in...] or [K, in...], weight [in..., K, C /
/// groups, kernel...], bias [C, out...] or [C]; output [N, C, out...] with out = (in - 1) * stride - 2 *
/// padding + dilation * (kernel - 1) + output_padding + 1 for each axis.
OPSIN_API Tensor conv_local_transpose1d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                        IntSpan stride = {}, IntSpan padding = {},
                                        IntSpan output_padding = {}, int64_t groups = 1,
                                        IntSpan dilation = {});
OPSIN_API Tensor conv_local_transpose2d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                        IntSpan stride = {}, IntSpan padding = {},
                                        IntSpan output_padding = {}, int64_t groups = 1,
                                        IntSpan dilation = {});
OPSIN_API Tensor conv_local_transpose3d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                        IntSpan stride = {}, IntSpan padding = {},
                                        IntSpan output_padding = {}, int64_t groups = 1,
                                        IntSpan dilation = {});

}  // namespace opsin
