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
  } else if constexpr (N % 2 == 0) {
    // From whole registers: to take halves of them out first would double the work.
    const auto words = __builtin_bit_cast(Pack<uint32_t, N / 2>, from);
    if (stored == kFloat16) {
      OPSIN_UNROLL
      for (int i = 0; i < N / 2; ++i) halves_to_floats(words.value[i], to[2 * i], to[2 * i + 1]);
    } else {
      OPSIN_UNROLL
      for (int i = 0; i < N / 2; ++i) bfloats_to_floats(words.value[i], to[2 * i], to[2 * i + 1]);
    }
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
  } else if constexpr (N % 2 == 0) {
    uint32_t words[N / 2];
    OPSIN_UNROLL
    for (int i = 0; i < N / 2; ++i) words[i] = narrow_pair(from[2 * i], from[2 * i + 1], stored);
    memcpy(&to, words, sizeof(to));
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

/// 2^x by the GPU's instruction, for results of 16 bits; less than the smallest normal float32 becomes 0.
__host__ __device__ inline float power_of_two(float x) {
#if defined(__CUDA_ARCH__)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return std::exp2(x);
#endif
}
/// exp() of 16-bit numbers, whose results keep fewer digits than one instruction gives.
__host__ __device__ inline float short_exp(float x) { return power_of_two(x * 1.44269504f); }
/// exp() as exact as numbers stored as S need it.
template <class S>
__device__ __forceinline__ Computed<S> stored_exp(Computed<S> x) {
  if constexpr (sizeof(S) == 2) {
    return short_exp(x);
  } else {
    return device_exp(x);
  }
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

/// Calls body<S, V, stored>() with the widest vectors that can be read from every row of `n` elements at the
/// given addresses. `stored` is the dtype, told when the kernel is compiled: a row that stays packed is
/// widened several times.
template <class Body, class... Data>
void dispatch_rows(DType dtype, int64_t n, Body&& body, Data... data) {
  const auto run = [&]<class S, DType stored>() {
    if constexpr (sizeof(S) < 8) {
      if (fits_vectors<S>(n, data...)) return body.template operator()<S, kVector<S>, stored>();
    }
    body.template operator()<S, 1, stored>();
  };
  if (dtype == kFloat64) return run.template operator()<double, kFloat64>();
  if (dtype == kFloat32) return run.template operator()<float, kFloat32>();
  if (dtype == kFloat16) return run.template operator()<uint16_t, kFloat16>();
  run.template operator()<uint16_t, kBFloat16>();
}

/// Calls body<kOnce>() for vectors of V.
template <int V, class Body>
void dispatch_held(bool held, Body&& body) {
  if constexpr (V > 1) {
    if (held) return body.template operator()<true>();
  }
  body.template operator()<false>();
}

/// Vectors that a thread holds, which are read at once.
template <int V>
inline constexpr int kPacks = V > 1 ? 4 : 8;
inline constexpr unsigned kRowThreads = 128;      ///< Threads of a block that serves several rows.
inline constexpr unsigned kMostRowThreads = 512;  ///< Of a block that serves one.
/// How many blocks of that size a multiprocessor has room for at least: registers are kept back from kernels
/// over 32-bit values.
template <class S>
inline constexpr unsigned kRowBlocks = sizeof(S) == 8 ? 1 : 2;

/// Rows of n elements, each held by a group of `width` threads, a power of two: part of a warp, or a block. A
/// row that is longer than what a whole block holds is gone through in parts.
struct RowGroups {
  int64_t rows, n;
  unsigned width, shift, held_each;  ///< width = 1 << shift

  /// `held_each` elements are held by a thread.
  RowGroups(int64_t rows_, int64_t n_, int held_each_, unsigned most = kMostRowThreads)
      : rows(rows_), n(n_), width(1), shift(0), held_each(static_cast<unsigned>(held_each_)) {
    for (; width < most && int64_t{width} * held_each < n; ++shift) width *= 2;
  }
  unsigned block() const { return width > kWarpThreads ? width : kRowThreads; }
  unsigned grid() const {
    const int64_t of_block = block() / width;
    return static_cast<unsigned>((rows + of_block - 1) / of_block);
  }
  __host__ __device__ bool held() const { return n <= part(); }
  __host__ __device__ int64_t part() const { return static_cast<int64_t>(width) * held_each; }

  // In a kernel.
  __device__ int64_t row() const {
    return static_cast<int64_t>(blockIdx.x) * (blockDim.x >> shift) + (threadIdx.x >> shift);
  }
  __device__ unsigned lane() const { return threadIdx.x & (width - 1); }
  /// Where the part of a row after that at `first` begins; `kOnce` tells the compiler that rows are held.
  template <bool kOnce>
  __device__ int64_t next(int64_t first) const {
    return kOnce ? n : first + part();
  }
  /// How many elements there are in the part of a row that begins at `first`.
  __device__ unsigned left(int64_t first) const {
    return static_cast<unsigned>(n - first < part() ? n - first : part());
  }
  /// Where in a part the k-th vector, of V, of a thread begins.
  template <int V>
  __device__ unsigned place(int k) const {
    return (lane() + static_cast<unsigned>(k) * width) * V;
  }
};

/// V neighbours of a row that is held: 16-bit numbers two to a register, as they lie in memory.
template <class S, int V>
using Held = std::conditional_t<sizeof(S) == 2 && V % 2 == 0, Pack<uint32_t, (V + 1) / 2>, Pack<S, V>>;

template <class S, int V, DType stored>
__device__ __forceinline__ void widen_held(Computed<S> (&to)[V], const Held<S, V>& from) {
  if constexpr (std::is_same_v<Held<S, V>, Pack<S, V>>) {
    widen(to, from, stored);
  } else {
    OPSIN_UNROLL
    for (int i = 0; i < V / 2; ++i) {
      if constexpr (stored == kFloat16) {
        halves_to_floats(from.value[i], to[2 * i], to[2 * i + 1]);
      } else {
        bfloats_to_floats(from.value[i], to[2 * i], to[2 * i + 1]);
      }
    }
  }
}

/// Between two passes over a row that is held: makes the compiler widen it again, where it would rather keep
/// the results of the first time in twice the registers.
template <class Vector, int K>
__device__ __forceinline__ void forget_widened(Vector (&held)[K]) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<std::remove_reference_t<decltype(held[0].value[0])>, uint32_t>) {
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      OPSIN_UNROLL
      for (uint32_t& word : held[k].value) asm volatile("" : "+r"(word));
    }
  }
#else
  (void)held;
#endif
}

/// The vectors of this thread in the part of a row that begins at `first`; 0, or minus infinity, beyond its
/// end, or without a row.
enum class Missing { kZero, kLowest };
template <class S, int V, DType stored, Missing missing = Missing::kZero, int K>
__device__ __forceinline__ void load_part(Held<S, V> (&to)[K], const S* row, const RowGroups& groups,
                                          int64_t first) {
  Held<S, V> fill;
  OPSIN_UNROLL
  for (auto& value : fill.value) {
    if constexpr (missing == Missing::kZero) {
      value = 0;
    } else if constexpr (sizeof(S) > 2) {
      value = -std::numeric_limits<S>::infinity();
    } else {
      value = static_cast<std::remove_reference_t<decltype(value)>>(stored == kFloat16 ? 0xfc00fc00u
                                                                                       : 0xff80ff80u);
    }
  }
  const unsigned left = row ? groups.left(first) : 0;
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    const unsigned at = groups.place<V>(k);
    to[k] = fill;
    if (at < left) to[k] = *reinterpret_cast<const Held<S, V>*>(row + first + at);
  }
}

/// Writes the vectors of this thread after f(values, k, at) has changed the values of the k-th, which is at
/// `at` in the part.
template <class S, int V, DType stored, int K, class F>
__device__ __forceinline__ void store_part(const Held<S, V> (&from)[K], S* row, const RowGroups& groups,
                                           int64_t first, F f) {
  const unsigned left = row ? groups.left(first) : 0;
  OPSIN_UNROLL
  for (int k = 0; k < K; ++k) {
    const unsigned at = groups.place<V>(k);
    if (at >= left) continue;
    Computed<S> values[V];
    widen_held<S, V, stored>(values, from[k]);
    f(values, k, at);
    pack_at<S, V>(row + first + at) = narrow<S, V>(values, stored);
  }
}

/// Merges the values that the lanes of one warp have of a group.
template <class Op, class T>
__device__ __forceinline__ T lanes_reduce(T value, unsigned width, Op op = Op{}) {
  if (width >= kWarpThreads) return warp_reduce<Op>(value, op);
  for (unsigned mask = 1; mask < width; mask *= 2) {
    const T other = shuffle_xor(value, static_cast<int>(mask));
    value = (threadIdx.x & mask) != 0 ? op(other, value) : op(value, other);
  }
  return value;
}

/// Merges the values of a group; every thread of the block must call it. `shared` has kBlockWarps elements,
/// which are free again after the next barrier of the block.
template <class Op, class T>
__device__ __forceinline__ T group_reduce(T value, unsigned width, T* shared, Op op = Op{}) {
  value = lanes_reduce<Op>(value, width, op);
  return width > kWarpThreads ? warps_reduce<Op>(value, shared, op) : value;
}

}  // namespace opsin::cuda
