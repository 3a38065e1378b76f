// Corner pooling.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// The largest value between each pixel and one side of the image [..., H, W], which is the way towards what
/// a corner of a box borders on (Law & Deng 2018, "CornerNet: detecting objects as paired keypoints"):
///   "top"     y[i, j] = max of x[k, j] over k >= i
///   "left"    y[i, j] = max of x[i, k] over k >= j
///   "bottom"  y[i, j] = max of x[k, j] over k <= i
///   "right"   y[i, j] = max of x[i, k] over k <= j
/// A NaN wins. Of equal values the farthest one gets the gradient.
OPSIN_API Tensor corner_pool(const Tensor& input, std::string_view direction);

}  // namespace opsin
