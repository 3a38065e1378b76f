// Losses of boxes against their targets, pair by pair.
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/boxes.h>
#include <opsin/ops/reduce.h>

#include "../loss/reduction.h"
#include "core/promotion.h"

namespace opsin {

namespace {

Tensor overlap_loss(Overlap kind, const Tensor& boxes1, const Tensor& boxes2, std::string_view reduction,
                    double eps, const char* op) {
  const Reduction way = parse_reduction(reduction, op);
  const int rank = rank_of_boxes(boxes1, op, "boxes1");
  OPSIN_CHECK(ShapeError, boxes1.sizes() == boxes2.sizes() && (kind != Overlap::kComplete || rank == 2), op,
              ": expected boxes1 and boxes2 of one shape [N, 4], got ", str(boxes1.sizes()), " and ",
              str(boxes2.sizes()));
  const Tensor a = floating_boxes(boxes1), b = floating_boxes(boxes2);
  const Tensor loss = sub(wrap_number(1.0), composed_overlap(kind, a, b, eps, true));
  if (way == Reduction::kMean && loss.numel() == 0) return sum(loss);
  return reduce_loss(loss, way);
}

}  // namespace

Tensor generalized_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2, std::string_view reduction,
                                double eps) {
  return overlap_loss(Overlap::kGeneralized, boxes1, boxes2, reduction, eps, "generalized_box_iou_loss");
}

Tensor distance_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2, std::string_view reduction,
                             double eps) {
  return overlap_loss(Overlap::kDistance, boxes1, boxes2, reduction, eps, "distance_box_iou_loss");
}

Tensor complete_box_iou_loss(const Tensor& boxes1, const Tensor& boxes2, std::string_view reduction,
                             double eps) {
  return overlap_loss(Overlap::kComplete, boxes1, boxes2, reduction, eps, "complete_box_iou_loss");
}

void register_box_loss(Registry& registry) {
  registry.add<&generalized_box_iou_loss>(
      "ops.generalized_box_iou_loss(Tensor boxes1, Tensor boxes2, str reduction='none', float eps=1e-07) -> "
      "Tensor",
      "1 - generalized IoU of boxes [..., 4] and their targets, pair by pair.");
  registry.add<&distance_box_iou_loss>(
      "ops.distance_box_iou_loss(Tensor boxes1, Tensor boxes2, str reduction='none', float eps=1e-07) -> "
      "Tensor",
      "1 - distance IoU of boxes [..., 4] and their targets, pair by pair.");
  registry.add<&complete_box_iou_loss>(
      "ops.complete_box_iou_loss(Tensor boxes1, Tensor boxes2, str reduction='none', float eps=1e-07) -> "
      "Tensor",
      "1 - complete IoU of boxes [..., 4] and their targets, pair by pair.");
}

}  // namespace opsin
