// Regions by bin over planes: y[k, c, b] = the sum of w[k, b, p] * x[image of k, c, b, p] over pixels p, and
// the transposed for gradients. The pixels of a bin, of many boxes, are listed once for all its channels;
// their planes are few and stay in the second cache.
#include "roi_planar.h"
#include "roi_taps.h"

#include <algorithm>

#include "core/dispatch.h"

namespace opsin {

namespace {

/// The pixels of one bin in some boxes.
template <class T>
class Pixels {
 public:
  struct Box {
    int64_t number;
    size_t end;  ///< Of its pixels; they begin where those of the box before end.
  };
  struct Pixel {
    int64_t at;
    T weight;
  };

  void clear() {
    boxes_.clear();
    pixels_.clear();
  }
  void add(const RoiGeometry& g, const Taps<T>& taps, const int (&bin)[3], int64_t number) {
    for (const Tap<T>& z : taps.of(0, bin[0])) {
      for (const Tap<T>& y : taps.of(1, bin[1])) {
        const int64_t row = (int64_t{z.pixel} * g.size[1] + y.pixel) * g.size[2];
        for (const Tap<T>& x : taps.of(2, bin[2])) {
          pixels_.push_back({row + x.pixel, z.weight * y.weight * x.weight});
        }
      }
    }
    boxes_.push_back({number, pixels_.size()});
  }
  bool is_full() const { return pixels_.size() >= 2048; }

  /// Calls body(number of the box, its pixels).
  template <class F>
  void for_boxes(F&& body) const {
    size_t begin = 0;
    for (const Box& box : boxes_) {
      body(box.number, std::span(pixels_).subspan(begin, box.end - begin));
      begin = box.end;
    }
  }

 private:
  std::vector<Box> boxes_;
  std::vector<Pixel> pixels_;
};

/// Calls begin(plane) for the planes of every bin of an image, then body(plane, row, pixels) for them and for
/// bunches of boxes; element k * row + plane % row of y is that of box k. A bin is one thread's.
template <class T, class Begin, class Body>
void for_planes(const RoiParams& p, const std::vector<Roi<T>>& found, Begin&& begin_plane, Body&& body) {
  const RoiGeometry& g = p.geometry;
  const auto taps = taps_of(g, found);
  const auto lists = by_image(g, found);
  const int64_t bins = g.bins(), row = g.channels * bins;
  cpu::parallel_for(g.images * bins, 1, [&](int64_t begin, int64_t end) {
    Pixels<T> pixels;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / bins, b = task % bins, plane = image * row + b;
      const auto last = static_cast<int>(b % g.pooled[2]), rest = static_cast<int>(b / g.pooled[2]);
      const int bin[3] = {rest / g.pooled[1], rest % g.pooled[1], last};
      for (int64_t c = 0; c < g.channels; ++c) begin_plane(plane + c * bins);
      const auto flush = [&] {
        for (int64_t c = 0; c < g.channels; ++c) body(plane + c * bins, b + c * bins, pixels);
        pixels.clear();
      };
      for (const int64_t k : lists[index_of(image)]) {
        pixels.add(g, taps[index_of(k)], bin, k);
        if (pixels.is_full()) flush();
      }
      flush();
    }
  });
}

template <class T>
void means(const RoiParams& p, const std::vector<Roi<T>>& found, const void* x, void* y) {
  const int64_t positions = p.geometry.positions(), row = p.geometry.channels * p.geometry.bins();
  dispatch_floating(p.dtype, p.op, [&]<class S>() {
    if constexpr (std::is_same_v<compute_t<S>, T>) {
      const auto none = [](int64_t) {};
      for_planes(p, found, none, [&](int64_t plane, int64_t column, const Pixels<T>& pixels) {
        const S* from = static_cast<const S*>(x) + plane * positions;
        S* to = static_cast<S*>(y) + column;
        pixels.for_boxes([&](int64_t k, auto bin) {
          T sum = 0;
          for (const auto& pixel : bin) sum += pixel.weight * static_cast<T>(from[pixel.at]);
          to[k * row] = static_cast<S>(sum);
        });
      });
    }
  });
}

template <class T>
void spread(const RoiParams& p, const std::vector<Roi<T>>& found, const void* grad_y, T* grad_x) {
  const int64_t positions = p.geometry.positions(), row = p.geometry.channels * p.geometry.bins();
  dispatch_floating(p.dtype, p.op, [&]<class S>() {
    if constexpr (std::is_same_v<compute_t<S>, T>) {
      const auto clear = [&](int64_t plane) { std::fill_n(grad_x + plane * positions, positions, T(0)); };
      for_planes(p, found, clear, [&](int64_t plane, int64_t column, const Pixels<T>& pixels) {
        const S* from = static_cast<const S*>(grad_y) + column;
        T* to = grad_x + plane * positions;
        pixels.for_boxes([&](int64_t k, auto bin) {
          const T value = static_cast<T>(from[k * row]);
          for (const auto& pixel : bin) to[pixel.at] += pixel.weight * value;
        });
      });
    }
  });
}

}  // namespace

void planar_means(const RoiParams& p, const std::vector<Roi<float>>& regions, const void* x, void* y) {
  means(p, regions, x, y);
}
void planar_means(const RoiParams& p, const std::vector<Roi<double>>& regions, const void* x, void* y) {
  means(p, regions, x, y);
}
void planar_spread(const RoiParams& p, const std::vector<Roi<float>>& regions, const void* grad_y,
                   float* grad_x) {
  spread(p, regions, grad_y, grad_x);
}
void planar_spread(const RoiParams& p, const std::vector<Roi<double>>& regions, const void* grad_y,
                   double* grad_x) {
  spread(p, regions, grad_y, grad_x);
}

}  // namespace opsin
