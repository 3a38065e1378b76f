// A tile of 32 x 32 elements goes through shared memory, so that both sides are read and written in rows.
// A tile's row is one element longer than it holds: the elements of a column lie in different banks. Matrices
// with few rows or columns (pixels, weights) would leave such tiles nearly empty; theirs are long and narrow.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/transpose.h"

namespace opsin::cuda {

namespace {

constexpr int kTile = 32;
constexpr int kRows = 8;      // of threads; each moves kTile / kRows elements
constexpr int kNarrow = 16;   // rows or columns that make a matrix narrow
constexpr int kLength = 128;  // of a narrow tile
constexpr int kThreads = 256;

struct alignas(16) Words {
  uint64_t low, high;
};

template <class T>
__global__ void __launch_bounds__(kTile* kRows)
    transpose_tiles(const T* from, T* to, int64_t tiles, int64_t row_tiles, int64_t col_tiles, int64_t rows,
                    int64_t cols) {
  OPSIN_SHARED(T, tile);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const int64_t row0 = index / col_tiles % row_tiles * kTile, col0 = index % col_tiles * kTile;
    const int64_t base = index / col_tiles / row_tiles * rows * cols;
    for (int i = y; i < kTile; i += kRows) {
      if (row0 + i < rows && col0 + x < cols) {
        tile[i * (kTile + 1) + x] = from[base + (row0 + i) * cols + col0 + x];
      }
    }
    __syncthreads();
    for (int i = y; i < kTile; i += kRows) {
      if (col0 + i < cols && row0 + x < rows) {
        to[base + (col0 + i) * rows + row0 + x] = tile[x * (kTile + 1) + i];
      }
    }
    __syncthreads();
  }
}

/// A tile has all the `width` rows or columns of kLength columns or rows, and its longer side lies together
/// in memory on one side: few_cols says that it is the side that is read.
template <class T>
__global__ void __launch_bounds__(kThreads)
    transpose_narrow(const T* from, T* to, int64_t tiles, int64_t matrix_tiles, int64_t length, int width,
                     bool few_cols) {
  OPSIN_SHARED(T, tile);
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x) {
    const int64_t base = index / matrix_tiles * length * width, first = index % matrix_tiles * kLength;
    const int here = static_cast<int>(length - first < kLength ? length - first : kLength);
    const int count = here * width, slots = kLength * width;
    if (few_cols) {
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
        tile[i] = from[base + first * width + i];
      }
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < slots; i += kThreads) {
        const int at = i % kLength, row = i / kLength;
        if (at < here) tile[at * width + row] = from[base + row * length + first + at];
      }
    }
    __syncthreads();
    if (few_cols) {
      for (int i = static_cast<int>(threadIdx.x); i < slots; i += kThreads) {
        const int at = i % kLength, row = i / kLength;
        if (at < here) to[base + row * length + first + at] = tile[at * width + row];
      }
    } else {
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
        to[base + first * width + i] = tile[i];
      }
    }
    __syncthreads();
  }
}

template <class T>
void run(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols) {
  if (std::min(rows, cols) <= kNarrow) {
    const bool few_cols = cols <= rows;
    const int64_t length = few_cols ? rows : cols;
    const auto width = static_cast<int>(few_cols ? cols : rows);
    const int64_t matrix_tiles = (length + kLength - 1) / kLength, tiles = batch * matrix_tiles;
    const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, 0x7fffffff));
    OPSIN_LAUNCH(transpose_narrow<T>, grid, kThreads, static_cast<size_t>(kLength * width) * sizeof(T),
                 static_cast<const T*>(from), static_cast<T*>(to), tiles, matrix_tiles, length, width,
                 few_cols);
    return;
  }
  const int64_t row_tiles = (rows + kTile - 1) / kTile, col_tiles = (cols + kTile - 1) / kTile;
  const int64_t tiles = batch * row_tiles * col_tiles;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, 0x7fffffff));
  OPSIN_LAUNCH(transpose_tiles<T>, grid, dim3(kTile, kRows), kTile * (kTile + 1) * sizeof(T),
               static_cast<const T*>(from), static_cast<T*>(to), tiles, row_tiles, col_tiles, rows, cols);
}

}  // namespace

void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size) {
  switch (item_size) {
    case 1:
      return run<uint8_t>(from, to, batch, rows, cols);
    case 2:
      return run<uint16_t>(from, to, batch, rows, cols);
    case 4:
      return run<uint32_t>(from, to, batch, rows, cols);
    case 8:
      return run<uint64_t>(from, to, batch, rows, cols);
    default:
      return run<Words>(from, to, batch, rows, cols);
  }
}

}  // namespace opsin::cuda
