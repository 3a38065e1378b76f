// The contract of resampling along axes: which input indices make up an output index, and with which weights.
// The same functions fill the tables of both backends.
#pragma once

#include "core/kernel.h"
#include "core/math_parts.h"

namespace opsin {

enum class Filter : uint8_t {
  kNearest,
  kNearestExact,
  kLinear,
  kCubic,
  // Widened where the axis shrinks, so that every input index counts.
  kLinearSmooth,
  kCubicSmooth,
  kLanczosSmooth,
  kArea,
};

/// One axis. An output index reads a window of neighbouring input indices; both ends of the windows ascend.
struct AxisRule {
  Filter filter = Filter::kNearest;
  bool align_corners = false;
  bool in_double = false;  ///< Nearest indices are rounded in float32 unless the elements are float64.
  int64_t in = 1, out = 1;
  double scale = 1;  ///< Input indices per output index.

  OPSIN_FN bool is_smooth() const {
    return filter >= Filter::kLinearSmooth && filter <= Filter::kLanczosSmooth;
  }
  friend bool operator==(const AxisRule&, const AxisRule&) = default;
};

/// A window [first, first + count), and where the output index lies in the input.
struct AxisWindow {
  int64_t first;
  int64_t count;
  double position;
};

/// One call over dense memory: x [outer, sizes of x, inner] -> y [outer, sizes of y, inner]. Without
/// `transposed` x has `in` and y has `out` indices on each axis; with it the other way round, and each
/// element of y is the sum of what the forward step would read it for.
struct ResampleParams {
  AxisRule axis[3];
  bool transposed = false;
  DType dtype = kFloat32;
  int64_t outer = 1, inner = 1;
  const void* x = nullptr;
  void* y = nullptr;

  int64_t x_size(int a) const { return transposed ? axis[a].out : axis[a].in; }
  int64_t y_size(int a) const { return transposed ? axis[a].in : axis[a].out; }
};

extern OPSIN_API KernelSlot<void (*)(const ResampleParams&)> resample;

void register_interpolate_cpu();

namespace axis {

/// Half the width of a filter at scale 1.
OPSIN_FN double support_of(Filter filter) {
  return filter == Filter::kLanczosSmooth ? 3 : filter == Filter::kCubicSmooth ? 2 : 1;
}

OPSIN_FN int64_t clamped(int64_t i, int64_t low, int64_t high) { return i < low ? low : i > high ? high : i; }

OPSIN_FN AxisWindow window_of(const AxisRule& r, int64_t o) {
  const auto x = static_cast<double>(o);
  switch (r.filter) {
    case Filter::kNearest:
    case Filter::kNearestExact: {
      const bool exact = r.filter == Filter::kNearestExact;
      double at;
      if (r.in_double) {
        at = exact ? (x + 0.5) * r.scale : x * r.scale;
      } else {
        const auto scale = static_cast<float>(r.scale), f = static_cast<float>(o);
        at = static_cast<double>(exact ? (f + 0.5f) * scale : f * scale);
      }
      return {clamped(static_cast<int64_t>(std::floor(at)), 0, r.in - 1), 1, at};
    }
    case Filter::kLinear: {
      double at = r.align_corners ? x * r.scale : (x + 0.5) * r.scale - 0.5;
      if (at < 0) at = 0;
      const int64_t first = clamped(static_cast<int64_t>(at), 0, r.in - 1);
      return {first, first + 1 < r.in ? 2 : 1, at};
    }
    case Filter::kCubic: {
      const double at = r.align_corners ? x * r.scale : (x + 0.5) * r.scale - 0.5;
      const auto floor = static_cast<int64_t>(std::floor(at));
      const int64_t first = clamped(floor - 1, 0, r.in - 1), last = clamped(floor + 2, 0, r.in - 1);
      return {first, last - first + 1, at};
    }
    case Filter::kArea: {
      const int64_t first = o * r.in / r.out;
      return {first, ((o + 1) * r.in + r.out - 1) / r.out - first, x};
    }
    default: {
      const double center = r.scale * (x + 0.5);
      const double reach = support_of(r.filter) * (r.scale > 1 ? r.scale : 1);
      const int64_t first = clamped(static_cast<int64_t>(center - reach + 0.5), 0, r.in - 1);
      const int64_t end = clamped(static_cast<int64_t>(center + reach + 0.5), first + 1, r.in);
      return {first, end - first, center};
    }
  }
}

/// R. Keys, "Cubic convolution interpolation for digital image processing" (1981), with parameter a.
OPSIN_FN double cubic(double x, double a) {
  x = std::fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0.0;
}
/// sin(pi x) / (pi x), from the Taylor series around the nearest integer.
OPSIN_FN double sinc(double x) {
  constexpr double kPi = 3.141592653589793;
  if (x == 0) return 1;
  const double n = std::floor(x + 0.5), r = kPi * (x - n), square = r * r;
  double sum = 1;
  for (int k = 10; k > 0; --k) sum = 1 - square * sum / (2 * k * (2 * k + 1));
  const bool odd = n - 2 * std::floor(n / 2) != 0;
  return (odd ? -r : r) * sum / (kPi * x);
}

/// The weight of input index i, which is in `w`; those of a smooth filter are still to be divided by their
/// sum.
OPSIN_FN double weight_of(const AxisRule& r, const AxisWindow& w, int64_t i) {
  const auto x = static_cast<double>(i);
  switch (r.filter) {
    case Filter::kNearest:
    case Filter::kNearestExact:
      return 1;
    case Filter::kLinear: {
      const double t = w.position - static_cast<double>(w.first);
      if (w.count == 1) return 1;
      return i == w.first ? 1 - t : t;
    }
    case Filter::kCubic: {
      // Indices beyond the ends are those at the ends.
      const double floor = std::floor(w.position);
      double sum = 0;
      for (int k = -1; k <= 2; ++k) {
        if (clamped(static_cast<int64_t>(floor) + k, 0, r.in - 1) == i)
          sum += cubic(w.position - floor - k, -0.75);
      }
      return sum;
    }
    case Filter::kArea:
      return 1 / static_cast<double>(w.count);
    default: {
      const double distance = std::fabs(x - w.position + 0.5) / (r.scale > 1 ? r.scale : 1);
      if (r.filter == Filter::kLinearSmooth) return distance < 1 ? 1 - distance : 0.0;
      if (r.filter == Filter::kCubicSmooth) return cubic(distance, -0.5);
      return distance < 3 ? sinc(distance) * sinc(distance / 3) : 0.0;
    }
  }
}

/// What the weights of a window are multiplied with.
OPSIN_FN double share_of(const AxisRule& r, const AxisWindow& w) {
  if (!r.is_smooth()) return 1;
  double total = 0;
  for (int64_t k = 0; k < w.count; ++k) total += weight_of(r, w, w.first + k);
  return total != 0 ? 1 / total : 1.0;
}

/// The outputs whose windows hold input index i, as a range: first is the first window that ends beyond i.
OPSIN_FN AxisWindow readers_of(const AxisRule& r, int64_t i) {
  const auto search = [&](auto&& is_before) {
    int64_t low = 0, high = r.out;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (is_before(window_of(r, middle))) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const int64_t first = search([&](const AxisWindow& w) { return w.first + w.count <= i; });
  const int64_t end = search([&](const AxisWindow& w) { return w.first <= i; });
  return {first, end > first ? end - first : 0, 0};
}

/// A row of the table, or of the transposed one, whose entries are those of the outputs that read an index:
/// put(k, weight) for its entries.
template <class F>
OPSIN_FN AxisWindow fill_row(const AxisRule& r, bool transposed, int64_t row, F&& put) {
  const AxisWindow range = transposed ? readers_of(r, row) : window_of(r, row);
  AxisWindow w = range;
  double share = 1;
  for (int64_t k = 0; k < range.count; ++k) {
    if (transposed) w = window_of(r, range.first + k);
    if (transposed || k == 0) share = share_of(r, w);
    put(k, weight_of(r, w, transposed ? row : range.first + k) * share);
  }
  return range;
}

}  // namespace axis

}  // namespace opsin
