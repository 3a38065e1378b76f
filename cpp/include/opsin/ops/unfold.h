// Windows of an input as columns, as im2col has them, and their sum, in one, two and three dimensions.
// float32, float64, float16 or bfloat16. Lists have one entry, or one for each spatial axis; padding also has
// (before, behind) for each axis. With out = floor((size + before + behind - dilation * (kernel - 1) - 1) /
// stride) + 1 windows along each axis, there are L = the product of all out.
//
// Source: K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document
// processing" (2006), where convolution is the product of a matrix of weights with these columns.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// [N, C, spatial...] or [C, spatial...] -> [N, C * prod(kernel_size), L] or [C * prod(kernel_size), L]: row
/// (channel, tap) of column `window` is the element under that tap, or 0 in the padding. `kernel_size` has an
/// entry for each spatial axis. ShapeError when sizes don't fit.
OPSIN_API Tensor unfold(const Tensor& input, IntSpan kernel_size, IntSpan dilation = {}, IntSpan padding = {},
                        IntSpan stride = {});

/// [N, C * prod(kernel_size), L] or [C * prod(kernel_size), L] -> [N, C, output_size...] or [C,
/// output_size...]: each element is the sum of all that unfold() makes of it. `output_size` has an entry for
/// each spatial axis. ShapeError when sizes don't fit.
OPSIN_API Tensor fold(const Tensor& input, IntSpan output_size, IntSpan kernel_size, IntSpan dilation = {},
                      IntSpan padding = {}, IntSpan stride = {});

}  // namespace opsin
