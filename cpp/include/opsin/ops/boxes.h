// Boxes: formats, overlap, losses, assignment. Unless a format is named, a box is its lower and then its
// upper corner: (x1, y1, x2, y2), in one dimension (x1, x2), in three (x1, y1, z1, x2, y2, z2). A box whose
// upper corner lies below the lower one is empty: it overlaps nothing. 16-bit floats are computed in float32,
// which the results of box_area(), of the overlaps and of the losses keep. Sources of formulas are named with
// each.
#pragma once

#include <array>
#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Boxes `[..., K]` in another format: "xyxy" (corners), "xywh" (lower corner and size), "cxcywh" (centre and
/// size); rotated ones "xywhr" (the first corner, size, degrees counter-clockwise in the image, whose y
/// points down), "cxcywhr" (centre, size, degrees) and "xyxyxyxy" (corners: top left, top right, bottom
/// right, bottom left). ValueError for an unknown format, and from upright to rotated or back.
OPSIN_API Tensor box_convert(const Tensor& boxes, std::string_view in_fmt, std::string_view out_fmt);
/// The area of boxes `[..., 4]` in `fmt`, or the length or volume of `[..., 2]` or `[..., 6]`: `[...]`. Not
/// clamped: negative for one flipped side. Integers stay integers.
OPSIN_API Tensor box_area(const Tensor& boxes, std::string_view fmt = "xyxy");
/// Boxes `[..., 4]` cut to an image of size (height, width), or `[..., 6]` to a volume of size (depth,
/// height, width).
OPSIN_API Tensor clip_boxes_to_image(const Tensor& boxes, IntSpan size);
/// Positions (int64) of the boxes `[N, 4]` (or `[N, 6]`) with all sides at least `min_size`.
OPSIN_API Tensor remove_small_boxes(const Tensor& boxes, double min_size);
/// The boxes `[N, 4]` around the nonzero elements of masks `[N, H, W]`, or `[N, 6]` of `[N, D, H, W]`:
/// positions of the first and the last in float32; 0 for an empty mask.
OPSIN_API Tensor masks_to_boxes(const Tensor& masks);

// Overlap of each box of `boxes1` with each of `boxes2`, `[N, 4]` and `[M, 4]` (or `[N, 2]`, `[N, 6]` in one
// or three dimensions) to `[N, M]`. Pairs whose union is empty have 0. Differentiable, twice too.

/// Intersection over union, in [0, 1].
OPSIN_API Tensor box_iou(const Tensor& boxes1, const Tensor& boxes2, std::string_view fmt = "xyxy");
/// IoU - (C - union) / C, where C is the box around both (H. Rezatofighi et al., "Generalized Intersection
/// over Union", 2019).
OPSIN_API Tensor generalized_box_iou(const Tensor& boxes1, const Tensor& boxes2);
/// IoU - d^2 / (c^2 + eps), with the distance d of the centres and the diagonal c of the box around both
/// (Z. Zheng et al., "Distance-IoU Loss", 2020).
OPSIN_API Tensor distance_box_iou(const Tensor& boxes1, const Tensor& boxes2, double eps = 1e-7);
/// distance_box_iou() - alpha v, with v = 4 / pi^2 (atan(w2 / h2) - atan(w1 / h1))^2 and alpha = v / (1 - IoU
/// + v + eps), which counts as a constant in gradients (same source). Two dimensions only.
OPSIN_API Tensor complete_box_iou(const Tensor& boxes1, const Tensor& boxes2, double eps = 1e-7);
/// IoU of rotated boxes `[N, 5]` and `[M, 5]` in the format "cxcywhr". Exact: the part of one box that lies
/// in the other is integrated along its edges (Green's theorem).
OPSIN_API Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2);
/// IoU of masks `[N, H, W]` and `[M, H, W]` (any number of trailing dimensions) to `[N, M]`: integers and
/// bools count where they are not 0, floating-point masks by their values.
OPSIN_API Tensor mask_iou(const Tensor& masks1, const Tensor& masks2);

// Losses of boxes `[..., 4]` and their targets, pair by pair. `reduction` is "none", "mean" or "sum"; the
// mean of no box is 0.

/// 1 - generalized_box_iou(), with `eps` added to both divisors.
OPSIN_API Tensor generalized_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2,
                                          std::string_view reduction = "none", double eps = 1e-7);
/// 1 - distance_box_iou()
OPSIN_API Tensor distance_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2,
                                       std::string_view reduction = "none", double eps = 1e-7);
/// 1 - complete_box_iou()
OPSIN_API Tensor complete_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2,
                                       std::string_view reduction = "none", double eps = 1e-7);

/// The pairs (rows, columns), int64 `[min(N, M)]` each and sorted by row, of the one-to-one assignment of
/// rows to columns of `cost_matrix` `[N, M]` whose total cost is the least, or the greatest with `maximize`.
/// +inf
/// (-inf with `maximize`) forbids a pair; ValueError if no assignment is left, or for NaN. Computed on the
/// CPU in O(min(N, M)^2 max(N, M)) by shortest augmenting paths (R. Jonker and A. Volgenant, 1987; D. F.
/// Crouse, "On implementing 2D rectangular assignment algorithms", 2016).
OPSIN_API std::array<Tensor, 2> linear_sum_assignment(const Tensor& cost_matrix, bool maximize = false);

}  // namespace opsin
