// What the kernels of the ops share: indices, and reductions over a warp or a block. Every reduction adds in
// an order that depends on the size of the block alone, so results are the same in every run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/math_parts.h"
#include "cuda/divider.h"
#include "cuda/launch.h"

namespace opsin::cuda {

inline constexpr unsigned kWarpThreads = 32;
/// Elements of shared memory that block_reduce() needs.
inline constexpr unsigned kBlockWarps = kMaxBlockThreads / kWarpThreads;
inline constexpr unsigned kAllLanes = 0xffffffffu;
/// Blocks that fill every GPU several times over; kernels loop over what is left.
inline constexpr unsigned kMaxGridBlocks = 1u << 14;

/// Blocks of `block` threads for `n` threads, at most `most`: a kernel launched with it steps through its
/// work by thread_count(). 0 for no work, which launches nothing.
inline unsigned grid_for(std::int64_t n, unsigned block, unsigned most = kMaxGridBlocks) {
  if (n <= 0) return 0;
  return static_cast<unsigned>(std::min<std::int64_t>((n - 1) / block + 1, most));
}

/// Index of the thread among all threads of a one-dimensional launch, and how many there are:
/// `for (int64_t i = thread_rank(); i < n; i += thread_count())`, with OPSIN_NO_UNROLL: few threads take a
/// second step.
__device__ __forceinline__ std::int64_t thread_rank() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t thread_count() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

/// Index of the thread in its block, whose shape may have up to three sizes, and how many threads that has.
__device__ __forceinline__ unsigned block_rank() {
  return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ unsigned block_threads() { return blockDim.x * blockDim.y * blockDim.z; }

/// A value and where it was found.
template <class T, class Index = std::int64_t>
struct Indexed {
  T value;
  Index index;
};

/// Two sums at once, such as those of x and of x * x.
template <class T>
struct Pair {
  T first;
  T second;
};

// The operations of reductions. `Op{}(a, b)` merges what comes first with what comes later.

struct Sum {
  template <class T>
  OPSIN_FN T operator()(T a, T b) const {
    return a + b;
  }
  template <class T>
  OPSIN_FN Pair<T> operator()(Pair<T> a, Pair<T> b) const {
    return {a.first + b.first, a.second + b.second};
  }
};

struct Product {
  template <class T>
  OPSIN_FN T operator()(T a, T b) const {
    return a * b;
  }
};

/// The larger value; NaN if there is one.
struct Max {
  template <class T>
  OPSIN_FN T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};

/// The smaller value; NaN if there is one.
struct Min {
  template <class T>
  OPSIN_FN T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

/// The larger value, NaN being the largest; of equal ones that with the lower index.
struct ArgMax {
  template <class T, class Index>
  OPSIN_FN Indexed<T, Index> operator()(Indexed<T, Index> a, Indexed<T, Index> b) const {
    const bool a_nan = a.value != a.value;
    const bool b_nan = b.value != b.value;
    const bool equal = a.value == b.value || (a_nan && b_nan);
    if (equal) return a.index < b.index ? a : b;
    return a_nan || (!b_nan && a.value > b.value) ? a : b;
  }
};

/// The smaller value, NaN being the smallest; of equal ones that with the lower index.
struct ArgMin {
  template <class T, class Index>
  OPSIN_FN Indexed<T, Index> operator()(Indexed<T, Index> a, Indexed<T, Index> b) const {
    const bool a_nan = a.value != a.value;
    const bool b_nan = b.value != b.value;
    const bool equal = a.value == b.value || (a_nan && b_nan);
    if (equal) return a.index < b.index ? a : b;
    return a_nan || (!b_nan && a.value < b.value) ? a : b;
  }
};

/// What the lane whose number differs by the bits of `lane_mask` has; of any type made of 4-byte words.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int lane_mask) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  constexpr bool kWide = sizeof(T) % 8 == 0;
  using Word = std::conditional_t<kWide, unsigned long long, unsigned>;
  Word words[sizeof(T) / sizeof(Word)];
  memcpy(words, &value, sizeof(T));
  OPSIN_UNROLL
  for (Word& word : words) word = __shfl_xor_sync(kAllLanes, word, lane_mask);
  memcpy(&value, words, sizeof(T));
  return value;
}

/// Merges the values of the 32 lanes, all of which must call it; every lane gets the same result. The order
/// is that of a binary tree over the lanes, with the lower lanes first.
template <class Op, class T>
__device__ __forceinline__ T warp_reduce(T value, Op op = Op{}) {
  const unsigned lane = block_rank();
  OPSIN_UNROLL
  for (int mask = 1; mask < static_cast<int>(kWarpThreads); mask *= 2) {
    const T other = shuffle_xor(value, mask);
    value = (lane & static_cast<unsigned>(mask)) != 0 ? op(other, value) : op(value, other);
  }
  return value;
}

/// Merges the values of the warps of a block, each the same for all its lanes; all threads must call it and
/// get the result. The block has a multiple of 32 threads. `shared` has kBlockWarps elements of shared
/// memory, which are free again after the next barrier of the block.
template <class Op, class T>
__device__ __forceinline__ T warps_reduce(T value, T* shared, Op op = Op{}) {
  const unsigned warps = block_threads() / kWarpThreads;
  if (warps == 1) return value;
  const unsigned lane = block_rank() % kWarpThreads;
  if (lane == 0) shared[block_rank() / kWarpThreads] = value;
  __syncthreads();
  if ((warps & (warps - 1)) == 0) {
    // A tree again: in a loop over the warps each step would wait for shared memory.
    value = shared[lane & (warps - 1)];
    for (unsigned mask = 1; mask < warps; mask *= 2) {
      const T other = shuffle_xor(value, static_cast<int>(mask));
      value = (lane & mask) != 0 ? op(other, value) : op(value, other);
    }
    return value;
  }
  value = shared[0];
  for (unsigned i = 1; i < warps; ++i) value = op(value, shared[i]);
  return value;
}

/// Merges the values of all threads of the block, all of which must call it; every thread gets the same
/// result. First each warp reduces, then the results of the warps are merged in order. For the block and
/// `shared` see warps_reduce(), but it is free again afterwards.
template <class Op, class T>
__device__ __forceinline__ T block_reduce(T value, T* shared, Op op = Op{}) {
  value = warps_reduce<Op>(warp_reduce<Op>(value, op), shared, op);
  if (block_threads() > kWarpThreads) __syncthreads();
  return value;
}

}  // namespace opsin::cuda
