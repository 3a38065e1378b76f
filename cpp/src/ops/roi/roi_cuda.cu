// RoI pooling on a GPU. A row of threads takes the channels of a bin, or of a pixel for the gradient of the
// features: that is gathered from the boxes around the pixel, in their order, so nothing is added by two
// threads.
#include "roi_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/device_error.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// Reads the boxes. Those of no image have no samples.
template <class T>
__global__ void __launch_bounds__(kThreads) read_boxes(const __grid_constant__ RoiGeometry g, const T* boxes,
                                                       Roi<T>* regions, HostText op, DeviceError* error) {
  OPSIN_NO_UNROLL
  for (int64_t k = thread_rank(); k < g.rois; k += thread_count()) {
    Roi<T> region = roi::at(g, boxes, k);
    if (region.image < 0 || region.image >= g.images) {
      report_index(error, op, region.image, 0, g.images);
      region.image = 0;
      region.finite = false;
    }
    regions[k] = region;
  }
}

/// Values of x, y and g as they lie in memory.
template <class T>
struct Stored {
  char* data;
  DType dtype;
  int64_t size;

  __device__ T get(int64_t i) const { return load<T>(data + i * size, dtype); }
  __device__ void set(int64_t i, T value) const { store(value, data + i * size, dtype); }
};

struct Bin {
  int at[3];
};
__device__ Bin bin_of(const RoiGeometry& g, int64_t number) {
  const auto n = static_cast<int>(number);
  return {{n / g.pooled[2] / g.pooled[1], n / g.pooled[2] % g.pooled[1], n % g.pooled[2]}};
}
template <class T>
__device__ int64_t plane_of(const RoiGeometry& g, const Roi<T>& region, int64_t bin) {
  return (g.by_bin ? region.image * g.bins() + bin : region.image) * g.positions();
}

// These are called, not inlined, for the sake of the code's size.
template <class T>
__device__ OPSIN_NOINLINE roi::Span samples_of(const RoiGeometry& g, const Roi<T>& region, int a, int b) {
  return roi::samples(g, region, a, b);
}
template <class T>
__device__ OPSIN_NOINLINE roi::Sample<T> sample_of(const RoiGeometry& g, const Roi<T>& region, int a, int b,
                                                   int i) {
  return roi::sample(g, region, a, b, i);
}

/// The samples of a bin.
template <class T>
struct Grid {
  roi::Span span[3];
  T in_all;       ///< How many, those outside included.
  bool complete;  ///< None was left out.

  __device__ Grid(const RoiGeometry& g, const Roi<T>& region, const Bin& bin) : in_all(T(1)), complete(true) {
    for (int a = 0; a < 3; ++a) {
      span[a] = samples_of(g, region, a, bin.at[a]);
      const int n = roi::samples_in_all(g, region, a, span[a]);
      in_all *= static_cast<T>(n);
      complete = complete && n == span[a].count();
    }
  }
  __device__ bool empty() const {
    return span[0].count() == 0 || span[1].count() == 0 || span[2].count() == 0;
  }
  /// Sample `number`, which is left alone.
  __device__ void pick(int number) {
    OPSIN_UNROLL
    for (int a = 2; a >= 0; --a) {
      const int n = span[a].count(), i = span[a].first + number % n;
      number /= n;
      span[a] = {i, i + 1};
    }
  }

  /// Calls body(sample of each axis) for all that are inside, and outside() for the others.
  template <class F, class G>
  __device__ void for_samples(const RoiGeometry& g, const Roi<T>& region, const Bin& bin, F body,
                              G outside) const {
    roi::Sample<T> s[3];
    OPSIN_NO_UNROLL
    for (int i = span[0].first; i < span[0].end; ++i) {
      s[0] = sample_of(g, region, 0, bin.at[0], i);
      OPSIN_NO_UNROLL
      for (int j = span[1].first; j < span[1].end; ++j) {
        s[1] = sample_of(g, region, 1, bin.at[1], j);
        OPSIN_NO_UNROLL
        for (int k = span[2].first; k < span[2].end; ++k) {
          s[2] = sample_of(g, region, 2, bin.at[2], k);
          if (s[0].inside && s[1].inside && s[2].inside) {
            body(s);
          } else {
            outside();
          }
        }
      }
    }
  }
};

template <class T>
__device__ T share(const roi::Sample<T>& s, int side) {
  return side ? s.fraction : T(1) - s.fraction;
}
template <class T>
__device__ int pixel(const roi::Sample<T>& s, int side) {
  return side ? s.high : s.low;
}
/// Calls body(pixel, sides) for the corners of a sample.
template <class T, class F>
__device__ void for_corners(const RoiGeometry& g, const roi::Sample<T> (&s)[3], F body) {
  int side[3];
  OPSIN_NO_UNROLL
  for (side[0] = 0; side[0] <= (s[0].high != s[0].low); ++side[0]) {
    OPSIN_NO_UNROLL
    for (side[1] = 0; side[1] <= (s[1].high != s[1].low); ++side[1]) {
      OPSIN_NO_UNROLL
      for (side[2] = 0; side[2] <= (s[2].high != s[2].low); ++side[2]) {
        body((int64_t{pixel(s[0], side[0])} * g.size[1] + pixel(s[1], side[1])) * g.size[2] +
                 pixel(s[2], side[2]),
             side);
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_bins(const __grid_constant__ RoiGeometry g, const Roi<T>* regions, Stored<T> x, Stored<T> y,
              int32_t* taken) {
  const int64_t rows = g.rois * g.bins();
  OPSIN_NO_UNROLL
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < rows;
       row += int64_t{gridDim.x} * blockDim.y) {
    const int64_t k = row / g.bins(), number = row - k * g.bins();
    const Roi<T>& region = regions[k];
    const Bin bin = bin_of(g, number);
    const Grid<T> grid(g, region, bin);
    const bool bounded = grid.complete && !grid.empty();
    const int64_t plane = plane_of(g, region, number);
    OPSIN_NO_UNROLL
    for (int64_t c = threadIdx.x; c < g.channels; c += blockDim.x) {
      T result = g.maximum && bounded ? -std::numeric_limits<T>::infinity() : T(0);
      int32_t which = -1, i = 0;
      const auto merge = [&](T value) {
        if (!g.maximum) {
          result += value;
        } else if (value > result || value != value) {
          result = value;
          which = i;
        }
        ++i;
      };
      grid.for_samples(
          g, region, bin,
          [&](const roi::Sample<T>(&s)[3]) {
            T value = T(0);
            for_corners(g, s, [&](int64_t at, const int(&side)[3]) {
              value += share(s[0], side[0]) * share(s[1], side[1]) * share(s[2], side[2]) *
                       x.get((plane + at) * g.channels + c);
            });
            merge(value);
          },
          [&]() { merge(T(0)); });
      if (!g.maximum && i > 0) result /= grid.in_all;
      y.set(row * g.channels + c, result);
      if (g.maximum) taken[row * g.channels + c] = which;
    }
  }
}

/// The share that sample `i` of bin `b` gives to pixel `at` along axis `a`.
template <class T>
__device__ OPSIN_NOINLINE T share_of(const RoiGeometry& g, const Roi<T>& region, int a, int b, int i,
                                     int at) {
  const roi::Sample<T> s = roi::sample(g, region, a, b, i);
  if (!s.inside) return T(0);
  return (s.low == at ? T(1) - s.fraction : T(0)) + (s.high == at && s.high != s.low ? s.fraction : T(0));
}
/// The share that the mean of bin `b` gives to it.
template <class T>
__device__ OPSIN_NOINLINE T mean_share_of(const RoiGeometry& g, const Roi<T>& region, int a, int b, int at) {
  const roi::Span all = roi::samples(g, region, a, b);
  roi::Span near{at, at + 1};
  if (!g.pixels) {
    const T step = region.bin[a] / static_cast<T>(region.grid[a]), place = static_cast<T>(at);
    near = roi::numbers_within(region.start[a] + static_cast<T>(b) * region.bin[a] + step / T(2), step,
                               place - T(1), place + T(1), region.grid[a]);
  }
  T sum = T(0);
  const int end = near.end < all.end ? near.end : all.end;
  OPSIN_NO_UNROLL
  for (int i = near.first > all.first ? near.first : all.first; i < end; ++i) {
    sum += share_of(g, region, a, b, i, at);
  }
  return sum == T(0) ? sum : sum / static_cast<T>(roi::samples_in_all(g, region, a, all));
}
/// The numbers of the bins whose samples may reach pixel `at` along axis `a`.
template <class T>
__device__ OPSIN_NOINLINE roi::Span bins_near(const RoiGeometry& g, const Roi<T>& region, int a, int at) {
  const T length = std::fabs(region.bin[a]), place = static_cast<T>(at);
  if (g.pixels) return {0, g.pooled[a]};
  return roi::numbers_within(region.start[a], region.bin[a], place - T(1) - length, place + T(1) + length,
                             g.pooled[a]);
}

/// Whether samples of the region may reach a pixel of its image.
template <class T>
__device__ bool is_near(const RoiGeometry& g, const Roi<T>& region, const int (&at)[3]) {
  if (!region.finite) return false;
  for (int a = 0; a < 3; ++a) {
    const T place = static_cast<T>(at[a]);
    T low = region.start[a], high = low + region.bin[a] * static_cast<T>(g.pooled[a]);
    if (g.pixels) {
      low = static_cast<T>(region.begin[a]);
      high = low + static_cast<T>(region.extent[a]);
    }
    if (place < (low < high ? low : high) - T(1.5) || place > (low < high ? high : low) + T(1.5))
      return false;
  }
  return true;
}

/// What the gradients of one region give to a pixel in channel c.
template <class T>
__device__ T gathered(const RoiGeometry& g, const Roi<T>& region, int64_t k, const Bin* only,
                      const int (&at)[3], const Stored<T>& grad_y, const int32_t* taken, int64_t c) {
  roi::Span bins[3];
  for (int a = 0; a < 3; ++a) {
    bins[a] = only ? roi::Span{only->at[a], only->at[a] + 1} : bins_near(g, region, a, at[a]);
  }
  // The share of a maximum follows from which sample it was, so it is left to the innermost loop.
  const auto share = [&](int a, int b) { return g.maximum ? T(1) : mean_share_of(g, region, a, b, at[a]); };
  T sum = T(0);
  Bin bin;
  OPSIN_NO_UNROLL
  for (bin.at[0] = bins[0].first; bin.at[0] < bins[0].end; ++bin.at[0]) {
    const T first = share(0, bin.at[0]);
    if (first == T(0)) continue;
    OPSIN_NO_UNROLL
    for (bin.at[1] = bins[1].first; bin.at[1] < bins[1].end; ++bin.at[1]) {
      const T second = first * share(1, bin.at[1]);
      if (second == T(0)) continue;
      OPSIN_NO_UNROLL
      for (bin.at[2] = bins[2].first; bin.at[2] < bins[2].end; ++bin.at[2]) {
        T weight = second * share(2, bin.at[2]);
        const int64_t number = (int64_t{bin.at[0]} * g.pooled[1] + bin.at[1]) * g.pooled[2] + bin.at[2];
        const int64_t element = (k * g.bins() + number) * g.channels + c;
        if (g.maximum) {
          int which = taken[element];
          if (which < 0) continue;
          for (int a = 2; a >= 0; --a) {
            const roi::Span span = samples_of(g, region, a, bin.at[a]);
            weight *= share_of(g, region, a, bin.at[a], span.first + which % span.count(), at[a]);
            which /= span.count();
          }
        }
        if (weight != T(0)) sum += weight * grad_y.get(element);
      }
    }
  }
  return sum;
}

/// A block for each pixel of a plane and its threads' number of channels, which looks through as many regions
/// at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_gradient(const __grid_constant__ RoiGeometry g, const Roi<T>* regions, Stored<T> grad_y,
                    const int32_t* taken, T* grad_x) {
  OPSIN_SHARED(unsigned, hits);
  const int64_t parts = (g.channels + blockDim.x - 1) / blockDim.x;
  const int64_t pixels = g.planes() * g.positions(), work = pixels * parts;
  OPSIN_NO_UNROLL
  for (int64_t task = blockIdx.x; task < work; task += gridDim.x) {
    const int64_t pixel = task / parts, c = (task - pixel * parts) * blockDim.x + threadIdx.x;
    const int64_t plane = pixel / g.positions();
    const int64_t image = g.by_bin ? plane / g.bins() : plane;
    const Bin bin = bin_of(g, g.by_bin ? plane - image * g.bins() : 0);
    const auto place = static_cast<int>(pixel - plane * g.positions());
    const int at[3] = {place / g.size[2] / g.size[1], place / g.size[2] % g.size[1], place % g.size[2]};
    T sum = T(0);
    OPSIN_NO_UNROLL
    for (int64_t first = 0; first < g.rois; first += blockDim.x) {
      const int64_t mine = first + threadIdx.x;
      const bool hit = mine < g.rois && regions[mine].image == image && is_near(g, regions[mine], at);
      const unsigned ballot = __ballot_sync(kAllLanes, hit);
      if (threadIdx.x % kWarpThreads == 0) hits[threadIdx.x / kWarpThreads] = ballot;
      __syncthreads();
      OPSIN_NO_UNROLL
      for (unsigned i = 0; i < blockDim.x && c < g.channels; ++i) {
        const unsigned found = hits[i / kWarpThreads] >> i % kWarpThreads;
        if (found == 0) {
          i |= kWarpThreads - 1;
        } else if ((found & 1) != 0) {
          sum += gathered(g, regions[first + i], first + i, g.by_bin ? &bin : nullptr, at, grad_y, taken, c);
        }
      }
      __syncthreads();
    }
    if (c < g.channels) grad_x[pixel * g.channels + c] = sum;
  }
}

/// A block for each region.
template <class T>
__global__ void __launch_bounds__(kThreads)
    move_boxes(const __grid_constant__ RoiGeometry g, const Roi<T>* regions, Stored<T> x, Stored<T> grad_y,
               const int32_t* taken, T* grad_boxes) {
  OPSIN_SHARED(T, shared);
  for (int64_t k = blockIdx.x; k < g.rois; k += gridDim.x) {
    const Roi<T>& region = regions[k];
    T of_start[3] = {}, of_extent[3] = {};
    const int64_t elements = g.bins() * g.channels;
    OPSIN_NO_UNROLL
    for (int64_t e = threadIdx.x; e < elements; e += kThreads) {
      const int64_t number = e / g.channels, c = e - number * g.channels;
      const int which = g.maximum ? taken[k * elements + e] : 0;
      if (which < 0) continue;
      const Bin bin = bin_of(g, number);
      Grid<T> grid(g, region, bin);
      if (g.maximum) grid.pick(which);
      const int64_t plane = plane_of(g, region, number);
      const T gradient = grad_y.get(k * elements + e) / (g.maximum ? T(1) : grid.in_all);
      grid.for_samples(
          g, region, bin,
          [&](const roi::Sample<T>(&s)[3]) {
            for_corners(g, s, [&](int64_t at, const int(&side)[3]) {
              const T value = gradient * x.get((plane + at) * g.channels + c);
              OPSIN_UNROLL
              for (int a = 0; a < 3; ++a) {
                const T others =
                    share(s[(a + 1) % 3], side[(a + 1) % 3]) * share(s[(a + 2) % 3], side[(a + 2) % 3]);
                const T slope = s[a].moves ? (side[a] ? value : -value) * others : T(0);
                of_start[a] += slope;
                of_extent[a] += slope * s[a].place;
              }
            });
          },
          []() {});
    }
    for (int a = 3 - g.axes; a < 3; ++a) {
      const auto sum =
          block_reduce<Sum>(Pair<T>{of_start[a], of_extent[a]}, reinterpret_cast<Pair<T>*>(shared));
      if (threadIdx.x == 0) {
        roi::add_box_gradient(g, region, a, sum.first, sum.second, grad_boxes + k * g.columns());
      }
    }
  }
}

template <class T>
Scratch<Roi<T>> regions_of(const RoiParams& p, const void* boxes) {
  const Scratch<Roi<T>> regions(p.geometry.rois);
  OPSIN_LAUNCH(read_boxes<T>, grid_for(p.geometry.rois, kThreads), kThreads, 0, p.geometry,
               static_cast<const T*>(boxes), regions.data(), p.op, device_error());
  return regions;
}
template <class T>
Stored<T> stored(const RoiParams& p, const void* data) {
  return {static_cast<char*>(const_cast<void*>(data)), p.dtype, static_cast<int64_t>(item_size(p.dtype))};
}
/// Threads along the channels: a power of two from a warp to a block.
unsigned threads_for(int64_t channels) {
  unsigned threads = kWarpThreads;
  while (threads < kThreads && threads < channels) threads *= 2;
  return threads;
}

template <class T>
void forward(const RoiParams& p, const void* x, const void* boxes, void* y, int32_t* taken) {
  const auto regions = regions_of<T>(p, boxes);
  const unsigned across = threads_for(p.geometry.channels);
  OPSIN_LAUNCH(pool_bins<T>, grid_for(p.geometry.rois * p.geometry.bins(), kThreads / across),
               dim3(across, kThreads / across), 0, p.geometry, regions.data(), stored<T>(p, x),
               stored<T>(p, y), taken);
}

template <class T>
void backward_input(const RoiParams& p, const void* boxes, const void* grad_y, const int32_t* taken,
                    void* grad_x) {
  const RoiGeometry& g = p.geometry;
  const auto regions = regions_of<T>(p, boxes);
  const unsigned threads = threads_for(g.channels);
  const int64_t blocks = g.planes() * g.positions() * ((g.channels + threads - 1) / threads);
  OPSIN_LAUNCH(gather_gradient<T>, grid_for(blocks, 1, 1u << 20), threads, kBlockWarps * sizeof(unsigned), g,
               regions.data(), stored<T>(p, grad_y), taken, static_cast<T*>(grad_x));
}

template <class T>
void backward_boxes(const RoiParams& p, const void* x, const void* boxes, const void* grad_y,
                    const int32_t* taken, void* grad_boxes) {
  const auto regions = regions_of<T>(p, boxes);
  OPSIN_LAUNCH(move_boxes<T>, grid_for(p.geometry.rois, 1), kThreads, kBlockWarps * sizeof(Pair<T>),
               p.geometry, regions.data(), stored<T>(p, x), stored<T>(p, grad_y), taken,
               static_cast<T*>(grad_boxes));
}

}  // namespace

void register_roi_cuda();

void register_roi_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    roi_forward.set(DeviceType::kCUDA, dtype, wide ? forward<double> : forward<float>);
    roi_backward_input.set(DeviceType::kCUDA, dtype, wide ? backward_input<double> : backward_input<float>);
    roi_backward_boxes.set(DeviceType::kCUDA, dtype, wide ? backward_boxes<double> : backward_boxes<float>);
  }
}

}  // namespace opsin
