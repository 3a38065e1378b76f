// RoI pooling on the CPU. The samples of a bin are a grid, so their mean is the product of one short list of
// taps per axis. Gradients of features are split by image and rows (means) or channels (maxima), and added in
// the order of the boxes.
#include "roi_planar.h"
#include "roi_taps.h"
#include "tap_kernels.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

using cpu::TapParams;

const cpu::TapTable& table() { return OPSIN_ISA_SELECT(cpu::tap_table); }
/// Calls body(bin, number) for all bins of a region, in order.
template <class F>
void for_bins(const RoiGeometry& g, F&& body) {
  int64_t number = 0;
  int bin[3];
  for (bin[0] = 0; bin[0] < g.pooled[0]; ++bin[0]) {
    for (bin[1] = 0; bin[1] < g.pooled[1]; ++bin[1]) {
      for (bin[2] = 0; bin[2] < g.pooled[2]; ++bin[2]) body(bin, number++);
    }
  }
}

template <class T>
int64_t plane_of(const RoiGeometry& g, const Roi<T>& region, int64_t bin) {
  return (g.by_bin ? region.image * g.bins() + bin : region.image) * g.positions() * g.channels;
}

/// Rows with weights, as the loops over channels take them.
template <class T>
struct Rows {
  std::vector<int64_t> at;
  std::vector<T> weights;

  void clear() {
    at.clear();
    weights.clear();
  }
  void add(int64_t row, T weight) {
    at.push_back(row);
    weights.push_back(weight);
  }
  TapParams params(const RoiGeometry& g, const void* x) const {
    return {x, at.data(), weights.data(), static_cast<int64_t>(at.size()), g.channels};
  }
};

/// The pixels of a bin: products of taps; along axis `split` only those in [begin, end).
template <class T>
void set_rows(Rows<T>& rows, const RoiGeometry& g, const Taps<T>& taps, const int (&bin)[3], int64_t plane,
              int split = 0, int64_t begin = 0, int64_t end = INT64_MAX) {
  rows.clear();
  const auto outside = [&](int a, int pixel) { return a == split && (pixel < begin || pixel >= end); };
  for (const Tap<T>& z : taps.of(0, bin[0])) {
    if (outside(0, z.pixel)) continue;
    for (const Tap<T>& y : taps.of(1, bin[1])) {
      if (outside(1, y.pixel)) continue;
      for (const Tap<T>& x : taps.of(2, bin[2])) {
        if (outside(2, x.pixel)) continue;
        const int64_t pixel = (int64_t{z.pixel} * g.size[1] + y.pixel) * g.size[2] + x.pixel;
        rows.add(plane + pixel * g.channels, z.weight * y.weight * x.weight);
      }
    }
  }
}

/// Calls body(pixel, weight, slopes) for the corners of a sample with their shares and how those change along
/// each axis.
template <class T, class F>
void for_corners(const RoiGeometry& g, const roi::Sample<T> (&s)[3], F&& body) {
  for (int z = 0; z <= (s[0].high != s[0].low); ++z) {
    for (int y = 0; y <= (s[1].high != s[1].low); ++y) {
      for (int x = 0; x <= (s[2].high != s[2].low); ++x) {
        const int side[3] = {z, y, x};
        T weight[3], slope[3];
        int64_t pixel = 0;
        for (int a = 0; a < 3; ++a) {
          pixel = pixel * g.size[a] + (side[a] ? s[a].high : s[a].low);
          weight[a] = side[a] ? s[a].fraction : T(1) - s[a].fraction;
          slope[a] = s[a].moves ? T(side[a] ? 1 : -1) : T(0);
        }
        const T slopes[3] = {slope[0] * weight[1] * weight[2], weight[0] * slope[1] * weight[2],
                             weight[0] * weight[1] * slope[2]};
        body(pixel, weight[0] * weight[1] * weight[2], slopes);
      }
    }
  }
}

/// The samples of a bin, by number.
template <class T>
class Grid {
 public:
  explicit Grid(const RoiGeometry& g) : g_(g) {}
  void set(const Roi<T>& region, const int (&bin)[3]) {
    const RoiGeometry& g = g_;
    size_ = 1;
    complete_ = true;
    for (int a = 0; a < 3; ++a) {
      along_[a].clear();
      const roi::Span span = roi::samples(g, region, a, bin[a]);
      for (int i = span.first; i < span.end; ++i) along_[a].push_back(roi::sample(g, region, a, bin[a], i));
      complete_ &= span.count() == roi::samples_in_all(g, region, a, span);
      size_ *= span.count();
    }
  }
  int size() const { return size_; }
  /// Whether no sample was left out.
  bool complete() const { return complete_; }

  /// Calls body as for_corners() does, unless the sample lies outside; `places` are set before.
  template <class F>
  void corners(int32_t number, F&& body, T* places = nullptr) const {
    roi::Sample<T> s[3];
    auto rest = static_cast<uint32_t>(number);
    bool inside = true;
    for (int a = 2; a >= 0; --a) {
      const auto n = static_cast<uint32_t>(along_[a].size());
      s[a] = along_[a][n == 1 ? 0 : rest % n];
      rest = n == 1 ? rest : rest / n;
      inside &= s[a].inside;
      if (places) places[a] = s[a].place;
    }
    if (inside) for_corners(g_, s, body);
  }

 private:
  const RoiGeometry& g_;
  std::vector<roi::Sample<T>> along_[3];
  int size_ = 1;
  bool complete_ = true;
};

int64_t item_of(const RoiParams& p) { return static_cast<int64_t>(item_size(p.dtype)); }

template <class T>
void forward(const RoiParams& p, const void* x, const void* boxes, void* y, int32_t* taken) {
  const RoiGeometry& g = p.geometry;
  const auto found = regions<T>(p, boxes);
  if (p.planar) return planar_means(p, found, x, y);
  const auto d = index_of(p.dtype);
  const auto channels = index_of(g.channels);
  cpu::parallel_for(g.rois, 1, [&](int64_t begin, int64_t end) {
    Rows<T> rows;
    Grid<T> grid(g);
    std::vector<T> best(g.maximum ? channels : 0);
    std::vector<int32_t> unwanted(g.maximum && !taken ? channels : 0);
    for (int64_t k = begin; k < end; ++k) {
      const Roi<T>& region = found[index_of(k)];
      const Taps<T> taps = g.maximum ? Taps<T>() : Taps<T>(g, region);
      for_bins(g, [&](const int(&bin)[3], int64_t number) {
        const int64_t row = (k * g.bins() + number) * g.channels, plane = plane_of(g, region, number);
        void* const out = static_cast<char*>(y) + row * item_of(p);
        if (!g.maximum) {
          set_rows(rows, g, taps, bin, plane);
          table().gather[d](rows.params(g, x), out);
          return;
        }
        grid.set(region, bin);
        const bool bounded = grid.complete() && grid.size() > 0;
        std::fill(best.begin(), best.end(), bounded ? -std::numeric_limits<T>::infinity() : T(0));
        int32_t* const which = taken ? taken + row : unwanted.data();
        std::fill_n(which, channels, -1);
        for (int32_t i = 0; i < grid.size(); ++i) {
          rows.clear();
          grid.corners(
              i, [&](int64_t pixel, T weight, const T*) { rows.add(plane + pixel * g.channels, weight); });
          table().largest[d](rows.params(g, x), i, best.data(), which);
        }
        table().narrow[d](best.data(), g.channels, out);
      });
    }
  });
}

template <class T>
void spread_means(const RoiParams& p, const std::vector<Roi<T>>& found, const void* grad_y, T* grad_x) {
  const RoiGeometry& g = p.geometry;
  const auto taps = taps_of(g, found);
  const auto lists = by_image(g, found);
  const int split = 3 - g.axes;
  const int64_t part = (g.size[split] + 15) / 16, parts = (g.size[split] + part - 1) / part;
  cpu::parallel_for(g.images * parts, 1, [&](int64_t begin, int64_t end) {
    Rows<T> rows;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % parts * part;
      const auto mine = [&](const Tap<T>& tap) { return tap.pixel >= first && tap.pixel < first + part; };
      for (const int64_t k : lists[index_of(task / parts)]) {
        // Most bins are other tasks'.
        if (std::ranges::none_of(taps[index_of(k)].of(split), mine)) continue;
        for_bins(g, [&](const int(&bin)[3], int64_t number) {
          if (std::ranges::none_of(taps[index_of(k)].of(split, bin[split]), mine)) return;
          const int64_t plane = plane_of(g, found[index_of(k)], number);
          set_rows(rows, g, taps[index_of(k)], bin, plane, split, first, first + part);
          const auto* from =
              static_cast<const char*>(grad_y) + (k * g.bins() + number) * g.channels * item_of(p);
          table().spread[index_of(p.dtype)](rows.params(g, from), grad_x);
        });
      }
    }
  });
}

template <class T>
void spread_maxima(const RoiParams& p, const std::vector<Roi<T>>& found, const void* grad_y,
                   const int32_t* taken, T* grad_x) {
  const RoiGeometry& g = p.geometry;
  const auto lists = by_image(g, found);
  const int64_t part = 64, parts = (g.channels + part - 1) / part;
  cpu::parallel_for(g.images * parts, 1, [&](int64_t begin, int64_t end) {
    Grid<T> grid(g);
    Rows<T> rows;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % parts * part;
      for (const int64_t k : lists[index_of(task / parts)]) {
        const Roi<T>& region = found[index_of(k)];
        for_bins(g, [&](const int(&bin)[3], int64_t number) {
          grid.set(region, bin);
          const int64_t row = (k * g.bins() + number) * g.channels + first;
          const int64_t plane = plane_of(g, region, number) + first;
          for (int32_t i = 0; i < grid.size(); ++i) {
            rows.clear();
            grid.corners(
                i, [&](int64_t pixel, T weight, const T*) { rows.add(plane + pixel * g.channels, weight); });
            TapParams params = rows.params(g, static_cast<const char*>(grad_y) + row * item_of(p));
            params.channels = std::min(part, g.channels - first);
            table().spread_taken[index_of(p.dtype)](params, i, taken + row, grad_x);
          }
        });
      }
    }
  });
}

template <class T>
void backward_input(const RoiParams& p, const void* boxes, const void* grad_y, const int32_t* taken,
                    void* grad_x) {
  const RoiGeometry& g = p.geometry;
  const auto found = regions<T>(p, boxes);
  auto* out = static_cast<T*>(grad_x);
  if (p.planar) return planar_spread(p, found, grad_y, out);
  cpu::parallel_for(g.planes() * g.positions() * g.channels, 1 << 18,
                    [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, T(0)); });
  g.maximum ? spread_maxima(p, found, grad_y, taken, out) : spread_means(p, found, grad_y, out);
}

/// How the sum of the products of gradients and values follows the starts and extents of a region.
template <class T>
struct Movement {
  T start[3] = {}, extent[3] = {};
};

template <class T, class S>
Movement<T> move_maxima(const RoiGeometry& g, const Roi<T>& region, int64_t k, const S* x, const S* grad_y,
                        const int32_t* taken) {
  Movement<T> sum;
  Grid<T> grid(g);
  for_bins(g, [&](const int(&bin)[3], int64_t number) {
    grid.set(region, bin);
    const int64_t row = (k * g.bins() + number) * g.channels, plane = plane_of(g, region, number);
    for (int64_t c = 0; c < g.channels; ++c) {
      if (taken[row + c] < 0) continue;
      const T gradient = static_cast<T>(grad_y[row + c]);
      T places[3];
      const auto move = [&](int64_t pixel, T, const T* slopes) {
        const T value = gradient * static_cast<T>(x[plane + pixel * g.channels + c]);
        for (int a = 0; a < 3; ++a) {
          sum.start[a] += value * slopes[a];
          sum.extent[a] += value * slopes[a] * places[a];
        }
      };
      grid.corners(taken[row + c], move, places);
    }
  });
  return sum;
}

template <class T>
Movement<T> move_means(const RoiParams& p, const Roi<T>& region, int64_t k, const void* x,
                       const void* grad_y) {
  const RoiGeometry& g = p.geometry;
  const Taps<T> taps(g, region);
  Movement<T> sum;
  Rows<T> rows;
  std::vector<T> products;
  for_bins(g, [&](const int(&bin)[3], int64_t number) {
    set_rows(rows, g, taps, bin, plane_of(g, region, number));
    products.resize(rows.at.size());
    const auto* from = static_cast<const char*>(grad_y) + (k * g.bins() + number) * g.channels * item_of(p);
    table().products[index_of(p.dtype)](rows.params(g, x), from, products.data());
    size_t i = 0;
    for (const Tap<T>& u : taps.of(0, bin[0])) {
      for (const Tap<T>& v : taps.of(1, bin[1])) {
        for (const Tap<T>& w : taps.of(2, bin[2])) {
          const T value = products[i++];
          const T a = value * v.weight * w.weight, b = value * u.weight * w.weight;
          const T c = value * u.weight * v.weight;
          sum.start[0] += a * u.by_start;
          sum.extent[0] += a * u.by_extent;
          sum.start[1] += b * v.by_start;
          sum.extent[1] += b * v.by_extent;
          sum.start[2] += c * w.by_start;
          sum.extent[2] += c * w.by_extent;
        }
      }
    }
  });
  return sum;
}

template <class T>
void backward_boxes(const RoiParams& p, const void* x, const void* boxes, const void* grad_y,
                    const int32_t* taken, void* grad_boxes) {
  const RoiGeometry& g = p.geometry;
  const auto found = regions<T>(p, boxes);
  cpu::parallel_for(g.rois, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const Roi<T>& region = found[index_of(k)];
      Movement<T> sum;
      if (!g.maximum) {
        sum = move_means<T>(p, region, k, x, grad_y);
      } else {
        dispatch_floating(p.dtype, p.op, [&]<class S>() {
          if constexpr (std::is_same_v<compute_t<S>, T>) {
            sum = move_maxima<T, S>(g, region, k, static_cast<const S*>(x), static_cast<const S*>(grad_y),
                                    taken);
          }
        });
      }
      T* const out = static_cast<T*>(grad_boxes) + k * g.columns();
      for (int a = 3 - g.axes; a < 3; ++a) {
        roi::add_box_gradient(g, region, a, sum.start[a], sum.extent[a], out);
      }
    }
  });
}

}  // namespace

void register_roi_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    roi_forward.set(DeviceType::kCPU, dtype, wide ? forward<double> : forward<float>);
    roi_backward_input.set(DeviceType::kCPU, dtype, wide ? backward_input<double> : backward_input<float>);
    roi_backward_boxes.set(DeviceType::kCPU, dtype, wide ? backward_boxes<double> : backward_boxes<float>);
  }
}

}  // namespace opsin
