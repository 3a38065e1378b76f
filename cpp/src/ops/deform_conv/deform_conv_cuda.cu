// Deformable sampling on a GPU. Columns: a thread for some neighbouring channels of a point. Products: a warp
// for each point. What is spread is gathered by pixel, so that nothing is added by two threads: the points
// are sorted by the cell between pixels that they are in, and a thread for some channels of a pixel goes
// through the points of the cells around it, in their order.
#include "deform_conv_kernels.h"

#include <algorithm>
#include <bit>
#include <climits>

#include <opsin/error.h>

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/scratch.h"
#include "cuda/sort.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
/// Channels of a thread where all channels come in such packs.
constexpr int kWide = 4;

/// Some rows of a part, few enough for 32 bits to count their work, and divisors.
struct Rows {
  DeformPart p;
  int64_t begin, rows;  ///< Of the part.
  int64_t pixels, group_channels, shared_channels, item;
  int taps, corners;
  int64_t first_image, images;  ///< That the rows are of.
  int cells[3];                 ///< Along each axis: one more than pixels, but for trivial axes.
  Divider out[3], kernel[2], tap, in[3];
};

/// A point: the pixel before it along each axis, and its share of the way to the next.
template <class T>
struct Point {
  int64_t image;
  int low[3];
  T share[3];
  bool inside;
};

template <class T>
__device__ Point<T> find(const Rows& r, uint32_t row, uint32_t tap, int64_t number) {
  const DeformGeometry& g = r.p.geometry;
  Point<T> point;
  const auto third = r.out[2].divmod(row), second = r.out[1].divmod(third.quotient),
             first = r.out[0].divmod(second.quotient);
  const auto tap_third = r.kernel[1].divmod(tap), tap_second = r.kernel[0].divmod(tap_third.quotient);
  const int64_t at[3] = {first.remainder, second.remainder, third.remainder};
  const int64_t taps[3] = {tap_second.quotient, tap_second.remainder, tap_third.remainder};
  point.image = first.quotient;
  point.inside = true;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    int64_t low = at[axis] * g.stride[axis] - g.pad[axis] + taps[axis] * g.dilation[axis];
    point.share[axis] = 0;
    const int i = axis - (3 - g.spatial);
    if (i >= 0) {
      const T shift =
          load<T>(static_cast<const char*>(r.p.offset) + (number * g.spatial + i) * r.item, r.p.dtype);
      const T whole = std::floor(shift);
      point.share[axis] = shift - whole;
      // Far away and NaN are outside of any x.
      low += whole > T(-(1 << 30)) && whole < T(1 << 30) ? static_cast<int64_t>(whole) : int64_t{1} << 40;
    }
    point.inside &= low >= -1 && low < g.in[axis];
    point.low[axis] = static_cast<int>(low);
  }
  return point;
}

/// Of corner j: bit 2 - axis says on which side it is.
template <class T>
__device__ T share(const Point<T>& point, int axis, int j) {
  return j >> (2 - axis) & 1 ? point.share[axis] : 1 - point.share[axis];
}
/// Its pixel in the image, or -1.
template <class T>
__device__ int64_t pixel_of(const Rows& r, const Point<T>& point, int j) {
  const DeformGeometry& g = r.p.geometry;
  int64_t pixel = 0;
  bool inside = point.inside;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    const int i = point.low[axis] + (j >> (2 - axis) & 1);
    inside &= i >= 0 && i < g.in[axis];
    pixel = pixel * g.in[axis] + i;
  }
  return inside ? pixel : -1;
}
template <class T>
__device__ T mask_of(const Rows& r, int64_t number) {
  return r.p.mask ? load<T>(static_cast<const char*>(r.p.mask) + number * r.item, r.p.dtype) : T(1);
}
template <class T>
__device__ T coefficient(const Rows& r, const Point<T>& point, int64_t number, int j) {
  if (r.p.coefficients) return static_cast<const T*>(r.p.coefficients)[number * r.corners + j];
  T weight = mask_of<T>(r, number);
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) weight *= share(point, axis, j);
  return weight;
}

/// Where channel `c` of tap `tap` of a row of the part lies.
__device__ inline char* column(const Rows& r, int64_t row, int64_t tap, int64_t c) {
  const int64_t group = c / r.group_channels;
  return static_cast<char*>(r.p.columns) +
         (((group * r.p.rows + row) * r.taps + tap) * r.group_channels + (c - group * r.group_channels)) *
             r.item;
}
__device__ inline const char* pixel_at(const Rows& r, int64_t image, int64_t pixel, int64_t c) {
  return static_cast<const char*>(r.p.x) + ((image * r.pixels + pixel) * r.p.geometry.channels + c) * r.item;
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    sample(const __grid_constant__ Rows r, Divider packs, uint32_t n) {
  const DeformGeometry& g = r.p.geometry;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const auto pack = packs.divmod(static_cast<uint32_t>(i)), tap = r.tap.divmod(pack.quotient);
    const int64_t c = int64_t{pack.remainder} * W, row = r.begin + tap.quotient, of_all = r.p.first + row;
    const int64_t number = (of_all * g.offset_groups + c / r.shared_channels) * r.taps + tap.remainder;
    const Point<T> point = find<T>(r, static_cast<uint32_t>(of_all), tap.remainder, number);
    T sum[W] = {};
    for (int j = 0; j < r.corners; ++j) {
      const int64_t pixel = pixel_of(r, point, j);
      if (pixel < 0) continue;
      const T weight = coefficient(r, point, number, j);
      T x[W];
      load(x, pixel_at(r, point.image, pixel, c), r.p.dtype);
      OPSIN_UNROLL
      for (int w = 0; w < W; ++w) sum[w] += weight * x[w];
    }
    store(sum, column(r, row, tap.remainder, c), r.p.dtype);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) multiply(const __grid_constant__ Rows r, int64_t n) {
  const DeformGeometry& g = r.p.geometry;
  const int lane = threadIdx.x % kWarpThreads;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank() / kWarpThreads; i < n; i += thread_count() / kWarpThreads) {
    const int64_t number = ((r.p.first + r.begin) * g.offset_groups) * r.taps + i;
    const int64_t of_group = number / r.taps, tap = number - of_group * r.taps;
    const int64_t of_all = of_group / g.offset_groups, group = of_group - of_all * g.offset_groups;
    const Point<T> point = find<T>(r, static_cast<uint32_t>(of_all), static_cast<uint32_t>(tap), number);
    T by_mask = 0, by_axis[3] = {0, 0, 0};
    for (int j = 0; j < r.corners; ++j) {
      const int64_t pixel = pixel_of(r, point, j);
      T sum = 0;
      if (pixel >= 0) {
        const int64_t end = (group + 1) * r.shared_channels;
        for (int64_t c = group * r.shared_channels + lane; c < end; c += kWarpThreads) {
          sum += load<T>(pixel_at(r, point.image, pixel, c), r.p.dtype) *
                 load<T>(column(r, of_all - r.p.first, tap, c), r.p.dtype);
        }
        sum = warp_reduce<Sum>(sum);
      }
      if (r.p.grad_coefficients) {
        if (lane == 0) static_cast<T*>(r.p.grad_coefficients)[number * r.corners + j] = sum;
        continue;
      }
      T all = sum;
      OPSIN_UNROLL
      for (int axis = 0; axis < 3; ++axis) {
        all *= share(point, axis, j);
        T others = j >> (2 - axis) & 1 ? sum : -sum;
        OPSIN_UNROLL
        for (int other = 0; other < 3; ++other) {
          if (other != axis) others *= share(point, other, j);
        }
        by_axis[axis] += others;
      }
      by_mask += all;
    }
    if (lane != 0) continue;
    if (r.p.grad_mask) store(by_mask, static_cast<char*>(r.p.grad_mask) + number * r.item, r.p.dtype);
    if (!r.p.grad_offset) continue;
    const T mask = mask_of<T>(r, number);
    OPSIN_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      const int place = axis - (3 - g.spatial);
      if (place < 0) continue;
      store(by_axis[axis] * mask, static_cast<char*>(r.p.grad_offset) + (number * g.spatial + place) * r.item,
            r.p.dtype);
    }
  }
}

/// The number of a cell among those of all offset groups and images.
__device__ inline uint32_t cell_of(const Rows& r, int64_t group, int64_t image, const int (&low)[3]) {
  int64_t cell = group * r.images + image;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    cell = cell * r.cells[axis] + (axis >= 3 - r.p.geometry.spatial ? low[axis] + 1 : 0);
  }
  return static_cast<uint32_t>(cell);
}

/// keys[i] = the cell of point i of the rows; those that nobody sees are in cell `nowhere`.
template <class T>
__global__ void __launch_bounds__(kThreads)
    find_cells(const __grid_constant__ Rows r, uint32_t n, uint32_t nowhere, uint32_t* keys) {
  const DeformGeometry& g = r.p.geometry;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const auto tap = r.tap.divmod(static_cast<uint32_t>(i));
    const int64_t row = tap.quotient / g.offset_groups, group = tap.quotient - row * g.offset_groups;
    const int64_t of_all = r.p.first + r.begin + row;
    const int64_t number = (of_all * g.offset_groups + group) * r.taps + tap.remainder;
    const Point<T> point = find<T>(r, static_cast<uint32_t>(of_all), tap.remainder, number);
    keys[i] = point.inside ? cell_of(r, group, point.image - r.first_image, point.low) : nowhere;
  }
}

/// starts[k] = the first of `n` sorted keys that is not below k, for k < count.
__global__ void __launch_bounds__(kThreads)
    find_starts(const uint32_t* keys, uint32_t n, uint32_t* starts, uint32_t count) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const int64_t before = i == 0 ? -1 : int64_t{keys[i - 1]};
    for (int64_t k = before + 1; k <= keys[i] && k < count; ++k) starts[k] = static_cast<uint32_t>(i);
    if (i + 1 < n) continue;
    for (int64_t k = int64_t{keys[i]} + 1; k < count; ++k) starts[k] = n;
  }
}

template <class T, int W>
__global__ void __launch_bounds__(kThreads) gather(const __grid_constant__ Rows r, Divider packs, uint32_t n,
                                                   const uint32_t* starts, const uint32_t* points) {
  const DeformGeometry& g = r.p.geometry;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const auto pack = packs.divmod(static_cast<uint32_t>(i)), third = r.in[2].divmod(pack.quotient),
               second = r.in[1].divmod(third.quotient), first = r.in[0].divmod(second.quotient);
    const int at[3] = {static_cast<int>(first.remainder), static_cast<int>(second.remainder),
                       static_cast<int>(third.remainder)};
    const int64_t c = int64_t{pack.remainder} * W, group = c / r.shared_channels;
    T* const sums = static_cast<T*>(r.p.sums) + (r.first_image * r.pixels + pack.quotient) * g.channels + c;
    T sum[W];
    load(sum, reinterpret_cast<const char*>(sums), dtype_of<T>);
    for (int j = 0; j < r.corners; ++j) {
      int low[3];
      OPSIN_UNROLL
      for (int axis = 0; axis < 3; ++axis) low[axis] = at[axis] - (j >> (2 - axis) & 1);
      const uint32_t cell = cell_of(r, group, first.quotient, low);
      for (uint32_t k = starts[cell]; k < starts[cell + 1]; ++k) {
        const auto tap = r.tap.divmod(points[k]);
        const int64_t row = r.begin + tap.quotient / g.offset_groups, of_all = r.p.first + row;
        const int64_t number = (of_all * g.offset_groups + group) * r.taps + tap.remainder;
        const Point<T> point = find<T>(r, static_cast<uint32_t>(of_all), tap.remainder, number);
        const T weight = coefficient(r, point, number, j);
        T value[W];
        load(value, column(r, row, tap.remainder, c), r.p.dtype);
        OPSIN_UNROLL
        for (int w = 0; w < W; ++w) sum[w] += weight * value[w];
      }
    }
    store(sum, reinterpret_cast<char*>(sums), dtype_of<T>);
  }
}

Divider divider(int64_t n) { return Divider(static_cast<uint32_t>(n)); }

/// Calls run(rows) for ranges of rows of the part, of which each needs `each` threads; ranges of points in
/// cells have few enough images.
template <class F>
void for_rows(const DeformPart& p, int64_t each, F&& run) {
  const DeformGeometry& g = p.geometry;
  Rows r{};
  r.p = p;
  r.pixels = g.in[0] * g.in[1] * g.in[2];
  r.group_channels = g.channels / g.groups;
  r.shared_channels = g.channels / g.offset_groups;
  r.item = static_cast<int64_t>(item_size(p.dtype));
  r.taps = static_cast<int>(g.kernel[0] * g.kernel[1] * g.kernel[2]);
  r.corners = 1 << g.spatial;
  r.tap = divider(r.taps);
  int64_t cells = g.offset_groups, positions = 1;
  for (int axis = 0; axis < 3; ++axis) {
    r.out[axis] = divider(g.out[axis]);
    r.in[axis] = divider(g.in[axis]);
    if (axis > 0) r.kernel[axis - 1] = divider(g.kernel[axis]);
    r.cells[axis] = axis >= 3 - g.spatial ? static_cast<int>(g.in[axis] + 1) : 1;
    cells *= r.cells[axis];
    positions *= g.out[axis];
  }
  const int64_t of_image = std::max(cells, r.pixels * g.channels);
  OPSIN_CHECK(
      ShapeError, g.batch * positions < UINT32_MAX && of_image < INT32_MAX && each < INT32_MAX,
      "deform_conv: expected fewer than 2^32 positions and 2^31 elements of an image on a GPU, got input [",
      g.batch, ", ", g.channels, ", ...] of ", r.pixels, " pixels");
  const int64_t most = std::min(INT32_MAX / each, std::max<int64_t>(INT32_MAX / of_image - 1, 1) * positions);
  for (r.begin = 0; r.begin < p.rows; r.begin += r.rows) {
    r.rows = std::min(most, p.rows - r.begin);
    r.first_image = (p.first + r.begin) / positions;
    // A range that begins within an image ends with it, if not all its images can be numbered.
    r.images = (p.first + r.begin + r.rows - 1) / positions - r.first_image + 1;
    if (r.images * of_image >= INT32_MAX) {
      r.rows = (r.first_image + r.images - 1) * positions - (p.first + r.begin);
      --r.images;
    }
    run(r);
  }
}

/// Calls run<T, W>() for the type of computation and the channels of a thread.
template <class F>
void with_packs(const DeformPart& p, F&& run) {
  const DeformGeometry& g = p.geometry;
  const auto fits = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  const bool wide = g.channels / g.groups % kWide == 0 && g.channels / g.offset_groups % kWide == 0 &&
                    fits(p.x) && fits(p.columns) && fits(p.sums);
  if (p.dtype == kFloat64) {
    run.template operator()<double, 1>();
  } else if (wide) {
    run.template operator()<float, kWide>();
  } else {
    run.template operator()<float, 1>();
  }
}

void columns(const DeformPart& p) {
  with_packs(p, [&]<class T, int W>() {
    const int64_t packs = p.geometry.channels / W;
    const int64_t each = p.geometry.kernel[0] * p.geometry.kernel[1] * p.geometry.kernel[2] * packs;
    for_rows(p, each, [&](const Rows& r) {
      OPSIN_LAUNCH((sample<T, W>), grid_for(r.rows * each, kThreads), kThreads, 0, r, divider(packs),
                   static_cast<uint32_t>(r.rows * each));
    });
  });
}

void products(const DeformPart& p) {
  const DeformGeometry& g = p.geometry;
  const int64_t each = g.kernel[0] * g.kernel[1] * g.kernel[2] * g.offset_groups;
  for_rows(p, each, [&](const Rows& r) {
    const unsigned grid = grid_for(r.rows * each, kThreads / kWarpThreads);
    if (p.dtype == kFloat64) {
      OPSIN_LAUNCH(multiply<double>, grid, kThreads, 0, r, r.rows * each);
    } else {
      OPSIN_LAUNCH(multiply<float>, grid, kThreads, 0, r, r.rows * each);
    }
  });
}

void spread(const DeformPart& p) {
  const DeformGeometry& g = p.geometry;
  const int64_t each = g.kernel[0] * g.kernel[1] * g.kernel[2] * g.offset_groups;
  with_packs(p, [&]<class T, int W>() {
    for_rows(p, each, [&](const Rows& r) {
      const int64_t n = r.rows * each;
      const int64_t cells = g.offset_groups * r.images * r.cells[0] * r.cells[1] * r.cells[2];
      const Scratch<uint32_t> keys(n), starts(cells + 1);
      OPSIN_LAUNCH(find_cells<T>, grid_for(n, kThreads), kThreads, 0, r, static_cast<uint32_t>(n),
                   static_cast<uint32_t>(cells), keys.data());
      const SortedRows<uint32_t> sorted =
          sort_rows(keys.data(), 1, n, static_cast<int>(std::bit_width(static_cast<uint64_t>(cells))));
      OPSIN_LAUNCH(find_starts, grid_for(n, kThreads), kThreads, 0, sorted.keys, static_cast<uint32_t>(n),
                   starts.data(), static_cast<uint32_t>(cells + 1));
      const int64_t packs = g.channels / W, threads = r.images * r.pixels * packs;
      OPSIN_LAUNCH((gather<T, W>), grid_for(threads, kThreads), kThreads, 0, r, divider(packs),
                   static_cast<uint32_t>(threads), starts.data(), sorted.positions);
    });
  });
}

}  // namespace

void register_deform_conv_cuda();

void register_deform_conv_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    deform_columns.set(DeviceType::kCUDA, dtype, columns);
    deform_spread.set(DeviceType::kCUDA, dtype, spread);
    deform_products.set(DeviceType::kCUDA, dtype, products);
  }
}

}  // namespace opsin
