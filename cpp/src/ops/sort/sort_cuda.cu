// Sorting on a GPU. A block sorts a tile in shared memory, one row or several short ones, by a bitonic
// network over pairs of a key and the element's position: no two pairs are equal, so the order is that of a
// stable sort. The few first of a long row come from the few first of its tiles, and so on; for all of a long
// row the pairs are sorted by radix.
#include "sort_keys.h"

#include <algorithm>
#include <bit>

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/scratch.h"
#include "cuda/sort.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 512;
/// Pairs of a block: at least the first number, which short rows share.
constexpr unsigned kFewSlots = 1024, kMostSlots = 4096;
/// Where there is no element; comes after all others.
constexpr uint32_t kNowhere = 0xffffffffu;

/// Elements of rows that compete: all of a row, or those that earlier rounds left.
struct Tiles {
  SortSource source;
  const uint32_t* candidates;  ///< [rows, count], kNowhere for none; null for all elements of a row.
  uint32_t* winners;           ///< [rows, tiles, kept]; null in the last round.
  char* values;                ///< [rows, results]
  int64_t* positions;
  int64_t rows, count;  ///< Competing elements of each row.
  int64_t tiles;        ///< Of a row.
  unsigned length;      ///< Competing elements of a tile.
  unsigned width;       ///< Slots of a tile: a power of two.
  unsigned kept;        ///< How many of a tile go on.
  int64_t k;
  Pick pick;
};

/// One step of the network: slots that differ in the bit `stride` are put in order, the reversed one where
/// the bit `run` is set.
template <class Key>
__device__ __forceinline__ void order_pairs(Key* keys, uint32_t* positions, unsigned slots, unsigned stride,
                                            unsigned run) {
  for (unsigned i = threadIdx.x; i < slots / 2; i += blockDim.x) {
    const unsigned a = 2 * i - (i & (stride - 1)), b = a + stride;
    const Key key_a = keys[a], key_b = keys[b];
    const uint32_t position_a = positions[a], position_b = positions[b];
    const bool is_behind = key_a > key_b || (key_a == key_b && position_a > position_b);
    if (is_behind == ((a & run) == 0)) {
      keys[a] = key_b;
      keys[b] = key_a;
      positions[a] = position_b;
      positions[b] = position_a;
    }
  }
  __syncthreads();
}

template <class Key>
__global__ void __launch_bounds__(kThreads) sort_tiles(Tiles t, unsigned slots) {
  OPSIN_SHARED(Key, keys);
  auto* const positions = reinterpret_cast<uint32_t*>(keys + slots);
  const unsigned tiles_here = slots / t.width;
  const int64_t tile0 = static_cast<int64_t>(blockIdx.x) * tiles_here, all_tiles = t.rows * t.tiles;

  for (unsigned slot = threadIdx.x; slot < slots; slot += blockDim.x) {
    const int64_t tile = tile0 + slot / t.width;
    const int64_t i = tile % t.tiles * t.length + slot % t.width;
    Key key = ~Key(0);
    uint32_t position = kNowhere;
    if (tile < all_tiles && slot % t.width < t.length && i < t.count) {
      const int64_t row = tile / t.tiles;
      position = t.candidates ? t.candidates[row * t.count + i] : static_cast<uint32_t>(i);
      if (position != kNowhere) key = key_at<Key>(t.source, row, position);
    }
    keys[slot] = key;
    positions[slot] = position;
  }
  __syncthreads();

  // The bit `run` of a slot is that of its number within the tile; all tiles end in ascending order.
  for (unsigned run = 2; run <= t.width; run *= 2) {
    const unsigned reversed = run == t.width ? 0 : run;
    for (unsigned stride = run / 2; stride > 0; stride /= 2)
      order_pairs(keys, positions, slots, stride, reversed);
  }

  const unsigned kept = t.pick == Pick::kSort || t.pick == Pick::kTop ? t.kept : 1;
  for (unsigned e = threadIdx.x; e < tiles_here * kept; e += blockDim.x) {
    const unsigned part = e / kept, i = e - part * kept;
    const int64_t tile = tile0 + part;
    if (tile >= all_tiles) continue;
    unsigned place = i;
    if (t.pick == Pick::kNth) place = static_cast<unsigned>(t.k);
    if (t.pick == Pick::kMedian) {
      place = median_place(keys + part * t.width, static_cast<unsigned>(t.count), t.source);
    }
    const uint32_t position = positions[part * t.width + place];
    const int64_t to = tile * kept + i;
    if (t.winners) {
      t.winners[to] = position;
    } else {
      t.positions[to] = position;
      copy_value(t.source, t.values, to, tile, position);
    }
  }
}

void launch_tiles(Tiles& t) {
  t.length = static_cast<unsigned>(std::min<int64_t>(t.count, kMostSlots));
  t.tiles = (t.count + t.length - 1) / t.length;
  t.width = std::bit_ceil(t.length);
  const unsigned slots = std::max(t.width, kFewSlots);
  const int64_t blocks = (t.rows * t.tiles + slots / t.width - 1) / (slots / t.width);
  const auto grid = static_cast<unsigned>(blocks);
  if (t.source.size == sizeof(uint64_t)) {
    OPSIN_LAUNCH(sort_tiles<uint64_t>, grid, kThreads, slots * (sizeof(uint64_t) + sizeof(uint32_t)), t,
                 slots);
  } else {
    OPSIN_LAUNCH(sort_tiles<uint32_t>, grid, kThreads, slots * (sizeof(uint32_t) + sizeof(uint32_t)), t,
                 slots);
  }
}

/// Rounds of tiles, each of which keeps `results` elements, until one tile is left.
void run_tiles(const SortParams& p, const SortSource& source) {
  Tiles t{};
  t.source = source;
  t.rows = p.rows;
  t.count = p.n;
  t.k = p.k;
  t.pick = p.pick;
  t.kept = static_cast<unsigned>(p.results);
  Scratch<uint32_t> candidates;
  while (t.count > kMostSlots) {
    const int64_t tiles = (t.count + kMostSlots - 1) / kMostSlots;
    Scratch<uint32_t> winners(p.rows * tiles * t.kept);
    t.winners = winners.data();
    launch_tiles(t);
    t.candidates = t.winners;
    t.count = tiles * t.kept;
    candidates = winners;
  }
  t.winners = nullptr;
  t.values = static_cast<char*>(p.values);
  t.positions = p.positions;
  launch_tiles(t);
}

template <class Key>
__global__ void __launch_bounds__(kThreads) make_keys(SortSource source, Key* keys, int64_t count) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < count; i += thread_count()) keys[i] = key_at<Key>(source, 0, i);
}

/// The results, from the keys of whole rows in order and where they were.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    take_results(SortSource source, SortParams p, const Key* keys, const uint32_t* positions) {
  OPSIN_NO_UNROLL
  for (int64_t e = thread_rank(); e < p.rows * p.results; e += thread_count()) {
    const int64_t row = e / p.results;
    int64_t place = e - row * p.results;
    if (p.pick == Pick::kNth) place = p.k;
    if (p.pick == Pick::kMedian) place = median_place(keys + row * p.n, p.n, source);
    const uint32_t position = positions[row * p.n + place];
    p.positions[e] = position;
    copy_value(source, static_cast<char*>(p.values), e, row, position);
  }
}

template <class Key>
void sort_long_rows(const SortParams& p, const SortSource& source) {
  const int64_t count = p.rows * p.n;
  const Scratch<Key> keys(count);
  OPSIN_LAUNCH(make_keys<Key>, grid_for(count, kThreads), kThreads, 0, source, keys.data(), count);
  const SortedRows<Key> sorted = cuda::sort_rows(keys.data(), p.rows, p.n, static_cast<int>(8 * source.size));
  OPSIN_LAUNCH(take_results<Key>, grid_for(p.rows * p.results, kThreads), kThreads, 0, source, p, sorted.keys,
               sorted.positions);
}

void sort_any(const SortParams& p) {
  OPSIN_CHECK(Error, p.n < int64_t{kNowhere}, "sort: expected rows shorter than 2^32 - 1 on a GPU, got ",
              p.n);
  const SortSource source = source_of(p);
  // A round must leave a quarter at most.
  if (p.n <= kMostSlots || (p.pick == Pick::kTop && p.results <= kMostSlots / 4)) {
    run_tiles(p, source);
  } else if (source.size == sizeof(uint64_t)) {
    sort_long_rows<uint64_t>(p, source);
  } else {
    sort_long_rows<uint32_t>(p, source);
  }
}

}  // namespace

void register_sort_cuda();

void register_sort_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_complex(dtype)) sort_forward.set(DeviceType::kCUDA, dtype, sort_any);
  }
}

}  // namespace opsin
