// Multi-scale deformable attention on a GPU. For the gradient of the values the corners of all points of an
// image are sorted by the pixel and head they read, which then sums its own in their order.
#include "ms_deform_attn_kernels.h"

#include <bit>

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/device_error.h"
#include "cuda/scratch.h"
#include "cuda/sort.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256, kRows = kThreads / kWarpThreads;

/// Values as they lie in memory.
template <class T>
struct Stored {
  char* data;
  DType dtype;
  int64_t size;

  __device__ T get(int64_t i) const { return load<T>(data + i * size, dtype); }
  __device__ void set(int64_t i, T value) const { store(value, data + i * size, dtype); }
};
template <class T>
Stored<T> stored(const MsDeformAttnParams& p, const void* data) {
  return {static_cast<char*>(const_cast<void*>(data)), p.dtype, static_cast<int64_t>(item_size(p.dtype))};
}

__global__ void check_levels(MsDeformAttnParams p, HostText op, HostText rule, DeviceError* error) {
  OPSIN_NO_UNROLL
  for (int64_t level = thread_rank(); level < p.levels; level += thread_count()) {
    if (is_level(p, level)) continue;
    report_value(error, op, rule, static_cast<double>(level));
  }
}

/// Calls body(sample, cell) for the points of a row (image, query, head).
template <class T, class F>
__device__ void for_points(const MsDeformAttnParams& p, int64_t row, F body) {
  int64_t sample = 0;
  for (int64_t level = 0; level < p.levels; ++level) {
    for (int64_t point = 0; point < p.points; ++point, ++sample) {
      body(sample, AttentionCell<T>(p, row, level, sample));
    }
  }
}
/// Calls body(corner, first element of its row of value) for the corners that exist.
template <class T, class F>
__device__ void for_corners(const MsDeformAttnParams& p, int64_t row, const AttentionCell<T>& cell, F body) {
  if (!cell.inside) return;
  const int64_t query = row / p.heads, head = row - query * p.heads, image = query / p.queries;
  OPSIN_NO_UNROLL
  for (int corner = 0; corner < 1 << p.axes; ++corner) {
    const int pixel = cell.pixel(corner);
    if (pixel >= 0) body(corner, ((image * p.length + pixel) * p.heads + head) * p.channels);
  }
}

/// A warp for each image, query and head.
template <class T>
__global__ void __launch_bounds__(kThreads)
    attend(const __grid_constant__ MsDeformAttnParams p, Stored<T> value, Stored<T> y) {
  const int64_t rows = p.images * p.queries * p.heads, samples = p.samples();
  for (int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.y; row < rows;
       row += int64_t{gridDim.x} * kRows) {
    const T* const weights = static_cast<const T*>(p.weights) + row * samples;
    for (int64_t c = threadIdx.x; c < p.channels; c += kWarpThreads) {
      T sum = T(0);
      for_points<T>(p, row, [&](int64_t sample, const AttentionCell<T>& cell) {
        T between = T(0);
        for_corners(p, row, cell, [&](int corner, int64_t first) {
          between += cell.weight(corner) * value.get(first + c);
        });
        sum += weights[sample] * between;
      });
      y.set(row * p.channels + c, sum);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    move_points(const __grid_constant__ MsDeformAttnParams p, Stored<T> value, Stored<T> g, T* grad_locations,
                T* grad_weights) {
  const int64_t rows = p.images * p.queries * p.heads, samples = p.samples();
  for (int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.y; row < rows;
       row += int64_t{gridDim.x} * kRows) {
    for_points<T>(p, row, [&](int64_t sample, const AttentionCell<T>& cell) {
      T of_weight = T(0), slopes[3] = {};
      for_corners(p, row, cell, [&](int corner, int64_t first) {
        T product = T(0);
        OPSIN_NO_UNROLL
        for (int64_t c = threadIdx.x; c < p.channels; c += kWarpThreads) {
          product += g.get(row * p.channels + c) * value.get(first + c);
        }
        of_weight += product * cell.weight(corner);
        OPSIN_UNROLL
        for (int a = 0; a < 3; ++a) {
          slopes[a] += (corner >> (2 - a) & 1 ? product : -product) * cell.weight(corner, a);
        }
      });
      of_weight = warp_reduce<Sum>(of_weight);
      OPSIN_UNROLL
      for (T& slope : slopes) slope = warp_reduce<Sum>(slope);
      if (threadIdx.x != 0) return;
      const int64_t i = row * samples + sample;
      grad_weights[i] = of_weight;
      const T attention = static_cast<const T*>(p.weights)[i];
      OPSIN_UNROLL
      for (int a = 0; a < 3; ++a) {
        if (a < 3 - p.axes) continue;
        grad_locations[i * p.axes + 2 - a] = slopes[a] * attention * static_cast<T>(cell.size[a]);
      }
    });
  }
}

/// keys[((query * heads + head) * samples + sample) * corners + corner] = pixel * heads + head of one image,
/// or past all of them.
template <class T>
__global__ void __launch_bounds__(kThreads)
    list_corners(const __grid_constant__ MsDeformAttnParams p, int64_t image, uint32_t* keys) {
  const auto samples = static_cast<uint32_t>(p.samples()), heads = static_cast<uint32_t>(p.heads);
  const int64_t n = p.queries * p.heads * p.samples();
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const uint32_t row = static_cast<uint32_t>(i) / samples,
                   sample = static_cast<uint32_t>(i) - row * samples;
    const AttentionCell<T> cell(p, image * p.queries * p.heads + row,
                                sample / static_cast<uint32_t>(p.points), sample);
    OPSIN_NO_UNROLL
    for (int corner = 0; corner < 1 << p.axes; ++corner) {
      const int pixel = cell.inside ? cell.pixel(corner) : -1;
      keys[(i << p.axes) + corner] = pixel < 0 ? static_cast<uint32_t>(p.length * p.heads)
                                               : static_cast<uint32_t>(pixel) * heads + row % heads;
    }
  }
}

/// The first of the sorted keys that is not below `key`.
__device__ int64_t first_of(const uint32_t* keys, int64_t n, uint32_t key) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// A warp for each pixel and head of one image.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_corners(const __grid_constant__ MsDeformAttnParams p, int64_t image, Stored<T> g,
                const uint32_t* keys, const uint32_t* positions, T* grad_value) {
  const int64_t targets = p.length * p.heads, n = p.queries * p.heads * p.samples() << p.axes;
  const auto samples = static_cast<uint32_t>(p.samples());
  for (int64_t target = int64_t{blockIdx.x} * kRows + threadIdx.y; target < targets;
       target += int64_t{gridDim.x} * kRows) {
    const auto key = static_cast<uint32_t>(target);
    const int64_t begin = first_of(keys, n, key);
    for (int64_t c = threadIdx.x; c < p.channels; c += kWarpThreads) {
      T sum = T(0);
      OPSIN_NO_UNROLL
      for (int64_t i = begin; i < n && keys[i] == key; ++i) {
        const uint32_t point = positions[i] >> p.axes, row = point / samples, sample = point - row * samples;
        const int64_t full = image * p.queries * p.heads + row;
        const AttentionCell<T> cell(p, full, sample / static_cast<uint32_t>(p.points), sample);
        const T weight = static_cast<const T*>(p.weights)[full * samples + sample];
        sum += weight * cell.weight(static_cast<int>(positions[i]) & ((1 << p.axes) - 1)) *
               g.get(full * p.channels + c);
      }
      grad_value[(image * targets + target) * p.channels + c] = sum;
    }
  }
}

template <class T>
void forward(const MsDeformAttnParams& p, const void* value, void* y) {
  OPSIN_LAUNCH(check_levels, grid_for(p.levels, kWarpThreads), kWarpThreads, 0, p, "ms_deform_attn",
               "expected levels within value; the level that is not", device_error());
  OPSIN_LAUNCH(attend<T>, grid_for(p.images * p.queries * p.heads, kRows), dim3(kWarpThreads, kRows), 0, p,
               stored<T>(p, value), stored<T>(p, y));
}

template <class T>
void backward_value(const MsDeformAttnParams& p, const void* g, void* grad_value) {
  const int64_t points = p.queries * p.heads * p.samples(), n = points << p.axes,
                targets = p.length * p.heads;
  OPSIN_CHECK(
      ShapeError, n <= UINT32_MAX && targets < UINT32_MAX,
      "ms_deform_attn: expected at most 2^32 corners of points and rows of value per image on a GPU, got ", n,
      " and ", targets);
  const Scratch<uint32_t> keys(n);
  for (int64_t image = 0; image < p.images; ++image) {
    OPSIN_LAUNCH(list_corners<T>, grid_for(points, kThreads), kThreads, 0, p, image, keys.data());
    const auto sorted = sort_rows(keys.data(), 1, n, std::bit_width(static_cast<uint32_t>(targets)));
    OPSIN_LAUNCH(sum_corners<T>, grid_for(targets, kRows), dim3(kWarpThreads, kRows), 0, p, image,
                 stored<T>(p, g), sorted.keys, sorted.positions, static_cast<T*>(grad_value));
  }
}

template <class T>
void backward_points(const MsDeformAttnParams& p, const void* value, const void* g, void* grad_locations,
                     void* grad_weights) {
  OPSIN_LAUNCH(move_points<T>, grid_for(p.images * p.queries * p.heads, kRows), dim3(kWarpThreads, kRows), 0,
               p, stored<T>(p, value), stored<T>(p, g), static_cast<T*>(grad_locations),
               static_cast<T*>(grad_weights));
}

}  // namespace

void register_ms_deform_attn_cuda();

void register_ms_deform_attn_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    ms_deform_attn_forward.set(DeviceType::kCUDA, dtype, wide ? forward<double> : forward<float>);
    ms_deform_attn_backward_value.set(DeviceType::kCUDA, dtype,
                                      wide ? backward_value<double> : backward_value<float>);
    ms_deform_attn_backward_points.set(DeviceType::kCUDA, dtype,
                                       wide ? backward_points<double> : backward_points<float>);
  }
}

}  // namespace opsin
