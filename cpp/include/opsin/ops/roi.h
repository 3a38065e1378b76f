// Pooling of regions of interest. `input` is [N, C, spatial...] with one to three spatial axes, `boxes`
// [K, 1 + 2 axes] with rows (n, x1, y1, x2, y2), in three dimensions (n, x1, y1, z1, x2, y2, z2), in one (n,
// x1, x2), where n says which image a box is of; a list of [L, 2 axes] holds the boxes of each image instead.
// Coordinates are multiplied by `spatial_scale`. `output_size` has one entry per axis or one for all. Results
// are [K, C, output_size...] in the dtype of `input`, which boxes need not share.
//
// Each box is cut into equal bins. n is rounded; IndexError names one out of [0, N). A box with a coordinate
// that is not finite gives zeros, without gradients, as does a bin without samples: those outside of the
// input, and, where the number of samples follows the size of a box, those of one that ends before it begins.
// Everything is deterministic and has second derivatives.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// The largest value of each bin of a box that is rounded to whole pixels, both ends included and at least
/// one; bins are rounded outwards, exactly: torchvision's products in float32 sometimes add a pixel to bins
/// that end between two. NaN where there is one. No gradient for the boxes: rounding has none.
///
/// Source: R. Girshick, "Fast R-CNN" (2015), section 2.1.
OPSIN_API Tensor roi_pool(const Tensor& input, const Tensor& boxes, IntSpan output_size,
                          double spatial_scale = 1);
OPSIN_API Tensor roi_pool(const Tensor& input, TensorSpan boxes, IntSpan output_size,
                          double spatial_scale = 1);

/// The mean (`mode` "avg") or largest ("max") of the samples of each bin: a regular grid of `sampling_ratio`
/// points per axis, or ceil(size of a bin) if that is not positive, each interpolated linearly between the
/// pixels around it. Pixel i lies at i, with `aligned` at i + 0.5. Without `aligned` boxes are at least 1
/// long. Points more than one pixel outside count as 0. Gradients also for the boxes, with the number of
/// points fixed.
///
/// Source: K. He et al., "Mask R-CNN" (2017), section 3; the maximum is of interpolated values.
OPSIN_API Tensor roi_align(const Tensor& input, const Tensor& boxes, IntSpan output_size,
                           double spatial_scale = 1, int64_t sampling_ratio = -1, bool aligned = false,
                           std::string_view mode = "avg");
OPSIN_API Tensor roi_align(const Tensor& input, TensorSpan boxes, IntSpan output_size,
                           double spatial_scale = 1, int64_t sampling_ratio = -1, bool aligned = false,
                           std::string_view mode = "avg");

/// Position-sensitive pooling: bin b of output channel c is the mean of input channel c * bins + b, so C is a
/// multiple of the number of bins and the result is [K, C / bins, output_size...]. Boxes are rounded, ends
/// not included, and bins as those of roi_pool; as in torchvision the last pixel of an axis is never read.
///
/// Source: J. Dai et al., "R-FCN" (2016), equation 1.
OPSIN_API Tensor ps_roi_pool(const Tensor& input, const Tensor& boxes, IntSpan output_size,
                             double spatial_scale = 1);
OPSIN_API Tensor ps_roi_pool(const Tensor& input, TensorSpan boxes, IntSpan output_size,
                             double spatial_scale = 1);

/// Position-sensitive roi_align, with `aligned` pixels and means.
///
/// Source: Z. Li et al., "Light-Head R-CNN" (2017).
OPSIN_API Tensor ps_roi_align(const Tensor& input, const Tensor& boxes, IntSpan output_size,
                              double spatial_scale = 1, int64_t sampling_ratio = -1);
OPSIN_API Tensor ps_roi_align(const Tensor& input, TensorSpan boxes, IntSpan output_size,
                              double spatial_scale = 1, int64_t sampling_ratio = -1);

}  // namespace opsin
