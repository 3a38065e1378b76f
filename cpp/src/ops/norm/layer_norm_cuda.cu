// Layer normalization on a GPU: a group of threads holds a row.
#include "column_device.h"
#include "norm_kernels.h"

#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

/// Elements of a vector per element of a row, where a vector of the row begins; `missing` without one.
template <int V, class T>
__device__ __forceinline__ void load_weights(T (&to)[V], const T* from, int64_t at, T missing) {
  if (from) return load_row(to, from + at);
  OPSIN_UNROLL
  for (T& value : to) value = missing;
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

template <class S, int V, DType stored, int K, bool kOnce>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    forward_rows(const LayerNormParams p, const RowGroups groups, double inverse_n) {
  using T = Computed<S>;
  const int64_t row = groups.row();
  const bool inside = row < groups.rows;
  const S* x = inside ? static_cast<const S*>(p.x) + row * groups.n : nullptr;
  S* y = inside ? static_cast<S*>(p.y) + row * groups.n : nullptr;
  Held<S, V> xs[K];
  Pair<T> start{0, 0};
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    load_part<S, V, stored>(xs, x, groups, first);
    const unsigned left = groups.left(first);
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      T values[V], sum = 0;
      widen_held<S, V, stored>(values, xs[k]);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) sum += values[v];
      start.first += sum;
      start.second += groups.place<V>(k) < left ? T(V) : T(0);
    }
  }
  start = lanes_reduce<Sum>(start, groups.width);
  Moments<T> moments{start.second, start.second > 0 ? start.first / start.second : T(0), {0, 0}};
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
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    if (!kOnce) load_part<S, V, stored>(xs, x, groups, first);
    forget_widened(xs);
    store_part<S, V, stored>(xs, y, groups, first, [&](T(&values)[V], int, unsigned at) {
      T weight[V], bias[V];
      load_weights(weight, static_cast<const T*>(p.weight), first + at, T(1));
      load_weights(bias, static_cast<const T*>(p.bias), first + at, T(0));
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = ((values[v] - near) * a + rest) * weight[v] + bias[v];
    });
  }
}

/// With h = g weight and xhat = (x - mean) inverse: dx = inverse (h - mean(h) - xhat mean(h xhat)).
template <class T>
struct RowSlope {
  T mean, lost, inverse, centre, slope;

  /// What rounding takes from the mean comes back apart.
  __device__ RowSlope(double mean_, double inverse_)
      : mean(static_cast<T>(mean_)),
        lost(static_cast<T>(static_cast<double>(mean) - mean_)),
        inverse(static_cast<T>(inverse_)) {}
  __device__ T distance(T x) const { return (x - mean) + lost; }
  /// The sums of h and of h (x - mean) over the row. Subtracted before it is scaled: where eps dwarfs the
  /// variance, inverse magnifies the rounding.
  __device__ void set(Pair<T> sums, double inverse_n, double exact_inverse, bool rms) {
    centre = rms ? T(0) : static_cast<T>(static_cast<double>(sums.first) * inverse_n);
    slope = static_cast<T>(static_cast<double>(sums.second) * inverse_n * exact_inverse * exact_inverse *
                           exact_inverse);
  }
  __device__ T operator()(T h, T d) const { return (h - centre) * inverse - d * slope; }
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
  const double inverse = inside ? p.inverse[row] : 0;
  RowSlope<T> slope(inside ? p.mean[row] : 0, inverse);
  Held<S, V> xs[K], gs[K];
  const auto weigh = [&](T(&gradients)[V], int64_t at) {
    T weight[V];
    load_weights(weight, static_cast<const T*>(p.weight), at, T(1));
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
        part.second += gradients[v] * slope.distance(values[v]);
      }
      sums = Sum{}(sums, part);
    }
  }
  slope.set(group_reduce<Sum>(sums, groups.width, shared), inverse_n, inverse, p.rms);
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
      for (int v = 0; v < V; ++v) values[v] = slope(values[v], slope.distance(row_values[v]));
    });
  }
}

// Blocks that go through all rows, each with the sums for the gradients of weight and bias in its registers:
// x and g are read once.

/// Rows whose terms are added up in what x is computed in, before they join the others.
constexpr int kSumRows = 32;
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

/// parts: [block][2][n].
template <class S, int V, DType stored>
__global__ void __launch_bounds__(kSumThreads<S>, 1)
    backward_all(const LayerNormBackwardParams p, const RowGroups groups, double inverse_n,
                 Computed<S>* parts) {
  using T = Computed<S>;
  constexpr int K = kSumPacks<S>;
  __shared__ Pair<T> shared[2][kBlockWarps];
  const T* weight = static_cast<const T*>(p.weight);
  T* part = parts + 2 * groups.n * blockIdx.x;
  T weights[K][V], weight_sums[K][V] = {}, bias_sums[K][V] = {};
  const auto left = static_cast<unsigned>(groups.n);
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    const bool inside = groups.place<V>(k) < left;
    load_weights(weights[k], inside ? weight : nullptr, groups.place<V>(k), T(1));
  }
  const auto flush = [&](bool again) {
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      if (groups.place<V>(k) >= left) continue;
      add_row(part + groups.place<V>(k), weight_sums[k], again);
      add_row(part + groups.n + groups.place<V>(k), bias_sums[k], again);
    }
  };
  Held<S, V> xs[K], gs[K], next_xs[K], next_gs[K];
  double mean, inverse, next_mean = 0, next_inverse = 0;
  const auto fetch = [&](int64_t row) {
    const bool inside = row < groups.rows;
    const int64_t at = row * groups.n;
    load_part<S, V, stored>(next_xs, inside ? static_cast<const S*>(p.x) + at : nullptr, groups, 0);
    load_part<S, V, stored>(next_gs, inside ? static_cast<const S*>(p.g) + at : nullptr, groups, 0);
    if (inside) {
      next_mean = p.mean[row];
      next_inverse = p.inverse[row];
    }
  };
  fetch(blockIdx.x);
  int taken = 0;
  for (int64_t row = blockIdx.x; row < groups.rows; row += gridDim.x, ++taken) {
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      xs[k] = next_xs[k];
      gs[k] = next_gs[k];
    }
    mean = next_mean;
    inverse = next_inverse;
    fetch(row + gridDim.x);
    if (taken % kSumRows == 0 && taken > 0) flush(taken > kSumRows);
    RowSlope<T> slope(mean, inverse);
    Pair<T> sums{0, 0};
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      T values[V], gradients[V];
      widen_held<S, V, stored>(values, xs[k]);
      widen_held<S, V, stored>(gradients, gs[k]);
      Pair<T> of_vector{0, 0};
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        const T d = slope.distance(values[v]), h = gradients[v] * weights[k][v];
        of_vector.first += h;
        of_vector.second += h * d;
        bias_sums[k][v] += gradients[v];
        weight_sums[k][v] += gradients[v] * (d * slope.inverse);
      }
      sums = Sum{}(sums, of_vector);
    }
    // Two arrays in turn, so that one barrier a row is enough.
    slope.set(group_reduce<Sum>(sums, groups.width, shared[taken % 2]), inverse_n, inverse, p.rms);
    forget_widened(xs);
    forget_widened(gs);
    store_part<S, V, stored>(gs, static_cast<S*>(p.grad_x) + row * groups.n, groups, 0,
                             [&](T(&values)[V], int k, unsigned) {
                               T row_values[V];
                               widen_held<S, V, stored>(row_values, xs[k]);
                               OPSIN_UNROLL
                               for (int v = 0; v < V; ++v) {
                                 values[v] = slope(values[v] * weights[k][v], slope.distance(row_values[v]));
                               }
                             });
  }
  flush(taken > kSumRows);
}

/// parts: [slice][2][columns], which are the sums for the first and those for the second.
template <class T, class Part>
__global__ void __launch_bounds__(kWarpThreads* kMergeShares)
    store_sums(const Part* parts, int64_t slices, int64_t columns, T* first, T* second) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  const Pair<double> sums = merge_parts(parts, slices, columns, column);
  if (column >= columns || threadIdx.y != 0) return;
  if (first) first[column] = static_cast<T>(sums.first);
  if (second) second[column] = static_cast<T>(sums.second);
}

template <class T, class Part>
void launch_store(const Part* parts, int64_t slices, int64_t columns, void* first, void* second) {
  OPSIN_LAUNCH((store_sums<T, Part>), grid_for(columns, kWarpThreads, ~0u), dim3(kWarpThreads, kMergeShares),
               0, parts, slices, columns, static_cast<T*>(first), static_cast<T*>(second));
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
                     groups, inverse_n, parts);
        return launch_store<T>(parts, blocks, p.n, p.grad_weight, p.grad_bias);
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
    launch_store<T>(parts, slices, p.n, p.grad_bias, p.grad_weight);
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
