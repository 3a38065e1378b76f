#pragma once

#include "roi_kernels.h"

#include <opsin/tensor.h>

namespace opsin {

struct RoiGradients {
  Tensor input, boxes;  ///< [planes, size..., channels] and [rois, 1 + 2 axes], of the compute type.
};

/// The gradients for g [rois, bins..., channels], written in differentiable functions. x is [planes, size...,
/// channels], not needed without `of_boxes`; all three are of the compute type.
RoiGradients composed_roi_gradients(const RoiParams& p, const Tensor& x, const Tensor& boxes,
                                    const Tensor& taken, const Tensor& g, bool of_input, bool of_boxes);

}  // namespace opsin
