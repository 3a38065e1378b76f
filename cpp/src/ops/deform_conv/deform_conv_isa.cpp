// Deformable sampling, compiled once per instruction set: vectors run over channels.
#include "deform_conv_kernels.h"

#include <cstdint>

#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/lanes.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int most_corners = 8;

/// One sampled point: where between the pixels, and its corners that are inside of x.
template <class T>
struct Point {
  T fraction[3];
  T mask;
  int count;
  int which[most_corners];  ///< Bit i of corner j, from the highest, is the side along axis i.
  int64_t pixel[most_corners];
  T weight[most_corners];
};

/// A row and what lies at it.
struct Place {
  int64_t image, at[3];

  OPSIN_INLINE Place(const DeformGeometry& g, int64_t row) {
    for (int axis = 2; axis >= 0; --axis) {
      at[axis] = row % g.out[axis];
      row /= g.out[axis];
    }
    image = row;
  }
};

OPSIN_INLINE float round_down(float x) { return __builtin_floorf(x); }
OPSIN_INLINE double round_down(double x) { return __builtin_floor(x); }

/// Point `point`, counted over rows, offset groups and taps, with tap at `tap` of its kernel.
template <class S>
OPSIN_INLINE void find(const DeformPart& p, const Place& place, const int64_t (&tap)[3], int64_t point,
                       Point<Compute<S>>& to) {
  using T = Compute<S>;
  constexpr T far = T(1 << 30);
  const DeformGeometry& g = p.geometry;
  const S* offset = static_cast<const S*>(p.offset) + point * g.spatial;
  to.mask = p.mask ? widen(static_cast<const S*>(p.mask)[point]) : T(1);
  int64_t pixel[most_corners] = {0};
  T weight[most_corners] = {to.mask};
  int corners = 1;
  for (int i = 0; i < g.spatial; ++i) {
    const int axis = 3 - g.spatial + i;
    const T shift = widen(offset[i]), whole = round_down(shift);
    to.fraction[i] = shift - whole;
    // Far away and NaN are outside of any x.
    const int64_t step = whole > -far && whole < far ? static_cast<int64_t>(whole) : int64_t{1} << 40;
    const int64_t low = place.at[axis] * g.stride[axis] - g.pad[axis] + tap[axis] * g.dilation[axis] + step;
    const int64_t size = g.in[axis];
    const bool has_low = low >= 0 && low < size, has_high = low >= -1 && low < size - 1;
    for (int j = corners - 1; j >= 0; --j) {
      const int64_t from = pixel[j];
      const T share = weight[j];
      pixel[2 * j] = from >= 0 && has_low ? from * size + low : -1;
      pixel[2 * j + 1] = from >= 0 && has_high ? from * size + low + 1 : -1;
      weight[2 * j] = share * (1 - to.fraction[i]);
      weight[2 * j + 1] = share * to.fraction[i];
    }
    corners *= 2;
  }
  const T* given = p.coefficients ? static_cast<const T*>(p.coefficients) + point * corners : weight;
  int count = 0;
  for (int j = 0; j < corners; ++j) {
    to.which[count] = j;
    to.pixel[count] = pixel[j];
    to.weight[count] = given[j];
    count += pixel[j] >= 0;
  }
  to.count = count;
}

/// Calls body(point, channel, count, column of that channel) for the points of row `row` (of all) that have
/// channels in [from, to), and their channels as far as they lie side by side.
template <class S, class F>
OPSIN_INLINE void for_channels(const DeformPart& p, int64_t tap, int64_t row, int64_t from, int64_t to,
                               int64_t taps, F&& body) {
  const DeformGeometry& g = p.geometry;
  const int64_t size = g.channels / g.groups;
  for (int64_t c = from; c < to;) {
    const int64_t group = c / size;
    const int64_t end = (group + 1) * size < to ? (group + 1) * size : to;
    S* column = static_cast<S*>(p.columns) + ((group * p.rows + row - p.first) * taps + tap) * size +
                (c - group * size);
    body(c, end - c, column);
    c = end;
  }
}

/// Calls body(point, number, image, tap, first channel, last channel) for all points of rows [begin, end)
/// that have channels in [from, to).
template <class S, class F>
OPSIN_INLINE void for_points(const DeformPart& p, int64_t begin, int64_t end, int64_t from, int64_t to,
                             F&& body) {
  const DeformGeometry& g = p.geometry;
  const int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2], shared = g.channels / g.offset_groups;
  Point<Compute<S>> point;
  for (int64_t row = p.first + begin; row < p.first + end; ++row) {
    const Place place(g, row);
    for (int64_t group = from / shared; group * shared < to; ++group) {
      const int64_t first = group * shared > from ? group * shared : from;
      const int64_t last = (group + 1) * shared < to ? (group + 1) * shared : to;
      int64_t tap[3] = {0, 0, 0};
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t number = (row * g.offset_groups + group) * taps + t;
        find<S>(p, place, tap, number, point);
        body(point, number, place.image, row, t, first, last);
        if (++tap[2] == g.kernel[2]) {
          tap[2] = 0;
          if (++tap[1] == g.kernel[1]) {
            tap[1] = 0;
            ++tap[0];
          }
        }
      }
    }
  }
}

template <class S, int kCount>
OPSIN_INLINE void mix(const S* const* from, const Compute<S>* weight, int count, int64_t n, S* to) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int used = kCount ? kCount : count;
  const auto step = [&](int64_t c, int64_t some) __attribute__((always_inline)) {
    Vector<T> sum{};
    for (int j = 0; j < used; ++j) {
      const Vector<T> x = some < lanes ? load_some<T>(from[j] + c, some) : load_wide(from[j] + c);
      sum = fma(broadcast(weight[j]), x, sum);
    }
    store_some(to + c, sum, some);
  };
  int64_t c = 0;
  for (; c + lanes <= n; c += lanes) step(c, lanes);
  if (c < n) step(c, n - c);
}

template <class S>
void columns(const DeformPart& p, int64_t begin, int64_t end) {
  using T = Compute<S>;
  const DeformGeometry& g = p.geometry;
  const int64_t pixels = g.in[0] * g.in[1] * g.in[2];
  const int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  for_points<S>(p, begin, end, 0, g.channels,
                [&](const Point<T>& point, int64_t, int64_t image, int64_t row, int64_t t, int64_t first,
                    int64_t last) __attribute__((always_inline)) {
                  const S* x = static_cast<const S*>(p.x) + image * pixels * g.channels;
                  for_channels<S>(p, t, row, first, last, taps,
                                  [&](int64_t c, int64_t n, S* column) __attribute__((always_inline)) {
                                    const S* from[most_corners];
                                    for (int j = 0; j < point.count; ++j) {
                                      from[j] = x + point.pixel[j] * g.channels + c;
                                    }
                                    if (point.count == 4) {
                                      mix<S, 4>(from, point.weight, 4, n, column);
                                    } else {
                                      mix<S, 0>(from, point.weight, point.count, n, column);
                                    }
                                  });
                });
}

template <class S>
void spread(const DeformPart& p, int64_t begin, int64_t end, int64_t from, int64_t to) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const DeformGeometry& g = p.geometry;
  const int64_t pixels = g.in[0] * g.in[1] * g.in[2];
  const int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  for_points<S>(p, begin, end, from, to,
                [&](const Point<T>& point, int64_t, int64_t image, int64_t row, int64_t t, int64_t first,
                    int64_t last) __attribute__((always_inline)) {
                  T* sums = static_cast<T*>(p.sums) + image * pixels * g.channels;
                  for_channels<S>(p, t, row, first, last, taps,
                                  [&](int64_t c, int64_t n, const S* column) __attribute__((always_inline)) {
                                    for (int64_t i = 0; i < n; i += lanes) {
                                      const int64_t some = n - i < lanes ? n - i : lanes;
                                      const Vector<T> value = load_some<T>(column + i, some);
                                      for (int j = 0; j < point.count; ++j) {
                                        T* sum = sums + point.pixel[j] * g.channels + c + i;
                                        const Vector<T> old = load_some<T>(sum, some);
                                        store_some(sum, fma(broadcast(point.weight[j]), value, old), some);
                                      }
                                    }
                                  });
                });
}

/// sums[j] += the products of column and x at corner j.
template <class S, int kCount>
OPSIN_INLINE void multiply(const S* const* from, int count, const S* column, int64_t n,
                           Vector<Compute<S>>* sums) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int used = kCount ? kCount : count;
  for (int64_t c = 0; c < n; c += lanes) {
    const Vector<T> value = load_some<T>(column + c, n - c);
    for (int j = 0; j < used; ++j) sums[j] = fma(value, load_some<T>(from[j] + c, n - c), sums[j]);
  }
}

template <class S>
OPSIN_INLINE void write_gradients(const DeformPart& p, const Point<Compute<S>>& point, int64_t number,
                                  const Compute<S>* products) {
  using T = Compute<S>;
  const int axes = p.geometry.spatial, corners = 1 << axes;
  if (p.grad_coefficients) {
    T* to = static_cast<T*>(p.grad_coefficients) + number * corners;
    for (int j = 0; j < corners; ++j) to[j] = 0;
    for (int k = 0; k < point.count; ++k) to[point.which[k]] = products[k];
    return;
  }
  T by_mask = 0, by_axis[3] = {0, 0, 0};
  for (int k = 0; k < point.count; ++k) {
    const auto high = [&](int axis) { return (point.which[k] >> (axes - 1 - axis) & 1) != 0; };
    const auto factor = [&](int axis) {
      return high(axis) ? point.fraction[axis] : 1 - point.fraction[axis];
    };
    T all = products[k];
    for (int axis = 0; axis < axes; ++axis) {
      T others = high(axis) ? products[k] : -products[k];
      for (int other = 0; other < axes; ++other) {
        if (other != axis) others *= factor(other);
      }
      by_axis[axis] += others;
      all *= factor(axis);
    }
    by_mask += all;
  }
  if (p.grad_mask) narrow(by_mask, static_cast<S*>(p.grad_mask) + number);
  if (!p.grad_offset) return;
  for (int axis = 0; axis < axes; ++axis) {
    narrow(by_axis[axis] * point.mask, static_cast<S*>(p.grad_offset) + number * axes + axis);
  }
}

template <class S>
void products(const DeformPart& p, int64_t begin, int64_t end) {
  using T = Compute<S>;
  const DeformGeometry& g = p.geometry;
  const int64_t pixels = g.in[0] * g.in[1] * g.in[2];
  const int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  for_points<S>(p, begin, end, 0, g.channels,
                [&](const Point<T>& point, int64_t number, int64_t image, int64_t row, int64_t t,
                    int64_t first, int64_t last) __attribute__((always_inline)) {
                  const S* x = static_cast<const S*>(p.x) + image * pixels * g.channels;
                  Vector<T> sums[most_corners] = {};
                  for_channels<S>(p, t, row, first, last, taps,
                                  [&](int64_t c, int64_t n, const S* column) __attribute__((always_inline)) {
                                    const S* from[most_corners];
                                    for (int j = 0; j < point.count; ++j) {
                                      from[j] = x + point.pixel[j] * g.channels + c;
                                    }
                                    if (point.count == 4) {
                                      multiply<S, 4>(from, 4, column, n, sums);
                                    } else {
                                      multiply<S, 0>(from, point.count, column, n, sums);
                                    }
                                  });
                  T values[most_corners];
                  for (int j = 0; j < point.count; ++j) values[j] = sum_of_lanes<T>(sums[j]);
                  write_gradients<S>(p, point, number, values);
                });
}

constexpr DeformTable kTable{
    {columns<float>, columns<double>, columns<Float16>, columns<BFloat16>},
    {spread<float>, spread<double>, spread<Float16>, spread<BFloat16>},
    {products<float>, products<double>, products<Float16>, products<BFloat16>},
};

}  // namespace

const DeformTable& deform_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
