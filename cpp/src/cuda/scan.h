// Prefix folds over rows of any length: sums, products, largest so far, places of what is kept.
//
// A warp owns consecutive elements of a tile and takes 32 of them at a time; the warps of a block are merged
// in order, and so are tiles. Where rows are too few to keep a GPU busy, blocks first fold pieces of a row,
// one launch scans the results, and a last one starts each piece from there. So results depend on the shape
// alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin::cuda {

inline constexpr unsigned kScanThreads = 256;
inline constexpr int kScanItems = 8;
inline constexpr std::int64_t kScanTile = std::int64_t{kScanThreads} * kScanItems;

namespace detail {

/// `value` of the lane `shuffle(word)` reads from; of any type made of 4-byte words.
template <class T, class F>
__device__ __forceinline__ T shuffle_words(T value, F shuffle) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  using Word = std::conditional_t<sizeof(T) % 8 == 0, unsigned long long, unsigned>;
  Word words[sizeof(T) / sizeof(Word)];
  memcpy(words, &value, sizeof(T));
  OPSIN_UNROLL
  for (Word& word : words) word = shuffle(word);
  memcpy(&value, words, sizeof(T));
  return value;
}

}  // namespace detail

/// The fold of `value` over this lane and those below it; all lanes of the warp must call it.
template <class Op, class T>
__device__ __forceinline__ T warp_scan(T value, Op op = Op{}) {
  const unsigned lane = block_rank() % kWarpThreads;
  OPSIN_UNROLL
  for (unsigned delta = 1; delta < kWarpThreads; delta *= 2) {
    const T other =
        detail::shuffle_words(value, [=](auto word) { return __shfl_up_sync(kAllLanes, word, delta); });
    if (lane >= delta) value = op(other, value);
  }
  return value;
}

namespace detail {

/// Bytes of shared memory of a block.
template <class T>
inline constexpr unsigned kScanShared = kScanThreads / kWarpThreads * sizeof(T);

/// Scans elements [begin, begin + kScanTile) of a row of `n`, started from `carry`; returns the fold of all
/// up to the end of the tile.
template <class T, class Op, class Load, class Store>
__device__ __forceinline__ T scan_tile(std::int64_t row, std::int64_t begin, std::int64_t n, T carry,
                                       T identity, Op op, Load load, Store store, T* shared) {
  const unsigned lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const std::int64_t first = begin + std::int64_t{warp} * kWarpThreads * kScanItems + lane;
  T values[kScanItems], before[kScanItems];
  OPSIN_UNROLL
  for (int j = 0; j < kScanItems; ++j) {
    const std::int64_t i = first + j * std::int64_t{kWarpThreads};
    values[j] = i < n ? load(row, i) : identity;
  }
  T total = identity;
  OPSIN_UNROLL
  for (int j = 0; j < kScanItems; ++j) {
    const T sum = warp_scan(values[j], op);
    const T lower = shuffle_words(sum, [](auto word) { return __shfl_up_sync(kAllLanes, word, 1u); });
    before[j] = lane == 0 ? total : op(total, lower);
    total = op(total, shuffle_words(sum, [](auto word) { return __shfl_sync(kAllLanes, word, 31); }));
  }
  if (lane == 0) shared[warp] = total;
  __syncthreads();
  T mine = carry;
  for (unsigned w = 0; w < kScanThreads / kWarpThreads; ++w) {
    if (w == warp) mine = carry;
    carry = op(carry, shared[w]);
  }
  __syncthreads();
  OPSIN_UNROLL
  for (int j = 0; j < kScanItems; ++j) {
    const std::int64_t i = first + j * std::int64_t{kWarpThreads};
    if (i < n) store(row, i, op(mine, before[j]), values[j]);
  }
  return carry;
}

/// A block for each piece of a row, `tiles` tiles long, started from its carry if there are any.
template <class T, class Op, class Load, class Store>
__global__ void __launch_bounds__(kScanThreads)
    scan_pieces(std::int64_t rows, std::int64_t n, std::int64_t pieces, std::int64_t tiles, const T* carries,
                T identity, Op op, Load load, Store store) {
  OPSIN_SHARED(T, shared);
  for (std::int64_t p = blockIdx.x; p < rows * pieces; p += gridDim.x) {
    const std::int64_t row = p / pieces, begin = p % pieces * tiles * kScanTile;
    const std::int64_t end = n - begin < tiles * kScanTile ? n : begin + tiles * kScanTile;
    T carry = carries ? carries[p] : identity;
    for (std::int64_t at = begin; at < end; at += kScanTile) {
      carry = scan_tile(row, at, n, carry, identity, op, load, store, shared);
    }
  }
}

template <class T, class Op, class Load>
__global__ void __launch_bounds__(kScanThreads)
    fold_pieces(std::int64_t rows, std::int64_t n, std::int64_t pieces, std::int64_t tiles, T* totals,
                T identity, Op op, Load load) {
  OPSIN_SHARED(T, shared);
  const auto drop = [](std::int64_t, std::int64_t, T, T) {};
  for (std::int64_t p = blockIdx.x; p < rows * pieces; p += gridDim.x) {
    const std::int64_t row = p / pieces, begin = p % pieces * tiles * kScanTile;
    const std::int64_t end = n - begin < tiles * kScanTile ? n : begin + tiles * kScanTile;
    T total = identity;
    for (std::int64_t at = begin; at < end; at += kScanTile) {
      total = scan_tile(row, at, n, total, identity, op, load, drop, shared);
    }
    if (threadIdx.x == 0) totals[p] = total;
  }
}

/// Rows of memory as what scan_rows() reads, and as where it writes the fold of what comes before.
template <class T>
struct LoadRows {
  const T* data;
  std::int64_t n;
  __device__ T operator()(std::int64_t row, std::int64_t i) const { return data[row * n + i]; }
};
template <class T>
struct StoreBefore {
  T* data;
  std::int64_t n;
  __device__ void operator()(std::int64_t row, std::int64_t i, T before, T) const {
    data[row * n + i] = before;
  }
};

}  // namespace detail

/// For each of `rows` rows of `n` elements: store(row, i, before, value), where value = load(row, i) and
/// `before` is the fold of the values in front of it, `identity` for the first; op(before, value) is the fold
/// up to and including it. `load`, `store` and `op` are copied to the GPU: objects of device functions
/// without pointers into the host. Elements may be loaded twice, but not after they were stored, so that a
/// scan may write over what it reads. T is made of 4-byte words; `op` need not commute.
template <class T, class Op, class Load, class Store>
void scan_rows(std::int64_t rows, std::int64_t n, T identity, Op op, Load load, Store store) {
  constexpr std::int64_t kEnoughBlocks = 1024;
  if (rows <= 0 || n <= 0) return;
  const std::int64_t tiles = (n - 1) / kScanTile + 1;
  const std::int64_t wanted = tiles <= 4 ? 1 : std::max<std::int64_t>(1, 4 * kEnoughBlocks / rows);
  const std::int64_t each = (tiles - 1) / std::min(tiles, wanted) + 1, pieces = (tiles - 1) / each + 1;
  const unsigned grid = grid_for(rows * pieces, 1);
  if (pieces == 1) {
    OPSIN_LAUNCH((detail::scan_pieces<T, Op, Load, Store>), grid, kScanThreads, detail::kScanShared<T>, rows,
                 n, pieces, each, nullptr, identity, op, load, store);
    return;
  }
  const Scratch<T> totals(rows * pieces);
  OPSIN_LAUNCH((detail::fold_pieces<T, Op, Load>), grid, kScanThreads, detail::kScanShared<T>, rows, n,
               pieces, each, totals.data(), identity, op, load);
  const detail::LoadRows<T> load_totals{totals.data(), pieces};
  const detail::StoreBefore<T> store_totals{totals.data(), pieces};
  OPSIN_LAUNCH((detail::scan_pieces<T, Op, detail::LoadRows<T>, detail::StoreBefore<T>>), grid_for(rows, 1),
               kScanThreads, detail::kScanShared<T>, rows, pieces, 1, (pieces - 1) / kScanTile + 1, nullptr,
               identity, op, load_totals, store_totals);
  OPSIN_LAUNCH((detail::scan_pieces<T, Op, Load, Store>), grid, kScanThreads, detail::kScanShared<T>, rows, n,
               pieces, each, totals.data(), identity, op, load, store);
}

/// Replaces each element of rows in memory by the fold of those in front of it.
template <class Op, class T>
void exclusive_scan(T* data, std::int64_t rows, std::int64_t n, T identity = {}, Op op = Op{}) {
  scan_rows(rows, n, identity, op, detail::LoadRows<T>{data, n}, detail::StoreBefore<T>{data, n});
}

}  // namespace opsin::cuda
