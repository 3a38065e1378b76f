// Sampling on a GPU. Where points add up in pixels their taps are sorted by pixel, and each pixel sums its
// own in the order of the points.
#include "grid_sample_kernels.h"

#include <algorithm>
#include <bit>

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/sort.h"
#include "cuda/vectors.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// The sizes of one launch, which has at most 2^31 elements on each side.
struct Args {
  GridSampling sampling;
  DType dtype;
  int size[3];
  int channels, points, pixels;
  uint32_t threads;
  bool channels_last;
  Divider groups;  ///< Channels last: threads that share a place. Else channels.
  Divider places;  ///< Points or pixels, what threads are numbered by.

  /// Where channel `c` of a pixel, or point, `i` of image `n` lies among `count` of them.
  __device__ int at(int n, int c, int i, int count) const {
    return channels_last ? (n * count + i) * channels + c : (n * channels + c) * count + i;
  }
};

/// The taps of one point along each axis.
template <class T>
struct Point {
  int32_t index[3][4];
  T weight[3][4];
  int taps, first;  ///< `first`: taps along the first axis.

  __device__ Point(const Args& a, const T (&at)[3]) {
    taps = grid::taps_per_axis(a.sampling.mode);
    first = a.sampling.rank == 3 ? taps : 1;
    index[0][0] = 0;
    weight[0][0] = 1;
    OPSIN_NO_UNROLL
    for (int axis = 3 - a.sampling.rank; axis < 3; ++axis) {
      find(a, at[axis], axis, a.sampling.order[axis], index[axis], weight[axis]);
    }
  }
  static OPSIN_NOINLINE __device__ void find(const Args& a, T at, int axis, int order, int32_t (&index)[4],
                                             T (&weight)[4]) {
    grid::find_taps(a.sampling.mode, a.sampling.padding, at, a.size[axis], a.sampling.align_corners, order,
                    index, weight);
  }
  /// The pixel of a tap, -1 for none.
  __device__ int pixel(const Args& a, int k0, int k1, int k2) const {
    const int i0 = index[0][k0], i1 = index[1][k1], i2 = index[2][k2];
    return (i0 | i1 | i2) < 0 ? -1 : (i0 * a.size[1] + i1) * a.size[2] + i2;
  }
  /// Calls body(tap, k0, k1, k2) for all taps.
  template <class F>
  __device__ void for_taps(F&& body) const {
    int t = 0;
    OPSIN_NO_UNROLL
    for (int k0 = 0; k0 < first; ++k0) {
      OPSIN_NO_UNROLL
      for (int k1 = 0; k1 < taps; ++k1) {
        OPSIN_NO_UNROLL
        for (int k2 = 0; k2 < taps; ++k2) body(t++, k0, k1, k2);
      }
    }
  }
};

template <class S>
__device__ void read_point(Computed<S> (&at)[3], const Args& a, const S* grid, int point) {
  for (int axis = 3 - a.sampling.rank; axis < 3; ++axis) {
    Computed<S> value[1];
    widen(value, pack_at<S, 1>(grid + point * a.sampling.rank + 2 - axis), a.dtype);
    at[axis] = value[0];
  }
}

/// What a thread has: some channels of a point or pixel of an image.
struct Place {
  int n, c, i;
};
__device__ __forceinline__ Place place_of(const Args& a, uint32_t thread, int width) {
  const Divider::Result first = (a.channels_last ? a.groups : a.places).divmod(thread);
  const Divider::Result second = (a.channels_last ? a.places : a.groups).divmod(first.quotient);
  const auto n = static_cast<int>(second.quotient);
  const auto minor = static_cast<int>(first.remainder), major = static_cast<int>(second.remainder);
  return a.channels_last ? Place{n, minor * width, major} : Place{n, major, minor};
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    sample_points(const __grid_constant__ Args a, const S* grid, const S* image, S* out) {
  using T = Computed<S>;
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread < a.threads) {
    const Place p = place_of(a, thread, V);
    T at[3];
    read_point(at, a, grid, p.n * a.points + p.i);
    const Point<T> point(a, at);
    T sum[V] = {};
    point.for_taps([&](int, int k0, int k1, int k2) {
      const int pixel = point.pixel(a, k0, k1, k2);
      if (pixel < 0) return;
      const T weight = point.weight[0][k0] * point.weight[1][k1] * point.weight[2][k2];
      T value[V];
      widen(value, pack_at<S, V>(image + a.at(p.n, p.c, pixel, a.pixels)), a.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) sum[v] += weight * value[v];
    });
    pack_at<S, V>(out + a.at(p.n, p.c, p.i, a.points)) = narrow<S>(sum, a.dtype);
  }
}

/// `width` lanes of a warp share a point and take every width-th channel.
template <class S>
__global__ void __launch_bounds__(kThreads)
    sum_slopes(const __grid_constant__ Args a, unsigned width, const S* grid, const S* image, const S* values,
               S* out) {
  using T = Computed<S>;
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x, mine = thread / width;
  const auto lane = static_cast<int>(threadIdx.x & (width - 1));
  const bool exists = mine < a.threads;
  {
    const Divider::Result place = a.places.divmod(exists ? mine : 0);
    const auto n = static_cast<int>(place.quotient), i = static_cast<int>(place.remainder);
    T at[3];
    read_point(at, a, grid, n * a.points + i);
    const Point<T> point(a, at);
    T sum[3] = {};
    T slope[3][4];
    OPSIN_NO_UNROLL
    for (int axis = 3 - a.sampling.rank; axis < 3; ++axis) {
      int32_t same[4];
      Point<T>::find(a, at[axis], axis, a.sampling.order[axis] + 1, same, slope[axis]);
    }
    point.for_taps([&](int, int k0, int k1, int k2) {
      const int pixel = point.pixel(a, k0, k1, k2);
      if (pixel < 0 || !exists) return;
      T product = 0;
      for (int c = lane; c < a.channels; c += static_cast<int>(width)) {
        T x[1], g[1];
        widen(x, pack_at<S, 1>(image + a.at(n, c, pixel, a.pixels)), a.dtype);
        widen(g, pack_at<S, 1>(values + a.at(n, c, i, a.points)), a.dtype);
        product += x[0] * g[0];
      }
      const T w0 = point.weight[0][k0], w1 = point.weight[1][k1], w2 = point.weight[2][k2];
      if (a.sampling.rank == 3) sum[0] += product * slope[0][k0] * w1 * w2;
      sum[1] += product * w0 * slope[1][k1] * w2;
      sum[2] += product * w0 * w1 * slope[2][k2];
    });
    for (int axis = 3 - a.sampling.rank; axis < 3; ++axis) {
      const T total = lanes_reduce<Sum>(sum[axis], width);
      const T result[1] = {total};
      if (exists && lane == 0) {
        pack_at<S, 1>(out + static_cast<int>(mine) * a.sampling.rank + 2 - axis) = narrow<S>(result, a.dtype);
      }
    }
  }
}

/// The pixels of all taps, `a.pixels` for none, and their weights.
template <class S>
__global__ void __launch_bounds__(kThreads)
    list_taps(const __grid_constant__ Args a, int taps, const S* grid, uint32_t* keys, Computed<S>* weights) {
  using T = Computed<S>;
  const auto i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < static_cast<int>(a.threads)) {
    T at[3];
    read_point(at, a, grid, i);
    const Point<T> point(a, at);
    point.for_taps([&](int t, int k0, int k1, int k2) {
      const int pixel = point.pixel(a, k0, k1, k2);
      keys[i * taps + t] = pixel < 0 ? static_cast<uint32_t>(a.pixels) : static_cast<uint32_t>(pixel);
      weights[i * taps + t] = point.weight[0][k0] * point.weight[1][k1] * point.weight[2][k2];
    });
  }
}

/// starts[n, i]: the first of the sorted keys of image n that is not below i <= pixels.
__global__ void __launch_bounds__(kThreads)
    find_starts(uint32_t all, Divider places, int count, const uint32_t* keys, uint32_t* starts) {
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= all) return;
  const Divider::Result place = places.divmod(i);
  const uint32_t* row = keys + static_cast<int>(place.quotient) * count;
  int low = 0, high = count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (row[middle] < place.remainder) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[i] = static_cast<uint32_t>(low);
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    sum_taps(const __grid_constant__ Args a, Divider taps, const uint32_t* starts, const uint32_t* positions,
             const Computed<S>* weights, const S* values, Computed<S>* out) {
  using T = Computed<S>;
  const int count = a.points * static_cast<int>(taps.divisor());
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread < a.threads) {
    const Place p = place_of(a, thread, V);
    const uint32_t* start = starts + p.n * (a.pixels + 1) + p.i;
    T sum[V] = {};
    for (uint32_t k = start[0]; k < start[1]; ++k) {
      const uint32_t tap = positions[p.n * count + static_cast<int>(k)];
      const T weight = weights[p.n * count + static_cast<int>(tap)];
      T value[V];
      widen(value, pack_at<S, V>(values + a.at(p.n, p.c, static_cast<int>(taps.divide(tap)), a.points)),
            a.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) sum[v] += weight * value[v];
    }
    T* to = out + a.at(p.n, p.c, p.i, a.pixels);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) to[v] = sum[v];
  }
}

int taps_of(const GridParams& p) {
  const int each = grid::taps_per_axis(p.mode);
  return p.rank == 3 ? each * each * each : each * each;
}

/// `width` channels go to a thread, and `places` points or pixels of an image are what threads have.
Args args_of(const GridParams& p, int width, int64_t places) {
  Args a{};
  a.sampling = p;
  a.dtype = p.dtype;
  for (int i = 0; i < 3; ++i) a.size[i] = static_cast<int>(p.size[i]);
  a.channels = static_cast<int>(p.channels);
  a.points = static_cast<int>(p.points);
  a.pixels = static_cast<int>(p.pixels());
  a.channels_last = p.channels_last;
  a.groups = Divider(static_cast<uint32_t>(p.channels / width));
  a.places = Divider(static_cast<uint32_t>(places));
  a.threads = static_cast<uint32_t>(p.batch * places * p.channels / width);
  return a;
}

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

/// Calls run(params) for as many images at a time as have elements and lanes that 32 bits can number. `out`
/// has `out_each` elements of `out_size` bytes for an image.
template <class F>
void for_images(const GridParams& p, int64_t out_each, size_t out_size, F&& run) {
  const int64_t pixels = p.pixels(), image = p.channels * pixels, values = p.channels * p.points;
  const int64_t each =
      std::max({image, pixels + 1, values, p.points * std::max<int64_t>(taps_of(p), kWarpThreads)});
  OPSIN_CHECK(ShapeError, each <= INT32_MAX,
              "grid_sample: expected at most 2^31 elements per image on a GPU, got ", each);
  const int64_t most = INT32_MAX / each;
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  for (int64_t n = 0; n < p.batch; n += most) {
    GridParams part = p;
    part.batch = std::min(most, p.batch - n);
    part.grid = static_cast<const char*>(p.grid) + n * p.points * p.rank * item;
    if (p.image) part.image = static_cast<const char*>(p.image) + n * image * item;
    if (p.values) part.values = static_cast<const char*>(p.values) + n * values * item;
    part.out = static_cast<char*>(p.out) + n * out_each * static_cast<int64_t>(out_size);
    run(part);
  }
}

/// Calls body<V>() for the neighbouring channels that a thread takes.
template <class S, class F, class... Data>
void with_width(const GridParams& p, F&& body, Data... data) {
  if constexpr (sizeof(S) < 8) {
    if (p.channels_last && fits_vectors<S>(p.channels, data...))
      return body.template operator()<kVector<S>>();
  }
  body.template operator()<1>();
}

template <class S>
struct Kernels {
  using T = Computed<S>;
  static const S* read(const void* data) { return static_cast<const S*>(data); }

  static void forward(const GridParams& all) {
    for_images(all, all.channels * all.points, sizeof(S), [](const GridParams& p) {
      const auto launch = [&]<int V>() {
        const Args a = args_of(p, V, p.points);
        OPSIN_LAUNCH((sample_points<S, V>), blocks_of(a.threads), kThreads, 0, a, read(p.grid), read(p.image),
                     static_cast<S*>(p.out));
      };
      with_width<S>(p, launch, p.image, p.out);
    });
  }

  static void slopes(const GridParams& all) {
    for_images(all, all.points * all.rank, sizeof(S), [](const GridParams& p) {
      unsigned width = 1;
      while (p.channels_last && width < kWarpThreads && width < p.channels) width *= 2;
      Args a = args_of(p, 1, p.points);
      a.threads = static_cast<uint32_t>(p.batch * p.points);
      OPSIN_LAUNCH(sum_slopes<S>, blocks_of(int64_t{a.threads} * width), kThreads, 0, a, width, read(p.grid),
                   read(p.image), read(p.values), static_cast<S*>(p.out));
    });
  }

  static void scatter(const GridParams& all) {
    for_images(all, all.channels * all.pixels(), sizeof(T), [](const GridParams& p) {
      const int taps = taps_of(p);
      const int64_t count = p.points * taps, places = p.batch * (p.pixels() + 1);
      const Scratch<uint32_t> keys(p.batch * count), starts(places);
      const Scratch<T> weights(p.batch * count);
      Args a = args_of(p, 1, p.points);
      a.threads = static_cast<uint32_t>(p.batch * p.points);
      OPSIN_LAUNCH(list_taps<S>, blocks_of(a.threads), kThreads, 0, a, taps, read(p.grid), keys.data(),
                   weights.data());
      const auto sorted =
          sort_rows<uint32_t>(keys.data(), p.batch, count, std::bit_width(static_cast<uint64_t>(p.pixels())));
      OPSIN_LAUNCH(find_starts, blocks_of(places), kThreads, 0, static_cast<uint32_t>(places),
                   Divider(static_cast<uint32_t>(p.pixels() + 1)), static_cast<int>(count), sorted.keys,
                   starts.data());
      const auto launch = [&]<int V>() {
        const Args sums = args_of(p, V, p.pixels());
        OPSIN_LAUNCH((sum_taps<S, V>), blocks_of(sums.threads), kThreads, 0, sums,
                     Divider(static_cast<uint32_t>(taps)), starts.data(), sorted.positions, weights.data(),
                     read(p.values), static_cast<T*>(p.out));
      };
      with_width<S>(p, launch, p.values, p.out);
    });
  }
};

}  // namespace

void register_grid_sample_cuda();

void register_grid_sample_cuda() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    dispatch_stored(dtype, [&]<class S>() {
      grid_sample_forward.set(DeviceType::kCUDA, dtype, Kernels<S>::forward);
      grid_sample_slopes.set(DeviceType::kCUDA, dtype, Kernels<S>::slopes);
      grid_sample_scatter.set(DeviceType::kCUDA, dtype, Kernels<S>::scatter);
    });
  }
}

}  // namespace opsin
