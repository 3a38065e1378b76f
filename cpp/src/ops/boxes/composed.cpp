// Overlaps composed of differentiable functions, by the formulas of overlap_pairs.h.
#include "parts.h"

#include <numbers>

#include <opsin/autograd.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

namespace opsin {

namespace {

Tensor at_least_0(const Tensor& x) { return clamp_min(x, wrap_number(0.0)); }
Tensor within(const Tensor& x, const Tensor& limit) { return minimum(maximum(x, neg(limit)), limit); }
/// a / b, or 0 for b = 0.
Tensor quotient(const Tensor& a, const Tensor& b) {
  const Tensor none = eq(b, wrap_number(0.0));
  return where(none, wrap_number(0.0), div(a, where(none, wrap_number(1.0), b)));
}
Tensor product(const TensorList& factors) {
  Tensor result = factors[0];
  for (size_t i = 1; i < factors.size(); ++i) result = mul(result, factors[i]);
  return result;
}

struct Corners {
  TensorList low, high;

  explicit Corners(const Tensor& boxes) : low(unbind(boxes, -1)) {
    const auto rank = static_cast<std::ptrdiff_t>(low.size() / 2);
    high.assign(low.begin() + rank, low.end());
    low.resize(static_cast<size_t>(rank));
  }
  Tensor side(size_t d) const { return sub(high[d], low[d]); }
};

Tensor volume(const Corners& box, bool clamped) {
  TensorList sides;
  for (size_t d = 0; d < box.low.size(); ++d)
    sides.push_back(clamped ? at_least_0(box.side(d)) : box.side(d));
  return product(sides);
}

/// y of the edge cut at x = `cut`.
struct Edge {
  Tensor x0, y0, dx, dy;
  Tensor at(const Tensor& cut) const { return add(y0, mul(quotient(sub(cut, x0), dx), dy)); }
};

Tensor area_under(const Tensor& x0, const Tensor& y0, const Tensor& x1, const Tensor& y1, const Tensor& w,
                  const Tensor& h) {
  const Edge edge{x0, y0, sub(x1, x0), sub(y1, y0)};
  const Tensor from = within(x0, w), to = within(x1, w);
  const Tensor u0 = edge.at(from), u1 = edge.at(to), c0 = within(u0, h), c1 = within(u1, h);
  const Tensor cut = quotient(add(sub(c0, u0), sub(c1, u1)), sub(u1, u0));
  return mul(mul(sub(from, to), wrap_number(0.5)), add(add(c0, c1), mul(sub(c0, c1), cut)));
}

Tensor composed_rotated(const Tensor& boxes1, const Tensor& boxes2) {
  const TensorList a = unbind(boxes1, -1), b = unbind(boxes2, -1);
  const Tensor degree = wrap_number(std::numbers::pi / 180), half = wrap_number(0.5);
  const Tensor width1 = at_least_0(a[2]), height1 = at_least_0(a[3]);
  const Tensor width2 = at_least_0(b[2]), height2 = at_least_0(b[3]);
  const Tensor turn = mul(b[4], degree), cos2 = cos(turn), sin2 = sin(turn);
  const Tensor angle = mul(sub(a[4], b[4]), degree), cosine = cos(angle), sine = sin(angle);
  const Tensor dx = sub(a[0], b[0]), dy = sub(a[1], b[1]);
  const Tensor x = sub(mul(dx, cos2), mul(dy, sin2)), y = add(mul(dx, sin2), mul(dy, cos2));
  const Tensor w1 = mul(width1, half), h1 = mul(height1, half);
  const Tensor w2 = mul(width2, half), h2 = mul(height2, half);
  const Tensor ux = mul(w1, cosine), uy = neg(mul(w1, sine)), vx = mul(h1, sine), vy = mul(h1, cosine);
  const Tensor corner_x[4] = {sub(sub(x, ux), vx), sub(add(x, ux), vx), add(add(x, ux), vx),
                              add(sub(x, ux), vx)};
  const Tensor corner_y[4] = {sub(sub(y, uy), vy), sub(add(y, uy), vy), add(add(y, uy), vy),
                              add(sub(y, uy), vy)};
  Tensor inter;
  for (int i = 0; i < 4; ++i) {
    const int next = (i + 1) % 4;
    const Tensor part = area_under(corner_x[i], corner_y[i], corner_x[next], corner_y[next], w2, h2);
    inter = i == 0 ? part : add(inter, part);
  }
  inter = at_least_0(inter);
  return quotient(inter, sub(add(mul(width1, height1), mul(width2, height2)), inter));
}

}  // namespace

Tensor composed_overlap(Overlap kind, const Tensor& boxes1, const Tensor& boxes2, double eps, bool loss) {
  if (kind == Overlap::kRotated) return composed_rotated(boxes1, boxes2);
  const Corners a(boxes1), b(boxes2);
  const size_t rank = a.low.size();
  const Tensor small = wrap_number(eps);
  const auto ratio = [&](const Tensor& x, const Tensor& y) {
    return loss ? div(x, add(y, small)) : quotient(x, y);
  };
  TensorList common, around;
  for (size_t d = 0; d < rank; ++d) {
    common.push_back(at_least_0(sub(minimum(a.high[d], b.high[d]), maximum(a.low[d], b.low[d]))));
    const Tensor side = sub(maximum(a.high[d], b.high[d]), minimum(a.low[d], b.low[d]));
    around.push_back(loss ? side : at_least_0(side));
  }
  const Tensor inter = product(common);
  const Tensor together = sub(add(volume(a, !loss), volume(b, !loss)), inter);
  const Tensor iou = ratio(inter, together);
  if (kind == Overlap::kIou) return iou;
  if (kind == Overlap::kGeneralized) {
    const Tensor box = product(around);
    return sub(iou, ratio(sub(box, together), box));
  }
  Tensor diagonal = small, distance;
  for (size_t d = 0; d < rank; ++d) {
    diagonal = add(mul(around[d], around[d]), diagonal);
    const Tensor between = mul(sub(add(a.low[d], a.high[d]), add(b.low[d], b.high[d])), wrap_number(0.5));
    const Tensor squared = mul(between, between);
    distance = d == 0 ? squared : add(distance, squared);
  }
  const Tensor near = sub(iou, div(distance, diagonal));
  if (kind == Overlap::kDistance) return near;
  const auto aspect = [&](const Corners& box) {
    if (loss) return atan(div(box.side(0), box.side(1)));
    // atan2(0, 0) has no gradient.
    const Tensor w = at_least_0(box.side(0)), h = at_least_0(box.side(1));
    return atan2(w, where(eq(add(w, h), wrap_number(0.0)), wrap_number(1.0), h));
  };
  const Tensor turn = sub(aspect(b), aspect(a));
  const Tensor v = mul(mul(turn, turn), wrap_number(4 / (std::numbers::pi * std::numbers::pi)));
  Tensor alpha;
  {
    NoGradGuard no_grad;
    alpha = div(v, add(add(sub(wrap_number(1.0), iou), v), small));
  }
  return sub(near, mul(alpha, v));
}

}  // namespace opsin
