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

struct MergePowers {
  template <class T>
  __device__ __forceinline__ Powers<T> operator()(Powers<T> a, Powers<T> b) const {
    const T max = MaxNumber{}(a.max, b.max), base = base_of(max);
    return {max, a.sum * device_exp(a.max - base) + b.sum * device_exp(b.max - base)};
  }
};

/// Takes N more elements.
template <class T, int N>
__device__ __forceinline__ void add_powers(Powers<T>& powers, const T (&x)[N]) {
  T max = powers.max;
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) max = x[i] > max ? x[i] : max;
  const T base = base_of(max);
  T sum = 0;
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) sum += device_exp(x[i] - base);
  powers = {max, powers.sum * device_exp(powers.max - base) + sum};
}

/// Of a row, for all threads of its group. A row that is held is left in `x`.
template <class S, int V>
__device__ __forceinline__ Powers<Computed<S>> row_powers(Computed<S> (&x)[kHeld], const S* row,
                                                          const RowGroups& groups, DType stored) {
  using T = Computed<S>;
  __shared__ Powers<T> shared[kBlockWarps];
  auto* numbers = reinterpret_cast<T*>(shared);
  constexpr T kMissing = -std::numeric_limits<T>::infinity();
  if (groups.held()) {
    load_part<S, V>(x, row, groups, 0, stored, kMissing);
    T max = kMissing;
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) max = x[i] > max ? x[i] : max;
    max = group_reduce<MaxNumber>(max, groups.width, numbers);
    const T base = base_of(max);
    T sum = 0;
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) sum += device_exp(x[i] - base);
    return {max, group_reduce<Sum>(sum, groups.width, numbers)};
  }
  Powers<T> powers = no_powers<T>();
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    load_part<S, V>(x, row, groups, first, stored, kMissing);
    add_powers(powers, x);
  }
  return group_reduce<MergePowers>(powers, groups.width, shared);
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
      add_powers(powers, values);
    }
    for (; i < groups.n; i += step) {
      const T value[1] = {read_one(from + i * groups.inner, stored)};
      add_powers(powers, value);
    }
  }
  return column_reduce<MergePowers>(powers, shared);
}

}  // namespace opsin::cuda
