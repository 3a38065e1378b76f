// Formats of boxes and what is read off them.
#include "parts.h"

#include <numbers>

#include <opsin/ops/binary.h>
#include <opsin/ops/boxes.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

namespace opsin {

Tensor wide_boxes(const Tensor& boxes) {
  const DType dtype = boxes.dtype();
  if (dtype == kFloat32 || dtype == kFloat64 || dtype == kInt32 || dtype == kInt64) return boxes;
  return to(boxes, is_floating_point(dtype) ? kFloat32 : kInt32);
}

Tensor floating_boxes(const Tensor& boxes) { return boxes.dtype() == kFloat64 ? boxes : to(boxes, kFloat32); }

int rank_of_boxes(const Tensor& boxes, const char* op, const char* name) {
  const int64_t width = boxes.dim() == 0 ? 0 : boxes.size(-1);
  OPSIN_CHECK(ShapeError, width == 2 || width == 4 || width == 6, op, ": expected ", name,
              " [..., 4], or [..., 2] or [..., 6] in one or three dimensions, got ", str(boxes.sizes()));
  return static_cast<int>(width / 2);
}

namespace {

enum class Format { kXyxy, kXywh, kCxcywh, kXywhr, kCxcywhr, kCorners };

bool is_rotated(Format format) { return format >= Format::kXywhr; }

Format parse_format(std::string_view text, const char* op) {
  constexpr std::string_view kNames[] = {"xyxy", "xywh", "cxcywh", "xywhr", "cxcywhr", "xyxyxyxy"};
  for (int i = 0; i < 6; ++i) {
    if (text == kNames[i]) return static_cast<Format>(i);
  }
  opsin::detail::raise<ValueError>(
      op, ": expected a format of xyxy, xywh, cxcywh, xywhr, cxcywhr and xyxyxyxy, got ", text);
}

Tensor joined(const TensorList& columns) { return stack(columns, -1); }
Tensor half(const Tensor& x) { return mul(x, wrap_number(0.5)); }

/// Upright boxes as corners.
Tensor to_corners(const Tensor& boxes, Format format) {
  if (format == Format::kXyxy) return boxes;
  const TensorList c = unbind(boxes, -1);
  if (format == Format::kXywh) return joined({c[0], c[1], add(c[0], c[2]), add(c[1], c[3])});
  const Tensor w = half(c[2]), h = half(c[3]);
  return joined({sub(c[0], w), sub(c[1], h), add(c[0], w), add(c[1], h)});
}

Tensor from_corners(const Tensor& boxes, Format format) {
  if (format == Format::kXyxy) return boxes;
  const TensorList c = unbind(boxes, -1);
  const Tensor w = sub(c[2], c[0]), h = sub(c[3], c[1]);
  if (format == Format::kXywh) return joined({c[0], c[1], w, h});
  return joined({half(add(c[0], c[2])), half(add(c[1], c[3])), w, h});
}

/// From the first corner to the centre (`sign` 1) or back (-1): half of each side, whose directions are (cos,
/// -sin) and (sin, cos).
Tensor moved(const Tensor& boxes, double sign) {
  const TensorList c = unbind(boxes, -1);
  const Tensor angle = mul(c[4], wrap_number(std::numbers::pi / 180)), cosine = cos(angle), sine = sin(angle);
  const Tensor w = mul(c[2], wrap_number(sign / 2)), h = mul(c[3], wrap_number(sign / 2));
  return joined({add(c[0], add(mul(w, cosine), mul(h, sine))), add(c[1], sub(mul(h, cosine), mul(w, sine))),
                 c[2], c[3], c[4]});
}

/// Rotated boxes as xywhr.
Tensor to_turned(const Tensor& boxes, Format format) {
  if (format == Format::kXywhr) return boxes;
  if (format == Format::kCxcywhr) return moved(boxes, -1);
  const TensorList c = unbind(boxes, -1);
  const Tensor dx = sub(c[2], c[0]), dy = sub(c[1], c[3]), ex = sub(c[2], c[4]), ey = sub(c[3], c[5]);
  return joined({c[0], c[1], sqrt(add(mul(dx, dx), mul(dy, dy))), sqrt(add(mul(ex, ex), mul(ey, ey))),
                 mul(atan2(dy, dx), wrap_number(180 / std::numbers::pi))});
}

Tensor from_turned(const Tensor& boxes, Format format) {
  if (format == Format::kXywhr) return boxes;
  if (format == Format::kCxcywhr) return moved(boxes, 1);
  const TensorList c = unbind(boxes, -1);
  const Tensor angle = mul(c[4], wrap_number(std::numbers::pi / 180)), cosine = cos(angle), sine = sin(angle);
  const Tensor wx = mul(c[2], cosine), wy = mul(c[2], sine), hx = mul(c[3], sine), hy = mul(c[3], cosine);
  const Tensor x2 = add(c[0], wx), y2 = sub(c[1], wy);
  return joined({c[0], c[1], x2, y2, add(x2, hx), add(y2, hy), add(c[0], hx), add(c[1], hy)});
}

void check_width(const Tensor& boxes, Format format, std::string_view name, const char* op) {
  const int64_t width = !is_rotated(format) ? 4 : format == Format::kCorners ? 8 : 5;
  OPSIN_CHECK(ShapeError, boxes.dim() > 0 && boxes.size(-1) == width, op, ": expected boxes [..., ", width,
              "] for ", name, ", got ", str(boxes.sizes()));
}

/// First and last position (float32, [N]) along the last dimension where `hit` [N, L] is set; 0 without any.
std::array<Tensor, 2> extent(const Tensor& hit) {
  const Tensor marks = to(hit, kUInt8), found = any(hit, Dims{1});
  const Tensor first = argmax(marks, 1);
  const Tensor last = sub(wrap_number(hit.size(1) - 1), argmax(flip(marks, Dims{1}), 1));
  const Tensor none = wrap_number(int64_t{0});
  return {to(where(found, first, none), kFloat32), to(where(found, last, none), kFloat32)};
}

}  // namespace

Tensor box_convert(const Tensor& boxes, std::string_view in_fmt, std::string_view out_fmt) {
  constexpr const char* kName = "box_convert";
  const Format from = parse_format(in_fmt, kName), to = parse_format(out_fmt, kName);
  OPSIN_CHECK(ValueError, is_rotated(from) == is_rotated(to), kName,
              ": upright boxes don't convert to rotated ones or back, got ", in_fmt, " to ", out_fmt,
              " (append the angle, or take the extremes of xyxyxyxy, yourself)");
  check_width(boxes, from, in_fmt, kName);
  if (from == to) return clone(boxes);
  return is_rotated(from) ? from_turned(to_turned(boxes, from), to)
                          : from_corners(to_corners(boxes, from), to);
}

Tensor box_area(const Tensor& boxes, std::string_view fmt) {
  constexpr const char* kName = "box_area";
  const Format format = parse_format(fmt, kName);
  OPSIN_CHECK(ValueError, !is_rotated(format), kName, ": expected fmt xyxy, xywh or cxcywh, got ", fmt);
  const int rank = rank_of_boxes(boxes, kName, "boxes");
  const TensorList c = unbind(wide_boxes(boxes), -1);
  Tensor area;
  for (int d = 0; d < rank; ++d) {
    const Tensor& high = c[static_cast<size_t>(rank + d)];
    const Tensor side = format == Format::kXyxy ? sub(high, c[static_cast<size_t>(d)]) : high;
    area = d == 0 ? side : mul(area, side);
  }
  return area;
}

Tensor clip_boxes_to_image(const Tensor& boxes, IntSpan size) {
  constexpr const char* kName = "clip_boxes_to_image";
  const int rank = rank_of_boxes(boxes, kName, "boxes");
  OPSIN_CHECK(ValueError, size.size() == static_cast<size_t>(rank), kName, ": expected a size of ", rank,
              " numbers for boxes ", str(boxes.sizes()), ", got ", str(size));
  TensorList columns = unbind(boxes, -1);
  for (size_t c = 0; c < columns.size(); ++c) {
    // x is the last dimension of the image.
    const int64_t end = size[static_cast<size_t>(rank) - 1 - c % static_cast<size_t>(rank)];
    columns[c] = clamp(columns[c], wrap_number(int64_t{0}), wrap_number(end));
  }
  return joined(columns);
}

Tensor remove_small_boxes(const Tensor& boxes, double min_size) {
  constexpr const char* kName = "remove_small_boxes";
  OPSIN_CHECK(ShapeError, boxes.dim() == 2, kName, ": expected boxes [N, 4], got ", str(boxes.sizes()));
  const int rank = rank_of_boxes(boxes, kName, "boxes");
  const Tensor x = boxes.detach();
  const Tensor sides = sub(narrow(x, 1, rank, rank), narrow(x, 1, 0, rank));
  return squeeze(nonzero(all(ge(sides, wrap_number(min_size)), Dims{1})), Dims{1});
}

Tensor masks_to_boxes(const Tensor& masks) {
  const int64_t rank = masks.dim() - 1;
  OPSIN_CHECK(ShapeError, rank >= 1 && rank <= 3,
              "masks_to_boxes: expected masks [N, H, W], or [N, D, H, W], got ", str(masks.sizes()));
  if (masks.numel() == 0) return zeros({masks.size(0), 2 * rank}, kFloat32, masks.device());
  const Tensor hit = to(masks.detach(), kBool);
  TensorList columns(static_cast<size_t>(2 * rank));
  for (int64_t d = 0; d < rank; ++d) {
    Dims others;
    for (int64_t e = 0; e < rank; ++e) {
      if (e != d) others.push_back(e + 1);
    }
    const auto [first, last] = extent(others.empty() ? hit : any(hit, others));
    columns[static_cast<size_t>(rank - 1 - d)] = first;
    columns[static_cast<size_t>(2 * rank - 1 - d)] = last;
  }
  return joined(columns);
}

void register_boxes(Registry& registry) {
  registry.add<&box_convert>(
      "ops.box_convert(Tensor boxes, str in_fmt, str out_fmt) -> Tensor",
      "Boxes in another format: xyxy, xywh, cxcywh, or rotated xywhr, cxcywhr, xyxyxyxy.");
  registry.add<&box_area>("ops.box_area(Tensor boxes, str fmt='xyxy') -> Tensor",
                          "The area of boxes [..., 4]; the length or volume of [..., 2] or [..., 6].");
  registry.add<&clip_boxes_to_image>("ops.clip_boxes_to_image(Tensor boxes, int[] size) -> Tensor",
                                     "Boxes [..., 4] cut to an image of size (height, width).");
  registry.add<&remove_small_boxes>("ops.remove_small_boxes(Tensor boxes, float min_size) -> Tensor",
                                    "Positions of the boxes [N, 4] with all sides at least min_size.");
  registry.add<&masks_to_boxes>("ops.masks_to_boxes(Tensor masks) -> Tensor",
                                "The boxes [N, 4] around the nonzero elements of masks [N, H, W].");
  register_overlap(registry);
  register_box_loss(registry);
  register_assignment(registry);
}

}  // namespace opsin
