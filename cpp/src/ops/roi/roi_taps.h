// Regions of a call, and what pixels along each axis give to the means of their bins.
#pragma once

#include "roi_kernels.h"

#include <span>
#include <vector>

#include <opsin/error.h>

#include "cpu/thread_pool.h"

namespace opsin {

template <class T>
constexpr size_t index_of(T i) {
  return static_cast<size_t>(i);
}

template <class T>
std::vector<Roi<T>> regions(const RoiParams& p, const void* boxes) {
  const RoiGeometry& g = p.geometry;
  std::vector<Roi<T>> found(index_of(g.rois));
  for (int64_t k = 0; k < g.rois; ++k) {
    found[index_of(k)] = roi::at(g, static_cast<const T*>(boxes), k);
    const int64_t image = found[index_of(k)].image;
    OPSIN_CHECK(IndexError, image >= 0 && image < g.images, p.op, ": index ", image,
                " is out of bounds for dimension 0 with size ", g.images, " (the first column of box ", k,
                " says which image it is of)");
  }
  return found;
}

/// The boxes of each image, in order.
template <class T>
std::vector<std::vector<int64_t>> by_image(const RoiGeometry& g, const std::vector<Roi<T>>& found) {
  std::vector<std::vector<int64_t>> lists(index_of(g.images));
  for (int64_t k = 0; k < g.rois; ++k) lists[index_of(found[index_of(k)].image)].push_back(k);
  return lists;
}

/// What a pixel along one axis gives to the mean of a bin, and how that follows the start of the region and
/// its extent.
template <class T>
struct Tap {
  int pixel;
  T weight, by_start, by_extent;
};

/// The taps of all bins of a region.
template <class T>
class Taps {
 public:
  Taps() = default;
  Taps(const RoiGeometry& g, const Roi<T>& region) {
    for (int a = 0; a < 3; ++a) {
      std::vector<Tap<T>>& taps = taps_[a];
      first_[a].push_back(0);
      for (int b = 0; b < g.pooled[a]; ++b) {
        const roi::Span span = roi::samples(g, region, a, b);
        const T share = T(1) / static_cast<T>(roi::samples_in_all(g, region, a, span));
        const size_t begin = taps.size();
        for (int i = span.first; i < span.end; ++i) {
          const roi::Sample<T> s = roi::sample(g, region, a, b, i);
          if (!s.inside) continue;
          const T slope = s.moves ? share : T(0);
          add(taps, begin, {s.low, share * (T(1) - s.fraction), -slope, -slope * s.place});
          if (s.high != s.low) add(taps, begin, {s.high, share * s.fraction, slope, slope * s.place});
        }
        first_[a].push_back(taps.size());
      }
    }
  }

  /// All of axis `a`.
  std::span<const Tap<T>> of(int a) const { return taps_[a]; }
  /// Those of bin `b` along axis `a`.
  std::span<const Tap<T>> of(int a, int b) const {
    const size_t begin = first_[a][index_of(b)];
    return {taps_[a].data() + begin, first_[a][index_of(b) + 1] - begin};
  }

 private:
  static void add(std::vector<Tap<T>>& taps, size_t begin, const Tap<T>& tap) {
    // Samples follow each other, so a pixel that was met is one of the last two.
    for (size_t back = 1; back <= 2 && taps.size() >= begin + back; ++back) {
      Tap<T>& other = taps[taps.size() - back];
      if (other.pixel != tap.pixel) continue;
      other.weight += tap.weight;
      other.by_start += tap.by_start;
      other.by_extent += tap.by_extent;
      return;
    }
    taps.push_back(tap);
  }

  std::vector<Tap<T>> taps_[3];
  std::vector<size_t> first_[3];
};

template <class T>
std::vector<Taps<T>> taps_of(const RoiGeometry& g, const std::vector<Roi<T>>& found) {
  std::vector<Taps<T>> taps(index_of(g.rois));
  cpu::parallel_for(g.rois, 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) taps[index_of(k)] = Taps<T>(g, found[index_of(k)]);
  });
  return taps;
}

}  // namespace opsin
