// Matrices whose rows are neighbours in memory, and sums down their columns, on a GPU: what the
// normalizations share.
#pragma once

#include "norm_kernels.h"

#include "cuda/vectors.h"

namespace opsin::cuda {

/// How blocks cover a matrix [rows, columns] in vectors of `vector` neighbours: tiles of x * vector columns,
/// and y rows at a time. Threads keep their columns.
struct ColumnTiles {
  static constexpr unsigned kThreads = 256;
  static constexpr int kResident = 4;      ///< Blocks that a multiprocessor runs at once at most.
  static constexpr int64_t kBlocks = 528;  ///< As many on all 132 multiprocessors of a large GPU.
  int64_t rows, columns;
  unsigned x, y, tiles;

  ColumnTiles(int64_t rows_, int64_t columns_, int vector) : rows(rows_), columns(columns_), x(1) {
    const int64_t vectors = (columns + vector - 1) / vector;
    while (x < kWarpThreads && x < vectors) x *= 2;
    y = kThreads / x;
    tiles = static_cast<unsigned>((vectors + x - 1) / x);
  }
  dim3 block() const { return dim3(x, y); }
  /// Parts that the rows are cut into, so that every GPU is busy but threads have some rows each: one round
  /// of blocks, of which a multiprocessor runs `resident` at once.
  int64_t slices(int64_t matrices = 1, int resident = kResident) const {
    const int64_t blocks = kBlocks / kResident * resident;
    return std::clamp<int64_t>(std::min<int64_t>(blocks / (tiles * matrices), rows / (int64_t{y} * 16)), 1,
                               kBlocks);
  }
};

/// V neighbours of a row of numbers; sixteen bytes at once, to which `from` is aligned if V > 1.
template <int V, class T>
__device__ __forceinline__ void load_row(T (&to)[V], const T* from) {
  constexpr int kAtOnce = V > 1 ? kVector<T> : 1;
  OPSIN_UNROLL
  for (int v = 0; v < V; v += kAtOnce) {
    const auto pack = pack_at<T, kAtOnce>(from + v);
    OPSIN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) to[v + i] = pack.value[i];
  }
}

/// The derivative of a ReLU: 1 for a value above `least` and up to `greatest`.
template <class T>
__device__ __forceinline__ T passes(T value, T least, T greatest) {
  return value > least && value <= greatest ? T(1) : T(0);
}

/// Two sums down the columns, of f and of f d, where d is x around a centre.
enum class ColumnSum {
  kMoments,           ///< f = d, around a number per column.
  kGradients,         ///< f = g, around a number per column.
  kWrittenGradients,  ///< f = g where relu_output is in (0, ceiling), written, around a number per column.
  kMaskedGradients,   ///< f = g where (x - centre) scale + offset is in (0, ceiling), around a number per
                      ///< column.
  kRowGradients       ///< f = g, around a number per row and times another.
};

struct ColumnSumParams {
  const void* x = nullptr;
  const void* g = nullptr;
  const double* centre = nullptr;
  const double* factor = nullptr;
  int64_t rows = 0, columns = 0, slices = 0;
  DType dtype = kFloat32;
  double* parts = nullptr;  ///< [slice][2][columns]
  /// Of the ReLU that gradients are masked by.
  double ceiling = 0;
  /// For masks: [3][columns], centre, scale and offset.
  const void* numbers = nullptr;
  /// For gradients that are masked by this and written there.
  const void* relu_output = nullptr;
  void* masked = nullptr;
  /// Matrices, one after the other, each with sums of its own: [matrix] before the rest for parts and centre.
  int64_t matrices = 1;
};

/// Blocks that a multiprocessor runs at once, as far as registers go.
constexpr int column_blocks(ColumnSum sum, int vector) {
  if (sum == ColumnSum::kMoments) return vector <= 4 ? ColumnTiles::kResident : 3;
  if (sum == ColumnSum::kWrittenGradients || sum == ColumnSum::kMaskedGradients) return 2;
  return vector <= 4 ? ColumnTiles::kResident : sum == ColumnSum::kGradients ? 3 : 2;
}

/// Threads sum in what x is computed in, blocks in float64.
template <class S, int V, ColumnSum kSum>
__global__ void __launch_bounds__(ColumnTiles::kThreads, column_blocks(kSum, V))
    column_sums_kernel(const ColumnSumParams p) {
  using T = Computed<S>;
  constexpr bool kByRow = kSum == ColumnSum::kRowGradients, kGrad = kSum != ColumnSum::kMoments;
  constexpr bool kMask = kSum == ColumnSum::kMaskedGradients, kWrite = kSum == ColumnSum::kWrittenGradients;
  constexpr int kLoads = 4;
  OPSIN_SHARED(double, shared);
  const unsigned tiles = gridDim.x / static_cast<unsigned>(p.matrices), matrix = blockIdx.x / tiles;
  const int64_t column = (static_cast<int64_t>(blockIdx.x % tiles) * blockDim.x + threadIdx.x) * V;
  const bool inside = column < p.columns;
  T first[V] = {}, second[V] = {};
  if (inside) {
    const int64_t start_of = matrix * p.rows * p.columns + column;
    const S* x = static_cast<const S*>(p.x) + start_of;
    const S* g = kGrad ? static_cast<const S*>(p.g) + start_of : nullptr;
    T centre[V], scale[V], offset[V];
    const T least = static_cast<T>(least_positive(p.dtype));
    const T greatest = static_cast<T>(greatest_below(p.ceiling, p.dtype));
    if constexpr (kMask) {
      load_row(scale, static_cast<const T*>(p.numbers) + p.columns + column);
      load_row(offset, static_cast<const T*>(p.numbers) + 2 * p.columns + column);
    }
    if constexpr (kSum == ColumnSum::kMoments) {
      // Any element does, if it is near the others.
      widen(centre, pack_at<S, V>(x), p.dtype);
    } else if constexpr (!kByRow) {
      double exact[V];
      load_row(exact, p.centre + matrix * p.columns + column);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) centre[v] = static_cast<T>(exact[v]);
    }
    const S* relu_output = kWrite ? static_cast<const S*>(p.relu_output) + column : nullptr;
    S* masked = kWrite ? static_cast<S*>(p.masked) + column : nullptr;
    const auto add = [&](const Pack<S, V>& x_pack, const Pack<S, V>& g_pack, const Pack<S, V>& output,
                         int64_t r) {
      T xs[V], gs[V];
      widen(xs, x_pack, p.dtype);
      if constexpr (kGrad) widen(gs, g_pack, p.dtype);
      if constexpr (kWrite) {
        T outputs[V];
        widen(outputs, output, p.dtype);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) gs[v] *= passes(outputs[v], T(0), greatest);
        pack_at<S, V>(masked + r * p.columns) = narrow<S, V>(gs, p.dtype);
      }
      T row_centre = 0, row_rest = 0, row_factor = 1;
      if constexpr (kByRow) {
        row_centre = static_cast<T>(p.centre[r]);
        row_rest = static_cast<T>(static_cast<double>(row_centre) - p.centre[r]);
        row_factor = static_cast<T>(p.factor[r]);
      }
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        T d;
        if constexpr (kByRow) {
          d = ((xs[v] - row_centre) + row_rest) * row_factor;
        } else {
          d = xs[v] - centre[v];
        }
        T f = d;
        if constexpr (kGrad) f = gs[v];
        if constexpr (kMask) f *= passes((xs[v] - centre[v]) * scale[v] + offset[v], least, greatest);
        first[v] += f;
        second[v] += f * d;
      }
    };
    // Slices take turns: what was read last, which caches still have, is the end of the matrix.
    const int64_t step = blockDim.y, turn = kLoads * step, apart = step * p.columns;
    const auto take = [&](auto count, int64_t r) {
      constexpr int kCount = decltype(count)::value;
      Pack<S, V> xs[kCount], gs[kCount], outputs[kCount];
      const int64_t place = r * p.columns;
      OPSIN_UNROLL
      for (int k = 0; k < kCount; ++k) {
        xs[k] = pack_at<S, V>(x + place + k * apart);
        if constexpr (kGrad) gs[k] = pack_at<S, V>(g + place + k * apart);
        if constexpr (kWrite) outputs[k] = pack_at<S, V>(relu_output + place + k * apart);
      }
      OPSIN_UNROLL
      for (int k = 0; k < kCount; ++k) add(xs[k], gs[k], outputs[k], r + k * step);
    };
    int64_t start = blockIdx.y * turn;
    if constexpr (kSum == ColumnSum::kMoments && sizeof(S) == 2) {
      // The next whole turn is on its way while one is added: to add takes as long as to wait.
      const auto is_whole = [&] { return start + threadIdx.y + (kLoads - 1) * step < p.rows; };
      Held<S, V> next[kLoads];
      const auto read = [&] {
        const S* from = x + (start + threadIdx.y) * p.columns;
        OPSIN_UNROLL
        for (int k = 0; k < kLoads; ++k) next[k] = *reinterpret_cast<const Held<S, V>*>(from + k * apart);
      };
      bool whole = is_whole();
      if (whole) read();
      OPSIN_NO_UNROLL
      while (whole) {
        Held<S, V> held[kLoads];
        OPSIN_UNROLL
        for (int k = 0; k < kLoads; ++k) held[k] = next[k];
        start += p.slices * turn;
        whole = is_whole();
        if (whole) read();
        OPSIN_UNROLL
        for (int k = 0; k < kLoads; ++k) add(__builtin_bit_cast(Pack<S, V>, held[k]), {}, {}, 0);
      }
    }
    for (; start < p.rows; start += p.slices * turn) {
      const int64_t r = start + threadIdx.y;
      // Whole turns ask once.
      if (r + (kLoads - 1) * step < p.rows) {
        take(std::integral_constant<int, kLoads>{}, r);
      } else {
        OPSIN_NO_UNROLL
        for (int64_t row = r; row < p.rows; row += step) take(std::integral_constant<int, 1>{}, row);
      }
    }
  }
  // [row of threads][2 V][thread of the row]
  double* own = shared + threadIdx.y * 2 * V * blockDim.x + threadIdx.x;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) {
    const auto sum = static_cast<double>(first[v]);
    auto product = static_cast<double>(second[v]);
    if constexpr (kGrad && !kByRow) {
      // What rounding took from the centre comes back here.
      const double exact = inside ? p.centre[matrix * p.columns + column + v] : 0;
      product += (static_cast<double>(static_cast<T>(exact)) - exact) * sum;
    }
    own[2 * v * blockDim.x] = sum;
    own[(2 * v + 1) * blockDim.x] = product;
  }
  OPSIN_NO_UNROLL
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    OPSIN_UNROLL
    for (int v = 0; v < 2 * V; ++v) own[v * blockDim.x] += own[(half * 2 * V + v) * blockDim.x];
  }
  if (threadIdx.y != 0 || !inside) return;
  double* part = p.parts + 2 * (matrix * p.slices + blockIdx.y) * p.columns + column;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) {
    part[v] = own[2 * v * blockDim.x];
    part[p.columns + v] = own[(2 * v + 1) * blockDim.x];
  }
}

/// p.parts and p.slices as `tiles` says, for p.matrices.
template <class S, int V, ColumnSum kSum>
void launch_column_sums(const ColumnTiles& tiles, const ColumnSumParams& p) {
  const size_t bytes = sizeof(double) * 2 * V * ColumnTiles::kThreads;
  OPSIN_LAUNCH((column_sums_kernel<S, V, kSum>),
               dim3(tiles.tiles * static_cast<unsigned>(p.matrices), static_cast<unsigned>(p.slices)),
               tiles.block(), bytes, p);
}

/// Blocks that merge slices, for so many columns, with as many threads for each as there is room for.
template <unsigned kColumns>
inline constexpr unsigned kMergeShares = kMaxBlockThreads / kColumns;

/// The total of `parts` for the column of this thread, all of whose block, (kColumns,
/// kMergeShares<kColumns>), must call it. Only threads with threadIdx.y == 0 get it.
template <unsigned kColumns, class Part>
__device__ __forceinline__ Pair<double> merge_parts(const Part* parts, int64_t slices, int64_t columns,
                                                    int64_t column) {
  constexpr unsigned kShares = kMergeShares<kColumns>;
  __shared__ Pair<double> shared[kShares][kColumns];
  // The 264 parts of large matrices take one round of 32 threads, up to 528 one of 64.
  constexpr int kLoads = 9;
  Pair<double> total{0, 0};
  for (int64_t s = threadIdx.y; s < slices && column < columns; s += kLoads * int64_t{kShares}) {
    Pair<double> values[kLoads];
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const int64_t slice = s + k * int64_t{kShares};
      const Part* part = parts + 2 * slice * columns + column;
      values[k] = slice < slices
                      ? Pair<double>{static_cast<double>(part[0]), static_cast<double>(part[columns])}
                      : Pair<double>{0, 0};
    }
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) total = Sum{}(total, values[k]);
  }
  shared[threadIdx.y][threadIdx.x] = total;
  OPSIN_NO_UNROLL
  for (unsigned half = kShares / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    total = Sum{}(total, shared[threadIdx.y + half][threadIdx.x]);
    shared[threadIdx.y][threadIdx.x] = total;
  }
  return total;
}

}  // namespace opsin::cuda
