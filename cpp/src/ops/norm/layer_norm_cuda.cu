// Layer normalization on a GPU: a group of threads holds a row.
#include "column_device.h"
#include "norm_kernels.h"

#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

template <class S, DType stored, int V>
__device__ __forceinline__ void load_stored(Computed<S> (&to)[V], const void* from, int64_t at) {
  const Held<S, V> held[1] = {*reinterpret_cast<const Held<S, V>*>(static_cast<const S*>(from) + at)};
  widen_held<S, V, stored>(to, held[0]);
}

/// V weights, or biases, of a row, stored as the row is or as what it is computed in; `missing` without any.
template <class S, DType stored, int V>
__device__ __forceinline__ void load_weights(Computed<S> (&to)[V], const void* from, DType dtype, int64_t at,
                                             Computed<S> missing) {
  if (!from) {
    OPSIN_UNROLL
    for (auto& value : to) value = missing;
  } else if (dtype == stored) {
    load_stored<S, stored>(to, from, at);
  } else {
    load_row(to, static_cast<const Computed<S>*>(from) + at);
  }
}

/// Of `count` numbers: sums of d = x - near and of d * d.
template <class T>
struct Moments {
  T count, near;
  Pair<T> sums;
};

/// Mean and variance of a row from those of the warps of its group, each around a number of its own: no
/// digits are lost to a large mean, and the block waits once. With `rms`, around 0.
template <class T>
__device__ __forceinline__ Pair<double> merge_moments(const Moments<T>& own, const RowGroups& groups,
                                                      double inverse_n, bool rms) {
  __shared__ Moments<T> shared[kBlockWarps];
  Moments<T> of_warp = own;
  unsigned warps = 1;
  if (groups.width > kWarpThreads) {
    warps = groups.width / kWarpThreads;
    if (threadIdx.x % kWarpThreads == 0) shared[threadIdx.x / kWarpThreads] = own;
    __syncthreads();
    of_warp = shared[threadIdx.x & (warps - 1)];
  }
  const double count = static_cast<double>(of_warp.count), near = static_cast<double>(of_warp.near),
               first = static_cast<double>(of_warp.sums.first);
  double mean = lanes_reduce<Sum>(count * near + first, warps) * inverse_n;
  if (rms) mean = 0;
  const double shift = near - mean;
  const double squares = static_cast<double>(of_warp.sums.second) + shift * (2 * first + count * shift);
  return {mean, lanes_reduce<Sum>(squares, warps) * inverse_n};
}

/// How many elements the k-th vectors of the threads have that share a warp and a group with this one.
template <int V>
__device__ __forceinline__ unsigned held_by_warp(const RowGroups& groups, unsigned left, int k) {
  const unsigned lanes = groups.width < kWarpThreads ? groups.width : kWarpThreads;
  const unsigned begin = ((groups.lane() & ~(lanes - 1)) + static_cast<unsigned>(k) * groups.width) * V;
  if (left <= begin) return 0;
  return left - begin < lanes * V ? left - begin : lanes * V;
}

template <class S, int V, DType stored, int K, bool kOnce>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    forward_rows(const LayerNormParams p, const RowGroups groups, double inverse_n) {
  using T = Computed<S>;
  const int64_t row = groups.row();
  const bool inside = row < groups.rows;
  const S* x = inside ? static_cast<const S*>(p.x) + row * groups.n : nullptr;
  S* y = inside ? static_cast<S*>(p.y) + row * groups.n : nullptr;
  Held<S, V> xs[K];
  // The number that a warp's moments are around is the mean of one in K of its vectors: nearer to that of all
  // than sqrt(K - 1) standard deviations.
  T start = 0;
  unsigned count = 0, sampled = 0;
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    Held<S, V> sample[1];
    if constexpr (kOnce) {
      load_part<S, V, stored>(xs, x, groups, first);
      sample[0] = xs[0];
    } else {
      load_part<S, V, stored>(sample, x, groups, first);
    }
    T values[V];
    widen_held<S, V, stored>(values, sample[0]);
    T sum = values[0];
    OPSIN_UNROLL
    for (int v = 1; v < V; ++v) sum += values[v];
    start += sum;
    const unsigned in_vectors = held_by_warp<V>(groups, groups.left(first), 0);
    sampled += in_vectors;
    count += in_vectors;
    if (groups.n - first >= groups.part()) {
      count += (K - 1) * in_vectors;
      continue;
    }
    OPSIN_UNROLL
    for (int k = 1; k < K; ++k) count += held_by_warp<V>(groups, groups.left(first), k);
  }
  start = lanes_reduce<Sum>(start, groups.width);
  Moments<T> moments{static_cast<T>(count), sampled > 0 ? start / static_cast<T>(sampled) : T(0), {0, 0}};
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    if (!kOnce) load_part<S, V, stored>(xs, x, groups, first);
    forget_widened(xs);
    const unsigned left = groups.left(first);
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      if (groups.place<V>(k) >= left) continue;
      T values[V];
      widen_held<S, V, stored>(values, xs[k]);
      Pair<T> sums{0, 0};
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        const T d = values[v] - moments.near;
        sums.first += d;
        sums.second += d * d;
      }
      moments.sums = Sum{}(moments.sums, sums);
    }
  }
  moments.sums = lanes_reduce<Sum>(moments.sums, groups.width);
  const Pair<double> result = merge_moments(moments, groups, inverse_n, p.rms);
  if (!inside) return;
  const double mean = result.first,
               variance = result.second > 0 || result.second != result.second ? result.second : 0,
               inverse = rsqrt(variance + p.eps);
  if (groups.lane() == 0) {
    p.mean[row] = mean;
    p.inverse[row] = inverse;
  }
  const T near = static_cast<T>(mean), a = static_cast<T>(inverse),
          rest = static_cast<T>((static_cast<double>(near) - mean) * inverse);
  const auto finish = [&](auto weigh) {
    for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
      if (!kOnce) load_part<S, V, stored>(xs, x, groups, first);
      forget_widened(xs);
      store_part<S, V, stored>(xs, y, groups, first, [&](T(&values)[V], int, unsigned at) {
        T weight[V], bias[V];
        weigh(weight, bias, first + at);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) values[v] = ((values[v] - near) * a + rest) * weight[v] + bias[v];
      });
    }
  };
  if (p.weight && p.bias && p.weights == stored) {
    // The usual case asks once.
    finish([&](T(&weight)[V], T(&bias)[V], int64_t at) {
      load_stored<S, stored>(weight, p.weight, at);
      load_stored<S, stored>(bias, p.bias, at);
    });
  } else {
    finish([&](T(&weight)[V], T(&bias)[V], int64_t at) {
      load_weights<S, stored>(weight, p.weight, p.weights, at, T(1));
      load_weights<S, stored>(bias, p.bias, p.weights, at, T(0));
    });
  }
}

/// With h = g weight and xhat = (x - mean) inverse: dx = inverse (h - mean(h) - xhat mean(h xhat)).
template <class T>
struct RowSlope {
  T mean, inverse, rest, centre, slope;

  RowSlope() = default;
  /// What rounding takes from the mean comes back apart.
  __device__ RowSlope(double mean_, double inverse_)
      : mean(static_cast<T>(mean_)),
        inverse(static_cast<T>(inverse_)),
        rest(static_cast<T>((static_cast<double>(mean) - mean_) * inverse_)) {}
  __device__ T normalised(T x) const { return (x - mean) * inverse + rest; }
  /// The sums of h and of h xhat over the row. Subtracted before it is scaled: where eps dwarfs the variance,
  /// inverse magnifies the rounding.
  __device__ void set(Pair<T> sums, T inverse_n, bool rms) {
    centre = rms ? T(0) : sums.first * inverse_n;
    slope = sums.second * inverse_n * inverse;
  }
  __device__ T operator()(T h, T xhat) const { return (h - centre) * inverse - xhat * slope; }
};

template <class S, int V, DType stored, int K, bool kOnce>
__global__ void __launch_bounds__(kMostRowThreads, 1)
    backward_rows(const LayerNormBackwardParams p, const RowGroups groups, double inverse_n) {
  using T = Computed<S>;
  __shared__ Pair<T> shared[kBlockWarps];
  const int64_t row = groups.row();
  const bool inside = row < groups.rows;
  const S* x = inside ? static_cast<const S*>(p.x) + row * groups.n : nullptr;
  const S* g = inside ? static_cast<const S*>(p.g) + row * groups.n : nullptr;
  S* grad_x = inside ? static_cast<S*>(p.grad_x) + row * groups.n : nullptr;
  RowSlope<T> slope(inside ? p.mean[row] : 0, inside ? p.inverse[row] : 0);
  Held<S, V> xs[K], gs[K];
  const auto weigh = [&](T(&gradients)[V], int64_t at) {
    T weight[V];
    load_weights<S, stored>(weight, p.weight, p.weights, at, T(1));
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) gradients[v] *= weight[v];
  };
  Pair<T> sums{0, 0};
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    load_part<S, V, stored>(xs, x, groups, first);
    load_part<S, V, stored>(gs, g, groups, first);
    const unsigned left = groups.left(first);
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      if (groups.place<V>(k) >= left) continue;
      T values[V], gradients[V];
      widen_held<S, V, stored>(values, xs[k]);
      widen_held<S, V, stored>(gradients, gs[k]);
      weigh(gradients, first + groups.place<V>(k));
      Pair<T> part{0, 0};
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        part.first += gradients[v];
        part.second += gradients[v] * slope.normalised(values[v]);
      }
      sums = Sum{}(sums, part);
    }
  }
  slope.set(group_reduce<Sum>(sums, groups.width, shared), static_cast<T>(inverse_n), p.rms);
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    if (!kOnce) {
      load_part<S, V, stored>(xs, x, groups, first);
      load_part<S, V, stored>(gs, g, groups, first);
    }
    forget_widened(xs);
    forget_widened(gs);
    store_part<S, V, stored>(gs, grad_x, groups, first, [&](T(&values)[V], int k, unsigned at) {
      T row_values[V];
      widen_held<S, V, stored>(row_values, xs[k]);
      weigh(values, first + at);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = slope(values[v], slope.normalised(row_values[v]));
    });
  }
}

// Blocks that go through all rows, each with the sums for the gradients of weight and bias in its registers:
// x and g are read once.

/// Rows whose terms are added up in what x is computed in, before they join the others.
constexpr unsigned kSumRows = 32;
/// Vectors that a thread holds of x and of g, whose successors are on their way: sixteen 16-bit values share
/// what a row costs every thread.
template <class S>
constexpr int kSumPacks = sizeof(S) == 2 ? 2 : 1;
/// Threads of a block at most, and of a multiprocessor.
template <class S>
constexpr unsigned kSumThreads = 1024 / kSumPacks<S>;
/// Multiprocessors of a large GPU.
constexpr int64_t kProcessors = 132;

/// to = from, or to += from, and from = 0.
template <int V, class T>
__device__ __forceinline__ void add_row(T* to, T (&from)[V], bool add) {
  T sums[V] = {};
  if (add) load_row(sums, to);
  OPSIN_UNROLL
  for (int v = 0; v < V; v += kVector<T>) {
    Pack<T, kVector<T>> pack;
    OPSIN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      pack.value[i] = sums[v + i] + from[v + i];
      from[v + i] = 0;
    }
    pack_at<T, kVector<T>>(to + v) = pack;
  }
}

/// Two sums over a block of whole warps, for all its threads; one shuffle a step serves both. `shared` has
/// 2 * kSumThreads<S> / kWarpThreads elements: the first two of each warp that there is are written, the rest
/// are 0.
template <class S, class T = Computed<S>>
__device__ __forceinline__ Pair<T> block_pair(Pair<T> sums, T* shared) {
  constexpr unsigned kHalf = kWarpThreads / 2, kValues = 2 * kSumThreads<S> / kWarpThreads;
  const unsigned lane = threadIdx.x % kWarpThreads;
  const bool upper = lane >= kHalf;
  T sum = upper ? sums.second : sums.first;
  sum += shuffle_xor(upper ? sums.first : sums.second, static_cast<int>(kHalf));
  OPSIN_UNROLL
  for (unsigned mask = 1; mask < kHalf; mask *= 2) sum += shuffle_xor(sum, static_cast<int>(mask));
  if (lane % kHalf == 0) shared[threadIdx.x / kHalf] = sum;
  __syncthreads();
  sum = shared[lane];
  OPSIN_UNROLL
  for (unsigned i = kWarpThreads; i < kValues; i += kWarpThreads) sum += shared[i + lane];
  OPSIN_UNROLL
  for (unsigned mask = 2; mask < kWarpThreads; mask *= 2) sum += shuffle_xor(sum, static_cast<int>(mask));
  const T other = shuffle_xor(sum, 1);
  return lane % 2 == 0 ? Pair<T>{sum, other} : Pair<T>{other, sum};
}

/// parts: [block][2][n].
template <class S, int V, DType stored>
__global__ void __launch_bounds__(kSumThreads<S>, 1)
    backward_all(const LayerNormBackwardParams p, const RowGroups groups, Computed<S> inverse_n,
                 Computed<S>* parts) {
  using T = Computed<S>;
  constexpr int K = kSumPacks<S>;
  constexpr unsigned kValues = 2 * kSumThreads<S> / kWarpThreads;
  __shared__ T shared[2][kValues];
  __shared__ RowSlope<T> slopes[kSumRows];
  if (threadIdx.x < kValues) shared[0][threadIdx.x] = shared[1][threadIdx.x] = 0;
  T* part = parts + 2 * groups.n * blockIdx.x + groups.place<V>(0);
  T weights[K][V], weight_sums[K][V] = {}, bias_sums[K][V] = {};
  // No narrower group would do, so that of two vectors the first is always in the row.
  const bool last = groups.place<V>(K - 1) < static_cast<unsigned>(groups.n);
  const auto each = [&](auto f) {
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      if (k < K - 1 || last) f(k, static_cast<unsigned>(k) * groups.width * V);
    }
  };
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    load_weights<S, stored>(weights[k], k < K - 1 || last ? p.weight : nullptr, p.weights, groups.place<V>(k),
                            T(1));
  }
  const auto flush = [&](bool again) {
    each([&](int k, unsigned at) {
      add_row(part + at, weight_sums[k], again);
      add_row(part + groups.n + at, bias_sums[k], again);
    });
  };
  struct Row {
    Held<S, V> xs[K], gs[K];
  };
  // Where this thread is in the row that is taken.
  int64_t place = blockIdx.x * groups.n + groups.place<V>(0);
  const int64_t stride = gridDim.x * groups.n;
  const auto fetch = [&](Row& to, int64_t row, int64_t from) {
    if (row >= groups.rows) return;
    each([&](int k, unsigned at) {
      to.xs[k] = *reinterpret_cast<const Held<S, V>*>(static_cast<const S*>(p.x) + from + at);
      to.gs[k] = *reinterpret_cast<const Held<S, V>*>(static_cast<const S*>(p.g) + from + at);
    });
  };
  // Takes `own`, while the one after it, at `next`, is on its way to `other`.
  const auto take = [&](const Row& own, Row& other, int64_t next, RowSlope<T> slope, T* values) {
    fetch(other, next, place + stride);
    T xhats[K][V], hs[K][V];
    Pair<T> sums{0, 0};
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      widen_held<S, V, stored>(xhats[k], own.xs[k]);
      widen_held<S, V, stored>(hs[k], own.gs[k]);
      Pair<T> of_vector{0, 0};
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        const T gradient = hs[k][v];
        T& xhat = xhats[k][v] = slope.normalised(xhats[k][v]);
        T& h = hs[k][v] *= weights[k][v];
        of_vector.first += h;
        of_vector.second += h * xhat;
        bias_sums[k][v] += gradient;
        weight_sums[k][v] += gradient * xhat;
      }
      sums = Sum{}(sums, of_vector);
    }
    slope.set(block_pair<S>(sums, values), inverse_n, p.rms);
    each([&](int k, unsigned at) {
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) hs[k][v] = slope(hs[k][v], xhats[k][v]);
      pack_at<S, V>(static_cast<S*>(p.grad_x) + place + at) = narrow<S, V>(hs[k], stored);
    });
    place += stride;
  };
  // Rows two by two: they take turns with registers and shared memory, so that nothing is moved and one
  // barrier a row is enough. Vectors beyond the end of a row stay 0.
  Row even{}, odd{};
  fetch(even, blockIdx.x, place);
  unsigned taken = 0;
  OPSIN_NO_UNROLL
  for (int64_t row = blockIdx.x; row < groups.rows; row += 2 * int64_t{gridDim.x}, taken += 2) {
    if (taken % kSumRows == 0) {
      // What is known of the next rows, read while the sums are written.
      const int64_t later = row + threadIdx.x * int64_t{gridDim.x};
      const bool knows = threadIdx.x < kSumRows && later < groups.rows;
      const double mean = knows ? p.mean[later] : 0, inverse = knows ? p.inverse[later] : 0;
      if (taken > 0) flush(taken > kSumRows);
      if (knows) slopes[threadIdx.x] = RowSlope<T>(mean, inverse);
      __syncthreads();
    }
    const int64_t next = row + gridDim.x;
    take(even, odd, next, slopes[taken % kSumRows], shared[0]);
    if (next < groups.rows) take(odd, even, next + gridDim.x, slopes[taken % kSumRows + 1], shared[1]);
  }
  flush(taken > kSumRows);
}

/// parts: [slice][2][columns], which are the sums for the first and those for the second, computed as T.
template <class T, class Part>
__global__ void __launch_bounds__(kMaxBlockThreads)
    store_sums(const Part* parts, int64_t slices, int64_t columns, char* first, char* second, DType dtype) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  const Pair<double> sums = merge_parts<kWarpThreads>(parts, slices, columns, column);
  if (column >= columns || threadIdx.y != 0) return;
  const int64_t at = column * (dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2);
  if (first) store(static_cast<T>(sums.first), first + at, dtype);
  if (second) store(static_cast<T>(sums.second), second + at, dtype);
}

template <class T, class Part>
void launch_store(const Part* parts, int64_t slices, int64_t columns, void* first, void* second,
                  DType dtype) {
  OPSIN_LAUNCH((store_sums<T, Part>), grid_for(columns, kWarpThreads, ~0u),
               dim3(kWarpThreads, kMergeShares<kWarpThreads>), 0, parts, slices, columns,
               static_cast<char*>(first), static_cast<char*>(second), dtype);
}

void forward(const LayerNormParams& p) {
  const auto run = [&]<class S, int V, DType stored>() {
    const RowGroups groups(p.rows, p.n, kPacks<V> * V);
    dispatch_held<V>(groups.held(), [&]<bool kOnce>() {
      OPSIN_LAUNCH((forward_rows<S, V, stored, kPacks<V>, kOnce>), groups.grid(), groups.block(), 0, p,
                   groups, 1 / static_cast<double>(p.n));
    });
  };
  dispatch_rows(p.dtype, p.n, run, p.x, p.y, p.weight, p.bias);
}

void backward(const LayerNormBackwardParams& p) {
  const auto run = [&]<class S, int V, DType stored>() {
    using T = Computed<S>;
    const double inverse_n = 1 / static_cast<double>(p.n);
    const bool sums = p.grad_weight || p.grad_bias;
    if constexpr (V > 1) {
      const RowGroups groups(p.rows, p.n, kSumPacks<S> * V, kSumThreads<S>);
      const int64_t blocks = kProcessors * kSumThreads<S> / groups.width;
      // Few rows leave blocks without work, short ones threads.
      if (sums && p.grad_x && groups.held() && groups.width > kWarpThreads && p.rows >= blocks * 8) {
        const Workspace memory(blocks * 2 * p.n * static_cast<int64_t>(sizeof(T)));
        auto* parts = static_cast<T*>(memory.get());
        OPSIN_LAUNCH((backward_all<S, V, stored>), static_cast<unsigned>(blocks), groups.block(), 0, p,
                     groups, static_cast<T>(inverse_n), parts);
        return launch_store<T>(parts, blocks, p.n, p.grad_weight, p.grad_bias, p.weights);
      }
    }
    if (p.grad_x) {
      const RowGroups groups(p.rows, p.n, kPacks<V> * V);
      dispatch_held<V>(groups.held(), [&]<bool kOnce>() {
        OPSIN_LAUNCH((backward_rows<S, V, stored, kPacks<V>, kOnce>), groups.grid(), groups.block(), 0, p,
                     groups, inverse_n);
      });
    }
    if (!sums) return;
    const ColumnTiles tiles(p.rows, p.n, V);
    const int64_t slices = tiles.slices();
    const Workspace memory(slices * 2 * p.n * static_cast<int64_t>(sizeof(double)));
    auto* parts = static_cast<double*>(memory.get());
    launch_column_sums<S, V, ColumnSum::kRowGradients>(
        tiles, {p.x, p.g, p.mean, p.inverse, p.rows, p.n, slices, p.dtype, parts});
    launch_store<T>(parts, slices, p.n, p.grad_bias, p.grad_weight, p.weights);
  };
  dispatch_rows(p.dtype, p.n, run, p.x, p.g, p.grad_x, p.weight);
}

}  // namespace
}  // namespace cuda

void register_layer_norm_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    layer_norm_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    layer_norm_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
