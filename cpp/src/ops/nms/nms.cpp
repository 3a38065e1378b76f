// Non-maximum suppression: boxes in the order of their scores, then a kernel.
#include "nms_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/nms.h>
#include <opsin/ops/sort.h>
#include <opsin/ops/view.h>

#include "../boxes/parts.h"
#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const NmsParams&)> nms_suppress{"nms"};
constinit KernelSlot<void (*)(const SoftNmsParams&)> soft_nms_take{"soft_nms"};

namespace {

/// What overlaps are computed in.
DType computed(const Tensor& boxes) {
  return boxes.dtype() == kFloat64 || !is_floating_point(boxes.dtype()) ? kFloat64 : kFloat32;
}

struct Nms {
  struct Params {
    Overlap kind;
    int rank;
    double threshold;
    const char* op;
  };
  static const char* name(const Params& p) { return p.op; }

  static Tensor forward(const Params& p, const Tensor& boxes, const Tensor& scores, const Tensor& idxs) {
    const int64_t n = boxes.size(0);
    const Tensor falling = argsort(scores, 0, /*descending=*/true);
    if (n == 0) return falling;
    Tensor order = falling, by_class, groups;
    if (idxs.defined()) {
      const Tensor classes = index_select(to(idxs, kInt64), 0, falling);
      by_class = argsort(classes, 0);
      groups = contiguous(index_select(classes, 0, by_class));
      order = index_select(falling, 0, by_class);
    }
    const DType dtype = computed(boxes);
    const Tensor sorted = contiguous(index_select(to(boxes, dtype), 0, order));
    const Tensor keep = empty(Dims{n}, kBool, boxes.device());
    nms_suppress.get(boxes.device(),
                     dtype)({sorted.impl()->data(), groups.defined() ? groups.data<int64_t>() : nullptr,
                             keep.mutable_data<bool>(), n, p.kind, p.rank, p.threshold, dtype});
    return masked_select(falling, by_class.defined() ? index_copy(keep, 0, by_class, keep) : keep);
  }
};

void check_scores(const Tensor& boxes, const Tensor& scores, const char* op) {
  OPSIN_CHECK(ShapeError, scores.dim() == 1 && scores.size(0) == boxes.size(0), op,
              ": expected scores [N] for boxes [N, ...], got ", str(scores.sizes()), " and ",
              str(boxes.sizes()));
}

Tensor suppressed(Overlap kind, const Tensor& boxes, const Tensor& scores, const Tensor& idxs,
                  double iou_threshold, const char* op) {
  const bool is_rotated = kind == Overlap::kRotated;
  OPSIN_CHECK(ShapeError, boxes.dim() == 2 && (!is_rotated || boxes.size(1) == 5), op,
              ": expected boxes [N, ", is_rotated ? 5 : 4, "], got ", str(boxes.sizes()));
  const int rank = is_rotated ? 2 : rank_of_boxes(boxes, op, "boxes");
  check_scores(boxes, scores, op);
  OPSIN_CHECK(ValueError, iou_threshold == iou_threshold, op,
              ": expected a number as iou_threshold, got nan");
  if (idxs.defined()) {
    OPSIN_CHECK(ShapeError, idxs.sizes() == scores.sizes(), op,
                ": expected idxs [N], a class for each box, got ", str(idxs.sizes()), " for boxes ",
                str(boxes.sizes()));
  }
  return call<Nms>({kind, rank, iou_threshold, op}, boxes.detach(), scores.detach(),
                   idxs.defined() ? idxs.detach() : idxs);
}

struct SoftNms {
  static constexpr const char* kName = "soft_nms";
  struct Params {
    int rank;
    double threshold, sigma, min_score;
    bool gaussian;
  };
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& boxes, const Tensor& scores) {
    const int64_t n = boxes.size(0);
    const DType dtype = computed(boxes);
    const Device device = boxes.device();
    const Tensor taken = empty(Dims{n}, kInt64, device), left = empty(Dims{n}, dtype, device);
    const DType kept = is_floating_point(scores.dtype()) ? scores.dtype() : dtype;
    if (n == 0) return {taken, to(left, kept)};
    const Tensor x = contiguous(to(boxes, dtype)), given = to(scores, dtype);
    // NaN is not above anything.
    const Tensor lowest = wrap_number(-std::numeric_limits<double>::infinity());
    const Tensor s = contiguous(where(eq(given, given), given, lowest));
    const Tensor count = empty(Dims{1}, kInt64, device);
    soft_nms_take.get(
        device, dtype)({x.impl()->data(), s.impl()->mutable_data(), taken.mutable_data<int64_t>(),
                        left.impl()->mutable_data(), count.mutable_data<int64_t>(), n, p.rank, p.threshold,
                        p.sigma, p.min_score, p.gaussian, dtype});
    const auto m = count.item<int64_t>();
    return {clone(narrow(taken, 0, 0, m)), to(clone(narrow(left, 0, 0, m)), kept)};
  }
};

Tensor nms_rotated_call(const Tensor& boxes, const Tensor& scores, double iou_threshold, const Tensor& idxs) {
  return nms_rotated(boxes, scores, iou_threshold, idxs);
}

}  // namespace

Tensor nms(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return suppressed(Overlap::kIou, boxes, scores, {}, iou_threshold, "nms");
}

Tensor batched_nms(const Tensor& boxes, const Tensor& scores, const Tensor& idxs, double iou_threshold) {
  return suppressed(Overlap::kIou, boxes, scores, idxs, iou_threshold, "batched_nms");
}

Tensor nms_rotated(const Tensor& boxes, const Tensor& scores, double iou_threshold, const Tensor& idxs) {
  return suppressed(Overlap::kRotated, boxes, scores, idxs, iou_threshold, "nms_rotated");
}

std::array<Tensor, 2> soft_nms(const Tensor& boxes, const Tensor& scores, double iou_threshold, double sigma,
                               double min_score, std::string_view method) {
  constexpr const char* kName = SoftNms::kName;
  OPSIN_CHECK(ShapeError, boxes.dim() == 2, kName, ": expected boxes [N, 4], got ", str(boxes.sizes()));
  const int rank = rank_of_boxes(boxes, kName, "boxes");
  check_scores(boxes, scores, kName);
  OPSIN_CHECK(ValueError, method == "linear" || method == "gaussian", kName,
              ": expected method linear or gaussian, got ", method, " (nms() suppresses)");
  OPSIN_CHECK(ValueError, sigma > 0, kName, ": expected sigma > 0, got ", sigma);
  OPSIN_CHECK(ValueError, min_score >= 0, kName, ": expected min_score >= 0, got ", min_score);
  return call<SoftNms>({rank, iou_threshold, sigma, min_score, method == "gaussian"}, boxes.detach(),
                       scores.detach());
}

void register_nms(Registry& registry) {
  register_nms_cpu();
  registry.add<&nms>(
      "ops.nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
      "Positions of the boxes [N, 4] (or [N, 2], [N, 6]) that no box with a higher score overlaps "
      "by more than iou_threshold, by falling score.");
  registry.add<&batched_nms>(
      "ops.batched_nms(Tensor boxes, Tensor scores, Tensor idxs, float iou_threshold) -> Tensor",
      "nms() within each of the classes idxs [N].");
  registry.add<&nms_rotated_call>(
      "ops.nms_rotated(Tensor boxes, Tensor scores, float iou_threshold, Tensor? idxs=None) -> Tensor",
      "nms() of rotated boxes [N, 5], (cx, cy, w, h, degrees counter-clockwise); within classes, if given.");
  registry.add<&soft_nms>(
      "ops.soft_nms(Tensor boxes, Tensor scores, float iou_threshold=0.3, float sigma=0.5, float "
      "min_score=0.001, "
      "str method='linear') -> (Tensor indices, Tensor scores)",
      "Boxes taken by falling score, each of which lowers the scores of those that it overlaps.");
}

}  // namespace opsin
