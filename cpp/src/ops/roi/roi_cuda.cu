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
__global__ void __launch_bounds__(kThreads)
    read_boxes(RoiGeometry g, const T* boxes, Roi<T>* regions, const char* op, DeviceError* error) {
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

/// The samples of a bin.
template <class T>
struct Grid {
  roi::Span span[3];
  T in_all;
  bool complete;

  __device__ Grid(const RoiGeometry& g, const Roi<T>& region, const Bin& bin) : in_all(T(1)), complete(true) {
    for (int a = 0; a < 3; ++a) {
      span[a] = roi::samples(g, region, a, bin.at[a]);
      const int n = roi::samples_in_all(g, region, a, span[a]);
      in_all *= static_cast<T>(n);
      complete = complete && n == span[a].count();
    }
  }
  __device__ int size() const { return span[0].count() * span[1].count() * span[2].count(); }
};

/// A sample and the products of its weights.
template <class T>
struct Cell {
  roi::Sample<T> s[3];
  bool inside;

  __device__ Cell(const RoiGeometry& g, const Roi<T>& region, const Bin& bin, const Grid<T>& grid, int number)
      : inside(true) {
    for (int a = 2; a >= 0; --a) {
      const int n = grid.span[a].count();
      s[a] = roi::sample(g, region, a, bin.at[a], grid.span[a].first + number % n);
      number /= n;
      inside = inside && s[a].inside;
    }
  }

  /// Calls body(pixel, side) for its corners.
  template <class F>
  __device__ void corners(const RoiGeometry& g, F body) const {
    if (!inside) return;
    OPSIN_NO_UNROLL
    for (int corner = 0; corner < 8; ++corner) {
      int64_t pixel = 0;
      bool repeated = false;
      int side[3];
      OPSIN_UNROLL
      for (int a = 0; a < 3; ++a) {
        side[a] = corner >> (2 - a) & 1;
        repeated = repeated || (side[a] && s[a].high == s[a].low);
        pixel = pixel * g.size[a] + (side[a] ? s[a].high : s[a].low);
      }
      if (!repeated) body(pixel, side);
    }
  }
  __device__ T weight(const int (&side)[3], int without = -1) const {
    T product = T(1);
    OPSIN_UNROLL
    for (int a = 0; a < 3; ++a) {
      if (a != without) product *= side[a] ? s[a].fraction : T(1) - s[a].fraction;
    }
    return product;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_bins(RoiGeometry g, const Roi<T>* regions, Stored<T> x, Stored<T> y, int32_t* taken) {
  const int64_t rows = g.rois * g.bins();
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < rows;
       row += int64_t{gridDim.x} * blockDim.y) {
    const Roi<T> region = regions[row / g.bins()];
    const int64_t number = row % g.bins();
    const Bin bin = bin_of(g, number);
    const Grid<T> grid(g, region, bin);
    const int size = grid.size();
    const int64_t plane = plane_of(g, region, number);
    for (int64_t c = threadIdx.x; c < g.channels; c += blockDim.x) {
      T result = g.maximum && size > 0 && grid.complete ? -std::numeric_limits<T>::infinity() : T(0);
      int32_t which = -1;
      for (int i = 0; i < size; ++i) {
        const Cell<T> cell(g, region, bin, grid, i);
        T value = T(0);
        cell.corners(g, [&](int64_t pixel, const int(&side)[3]) {
          value += cell.weight(side) * x.get((plane + pixel) * g.channels + c);
        });
        if (!g.maximum) {
          result += value;
        } else if (value > result || value != value) {
          result = value;
          which = i;
        }
      }
      if (!g.maximum && size > 0) result /= grid.in_all;
      y.set(row * g.channels + c, result);
      if (g.maximum) taken[row * g.channels + c] = which;
    }
  }
}

/// The share that sample `i` of bin `b` gives to pixel `at` along axis `a`.
template <class T>
__device__ T share_of(const RoiGeometry& g, const Roi<T>& region, int a, int b, int i, int at) {
  const roi::Sample<T> s = roi::sample(g, region, a, b, i);
  if (!s.inside) return T(0);
  return (s.low == at ? T(1) - s.fraction : T(0)) + (s.high == at && s.high != s.low ? s.fraction : T(0));
}

/// The numbers of the bins whose samples may reach pixel `at` along axis `a`.
template <class T>
__device__ roi::Span bins_near(const RoiGeometry& g, const Roi<T>& region, int a, int at) {
  const T length = std::fabs(region.bin[a]), place = static_cast<T>(at);
  if (g.pixels) return {0, g.pooled[a]};
  return roi::numbers_within(region.start[a], region.bin[a], place - T(1) - length, place + T(1) + length,
                             g.pooled[a]);
}
template <class T>
__device__ roi::Span samples_near(const RoiGeometry& g, const Roi<T>& region, int a, int b, int at) {
  const roi::Span all = roi::samples(g, region, a, b);
  roi::Span near{at, at + 1};
  if (!g.pixels) {
    const T step = region.bin[a] / static_cast<T>(region.grid[a]), place = static_cast<T>(at);
    near = roi::numbers_within(region.start[a] + static_cast<T>(b) * region.bin[a] + step / T(2), step,
                               place - T(1), place + T(1), region.grid[a]);
  }
  const int first = near.first > all.first ? near.first : all.first;
  const int end = near.end < all.end ? near.end : all.end;
  return {first, end < first ? first : end};
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
__device__ T gathered(const RoiGeometry& g, const Roi<T>& region, int64_t k, int64_t only_bin,
                      const int (&at)[3], const Stored<T>& grad_y, const int32_t* taken, int64_t c) {
  T sum = T(0);
  roi::Span bins[3];
  const Bin only = bin_of(g, only_bin < 0 ? 0 : only_bin);
  for (int a = 0; a < 3; ++a) {
    bins[a] = only_bin < 0 ? bins_near(g, region, a, at[a]) : roi::Span{only.at[a], only.at[a] + 1};
  }
  Bin bin;
  for (bin.at[0] = bins[0].first; bin.at[0] < bins[0].end; ++bin.at[0]) {
    const roi::Span near0 = samples_near(g, region, 0, bin.at[0], at[0]);
    if (near0.count() == 0) continue;
    for (bin.at[1] = bins[1].first; bin.at[1] < bins[1].end; ++bin.at[1]) {
      const roi::Span near1 = samples_near(g, region, 1, bin.at[1], at[1]);
      if (near1.count() == 0) continue;
      for (bin.at[2] = bins[2].first; bin.at[2] < bins[2].end; ++bin.at[2]) {
        const roi::Span near2 = samples_near(g, region, 2, bin.at[2], at[2]);
        if (near2.count() == 0) continue;
        const Grid<T> grid(g, region, bin);
        const int64_t number = (int64_t{bin.at[0]} * g.pooled[1] + bin.at[1]) * g.pooled[2] + bin.at[2];
        const int64_t element = (k * g.bins() + number) * g.channels + c;
        const int32_t which = g.maximum ? taken[element] : 0;
        T weight = T(0);
        for (int i = near0.first; i < near0.end; ++i) {
          const T w0 = share_of(g, region, 0, bin.at[0], i, at[0]);
          for (int j = near1.first; j < near1.end && w0 != T(0); ++j) {
            const T w1 = w0 * share_of(g, region, 1, bin.at[1], j, at[1]);
            for (int l = near2.first; l < near2.end && w1 != T(0); ++l) {
              const int order = ((i - grid.span[0].first) * grid.span[1].count() + (j - grid.span[1].first)) *
                                    grid.span[2].count() +
                                (l - grid.span[2].first);
              if (!g.maximum || order == which) weight += w1 * share_of(g, region, 2, bin.at[2], l, at[2]);
            }
          }
        }
        if (weight != T(0)) sum += weight / (g.maximum ? T(1) : grid.in_all) * grad_y.get(element);
      }
    }
  }
  return sum;
}

/// A block for each pixel of a plane and 256 channels, which looks through the regions 256 at a time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_gradient(RoiGeometry g, const Roi<T>* regions, Stored<T> grad_y, const int32_t* taken, T* grad_x) {
  OPSIN_SHARED(unsigned, hits);
  const int64_t parts = (g.channels + blockDim.x - 1) / blockDim.x;
  const int64_t pixels = g.planes() * g.positions(), work = pixels * parts;
  for (int64_t task = blockIdx.x; task < work; task += gridDim.x) {
    const int64_t pixel = task / parts, c = (task - pixel * parts) * blockDim.x + threadIdx.x;
    const int64_t plane = pixel / g.positions();
    const int64_t image = g.by_bin ? plane / g.bins() : plane;
    const auto place = static_cast<int>(pixel - plane * g.positions());
    const int at[3] = {place / g.size[2] / g.size[1], place / g.size[2] % g.size[1], place % g.size[2]};
    T sum = T(0);
    for (int64_t first = 0; first < g.rois; first += blockDim.x) {
      const int64_t mine = first + threadIdx.x;
      const bool hit = mine < g.rois && regions[mine].image == image && is_near(g, regions[mine], at);
      const unsigned ballot = __ballot_sync(kAllLanes, hit);
      if (threadIdx.x % kWarpThreads == 0) hits[threadIdx.x / kWarpThreads] = ballot;
      __syncthreads();
      for (unsigned warp = 0; warp < blockDim.x / kWarpThreads; ++warp) {
        const unsigned found = hits[warp];
        for (unsigned lane = 0; found >> lane != 0; ++lane) {
          if ((found >> lane & 1) != 0 && c < g.channels) {
            const int64_t k = first + warp * kWarpThreads + lane;
            sum += gathered(g, regions[k], k, g.by_bin ? plane - image * g.bins() : -1, at, grad_y, taken, c);
          }
          if (lane == kWarpThreads - 1) break;
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
    move_boxes(RoiGeometry g, const Roi<T>* regions, Stored<T> x, Stored<T> grad_y, const int32_t* taken,
               T* grad_boxes) {
  OPSIN_SHARED(T, shared);
  for (int64_t k = blockIdx.x; k < g.rois; k += gridDim.x) {
    const Roi<T> region = regions[k];
    T of_start[3] = {}, of_extent[3] = {};
    const int64_t elements = g.bins() * g.channels;
    for (int64_t e = threadIdx.x; e < elements; e += kThreads) {
      const int64_t number = e / g.channels, c = e - number * g.channels, element = k * elements + e;
      const Bin bin = bin_of(g, number);
      const Grid<T> grid(g, region, bin);
      const int64_t plane = plane_of(g, region, number);
      int i = 0, end = grid.size();
      if (g.maximum) {
        i = taken[element];
        end = i + 1;
        if (i < 0) continue;
      }
      const T gradient = grad_y.get(element) / (g.maximum ? T(1) : grid.in_all);
      for (; i < end; ++i) {
        const Cell<T> cell(g, region, bin, grid, i);
        cell.corners(g, [&](int64_t pixel, const int(&side)[3]) {
          const T value = gradient * x.get((plane + pixel) * g.channels + c);
          OPSIN_UNROLL
          for (int a = 0; a < 3; ++a) {
            if (!cell.s[a].moves) continue;
            const T slope = (side[a] ? value : -value) * cell.weight(side, a);
            of_start[a] += slope;
            of_extent[a] += slope * cell.s[a].place;
          }
        });
      }
    }
    for (int a = 3 - g.axes; a < 3; ++a) {
      const Pair<T> sum =
          block_reduce<Sum>(Pair<T>{of_start[a], of_extent[a]}, reinterpret_cast<Pair<T>*>(shared));
      if (threadIdx.x == 0)
        roi::add_box_gradient(g, region, a, sum.first, sum.second, grad_boxes + k * g.columns());
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
