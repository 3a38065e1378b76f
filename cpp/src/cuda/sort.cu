// Rows of up to 256 keys are ranked by counting; those that fit into a block are sorted there, from the
// lowest digits to the highest; longer ones go through memory once for each digit: count the digits of each
// tile, scan the counts, move the keys. Nothing depends on the order in which threads run.
#include <algorithm>
#include <utility>

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/scan.h"
#include "cuda/sort.h"

namespace opsin::cuda {

namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kWarps = kThreads / kWarpThreads;
constexpr int kDigitBits = 8;
constexpr unsigned kDigits = 1u << kDigitBits;
static_assert(kDigits == kThreads, "each thread sums the counts of one digit");

/// Keys of a thread in one tile.
template <class Key>
constexpr int kItems = static_cast<int>(64 / sizeof(Key));

/// Keys of a thread in a row that its block sorts alone.
constexpr int kBlockItems = 16;

/// A block for as many rows of up to kThreads keys as it has threads for: a key's place is the number of
/// those that go before it.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    rank_rows(Key* keys, std::uint32_t* positions, std::int64_t rows, unsigned n) {
  OPSIN_SHARED(Key, shared);
  const unsigned in_block = kThreads / n, r = threadIdx.x / n, i = threadIdx.x - r * n;
  for (std::int64_t first = blockIdx.x * std::int64_t{in_block}; first < rows;
       first += gridDim.x * std::int64_t{in_block}) {
    const bool mine = r < in_block && first + r < rows;
    Key* const row = keys + (first + r) * n;
    const Key key = mine ? row[i] : Key{0};
    shared[threadIdx.x] = key;
    __syncthreads();
    if (mine) {
      const Key* const others = shared + r * n;
      unsigned rank = 0;
      for (unsigned j = 0; j < n; ++j) rank += others[j] < key || (others[j] == key && j < i);
      row[rank] = key;
      positions[(first + r) * n + rank] = i;
    }
    __syncthreads();
  }
}

/// Bits [shift, shift + bits) of the keys, up to kDigitBits of them.
struct Digit {
  int shift, bits;
  template <class Key>
  __device__ unsigned operator()(Key key) const {
    return static_cast<unsigned>(key >> shift) & ((1u << bits) - 1);
  }
};

/// What the ranking of a tile keeps in shared memory.
struct Counts {
  unsigned of_warp[kDigits * kWarps];  ///< [warp][digit]
  unsigned begin[kDigits];             ///< Where the keys of a digit begin in the sorted tile.
  unsigned total[kWarps];
};

/// The place of each key in the tile sorted by one digit. Key j of lane l is number (warp * kCount + j) * 32
/// + l of the tile; equal digits keep this order.
template <int kCount>
__device__ __forceinline__ void rank_tile(const unsigned (&digits)[kCount], int bits,
                                          unsigned (&ranks)[kCount], Counts& counts) {
  const unsigned lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  for (unsigned w = 0; w < kWarps; ++w) counts.of_warp[w * kDigits + threadIdx.x] = 0;
  __syncthreads();
  unsigned* const seen = counts.of_warp + warp * kDigits;
  OPSIN_UNROLL
  for (int j = 0; j < kCount; ++j) {
    // The lanes with the same digit; the lowest of them counts for all.
    unsigned peers = kAllLanes;
    for (int b = 0; b < bits; ++b) {
      const unsigned bit = digits[j] >> b & 1;
      const unsigned ones = __ballot_sync(kAllLanes, static_cast<int>(bit));
      peers &= bit ? ones : ~ones;
    }
    const unsigned before = peers & ((1u << lane) - 1);
    ranks[j] = seen[digits[j]] + static_cast<unsigned>(__popc(before));
    __syncwarp();
    if (before == 0) seen[digits[j]] += static_cast<unsigned>(__popc(peers));
    __syncwarp();
  }
  __syncthreads();
  // Thread d turns the counts of digit d into places.
  unsigned count = 0;
  for (unsigned w = 0; w < kWarps; ++w) count += counts.of_warp[w * kDigits + threadIdx.x];
  const unsigned sum = warp_scan<Sum>(count);
  if (lane == kWarpThreads - 1) counts.total[warp] = sum;
  __syncthreads();
  unsigned place = sum - count;
  for (unsigned w = 0; w < warp; ++w) place += counts.total[w];
  counts.begin[threadIdx.x] = place;
  for (unsigned w = 0; w < kWarps; ++w) {
    unsigned& cell = counts.of_warp[w * kDigits + threadIdx.x];
    const unsigned own = cell;
    cell = place;
    place += own;
  }
  __syncthreads();
  OPSIN_UNROLL
  for (int j = 0; j < kCount; ++j) ranks[j] += seen[digits[j]];
}

/// Shared memory of a tile.
template <class Key, int kCount>
struct Tile {
  Key keys[kThreads * kCount];
  unsigned positions[kThreads * kCount];
  Counts counts;
};

/// A block sorts a row of up to kThreads * kCount keys.
template <class Key, int kCount>
__global__ void __launch_bounds__(kThreads)
    sort_in_block(Key* keys, std::uint32_t* positions, std::int64_t rows, unsigned n, int bits) {
  using Shared = Tile<Key, kCount>;
  OPSIN_SHARED(Shared, tile);
  const unsigned first = threadIdx.x / kWarpThreads * kWarpThreads * kCount + threadIdx.x % kWarpThreads;
  const int passes = (bits - 1) / kDigitBits + 1, width = (bits - 1) / passes + 1;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    Key key[kCount];
    unsigned position[kCount], digit[kCount], rank[kCount];
    OPSIN_UNROLL
    for (int j = 0; j < kCount; ++j) {
      position[j] = first + static_cast<unsigned>(j) * kWarpThreads;
      // What is not there stays behind all that is.
      key[j] = position[j] < n ? keys[row * n + position[j]] : static_cast<Key>(~Key{0});
    }
    for (int shift = 0; shift < bits; shift += width) {
      const Digit digit_of{shift, width};
      OPSIN_UNROLL
      for (int j = 0; j < kCount; ++j) digit[j] = digit_of(key[j]);
      rank_tile<kCount>(digit, width, rank, tile->counts);
      OPSIN_UNROLL
      for (int j = 0; j < kCount; ++j) {
        tile->keys[rank[j]] = key[j];
        tile->positions[rank[j]] = position[j];
      }
      __syncthreads();
      OPSIN_UNROLL
      for (int j = 0; j < kCount; ++j) {
        const unsigned i = first + static_cast<unsigned>(j) * kWarpThreads;
        key[j] = tile->keys[i];
        position[j] = tile->positions[i];
      }
      __syncthreads();
    }
    OPSIN_UNROLL
    for (int j = 0; j < kCount; ++j) {
      const unsigned i = first + static_cast<unsigned>(j) * kWarpThreads;
      if (i >= n) continue;
      keys[row * n + i] = key[j];
      positions[row * n + i] = position[j];
    }
  }
}

/// How often each digit occurs in each tile: counts[row][digit][tile].
template <class Key>
__global__ void __launch_bounds__(kThreads)
    count_digits(const Key* keys, std::uint32_t* counts, std::int64_t rows, std::int64_t n,
                 std::int64_t tiles, Digit digit) {
  OPSIN_SHARED(unsigned, found);
  constexpr std::int64_t kTile = std::int64_t{kThreads} * kItems<Key>;
  for (std::int64_t t = blockIdx.x; t < rows * tiles; t += gridDim.x) {
    const std::int64_t row = t / tiles, tile = t - row * tiles;
    found[threadIdx.x] = 0;
    __syncthreads();
    OPSIN_UNROLL
    for (int j = 0; j < kItems<Key>; ++j) {
      const std::int64_t i = tile * kTile + j * std::int64_t{kThreads} + threadIdx.x;
      if (i < n) atomicAdd(&found[digit(keys[row * n + i])], 1u);
    }
    __syncthreads();
    counts[(row * kDigits + threadIdx.x) * tiles + tile] = found[threadIdx.x];
  }
}

/// Moves the keys of each tile to their places by one digit; `places` are the scanned counts.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    move_keys(const Key* keys, const std::uint32_t* positions, Key* to_keys, std::uint32_t* to_positions,
              const std::uint32_t* places, std::int64_t rows, std::int64_t n, std::int64_t tiles,
              Digit digit_of) {
  constexpr int kCount = kItems<Key>;
  constexpr unsigned kTile = kThreads * kCount;
  using Shared = Tile<Key, kCount>;
  OPSIN_SHARED(Shared, tile);
  const unsigned first = threadIdx.x / kWarpThreads * kWarpThreads * kCount + threadIdx.x % kWarpThreads;
  for (std::int64_t t = blockIdx.x; t < rows * tiles; t += gridDim.x) {
    const std::int64_t row = t / tiles, begin = (t - row * tiles) * kTile;
    const unsigned count = n - begin < kTile ? static_cast<unsigned>(n - begin) : kTile;
    Key key[kCount];
    unsigned position[kCount], digit[kCount], rank[kCount];
    OPSIN_UNROLL
    for (int j = 0; j < kCount; ++j) {
      const unsigned i = first + static_cast<unsigned>(j) * kWarpThreads;
      const std::int64_t at = begin + i;
      key[j] = i < count ? keys[row * n + at] : static_cast<Key>(~Key{0});
      position[j] = i < count && positions ? positions[row * n + at] : static_cast<unsigned>(at);
      digit[j] = digit_of(key[j]);
    }
    rank_tile<kCount>(digit, digit_of.bits, rank, tile->counts);
    OPSIN_UNROLL
    for (int j = 0; j < kCount; ++j) {
      tile->keys[rank[j]] = key[j];
      tile->positions[rank[j]] = position[j];
    }
    // From the place in the tile to that in the row; the difference may be negative, which wraps around.
    unsigned* const offset = tile->counts.begin;
    offset[threadIdx.x] =
        places[(row * kDigits + threadIdx.x) * tiles + (t - row * tiles)] - offset[threadIdx.x];
    __syncthreads();
    OPSIN_UNROLL
    for (int j = 0; j < kCount; ++j) {
      const unsigned i = static_cast<unsigned>(j) * kThreads + threadIdx.x;
      if (i >= count) continue;
      const Key moved = tile->keys[i];
      const std::int64_t to = row * n + static_cast<unsigned>(offset[digit_of(moved)] + i);
      to_keys[to] = moved;
      to_positions[to] = tile->positions[i];
    }
    __syncthreads();
  }
}

template <class Key, int kCount>
void sort_in_blocks(SortedRows<Key>& sorted, std::int64_t rows, std::int64_t n, int bits) {
  OPSIN_LAUNCH((sort_in_block<Key, kCount>), grid_for(rows, 1), kThreads, sizeof(Tile<Key, kCount>),
               sorted.keys, sorted.positions, rows, static_cast<unsigned>(n), bits);
}

}  // namespace

template <class Key>
SortedRows<Key> sort_rows(Key* keys, std::int64_t rows, std::int64_t n, int bits) {
  OPSIN_CHECK(Error, n <= std::numeric_limits<std::uint32_t>::max(), "sort: rows of ", n,
              " elements are too long");
  constexpr std::int64_t kTile = std::int64_t{kThreads} * kItems<Key>;
  SortedRows<Key> sorted{keys, nullptr, {}, {}};
  if (rows <= 0 || n <= 0) return sorted;
  bits = std::max(bits, 1);
  sorted.position_memory[0] = Scratch<std::uint32_t>(rows * n);
  sorted.positions = sorted.position_memory[0].data();
  if (n <= kThreads) {
    OPSIN_LAUNCH(rank_rows<Key>, grid_for(rows, kThreads / static_cast<unsigned>(n)), kThreads,
                 kThreads * sizeof(Key), keys, sorted.positions, rows, static_cast<unsigned>(n));
    return sorted;
  }
  if (n <= kBlockItems * kThreads) {
    if (n <= 4 * kThreads) {
      sort_in_blocks<Key, 4>(sorted, rows, n, bits);
    } else {
      sort_in_blocks<Key, kBlockItems>(sorted, rows, n, bits);
    }
    return sorted;
  }
  const std::int64_t tiles = (n - 1) / kTile + 1;
  const int passes = (bits - 1) / kDigitBits + 1, width = (bits - 1) / passes + 1;
  const unsigned grid = grid_for(rows * tiles, 1);
  const Scratch<std::uint32_t> counts(rows * kDigits * tiles);
  sorted.key_memory = Scratch<Key>(rows * n);
  if (passes > 1) sorted.position_memory[1] = Scratch<std::uint32_t>(rows * n);
  Key *from = keys, *to = sorted.key_memory.data();
  const std::uint32_t* positions = nullptr;
  for (int pass = 0; pass < passes; ++pass) {
    const Digit digit{pass * width, width};
    OPSIN_LAUNCH(count_digits<Key>, grid, kThreads, kDigits * sizeof(unsigned), from, counts.data(), rows, n,
                 tiles, digit);
    exclusive_scan<Sum>(counts.data(), rows, kDigits * tiles);
    sorted.positions = sorted.position_memory[pass % 2].data();
    OPSIN_LAUNCH(move_keys<Key>, grid, kThreads, (sizeof(Tile<Key, kItems<Key>>)), from, positions, to,
                 sorted.positions, counts.data(), rows, n, tiles, digit);
    positions = sorted.positions;
    std::swap(from, to);
  }
  sorted.keys = from;
  return sorted;
}

template SortedRows<std::uint32_t> sort_rows(std::uint32_t*, std::int64_t, std::int64_t, int);
template SortedRows<std::uint64_t> sort_rows(std::uint64_t*, std::int64_t, std::int64_t, int);

}  // namespace opsin::cuda
