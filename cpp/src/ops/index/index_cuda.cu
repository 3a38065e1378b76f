// Rows and elements that are moved by index, masks.
#include "device_index.h"

#include "core/kernel.h"
#include "cuda/access.h"
#include "cuda/scan.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
/// Units of a row that one block takes, so that long rows are spread over several.
constexpr int64_t kColumns = 4 * kThreads;

/// Calls body.operator()<T>() with the widest unit that `bytes` and the addresses are multiples of.
template <class F>
void dispatch_unit(size_t bytes, F&& body) {
  switch (bytes & -bytes & 15) {
    case 1:
      return body.template operator()<uint8_t>();
    case 2:
      return body.template operator()<uint16_t>();
    case 4:
      return body.template operator()<uint32_t>();
    case 8:
      return body.template operator()<uint64_t>();
    default:
      return body.template operator()<Bits128>();
  }
}

/// Which of several values for one place stays: the last. Null where each place is named once.
using Owner = const uint32_t*;

/// `owner[at[c]]` becomes the largest c + 1.
__global__ void __launch_bounds__(kThreads)
    claim_rows(const int64_t* at, unsigned* owner, RowGeometry g, IndexCheck check) {
  OPSIN_NO_UNROLL
  for (int64_t c = thread_rank(); c < g.count; c += thread_count()) {
    const int64_t row = check(at[c]);
    if (row >= 0) atomicMax(&owner[row], static_cast<unsigned>(c) + 1);
  }
}

/// 2^`lanes` threads move a row, or kColumns units of it. kPut writes by index, else it is read by index.
template <class T, bool kPut>
__global__ void __launch_bounds__(kThreads)
    move_rows(const T* __restrict__ from, T* __restrict__ to, const int64_t* __restrict__ at, RowGeometry g,
              IndexCheck check, Owner owner, int lanes) {
  const unsigned lane = threadIdx.x & ((1u << lanes) - 1), in_block = kThreads >> lanes;
  const int64_t begin = blockIdx.y * kColumns;
  const int64_t end = g.inner - begin < kColumns ? g.inner : begin + kColumns;
  const int64_t rows = g.outer * g.count;
  for (int64_t r = int64_t{blockIdx.x} * in_block + (threadIdx.x >> lanes); r < rows;
       r += int64_t{gridDim.x} * in_block) {
    const int64_t o = r / g.count, c = r - o * g.count;
    const int64_t row = check(at[c]);
    if constexpr (kPut) {
      if (row < 0 || (owner && owner[row] != static_cast<unsigned>(c) + 1)) continue;
    }
    const int64_t indexed = (o * g.size + (row < 0 ? 0 : row)) * g.inner, dense = r * g.inner;
    const T* const x = from + (kPut ? dense : indexed);
    T* const y = to + (kPut ? indexed : dense);
    OPSIN_UNROLL
    for (int j = 0; j < kColumns / static_cast<int>(kThreads); ++j) {
      // Narrow rows are done in one step: they have a lane for each unit.
      const int64_t i = begin + (int64_t{j} << lanes) + lane;
      if (i < end) y[i] = x[i];
    }
  }
}

template <bool kPut>
void launch_move(const IndexParams& p, Owner owner) {
  const size_t bytes = static_cast<size_t>(p.geometry.inner) * item_size(p.dtype);
  const auto addresses = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to);
  dispatch_unit(bytes | addresses, [&]<class T>() {
    RowGeometry g = p.geometry;
    g.inner = static_cast<int64_t>(bytes / sizeof(T));
    int lanes = 0;
    while (lanes < 8 && (int64_t{1} << lanes) < g.inner) ++lanes;
    // Rows beyond what a grid counts are cut into pieces that fit.
    constexpr int64_t kMostColumns = kColumns * kMaxGridYZ;
    OPSIN_CHECK(Error, g.inner <= kMostColumns, "index: rows of ", bytes, " bytes are too long");
    const auto across = static_cast<unsigned>((g.inner - 1) / kColumns + 1);
    const dim3 grid(grid_for(g.outer * g.count, kThreads >> lanes), across);
    OPSIN_LAUNCH((move_rows<T, kPut>), grid, kThreads, 0, static_cast<const T*>(p.from),
                 static_cast<T*>(p.to), p.at, g, IndexCheck(g), owner, lanes);
  });
}

/// Where element `e` of [outer, count, inner] goes to or comes from.
struct Place {
  int64_t c, at;
  __device__ Place(int64_t e, int64_t index, const RowGeometry& g) {
    const int64_t block = e / g.inner, o = block / g.count;
    c = block - o * g.count;
    at = (o * g.size + index) * g.inner + (e - block * g.inner);
  }
};

__global__ void __launch_bounds__(kThreads)
    claim_places(const int64_t* at, unsigned* owner, int64_t n, RowGeometry g, IndexCheck check) {
  OPSIN_NO_UNROLL
  for (int64_t e = thread_rank(); e < n; e += thread_count()) {
    const int64_t index = check(at[e]);
    if (index < 0) continue;
    const Place place(e, index, g);
    atomicMax(&owner[place.at], static_cast<unsigned>(place.c) + 1);
  }
}

/// Elements that a thread moves at once, so that loads wait together.
constexpr int kBatch = 4;

template <class T, bool kScatter>
__global__ void __launch_bounds__(kThreads)
    move_elements(const T* __restrict__ from, T* __restrict__ to, const int64_t* __restrict__ at, int64_t n,
                  RowGeometry g, IndexCheck check, Owner owner) {
  const int64_t step = thread_count();
  for (int64_t first = thread_rank(); first < n; first += kBatch * step) {
    int64_t target[kBatch];
    T value[kBatch];
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) target[j] = first + j * step < n ? at[first + j * step] : 0;
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      const int64_t e = first + j * step;
      if (e >= n) continue;
      const int64_t index = check(target[j]);
      const Place place(e, index < 0 ? 0 : index, g);
      if constexpr (kScatter) {
        const bool stays = index >= 0 && (!owner || owner[place.at] == static_cast<unsigned>(place.c) + 1);
        target[j] = stays ? place.at : -1;
        value[j] = from[e];
      } else {
        target[j] = e;
        value[j] = from[place.at];
      }
    }
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      if (first + j * step < n && target[j] >= 0) to[target[j]] = value[j];
    }
  }
}

template <bool kScatter>
void launch_elements(const IndexParams& p, Owner owner) {
  const RowGeometry& g = p.geometry;
  const int64_t n = g.outer * g.count * g.inner;
  dispatch_unit(item_size(p.dtype), [&]<class T>() {
    OPSIN_LAUNCH((move_elements<T, kScatter>), grid_for(n, kThreads * kBatch), kThreads, 0,
                 static_cast<const T*>(p.from), static_cast<T*>(p.to), p.at, n, g, IndexCheck(g), owner);
  });
}

void check_count(int64_t count, const char* op) {
  OPSIN_CHECK(Error, count < INT64_C(0xffffffff), op, ": ", count, " indices are too many");
}

void select(const IndexParams& p) {
  const RowGeometry& g = p.geometry;
  if (g.outer * g.count * g.inner == 0) return;
  // Rows of one element are elements.
  if (g.outer == 1 && g.inner == 1) return launch_elements<false>(p, nullptr);
  launch_move<false>(p, nullptr);
}

void put(const IndexParams& p) {
  const RowGeometry& g = p.geometry;
  if (g.outer * g.count * g.inner == 0) return;
  const bool elements = g.outer == 1 && g.inner == 1;
  if (g.count == 1 || g.ascends) {
    return elements ? launch_elements<true>(p, nullptr) : launch_move<true>(p, nullptr);
  }
  check_count(g.count, "index_put_");
  const Scratch<unsigned> owner(g.size);
  clear(owner.data(), g.size * static_cast<int64_t>(sizeof(unsigned)));
  OPSIN_LAUNCH(claim_rows, grid_for(g.count, kThreads), kThreads, 0, p.at, owner.data(), g, IndexCheck(g));
  if (elements) return launch_elements<true>(p, owner.data());
  launch_move<true>(p, owner.data());
}

void gather(const IndexParams& p) { launch_elements<false>(p, nullptr); }

void scatter(const IndexParams& p) {
  const RowGeometry& g = p.geometry;
  const int64_t n = g.outer * g.count * g.inner, places = g.outer * g.size * g.inner;
  if (g.count <= 1) return launch_elements<true>(p, nullptr);
  check_count(g.count, "scatter");
  const Scratch<unsigned> owner(places);
  clear(owner.data(), places * static_cast<int64_t>(sizeof(unsigned)));
  OPSIN_LAUNCH(claim_places, grid_for(n, kThreads), kThreads, 0, p.at, owner.data(), n, g, IndexCheck(g));
  launch_elements<true>(p, owner.data());
}

__global__ void __launch_bounds__(kThreads) combine_rows(CombineParams p, IndexCheck check) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.count; i += thread_count()) {
    const int64_t index = check(p.at[i]);
    p.rows[i] = (p.first ? 0 : p.rows[i] * p.size) + (index < 0 ? 0 : index);
  }
}

void combine(const CombineParams& p) {
  const IndexCheck check({1, p.size, p.count, 1, p.op, /*wraps=*/true});
  OPSIN_LAUNCH(combine_rows, grid_for(p.count, kThreads), kThreads, 0, p, check);
}

/// Elements of a mask that a thread takes.
constexpr int kMaskBytes = 16;
static_assert(NonzeroParams::kDeviceTile == kThreads * kMaskBytes);

/// The mask of a thread: bit i is element i of its 16.
__device__ unsigned mask_bits(const bool* mask, int64_t first, int64_t n) {
  unsigned bits = 0;
  if (first + kMaskBytes <= n && reinterpret_cast<uintptr_t>(mask + first) % 16 == 0) {
    const Bits128 bytes = *reinterpret_cast<const Bits128*>(mask + first);
    OPSIN_UNROLL
    for (int i = 0; i < 8; ++i) {
      bits |= static_cast<unsigned>(bytes.low >> (8 * i) & 1) << i;
      bits |= static_cast<unsigned>(bytes.high >> (8 * i) & 1) << (8 + i);
    }
    return bits;
  }
  for (int i = 0; i < kMaskBytes; ++i) {
    if (first + i < n && mask[first + i]) bits |= 1u << i;
  }
  return bits;
}

__global__ void __launch_bounds__(kThreads) count_tiles(NonzeroParams p, int64_t tiles) {
  OPSIN_SHARED(int, shared);
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const unsigned bits = mask_bits(p.mask, tile * p.tile + threadIdx.x * kMaskBytes, p.n);
    const int count = block_reduce<Sum>(__popc(bits), shared);
    if (threadIdx.x == 0) p.counts[tile] = count;
  }
}

/// Gathers the positions of a tile in shared memory, from where they are written side by side.
__global__ void __launch_bounds__(kThreads) write_tiles(NonzeroParams p, int64_t tiles) {
  OPSIN_SHARED(unsigned, shared);
  unsigned* const total = shared;  // of each warp
  unsigned* const found = shared + kThreads / kWarpThreads;
  const unsigned lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t begin = tile * p.tile;
    unsigned bits = mask_bits(p.mask, begin + threadIdx.x * kMaskBytes, p.n);
    const unsigned own = static_cast<unsigned>(__popc(bits)), sum = warp_scan<Sum>(own);
    if (lane == kWarpThreads - 1) total[warp] = sum;
    __syncthreads();
    unsigned place = sum - own, count = 0;
    for (unsigned w = 0; w < kThreads / kWarpThreads; ++w) {
      if (w < warp) place += total[w];
      count += total[w];
    }
    for (; bits != 0; bits &= bits - 1) {
      found[place++] = threadIdx.x * kMaskBytes + static_cast<unsigned>(__ffs(static_cast<int>(bits))) - 1;
    }
    __syncthreads();
    int64_t* const out = p.positions + p.counts[tile];
    for (unsigned i = threadIdx.x; i < count; i += kThreads) out[i] = begin + found[i];
    __syncthreads();
  }
}

void count_true(const NonzeroParams& p) {
  const int64_t tiles = (p.n - 1) / p.tile + 1;
  clear(p.counts + tiles, sizeof(int64_t));
  OPSIN_LAUNCH(count_tiles, grid_for(tiles, 1), kThreads, kBlockWarps * sizeof(int), p, tiles);
  exclusive_scan<Sum>(p.counts, 1, tiles + 1);
}

void write_true(const NonzeroParams& p) {
  const int64_t tiles = (p.n - 1) / p.tile + 1;
  const size_t shared = (kThreads / kWarpThreads + NonzeroParams::kDeviceTile) * sizeof(unsigned);
  OPSIN_LAUNCH(write_tiles, grid_for(tiles, 1), kThreads, shared, p, tiles);
}

__global__ void __launch_bounds__(kThreads) unravel_positions(NonzeroParams p) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.count; i += thread_count()) {
    int64_t rest = p.flat[i];
    for (int d = p.rank - 1; d >= 0; --d) {
      const int64_t above = rest / p.sizes[d];
      p.positions[i * p.rank + d] = rest - above * p.sizes[d];
      rest = above;
    }
  }
}

void unravel(const NonzeroParams& p) {
  OPSIN_LAUNCH(unravel_positions, grid_for(p.count, kThreads), kThreads, 0, p);
}

}  // namespace

void register_index_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    rows_select.set(DeviceType::kCUDA, dtype, select);
    rows_put.set(DeviceType::kCUDA, dtype, put);
    along_gather.set(DeviceType::kCUDA, dtype, gather);
    along_scatter.set(DeviceType::kCUDA, dtype, scatter);
  }
  rows_combine.set(DeviceType::kCUDA, kInt64, combine);
  nonzero_count.set(DeviceType::kCUDA, kBool, count_true);
  nonzero_write.set(DeviceType::kCUDA, kBool, write_true);
  nonzero_unravel.set(DeviceType::kCUDA, kInt64, unravel);
}

}  // namespace opsin
