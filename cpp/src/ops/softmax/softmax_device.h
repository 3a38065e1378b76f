// The sum of exponentials along a vector, with its maximum taken out: what softmax and cross entropy share on
// a GPU.
#pragma once

#include "cuda/vectors.h"

namespace opsin::cuda {

/// A maximum and the sum of exp(x - base_of(maximum)) of some elements.
template <class T>
struct Powers {
  T max, sum;
};
template <class T>
__device__ __forceinline__ Powers<T> no_powers() {
  return {-std::numeric_limits<T>::infinity(), 0};
}

/// A maximum of -inf takes no part, so that such elements add 0. Where it is that of a whole vector, the
/// logarithm or the inverse of the sum, 0, gives the NaN that is due.
template <class T>
__device__ __forceinline__ T base_of(T max) {
  return max == -std::numeric_limits<T>::infinity() ? T(0) : max;
}

template <class S>
struct MergePowers {
  template <class T>
  __device__ __forceinline__ Powers<T> operator()(Powers<T> a, Powers<T> b) const {
    const T max = MaxNumber{}(a.max, b.max), base = base_of(max);
    return {max, a.sum * stored_exp<S>(a.max - base) + b.sum * stored_exp<S>(b.max - base)};
  }
};

/// Takes N more elements.
template <class S, int N>
__device__ __forceinline__ void add_powers(Powers<Computed<S>>& powers, const Computed<S> (&x)[N]) {
  using T = Computed<S>;
  T max = powers.max;
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) max = MaxNumber{}(x[i], max);
  const T base = base_of(max);
  T sum = 0;
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) sum += stored_exp<S>(x[i] - base);
  powers = {max, powers.sum * stored_exp<S>(powers.max - base) + sum};
}

/// The largest of the vectors of a thread, or `max`.
template <class S, int V, DType stored, int K>
__device__ __forceinline__ Computed<S> max_of(const Held<S, V> (&x)[K], Computed<S> max) {
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    Computed<S> values[V];
    widen_held<S, V, stored>(values, x[k]);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) max = MaxNumber{}(values[v], max);
  }
  return max;
}
/// The sum of their exp(x - base).
template <class S, int V, DType stored, int K>
__device__ __forceinline__ Computed<S> powers_of(const Held<S, V> (&x)[K], Computed<S> base) {
  Computed<S> sum = 0;
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    Computed<S> values[V], part = 0;
    widen_held<S, V, stored>(values, x[k]);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) part += stored_exp<S>(values[v] - base);
    sum += part;
  }
  return sum;
}

/// Of a row, for all threads of its group. A row that is held is left in `x`.
template <class S, int V, DType stored, bool kOnce, int K>
__device__ __forceinline__ Powers<Computed<S>> row_powers(Held<S, V> (&x)[K], const S* row,
                                                          const RowGroups& groups) {
  using T = Computed<S>;
  __shared__ Powers<T> shared[kBlockWarps];
  Powers<T> powers = no_powers<T>();
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    load_part<S, V, stored, Missing::kLowest>(x, row, groups, first);
    const T max = max_of<S, V, stored>(x, powers.max), base = base_of(max);
    forget_widened(x);
    powers = {max, powers.sum * stored_exp<S>(powers.max - base) + powers_of<S, V, stored>(x, base)};
    forget_widened(x);
  }
  // One power per lane, rather than two per step of a tree.
  const T max = lanes_reduce<MaxNumber>(powers.max, groups.width), base = base_of(max);
  powers = {max, lanes_reduce<Sum>(powers.sum * stored_exp<S>(powers.max - base), groups.width)};
  return groups.width > kWarpThreads ? warps_reduce<MergePowers<S>>(powers, shared) : powers;
}

/// How blocks of threads go down columns: `inner` columns of n rows in each of `outer` blocks of memory.
struct ColumnGroups {
  int64_t outer, n, inner;

  __host__ __device__ int64_t count() const { return outer * inner; }
  /// Threads of a block that share a column, where there are few columns.
  unsigned shares() const {
    unsigned y = 1;
    while (y < 8 && count() * y < (1 << 16) && y * 8 <= n) y *= 2;
    return y;
  }
  dim3 block() const { return dim3(256 / shares(), shares()); }
  unsigned grid() const {
    const int64_t of_block = block().x;
    return static_cast<unsigned>((count() + of_block - 1) / of_block);
  }

  // In a kernel.
  __device__ int64_t column() const { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
  __device__ bool inside() const { return column() < count(); }
  /// The first element of the column.
  __device__ int64_t start() const { return column() / inner * n * inner + column() % inner; }
};

/// Merges what the threads of a column have; `shared` has 256 elements.
template <class Op, class T>
__device__ __forceinline__ T column_reduce(T value, T* shared, Op op = Op{}) {
  if (blockDim.y == 1) return value;
  shared[threadIdx.y * blockDim.x + threadIdx.x] = value;
  __syncthreads();
  value = shared[threadIdx.x];
  for (unsigned y = 1; y < blockDim.y; ++y) value = op(value, shared[y * blockDim.x + threadIdx.x]);
  return value;
}

template <class S>
__device__ __forceinline__ Computed<S> read_one(const S* from, DType stored) {
  Computed<S> value[1];
  widen(value, pack_at<S, 1>(from), stored);
  return value[0];
}
template <class S>
__device__ __forceinline__ void write_one(Computed<S> value, S* to, DType stored) {
  const Computed<S> values[1] = {value};
  pack_at<S, 1>(to) = narrow<S, 1>(values, stored);
}

/// Of a column, for all threads that share it.
template <class S>
__device__ __forceinline__ Powers<Computed<S>> column_powers(const S* x, const ColumnGroups& groups,
                                                             DType stored) {
  using T = Computed<S>;
  __shared__ Powers<T> shared[256];
  constexpr int kLoads = 4;
  Powers<T> powers = no_powers<T>();
  if (groups.inside()) {
    const S* from = x + groups.start();
    const int64_t step = blockDim.y;
    int64_t i = threadIdx.y;
    for (; i + (kLoads - 1) * step < groups.n; i += kLoads * step) {
      T values[kLoads];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) values[k] = read_one(from + (i + k * step) * groups.inner, stored);
      add_powers<S>(powers, values);
    }
    for (; i < groups.n; i += step) {
      const T value[1] = {read_one(from + i * groups.inner, stored)};
      add_powers<S>(powers, value);
    }
  }
  return column_reduce<MergePowers<S>>(powers, shared);
}

}  // namespace opsin::cuda
