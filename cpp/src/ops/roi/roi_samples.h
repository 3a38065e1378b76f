// Where the bins of a region sample the features: shared by the kernels of both devices and by the rule for
// second derivatives, so that all of them see the same samples. Axes are numbered from the end: 2 is that of
// x; those that the input lacks have size 1 and one bin.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/math_parts.h"

namespace opsin {

struct RoiGeometry {
  int64_t images, rois, channels;
  int axes;                ///< 1, 2 or 3.
  int size[3], pooled[3];  ///< Below 2^30 and 2^15.
  bool maximum;            ///< The largest sample of a bin, else the mean.
  bool pixels;             ///< Whole pixels under the rounded region, else samples between pixels.
  bool half_open;          ///< Of pixels: the end of a region is not part of it.
  bool by_bin;             ///< Each bin reads a plane of its own: image * bins + bin.
  bool least_one;          ///< Regions are at least one pixel long.
  int ratio;               ///< Samples per bin and axis; one per pixel if not positive.
  double scale, offset;

  OPSIN_FN int64_t bins() const { return int64_t{pooled[0]} * pooled[1] * pooled[2]; }
  OPSIN_FN int64_t positions() const { return int64_t{size[0]} * size[1] * size[2]; }
  OPSIN_FN int64_t planes() const { return by_bin ? images * bins() : images; }
  OPSIN_FN int64_t columns() const { return 1 + 2 * axes; }
};

/// A region on the grid of the features.
template <class T>
struct Roi {
  int64_t image;  ///< As the box says, maybe out of range.
  bool finite;    ///< Otherwise there are no samples.
  T start[3], bin[3];
  int grid[3];              ///< Samples per bin.
  int begin[3], extent[3];  ///< Of regions of pixels.
  bool stretches[3];        ///< The size follows the box.
};

namespace roi {

/// Samples per bin and axis stay below this, whatever the box.
inline constexpr int kMostSamples = 1 << 20;

/// v cut to [0, most]; 0 for NaN.
template <class T>
OPSIN_FN int cut(T v, int most) {
  return v > T(0) ? (v < static_cast<T>(most) ? static_cast<int>(v) : most) : 0;
}
template <class T>
OPSIN_FN int rounded(T v) {
  constexpr T kMost = T(1 << 29);
  v = std::round(v);
  return static_cast<int>(v < -kMost ? -kMost : v > kMost ? kMost : v);
}

struct Span {
  int first, end;
  OPSIN_FN int count() const { return end - first; }
};

/// The numbers i in [0, n) for which start + i * step may lie in [low, high], and some around them.
template <class T>
OPSIN_FN Span numbers_within(T start, T step, T low, T high, int n) {
  if (n <= 4 || step == T(0)) return {0, n};
  const T a = (low - start) / step, b = (high - start) / step;
  const int first = cut(std::floor(a < b ? a : b) - T(1), n), end = cut(std::ceil(a < b ? b : a) + T(2), n);
  return {first, end < first ? first : end};
}

/// Region `k` of boxes [rois, columns].
template <class T>
OPSIN_FN Roi<T> at(const RoiGeometry& g, const T* boxes, int64_t k) {
  const T* const box = boxes + k * g.columns();
  Roi<T> roi{};
  const T image = box[0];
  roi.image = image > T(-1e9) && image < T(1e9) ? static_cast<int64_t>(std::round(image)) : INT64_MIN;
  roi.finite = true;
  for (int a = 0; a < 3; ++a) {
    roi.start[a] = T(0);
    roi.bin[a] = T(1);
    roi.grid[a] = roi.extent[a] = 1;
  }
  const T scale = static_cast<T>(g.scale), offset = static_cast<T>(g.offset);
  for (int i = 0; i < g.axes; ++i) {
    const int a = 2 - i;
    const T low = box[1 + i] * scale, high = box[1 + g.axes + i] * scale;
    roi.finite = roi.finite && low - low == T(0) && high - high == T(0);
    if (!roi.finite) break;
    if (g.pixels) {
      const int extent = rounded(high) - rounded(low) + (g.half_open ? 0 : 1);
      roi.begin[a] = rounded(low);
      roi.extent[a] = extent > 1 ? extent : 1;
      continue;
    }
    const T extent = (high - offset) - (low - offset);
    roi.stretches[a] = !(g.least_one && extent < T(1));
    roi.start[a] = low - offset;
    roi.bin[a] = (roi.stretches[a] ? extent : T(1)) / static_cast<T>(g.pooled[a]);
    roi.grid[a] = g.ratio > 0 ? g.ratio : cut(std::ceil(roi.bin[a]), kMostSamples);
  }
  return roi;
}

/// The samples of bin `b` along axis `a`; those left out lie outside. Pixels are their own numbers.
template <class T>
OPSIN_FN Span samples(const RoiGeometry& g, const Roi<T>& roi, int a, int b) {
  if (!roi.finite) return {0, 0};
  if (!g.pixels) {
    const T step = roi.bin[a] / static_cast<T>(roi.grid[a]);
    return numbers_within(roi.start[a] + static_cast<T>(b) * roi.bin[a] + step / T(2), step, T(-1),
                          static_cast<T>(g.size[a]), roi.grid[a]);
  }
  // Bin b covers b / pooled to (b + 1) / pooled of the extent, which would overflow if it were multiplied.
  const int pooled = g.pooled[a], whole = roi.extent[a] / pooled, rest = roi.extent[a] % pooled;
  // As in torchvision, half-open regions do not reach the last pixel.
  const int limit = g.size[a] - (g.half_open && a >= 3 - g.axes ? 1 : 0);
  int first = roi.begin[a] + b * whole + b * rest / pooled;
  int end = roi.begin[a] + (b + 1) * whole + ((b + 1) * rest + pooled - 1) / pooled;
  first = first < 0 ? 0 : first < limit ? first : limit;
  end = end < first ? first : end < limit ? end : limit;
  return {first, end};
}

/// How many samples a bin has whose samples() are `span`, those outside included.
template <class T>
OPSIN_FN int samples_in_all(const RoiGeometry& g, const Roi<T>& roi, int a, Span span) {
  return g.pixels || !roi.finite ? span.count() : roi.grid[a];
}

/// A sample along one axis: (1 - fraction) of the pixel `low` and `fraction` of `high`.
template <class T>
struct Sample {
  int low, high;
  T fraction;
  T place;      ///< Between the ends of the region: 0 to 1.
  bool inside;  ///< Otherwise it counts as 0.
  bool moves;   ///< The fraction follows the coordinate.
};

template <class T>
OPSIN_FN Sample<T> sample(const RoiGeometry& g, const Roi<T>& roi, int a, int b, int i) {
  if (g.pixels) return {i, i, T(0), T(0), true, false};
  const T within = (static_cast<T>(i) + T(0.5)) / static_cast<T>(roi.grid[a]);
  const T place = (static_cast<T>(b) + within) / static_cast<T>(g.pooled[a]);
  const T at = roi.start[a] + static_cast<T>(b) * roi.bin[a] + within * roi.bin[a];
  if (!(at >= T(-1) && at <= static_cast<T>(g.size[a]))) return {0, 0, T(0), place, false, false};
  if (at <= T(0)) return {0, 0, T(0), place, true, false};
  const int low = static_cast<int>(at), last = g.size[a] - 1;
  if (low >= last) return {last, last, T(0), place, true, false};
  return {low, low + 1, at - static_cast<T>(low), place, true, true};
}

/// The gradient of one axis of a box from those of the start and of the bins' length times their number.
template <class T>
OPSIN_FN void add_box_gradient(const RoiGeometry& g, const Roi<T>& roi, int a, T of_start, T of_extent,
                               T* grad_box) {
  const T scale = static_cast<T>(g.scale), stretch = roi.stretches[a] ? of_extent : T(0);
  grad_box[1 + (2 - a)] += scale * (of_start - stretch);
  grad_box[1 + g.axes + (2 - a)] += scale * stretch;
}

}  // namespace roi

}  // namespace opsin
