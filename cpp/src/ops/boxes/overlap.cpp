// Overlap of each box of one set with each of another: a kernel, or a composition where a gradient is wanted.
#include "overlap_kernels.h"
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/boxes.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/promotion.h"

namespace opsin {

constinit KernelSlot<void (*)(const OverlapParams&)> pair_overlap{"box_iou"};

namespace {

struct PairOverlap {
  struct Params {
    Overlap kind;
    int rank;
    double eps;
    const char* op;
  };
  static const char* name(const Params& p) { return p.op; }
  static Tensor forward(const Params& p, const Tensor& boxes1, const Tensor& boxes2) {
    const Tensor a = contiguous(boxes1), b = contiguous(boxes2);
    const Tensor y = empty(Dims{a.size(0), b.size(0)}, a.dtype(), a.device());
    if (y.numel() == 0) return y;
    pair_overlap.get(a.device(), a.dtype())({a.impl()->data(), b.impl()->data(), y.impl()->mutable_data(),
                                             a.size(0), b.size(0), p.kind, p.rank, p.eps, a.dtype()});
    return y;
  }
};

Tensor overlaps(Overlap kind, int rank, const Tensor& boxes1, const Tensor& boxes2, double eps,
                const char* op) {
  const DType given = result_type({&boxes1, &boxes2});
  const DType dtype = given == kFloat64 || !is_floating_point(given) ? kFloat64 : kFloat32;
  const Tensor a = to(boxes1, dtype), b = to(boxes2, dtype);
  const bool records = GradMode::is_enabled() && (needs_grad(a) || needs_grad(b));
  const Tensor y = records ? composed_overlap(kind, unsqueeze(a, 1), unsqueeze(b, 0), eps, false)
                           : call<PairOverlap>({kind, rank, eps, op}, a, b);
  return is_floating_point(given) ? y : to(y, default_dtype());
}

void check_pairs(const Tensor& boxes1, const Tensor& boxes2, const char* op) {
  OPSIN_CHECK(ShapeError, boxes1.dim() == 2 && boxes2.dim() == 2 && boxes1.size(1) == boxes2.size(1), op,
              ": expected boxes1 [N, 4] and boxes2 [M, 4], got ", str(boxes1.sizes()), " and ",
              str(boxes2.sizes()), " (one set of boxes for each; loop over a batch)");
}

Tensor upright_overlaps(Overlap kind, const Tensor& boxes1, const Tensor& boxes2, double eps,
                        const char* op) {
  check_pairs(boxes1, boxes2, op);
  const int rank = rank_of_boxes(boxes1, op, "boxes1");
  OPSIN_CHECK(ShapeError, kind != Overlap::kComplete || rank == 2, op,
              ": expected boxes [N, 4], because only those have an aspect ratio, got ", str(boxes1.sizes()));
  return overlaps(kind, rank, boxes1, boxes2, eps, op);
}

/// [N, elements], with 1 where integers are not 0.
Tensor flat_masks(const Tensor& masks) {
  const Tensor flat = flatten(masks, 1);
  return is_floating_point(masks.dtype()) ? floating_boxes(flat) : to(to(flat, kBool), kFloat32);
}

}  // namespace

Tensor box_iou(const Tensor& boxes1, const Tensor& boxes2, std::string_view fmt) {
  if (fmt == "xyxy") return upright_overlaps(Overlap::kIou, boxes1, boxes2, 0, "box_iou");
  OPSIN_CHECK(ValueError, fmt == "xywh" || fmt == "cxcywh",
              "box_iou: expected fmt xyxy, xywh or cxcywh, got ", fmt, " (box_iou_rotated() takes cxcywhr)");
  return box_iou(box_convert(floating_boxes(boxes1), fmt, "xyxy"),
                 box_convert(floating_boxes(boxes2), fmt, "xyxy"));
}

Tensor generalized_box_iou(const Tensor& boxes1, const Tensor& boxes2) {
  return upright_overlaps(Overlap::kGeneralized, boxes1, boxes2, 0, "generalized_box_iou");
}

Tensor distance_box_iou(const Tensor& boxes1, const Tensor& boxes2, double eps) {
  return upright_overlaps(Overlap::kDistance, boxes1, boxes2, eps, "distance_box_iou");
}

Tensor complete_box_iou(const Tensor& boxes1, const Tensor& boxes2, double eps) {
  return upright_overlaps(Overlap::kComplete, boxes1, boxes2, eps, "complete_box_iou");
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2) {
  constexpr const char* kName = "box_iou_rotated";
  OPSIN_CHECK(ShapeError,
              boxes1.dim() == 2 && boxes2.dim() == 2 && boxes1.size(1) == 5 && boxes2.size(1) == 5, kName,
              ": expected boxes1 [N, 5] and boxes2 [M, 5] as cxcywhr, got ", str(boxes1.sizes()), " and ",
              str(boxes2.sizes()), " (box_convert() makes them from other formats)");
  return overlaps(Overlap::kRotated, 2, boxes1, boxes2, 0, kName);
}

Tensor mask_iou(const Tensor& masks1, const Tensor& masks2) {
  const Dims &one = masks1.sizes(), &two = masks2.sizes();
  OPSIN_CHECK(
      ShapeError,
      one.size() >= 2 && one.size() == two.size() && std::equal(one.begin() + 1, one.end(), two.begin() + 1),
      "mask_iou: expected masks1 [N, H, W] and masks2 [M, H, W], got ", str(one), " and ", str(two));
  const Tensor a = flat_masks(masks1), b = flat_masks(masks2);
  const Tensor inter = matmul(a, transpose(b, 0, 1));
  const Tensor together = sub(add(sum(a, Dims{1}, true), sum(b, Dims{1})), inter);
  const Tensor none = eq(together, wrap_number(0.0));
  return where(none, wrap_number(0.0), div(inter, where(none, wrap_number(1.0), together)));
}

void register_overlap(Registry& registry) {
  register_overlap_cpu();
  registry.add<&box_iou>(
      "ops.box_iou(Tensor boxes1, Tensor boxes2, str fmt='xyxy') -> Tensor",
      "Intersection over union of each of N boxes with each of M, [N, M]; [N, 2], [N, 4] or [N, 6] by rank.");
  registry.add<&generalized_box_iou>("ops.generalized_box_iou(Tensor boxes1, Tensor boxes2) -> Tensor",
                                     "IoU - (C - union) / C with the box C around both, [N, M].");
  registry.add<&distance_box_iou>(
      "ops.distance_box_iou(Tensor boxes1, Tensor boxes2, float eps=1e-07) -> Tensor",
      "IoU - d^2 / (c^2 + eps) with the distance d of the centres and the diagonal c of both, [N, M].");
  registry.add<&complete_box_iou>(
      "ops.complete_box_iou(Tensor boxes1, Tensor boxes2, float eps=1e-07) -> Tensor",
      "distance_box_iou() less what aspect ratios differ by, [N, M].");
  registry.add<&box_iou_rotated>(
      "ops.box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
      "IoU of rotated boxes [N, 5] and [M, 5], (cx, cy, w, h, degrees counter-clockwise), [N, M].");
  registry.add<&mask_iou>("ops.mask_iou(Tensor masks1, Tensor masks2) -> Tensor",
                          "IoU of each of N masks with each of M, [N, M].");
}

}  // namespace opsin
