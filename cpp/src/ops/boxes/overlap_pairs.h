// The overlap of two boxes; for kernels on both sides, and for loops that compilers vectorise.
#pragma once

#include <cstdint>

#include "core/math.h"

namespace opsin {

enum class Overlap : uint8_t { kIou, kGeneralized, kDistance, kComplete, kRotated };

/// What kernels read of a box: lower corner (3), upper corner (3), volume, the angle of (h, w); for rotated
/// ones centre (2), half sizes (2), cosine, sine, volume.
inline constexpr int kBoxColumns = 8;
inline constexpr int kVolume = 6, kAspect = 7;

/// How many numbers a box is given by.
inline int coordinates_of(Overlap kind, int rank) { return kind == Overlap::kRotated ? 5 : 2 * rank; }

namespace boxes {

template <class T>
OPSIN_FN T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
OPSIN_FN T larger(T a, T b) {
  return a < b ? b : a;
}
/// NaN stays NaN.
template <class T>
OPSIN_FN T positive(T x) {
  return x < T(0) ? T(0) : x;
}
template <class T>
OPSIN_FN T within(T x, T limit) {
  return smaller(larger(x, -limit), limit);
}
/// a / b, or 0 for b = 0.
template <class T>
OPSIN_FN T quotient(T a, T b) {
  return b == T(0) ? T(0) : a / (b == T(0) ? T(1) : b);
}

/// Column c of a box goes to `column[c * stride]`.
template <class T>
OPSIN_FN void prepare(Overlap kind, int rank, const T* box, T* column, int64_t stride) {
  if (kind == Overlap::kRotated) {
    const T angle = box[4] * T(0.017453292519943295769);
    const T w = positive(box[2]), h = positive(box[3]);
    column[0] = box[0];
    column[stride] = box[1];
    column[2 * stride] = w / 2;
    column[3 * stride] = h / 2;
    column[4 * stride] = math::cos(angle);
    column[5 * stride] = math::sin(angle);
    column[kVolume * stride] = w * h;
    return;
  }
  T volume = 1;
  for (int d = 0; d < 3; ++d) {
    const T low = d < rank ? box[d] : T(0), high = d < rank ? box[rank + d] : T(1);
    column[d * stride] = low;
    column[(3 + d) * stride] = high;
    volume *= positive(high - low);
  }
  column[kVolume * stride] = volume;
  if (kind == Overlap::kComplete) {
    column[kAspect * stride] = math::atan2(positive(box[2] - box[0]), positive(box[3] - box[1]));
  }
}

/// The area under the part of the edge from (x0, y0) to (x1, y1) that lies in |x| <= w, with y cut to |y| <=
/// h; counted downwards, so that the edges of a polygon, counter-clockwise, add up to what of it lies in the
/// box of half sizes w and h.
template <class T>
OPSIN_FN T area_under(T x0, T y0, T x1, T y1, T w, T h) {
  const T dx = x1 - x0, dy = y1 - y0;
  const T from = within(x0, w), to = within(x1, w);
  const T u0 = y0 + quotient(from - x0, dx) * dy, u1 = y0 + quotient(to - x0, dx) * dy;
  const T c0 = within(u0, h), c1 = within(u1, h);
  // The mean of a cut line: that of its ends, corrected for what was cut on either side.
  const T cut = quotient((c0 - u0) + (c1 - u1), u1 - u0);
  return (from - to) * T(0.5) * ((c0 + c1) + (c0 - c1) * cut);
}

/// The intersection of two rotated boxes.
template <class T>
OPSIN_FN T rotated_intersection(const T (&a)[kBoxColumns], const T (&b)[kBoxColumns]) {
  // a in the frame of b, whose axes are (cos, -sin) and (sin, cos).
  const T dx = a[0] - b[0], dy = a[1] - b[1];
  const T x = dx * b[4] - dy * b[5], y = dx * b[5] + dy * b[4];
  const T cosine = a[4] * b[4] + a[5] * b[5], sine = a[5] * b[4] - a[4] * b[5];
  const T ux = a[2] * cosine, uy = -a[2] * sine, vx = a[3] * sine, vy = a[3] * cosine;
  const T x0 = x - ux - vx, y0 = y - uy - vy, x1 = x + ux - vx, y1 = y + uy - vy;
  const T x2 = x + ux + vx, y2 = y + uy + vy, x3 = x - ux + vx, y3 = y - uy + vy;
  const T area = area_under(x0, y0, x1, y1, b[2], b[3]) + area_under(x1, y1, x2, y2, b[2], b[3]) +
                 area_under(x2, y2, x3, y3, b[2], b[3]) + area_under(x3, y3, x0, y0, b[2], b[3]);
  return smaller(positive(area), smaller(a[kVolume], b[kVolume]));
}

/// The overlap of boxes that prepare() made.
template <class T>
OPSIN_FN T overlap(Overlap kind, int rank, const T (&a)[kBoxColumns], const T (&b)[kBoxColumns], T eps) {
  T inter = 1;
  if (kind == Overlap::kRotated) {
    inter = rotated_intersection(a, b);
  } else {
    for (int d = 0; d < 3; ++d) {
      if (d < rank) inter *= positive(smaller(a[3 + d], b[3 + d]) - larger(a[d], b[d]));
    }
  }
  const T together = a[kVolume] + b[kVolume] - inter;
  const T iou = quotient(inter, together);
  if (kind == Overlap::kIou || kind == Overlap::kRotated) return iou;
  if (kind == Overlap::kGeneralized) {
    T around = 1;
    for (int d = 0; d < 3; ++d) {
      if (d < rank) around *= positive(larger(a[3 + d], b[3 + d]) - smaller(a[d], b[d]));
    }
    return iou - quotient(around - together, around);
  }
  T diagonal = eps, distance = 0;
  for (int d = 0; d < 3; ++d) {
    if (d >= rank) continue;
    const T side = positive(larger(a[3 + d], b[3 + d]) - smaller(a[d], b[d]));
    const T between = ((a[d] + a[3 + d]) - (b[d] + b[3 + d])) * T(0.5);
    diagonal += side * side;
    distance += between * between;
  }
  const T near = iou - distance / diagonal;
  if (kind == Overlap::kDistance) return near;
  const T turn = a[kAspect] - b[kAspect], v = T(0.40528473456935108578) * turn * turn;
  return near - v * v / (T(1) - iou + v + eps);
}

}  // namespace boxes

}  // namespace opsin
