// Where a coordinate of a grid reads along one axis, and with which weights: one source for both backends.
#pragma once

#include <cstdint>

#include "core/math_parts.h"

namespace opsin::grid {

enum class Mode : uint8_t { kNearest, kLinear, kCubic };
enum class Padding : uint8_t { kZeros, kBorder, kReflection };

/// Pixels per axis that a point reads: 1, 2 or 4.
OPSIN_FN constexpr int taps_per_axis(Mode mode) {
  return mode == Mode::kNearest ? 1 : mode == Mode::kLinear ? 2 : 4;
}

/// x between low and high, 0 if it is NaN.
template <class T>
OPSIN_FN T bounded(T x, T low, T high) {
  x = x > low ? x : low;
  return x < high ? x : high;
}

/// i if it is a pixel of an axis, else -1. Without a condition, which compilers make branches of.
OPSIN_FN int32_t pixel_or_none(int32_t i, int size) {
  return i | -static_cast<int32_t>(static_cast<uint32_t>(i) >= static_cast<uint32_t>(size));
}

/// A position reflected at the ends of an axis, and the sign of its derivative. With aligned corners the ends
/// are the first and the last pixel, else half a pixel beyond them.
template <class T>
OPSIN_FN T reflected(T x, int size, bool align, T& sign) {
  const T low = align ? T(0) : T(-0.5), span = static_cast<T>(align ? size - 1 : size);
  const T away = x - low, distance = away < T(0) ? -away : away;
  const T flips = span > T(0) ? std::floor(distance / span) : T(0);
  const T rest = distance - flips * span;
  const T odd = flips - T(2) * std::floor(flips / T(2));
  sign = (away < T(0) ? T(-1) : T(1)) * (T(1) - T(2) * odd);
  return span > T(0) ? low + (odd != T(0) ? span - rest : rest) : T(0);
}

/// The derivatives of R. Keys' cubic kernel with a = -0.75, by order: its part for |x| < 1 and that beyond.
template <class T>
OPSIN_FN T cubic_near(T x, int order) {
  constexpr T a = T(-0.75);
  return order == 0   ? ((a + 2) * x - (a + 3)) * x * x + 1
         : order == 1 ? (3 * (a + 2) * x - 2 * (a + 3)) * x
         : order == 2 ? 6 * (a + 2) * x - 2 * (a + 3)
         : order == 3 ? 6 * (a + 2)
                      : T(0);
}
template <class T>
OPSIN_FN T cubic_far(T x, int order) {
  constexpr T a = T(-0.75);
  return order == 0   ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
         : order == 1 ? (3 * a * x - 10 * a) * x + 8 * a
         : order == 2 ? 6 * a * x - 10 * a
         : order == 3 ? 6 * a
                      : T(0);
}

/// The pixels that coordinate g, in [-1, 1], reads along an axis of `size`, -1 for those that are not there,
/// and their weights differentiated `order` times with respect to g. NaN counts as -1.
template <class T>
OPSIN_FN void find_taps(Mode mode, Padding padding, T g, int size, bool align, int order, int32_t (&index)[4],
                        T (&weight)[4]) {
  // Beyond this there are no pixels, and integers would overflow.
  constexpr T kFar = T(1 << 24);
  const T length = static_cast<T>(size);
  T slope = (align ? length - 1 : length) / 2;
  const T center = align ? slope : slope - T(0.5);
  const bool is_number = g == g;
  g = is_number ? g : T(-1);
  T x = bounded<T>(g, -kFar, kFar) * slope + center;
  slope = is_number ? slope : T(0);
  if (mode != Mode::kCubic && padding != Padding::kZeros) {
    if (padding == Padding::kReflection) {
      T sign;
      x = reflected(x, size, align, sign);
      slope *= sign;
    }
    slope = (x > T(0)) & (x < length - 1) ? slope : T(0);
    x = bounded<T>(x, T(0), length - 1);
  } else if (padding == Padding::kReflection) {
    x = bounded<T>(x, -T(1 << 30), T(1 << 30));
  } else {
    x = bounded<T>(x, T(-8), length + 8);
  }
  if (mode == Mode::kNearest) {
    const auto i = static_cast<int32_t>(std::nearbyint(x));
    index[0] = pixel_or_none(i, size);
    weight[0] = order == 0 ? T(1) : T(0);
  } else {
    const T floor = std::floor(x), t = x - floor;
    const auto i = static_cast<int32_t>(floor);
    if (mode == Mode::kLinear) {
      index[0] = pixel_or_none(i, size);
      index[1] = pixel_or_none(i + 1, size);
      weight[0] = order == 0 ? T(1) - t : order == 1 ? -slope : T(0);
      weight[1] = order == 0 ? t : order == 1 ? slope : T(0);
    } else {
      T factor = T(1);
      for (int k = 0; k < order; ++k) factor *= slope;
      const T back = order % 2 == 0 ? factor : -factor;
      weight[0] = factor * cubic_far<T>(t + 1, order);
      weight[1] = factor * cubic_near<T>(t, order);
      weight[2] = back * cubic_near<T>(1 - t, order);
      weight[3] = back * cubic_far<T>(2 - t, order);
      for (int k = 0; k < 4; ++k) {
        const int32_t at = i + k - 1;
        if (padding == Padding::kZeros) {
          index[k] = pixel_or_none(at, size);
        } else {
          T position = static_cast<T>(at), sign;
          if (padding == Padding::kReflection) position = reflected(position, size, align, sign);
          index[k] = static_cast<int32_t>(bounded<T>(position, T(0), length - 1));
        }
      }
    }
  }
}

/// Calls body<mode, padding>().
template <class F>
OPSIN_FN void dispatch(Mode mode, Padding padding, F&& body) {
  const auto with = [&]<Mode kMode>() {
    if (padding == Padding::kZeros) {
      body.template operator()<kMode, Padding::kZeros>();
    } else if (padding == Padding::kBorder) {
      body.template operator()<kMode, Padding::kBorder>();
    } else {
      body.template operator()<kMode, Padding::kReflection>();
    }
  };
  if (mode == Mode::kNearest) {
    with.template operator()<Mode::kNearest>();
  } else if (mode == Mode::kLinear) {
    with.template operator()<Mode::kLinear>();
  } else {
    with.template operator()<Mode::kCubic>();
  }
}

}  // namespace opsin::grid
