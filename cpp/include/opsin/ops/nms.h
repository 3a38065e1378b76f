// Non-maximum suppression: of boxes that overlap, the one with the highest score stays. Equal scores keep
// their order, so results are the same in every run and on every device. NaN counts as the highest score, as
// in sort(); empty boxes and boxes with NaN suppress nothing and stay. Memory grows with N, not with its
// square. Formats are those of boxes.h; 16-bit floats are computed in float32.
#pragma once

#include <array>
#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Positions (int64) of the boxes `[N, 4]` that stay, by falling score `[N]`: each suppresses those after it
/// whose IoU with it is greater than `iou_threshold`. Boxes `[N, 2]` and `[N, 6]` are those of one and three
/// dimensions.
OPSIN_API Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold);
/// nms() within each of the classes `idxs` (integers `[N]`).
OPSIN_API Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                             double iou_threshold);
/// nms() of rotated boxes `[N, 5]` in the format "cxcywhr"; within each of the classes `idxs`, if given.
OPSIN_API Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold,
                             const Tensor& idxs = {});
/// Soft-NMS (N. Bodla et al., "Soft-NMS -- Improving Object Detection With One Line of Code", 2017): instead
/// of suppressing, each box that is taken multiplies the scores of the others by 1 - IoU where that is
/// greater than `iou_threshold` (`method` "linear"), or by exp(-IoU^2 / sigma) ("gaussian"). The highest
/// score is taken next, until it is below `min_score`. Positions (int64) and new scores of the boxes taken,
/// in that order; NaN is never taken. ValueError for another method, sigma <= 0 or min_score < 0.
OPSIN_API std::array<Tensor, 2> soft_nms(const Tensor& boxes, const Tensor& scores,
                                         double iou_threshold = 0.3, double sigma = 0.5,
                                         double min_score = 1e-3, std::string_view method = "linear");

}  // namespace opsin
