// What kernels that are limited by memory share: floating-point numbers read sixteen bytes at a time, and
// groups of threads that hold the row of a matrix in their registers.
#pragma once

#include <cmath>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin::cuda {

/// What floating-point numbers stored as S are computed in. Both 16-bit types are stored as uint16_t; which
/// of them it is, is told at run time.
template <class S>
using Computed = std::conditional_t<std::is_same_v<S, double>, double, float>;

/// How many S are read at once.
template <class S>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(S));

template <class S, int N>
__host__ __device__ inline void widen(Computed<S> (&to)[N], const Pack<S, N>& from, DType stored) {
  if constexpr (!std::is_same_v<S, uint16_t>) {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = from.value[i];
  } else if (stored == kFloat16) {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = half_to_float(from.value[i]);
  } else {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = bfloat_to_float(from.value[i]);
  }
}

template <class S, int N>
__host__ __device__ inline Pack<S, N> narrow(const Computed<S> (&from)[N], DType stored) {
  Pack<S, N> to;
  if constexpr (!std::is_same_v<S, uint16_t>) {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to.value[i] = from[i];
  } else if (stored == kFloat16) {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to.value[i] = float_to_half(from[i]);
  } else {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to.value[i] = float_to_bfloat(from[i]);
  }
  return to;
}

template <class S, int N>
__device__ __forceinline__ const Pack<S, N>& pack_at(const S* from) {
  return *reinterpret_cast<const Pack<S, N>*>(from);
}
template <class S, int N>
__device__ __forceinline__ Pack<S, N>& pack_at(S* to) {
  return *reinterpret_cast<Pack<S, N>*>(to);
}

// The GPU has an instruction for powers of two, so its own exp() takes half as many instructions as
// math::exp(); kernels that take one per element are limited by it.
template <class T>
__device__ __forceinline__ T device_exp(T x) {
  return std::exp(x);
}
template <class T>
__device__ __forceinline__ T device_log(T x) {
  return std::log(x);
}

/// Calls body<S>() for the way that `dtype`, a floating-point type, is stored.
template <class Body>
void dispatch_stored(DType dtype, Body&& body) {
  if (dtype == kFloat64) return body.template operator()<double>();
  if (dtype == kFloat32) return body.template operator()<float>();
  body.template operator()<uint16_t>();
}

/// Whether vectors of S can be read from every row of `n` elements at the given addresses, of which some may
/// be null.
template <class S, class... Data>
bool fits_vectors(int64_t n, Data... data) {
  return sizeof(S) < 8 && n % kVector<S> == 0 && ((reinterpret_cast<uintptr_t>(data) % 16 == 0) && ...);
}

/// The larger number; NaN is no number.
struct MaxNumber {
  template <class T>
  OPSIN_FN T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

inline constexpr int kHeld = 8;                   ///< Elements that a thread holds.
inline constexpr unsigned kRowThreads = 128;      ///< Threads of a block that serves several rows.
inline constexpr unsigned kMostRowThreads = 512;  ///< Of a block that serves one.
/// How many blocks a multiprocessor has room for at least: registers are kept back from kernels over 32-bit
/// values.
template <class S>
inline constexpr unsigned kRowBlocks = sizeof(S) == 8 ? 1 : 2;

/// Rows of n elements, each held by a group of `width` threads, a power of two: part of a warp, or a block. A
/// row that is longer than what a whole block holds is gone through in parts.
struct RowGroups {
  int64_t rows, n;
  unsigned width;

  RowGroups(int64_t rows_, int64_t n_) : rows(rows_), n(n_), width(1) {
    while (width < kMostRowThreads && int64_t{width} * kHeld < n) width *= 2;
  }
  unsigned block() const { return width > kWarpThreads ? width : kRowThreads; }
  unsigned grid() const {
    const int64_t of_block = block() / width;
    return static_cast<unsigned>((rows + of_block - 1) / of_block);
  }

  // In a kernel.
  __device__ int64_t row() const {
    return static_cast<int64_t>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
  }
  __device__ unsigned lane() const { return threadIdx.x & (width - 1); }
  __device__ bool held() const { return n <= static_cast<int64_t>(width) * kHeld; }
  __device__ int64_t part() const { return static_cast<int64_t>(width) * kHeld; }
  /// How many elements there are in the part of a row that begins at `first`.
  __device__ unsigned left(int64_t first) const {
    return static_cast<unsigned>(n - first < part() ? n - first : part());
  }
  /// Where in a part element i of a thread is, for vectors of V.
  template <int V>
  __device__ unsigned place(int i) const {
    return (lane() + static_cast<unsigned>(i / V) * width) * V + static_cast<unsigned>(i % V);
  }
};

/// The elements of this thread in the part of a row that begins at `first`; `missing` beyond its end, or
/// without a row.
template <class S, int V>
__device__ __forceinline__ void load_part(Computed<S> (&to)[kHeld], const S* row, const RowGroups& groups,
                                          int64_t first, DType stored, Computed<S> missing) {
  const unsigned left = row ? groups.left(first) : 0;
  Pack<S, V> packs[kHeld / V];
  OPSIN_UNROLL
  for (int k = 0; k < kHeld / V; ++k) {
    const unsigned at = groups.place<V>(k * V);
    if (at < left) packs[k] = pack_at<S, V>(row + first + at);
  }
  OPSIN_UNROLL
  for (int k = 0; k < kHeld / V; ++k) {
    Computed<S> values[V];
    widen(values, packs[k], stored);
    const bool inside = groups.place<V>(k * V) < left;
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) to[k * V + v] = inside ? values[v] : missing;
  }
}

template <class S, int V>
__device__ __forceinline__ void store_part(const Computed<S> (&from)[kHeld], S* row, const RowGroups& groups,
                                           int64_t first, DType stored) {
  const unsigned left = row ? groups.left(first) : 0;
  OPSIN_UNROLL
  for (int k = 0; k < kHeld / V; ++k) {
    const unsigned at = groups.place<V>(k * V);
    if (at >= left) continue;
    Computed<S> values[V];
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) values[v] = from[k * V + v];
    pack_at<S, V>(row + first + at) = narrow<S, V>(values, stored);
  }
}

/// Merges the values of a group; every thread of the block must call it. `shared` has kBlockWarps elements.
template <class Op, class T>
__device__ __forceinline__ T group_reduce(T value, unsigned width, T* shared, Op op = Op{}) {
  if (width > kWarpThreads) return block_reduce<Op>(value, shared, op);
  for (unsigned mask = 1; mask < width; mask *= 2) {
    const T other = shuffle_xor(value, static_cast<int>(mask));
    value = (threadIdx.x & mask) != 0 ? op(other, value) : op(value, other);
  }
  return value;
}

}  // namespace opsin::cuda
