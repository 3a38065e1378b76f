// Attention on a GPU. A block of threads takes 32 rows of a result and 64 of its columns, goes through tiles
// of 32 x 32 scores in order, and keeps its sums in registers. Nothing is added by two blocks, so results are
// the same in every run.
#include "attention_kernels.h"

#include <limits>

#include <opsin/error.h>

#include "core/math.h"
#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr int kTile = 32;                // Queries and keys of a tile of scores.
constexpr int kWide = 64;                // Columns of a result.
constexpr int kSide = 16;                // Threads along each side of a tile.
constexpr int kSums = kTile / kSide;     // Rows, and columns of a tile, of a thread.
constexpr int kColumns = kWide / kSide;  // Columns of a result of a thread.
constexpr int kThreads = kSide * kSide;

template <class T>
using Tile = T[kTile][kTile + 1];

struct Head {
  int64_t batch, head, kv_head;
};

/// Takes the last of its sizes off the index of a block, which has 32 bits as have its sizes: divisions of 64
/// bits take much code.
struct Places {
  unsigned rest;
  __device__ int64_t next(int64_t size) {
    const unsigned n = static_cast<unsigned>(size), place = rest % n;
    rest /= n;
    return place;
  }
};
__device__ __forceinline__ unsigned quotient(int64_t a, int64_t b) {
  return static_cast<unsigned>(a) / static_cast<unsigned>(b);
}

/// A matrix of a head: bytes and strides in elements.
struct Matrix {
  const char* data;
  int64_t row, col, rows, columns;
  DType dtype;

  __device__ Matrix(const AttentionMatrix& x, int64_t batch, int64_t head, int64_t rows_, int64_t columns_,
                    DType stored)
      : data(static_cast<const char*>(x.data) +
             (batch * x.batch + head * x.head) * static_cast<int64_t>(item_size(stored))),
        row(x.row),
        col(x.col),
        rows(rows_),
        columns(columns_),
        dtype(stored) {}
  /// Zero outside.
  template <class T>
  __device__ T at(int64_t i, int64_t j) const {
    if (i >= rows || j >= columns) return T(0);
    return load<T>(data + (i * row + j * col) * static_cast<int64_t>(item_size(dtype)), dtype);
  }
};

template <class T>
struct Shared {
  Tile<T> left, scores;
  /// The second operand and the gradients of weights, or rows of an operand of a result.
  T others[2 * kTile * (kTile + 1)];
  T max[kTile], sum[kTile], factor[kTile];

  __device__ T& right(int i, int j) { return others[i * (kTile + 1) + j]; }
  __device__ T& grads(int i, int j) { return others[(kTile + i) * (kTile + 1) + j]; }
  __device__ T& wide(int i, int j) { return others[i * kWide + j]; }
};

__device__ __forceinline__ int thread_row(int i) { return static_cast<int>(threadIdx.x) / kSide + i * kSide; }
__device__ __forceinline__ int thread_column(int j) {
  return static_cast<int>(threadIdx.x) % kSide + j * kSide;
}

/// to[i][j] = row a_row + i of `a` times row b_row + j of `b`; ends with a barrier. `to` may be neither left
/// nor right.
template <class T>
OPSIN_NOINLINE __device__ void multiply_rows(const Matrix& a, int64_t a_row, const Matrix& b, int64_t b_row,
                                             Shared<T>& shared, bool to_grads) {
  T products[kSums][kSums] = {};
  for (int64_t first = 0; first < a.columns; first += kTile) {
    __syncthreads();
    OPSIN_NO_UNROLL
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile; i += kThreads) {
      shared.left[i / kTile][i % kTile] = a.at<T>(a_row + i / kTile, first + i % kTile);
      shared.right(i / kTile, i % kTile) = b.at<T>(b_row + i / kTile, first + i % kTile);
    }
    __syncthreads();
    OPSIN_NO_UNROLL
    for (int k = 0; k < kTile; ++k) {
      OPSIN_UNROLL
      for (int i = 0; i < kSums; ++i) {
        OPSIN_UNROLL
        for (int j = 0; j < kSums; ++j)
          products[i][j] += shared.left[thread_row(i)][k] * shared.right(thread_column(j), k);
      }
    }
  }
  OPSIN_UNROLL
  for (int i = 0; i < kSums; ++i) {
    OPSIN_UNROLL
    for (int j = 0; j < kSums; ++j)
      (to_grads ? shared.grads(thread_row(i), thread_column(j))
                : shared.scores[thread_row(i)][thread_column(j)]) = products[i][j];
  }
  __syncthreads();
}

/// sums += factors [kTile][kTile] times rows [first, +kTile) and columns [column, +kWide) of x.
template <class T>
__device__ void add_products(const Tile<T>& factors, const Matrix& x, int64_t first, int64_t column,
                             Shared<T>& shared, T (&sums)[kSums][kColumns]) {
  __syncthreads();
  OPSIN_NO_UNROLL
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kWide; i += kThreads)
    shared.wide(i / kWide, i % kWide) = x.at<T>(first + i / kWide, column + i % kWide);
  __syncthreads();
  OPSIN_NO_UNROLL
  for (int k = 0; k < kTile; ++k) {
    OPSIN_UNROLL
    for (int i = 0; i < kSums; ++i) {
      OPSIN_UNROLL
      for (int j = 0; j < kColumns; ++j)
        sums[i][j] += factors[thread_row(i)][k] * shared.wide(k, thread_column(j));
    }
  }
  __syncthreads();
}

/// The score of a query and a key, -inf where it is masked or there is none.
template <class T>
OPSIN_NOINLINE __device__ T masked(const AttentionParams& p, const Head& h, int64_t query, int64_t key,
                                   T product) {
  const T lowest = -std::numeric_limits<T>::infinity();
  if (query >= p.queries || key >= p.keys || (p.causal && key > query)) return lowest;
  T score = product * static_cast<T>(p.scale);
  if (p.mask_kind != AttentionMask::kNone) {
    const int64_t outer = quotient(h.batch, p.mask_inner);
    const int64_t at = outer * p.mask.batch + (h.batch - outer * p.mask_inner) * p.mask_inner_stride +
                       h.head * p.mask.head + query * p.mask.row + key * p.mask.col;
    if (p.mask_kind == AttentionMask::kSeen) {
      if (!static_cast<const bool*>(p.mask.data)[at]) return lowest;
    } else {
      score += load<T>(static_cast<const char*>(p.mask.data) + at * static_cast<int64_t>(item_size(p.dtype)),
                       p.dtype);
    }
  }
  return score;
}

/// The factor of dropout of a weight.
template <class T>
OPSIN_NOINLINE __device__ T kept(const AttentionParams& p, const PhiloxSeed& random, const Head& h,
                                 int64_t query, int64_t key) {
  if (p.least == 0) return 1;
  const int64_t number = ((h.batch * p.heads + h.head) * p.keys + key) * ((p.queries + 3) / 4) + query / 4;
  const philox::Block words = philox::block(random.seed, random.offset + static_cast<uint64_t>(number));
  uint32_t word = words.word[0];
  OPSIN_UNROLL
  for (int i = 1; i < 4; ++i) word = query % 4 == i ? words.word[i] : word;
  return (word >> 8) >= p.least ? static_cast<T>(p.kept_scale) : T(0);
}

/// Whether no query of a tile sees a key of another.
__device__ __forceinline__ bool is_hidden(const AttentionParams& p, int64_t query, int64_t key) {
  return p.causal && key >= query + kTile;
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const AttentionParams p) {
  __shared__ Shared<T> shared;
  const int64_t parts = (p.value_depth + kWide - 1) / kWide, tiles = (p.queries + kTile - 1) / kTile;
  Places places{blockIdx.x};
  const int64_t column = places.next(parts > 0 ? parts : 1) * kWide, first = places.next(tiles) * kTile,
                head = places.next(p.heads);
  const Head h{places.rest, head, quotient(head, quotient(p.heads, p.kv_heads))};
  const Matrix query(p.query, h.batch, h.head, p.queries, p.depth, p.dtype),
      key(p.key, h.batch, h.kv_head, p.keys, p.depth, p.dtype),
      value(p.value, h.batch, h.kv_head, p.keys, p.value_depth, p.dtype);
  const PhiloxSeed random = resolve(p.random);
  const int lane = static_cast<int>(threadIdx.x % kWarpThreads);
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  T sums[kSums][kColumns] = {};
  if (threadIdx.x < kTile) {
    shared.max[threadIdx.x] = kLowest;
    shared.sum[threadIdx.x] = 0;
  }
  for (int64_t k = 0; k < p.keys && !is_hidden(p, first, k); k += kTile) {
    multiply_rows(query, first, key, k, shared, false);
    // A warp updates one row after the other.
    OPSIN_NO_UNROLL
    for (int row = static_cast<int>(threadIdx.x / kWarpThreads); row < kTile;
         row += kThreads / static_cast<int>(kWarpThreads)) {
      const T score = masked(p, h, first + row, k + lane, shared.scores[row][lane]), before = shared.max[row],
              sum = shared.sum[row];
      const T max = Max{}(before, warp_reduce<Max>(score));
      const T base = max == kLowest ? T(0) : max;
      const T power = math::exp(score - base), factor = math::exp(before - base);
      const T total = warp_reduce<Sum>(power);
      shared.scores[row][lane] =
          power * (first + row < p.queries && k + lane < p.keys ? kept<T>(p, random, h, first + row, k + lane)
                                                                : T(0));
      if (lane == 0) {
        shared.max[row] = max;
        shared.sum[row] = sum * factor + total;
        shared.factor[row] = factor;
      }
    }
    __syncthreads();
    for (int i = 0; i < kSums; ++i)
      for (T& sum : sums[i]) sum *= shared.factor[thread_row(i)];
    add_products(shared.scores, value, k, column, shared, sums);
  }
  __syncthreads();
  if (column == 0 && threadIdx.x < kTile && first + threadIdx.x < p.queries) {
    const T sum = shared.sum[threadIdx.x];
    static_cast<T*>(p.log_sum)[(h.batch * p.heads + h.head) * p.queries + first + threadIdx.x] =
        sum == 0 ? -kLowest : shared.max[threadIdx.x] + math::log(sum);
  }
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  char* out = static_cast<char*>(const_cast<void*>(p.out.data)) +
              (h.batch * p.out.batch + h.head * p.out.head) * item;
  for (int i = 0; i < kSums; ++i) {
    const int64_t row = first + thread_row(i);
    if (row >= p.queries) continue;
    const T sum = shared.sum[thread_row(i)], inverse = sum == 0 ? T(0) : T(1) / sum;
    for (int j = 0; j < kColumns; ++j) {
      const int64_t col = column + thread_column(j);
      if (col < p.value_depth) store(sums[i][j] * inverse, out + (row * p.out.row + col) * item, p.dtype);
    }
  }
}

/// Calls body(i, j, weight, slope) for each query i and key j of the tile at (query, key): the weight after
/// dropout and the slope of the score, zeros where there is no such query or key.
template <class T, class Body>
__device__ void for_slopes(const AttentionBackwardParams& p, const PhiloxSeed& random, const Head& h,
                           int64_t query, int64_t key, Shared<T>& shared, Body body) {
  multiply_rows(Matrix(p.query, h.batch, h.head, p.queries, p.depth, p.dtype), query,
                Matrix(p.key, h.batch, h.kv_head, p.keys, p.depth, p.dtype), key, shared, false);
  multiply_rows(Matrix(p.grad_out, h.batch, h.head, p.queries, p.value_depth, p.dtype), query,
                Matrix(p.value, h.batch, h.kv_head, p.keys, p.value_depth, p.dtype), key, shared, true);
  OPSIN_NO_UNROLL
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kTile; at += kThreads) {
    const int i = at / kTile, j = at % kTile;
    const int64_t q = query + i, k = key + j;
    T weight = 0, slope = 0;
    if (q < p.queries && k < p.keys) {
      const int64_t row = (h.batch * p.heads + h.head) * p.queries + q;
      weight = math::exp(masked(p, h, q, k, shared.scores[i][j]) - static_cast<const T*>(p.log_sum)[row]);
      const T factor = kept<T>(p, random, h, q, k);
      slope = weight * (shared.grads(i, j) * factor - static_cast<const T*>(p.delta)[row]);
      weight *= factor;
    }
    body(i, j, weight, slope);
  }
}

enum class Wanted : uint8_t { kQuery, kKey, kValue };

/// The gradient of query, key or value.
template <class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const AttentionBackwardParams p, const AttentionMatrix grad, const Wanted wanted) {
  __shared__ Shared<T> shared;
  const bool of_query = wanted == Wanted::kQuery, of_value = wanted == Wanted::kValue;
  const int64_t rows = of_query ? p.queries : p.keys, columns = of_value ? p.value_depth : p.depth;
  const int64_t others = of_query ? p.keys : p.queries, heads = of_query ? p.heads : p.kv_heads;
  const int64_t parts = (columns + kWide - 1) / kWide, tiles = (rows + kTile - 1) / kTile;
  const int64_t group = quotient(p.heads, p.kv_heads);
  Places places{blockIdx.x};
  const int64_t column = places.next(parts) * kWide, first = places.next(tiles) * kTile,
                own_head = places.next(heads), batch = places.rest;
  const PhiloxSeed random = resolve(p.random);
  T sums[kSums][kColumns] = {};
  const int64_t begin = of_query ? own_head : own_head * group, end = of_query ? begin + 1 : begin + group;
  for (int64_t head = begin; head < end; ++head) {
    const Head h{batch, head, quotient(head, group)};
    const Matrix other = of_query   ? Matrix(p.key, batch, h.kv_head, others, columns, p.dtype)
                         : of_value ? Matrix(p.grad_out, batch, head, others, columns, p.dtype)
                                    : Matrix(p.query, batch, head, others, columns, p.dtype);
    for (int64_t at = 0; at < others; at += kTile) {
      const int64_t query = of_query ? first : at, key = of_query ? at : first;
      if (is_hidden(p, query, key)) continue;
      for_slopes(p, random, h, query, key, shared, [&](int i, int j, T weight, T slope) {
        (of_query ? shared.left[i][j] : shared.left[j][i]) =
            of_value ? weight : slope * static_cast<T>(p.scale);
      });
      add_products(shared.left, other, at, column, shared, sums);
    }
  }
  T* to = static_cast<T*>(const_cast<void*>(grad.data)) + batch * grad.batch + own_head * grad.head;
  for (int i = 0; i < kSums; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      const int64_t row = first + thread_row(i), col = column + thread_column(j);
      if (row < rows && col < columns) to[row * grad.row + col] = sums[i][j];
    }
  }
}

/// The gradient of the mask; its dimensions of size 1 are summed.
template <class T>
__global__ void __launch_bounds__(kThreads) mask_kernel(const AttentionBackwardParams p) {
  __shared__ Shared<T> shared;
  const bool one_row = p.mask_sizes[3] == 1, one_column = p.mask_sizes[4] == 1;
  const int64_t row_tiles = (p.mask_sizes[3] + kTile - 1) / kTile,
                column_tiles = (p.mask_sizes[4] + kTile - 1) / kTile;
  Places places{blockIdx.x};
  const int64_t key = places.next(column_tiles) * kTile, query = places.next(row_tiles) * kTile,
                own_head = places.next(p.mask_sizes[2]), matrix = places.rest,
                inner = places.next(p.mask_sizes[1]), outer = places.rest;
  const PhiloxSeed random = resolve(p.random);
  __shared__ T sums[kTile][kTile];
  OPSIN_NO_UNROLL
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTile; i += kThreads)
    sums[i / kTile][i % kTile] = 0;
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t of_outer = quotient(b, p.mask_inner), of_inner = b - of_outer * p.mask_inner;
    if (p.mask_sizes[0] > 1 && of_outer != outer) continue;
    if (p.mask_sizes[1] > 1 && of_inner != inner) continue;
    for (int64_t head = own_head; head < (p.mask_sizes[2] == 1 ? p.heads : own_head + 1); ++head) {
      const Head h{b, head, quotient(head, quotient(p.heads, p.kv_heads))};
      for (int64_t q = query; q < (one_row ? p.queries : query + 1); q += kTile) {
        for (int64_t k = key; k < (one_column ? p.keys : key + 1); k += kTile) {
          for_slopes(p, random, h, q, k, shared, [&](int i, int j, T, T slope) { sums[i][j] += slope; });
        }
      }
    }
  }
  __syncthreads();
  T* to = static_cast<T*>(p.grad_mask) +
          (matrix * p.mask_sizes[2] + own_head) * p.mask_sizes[3] * p.mask_sizes[4];
  const int rows = one_row ? 1 : kTile, columns = one_column ? 1 : kTile;
  for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += kThreads) {
    const int row = i / columns, col = i % columns;
    if (query + row >= p.mask_sizes[3] || key + col >= p.mask_sizes[4]) continue;
    T sum = 0;
    for (int r = row; r < (one_row ? kTile : row + 1); ++r)
      for (int c = col; c < (one_column ? kTile : col + 1); ++c) sum += sums[r][c];
    to[(query + row) * p.mask_sizes[4] + key + col] = sum;
  }
}

int64_t tiles_of(int64_t size) { return (size + kTile - 1) / kTile; }
int64_t parts_of(int64_t size) { return (size + kWide - 1) / kWide; }

unsigned grid_of(int64_t blocks) {
  OPSIN_CHECK(Error, blocks <= INT32_MAX, "scaled_dot_product_attention: too large for one launch (", blocks,
              " blocks; split the batch)");
  return static_cast<unsigned>(blocks);
}

template <class T>
void forward(const AttentionParams& p) {
  const int64_t parts = std::max<int64_t>(parts_of(p.value_depth), 1);
  OPSIN_LAUNCH(forward_kernel<T>, grid_of(p.batch * p.heads * tiles_of(p.queries) * parts), kThreads, 0, p);
}

template <class T>
void backward(const AttentionBackwardParams& p) {
  const auto launch = [&](const AttentionMatrix& grad, Wanted wanted, int64_t heads, int64_t rows,
                          int64_t columns) {
    if (!grad.data) return;
    OPSIN_LAUNCH(backward_kernel<T>, grid_of(p.batch * heads * tiles_of(rows) * parts_of(columns)), kThreads,
                 0, p, grad, wanted);
  };
  launch(p.grad_query, Wanted::kQuery, p.heads, p.queries, p.depth);
  launch(p.grad_key, Wanted::kKey, p.kv_heads, p.keys, p.depth);
  launch(p.grad_value, Wanted::kValue, p.kv_heads, p.keys, p.value_depth);
  if (!p.grad_mask) return;
  OPSIN_LAUNCH(mask_kernel<T>,
               grid_of(p.mask_sizes[0] * p.mask_sizes[1] * p.mask_sizes[2] * tiles_of(p.mask_sizes[3]) *
                       tiles_of(p.mask_sizes[4])),
               kThreads, 0, p);
}

}  // namespace

void register_attention_cuda();

void register_attention_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    attention_forward.set(DeviceType::kCUDA, dtype, wide ? forward<double> : forward<float>);
    attention_backward.set(DeviceType::kCUDA, dtype, wide ? backward<double> : backward<float>);
  }
}

}  // namespace opsin
