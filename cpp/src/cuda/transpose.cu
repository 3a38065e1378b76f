// A tile goes through shared memory, so that both sides are read and written in rows. The rows of a tile are
// padded: the elements of a column lie in different banks. Matrices with few rows or columns (pixels,
// weights) would leave such tiles nearly empty; theirs are long and narrow.
#include <algorithm>

#include "cuda/divider.h"
#include "cuda/launch.h"
#include "cuda/transpose.h"

namespace opsin::cuda {

namespace {

constexpr int kLanes = 32;
constexpr int kRows = 8;      // of threads in a block for tiles
constexpr int kNarrow = 16;   // rows or columns that make a matrix narrow
constexpr int kLength = 128;  // of a narrow tile
constexpr int kThreads = 256;

struct alignas(16) Words {
  uint64_t low, high;
};

/// Rows and columns of a tile: enough bytes on their way for wide elements, whole lines for narrow ones.
template <class T>
constexpr int kTile = sizeof(T) <= 4 ? 64 : 32;

/// How tiles are numbered: columns first, then rows, then the matrices. Every tile divides, so no division is
/// one of 64 bits.
struct TileOrder {
  Divider row_tiles, col_tiles, batch[StridedTranspose::kMaxBatchRank];

  /// Of `height` rows and `width` columns.
  TileOrder(const StridedTranspose& p, int64_t height, int64_t width)
      : row_tiles(static_cast<uint32_t>((p.rows + height - 1) / height)),
        col_tiles(static_cast<uint32_t>((p.cols + width - 1) / width)) {
    for (int d = 0; d < p.batch_rank; ++d) batch[d] = Divider(static_cast<uint32_t>(p.batch[d]));
  }
  unsigned tiles(const StridedTranspose& p) const {
    int64_t count = int64_t{row_tiles.divisor()} * col_tiles.divisor();
    for (int d = 0; d < p.batch_rank; ++d) count *= p.batch[d];
    return static_cast<unsigned>(count);
  }
};

/// Where a tile lies in both tensors, and how much of it there is.
struct Tile {
  int64_t from, to;
  int rows, cols;

  __device__ Tile(const StridedTranspose& p, const TileOrder& order, uint32_t index, int height, int width) {
    auto digit = order.col_tiles.divmod(index);
    const int64_t col = int64_t{digit.remainder} * width;
    digit = order.row_tiles.divmod(digit.quotient);
    const int64_t row = int64_t{digit.remainder} * height;
    from = row * p.from_stride + col;
    to = col * p.to_stride + row;
    for (int d = 0; d < p.batch_rank; ++d) {
      digit = order.batch[d].divmod(digit.quotient);
      from += digit.remainder * p.from_batch[d];
      to += digit.remainder * p.to_batch[d];
    }
    rows = static_cast<int>(p.rows - row < height ? p.rows - row : height);
    cols = static_cast<int>(p.cols - col < width ? p.cols - col : width);
  }
};

template <class T>
__global__ void __launch_bounds__(kLanes* kRows)
    transpose_tiles(const StridedTranspose p, const TileOrder order, const T* from, T* to) {
  constexpr int kSide = kTile<T>, kSteps = kSide / kRows, kParts = kSide / kLanes;
  OPSIN_SHARED(T, tile);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const Tile at(p, order, blockIdx.x, kSide, kSide);
  from += at.from;
  to += at.to;
  T held[kSteps][kParts];
  OPSIN_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    OPSIN_UNROLL
    for (int c = 0; c < kParts; ++c) {
      const int i = y + k * kRows, j = x + c * kLanes;
      if (i < at.rows && j < at.cols) held[k][c] = from[i * p.from_stride + j];
    }
  }
  OPSIN_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    OPSIN_UNROLL
    for (int c = 0; c < kParts; ++c) {
      const int i = y + k * kRows, j = x + c * kLanes;
      if (i < at.rows && j < at.cols) tile[i * (kSide + 1) + j] = held[k][c];
    }
  }
  __syncthreads();
  OPSIN_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    OPSIN_UNROLL
    for (int c = 0; c < kParts; ++c) {
      const int j = y + k * kRows, i = x + c * kLanes;
      if (i < at.rows && j < at.cols) to[j * p.to_stride + i] = tile[i * (kSide + 1) + j];
    }
  }
}

/// Tiles of pairs: 32 words of two columns each, and as many rows as keep enough loads on their way.
constexpr int kPairHeight = 4 * kLanes, kPairWidth = 2 * kLanes;

/// Elements of 16 bits in pairs, as 32-bit words, where every row of both sides is made of such. Each 32 rows
/// lie one word further on, so that the words of even rows, which are read together, lie in all banks. Where
/// a tile is whole, nothing but a step is added to an address: the kernel is limited by instructions
/// otherwise.
__global__ void __launch_bounds__(kLanes* kRows)
    transpose_pairs(const StridedTranspose p, const TileOrder order, const uint16_t* from, uint16_t* to) {
  constexpr int kSteps = kPairHeight / kRows, kParts = kPairHeight / kPairWidth;
  constexpr int kPitch = kLanes + kPairHeight / kLanes - 1;
  __shared__ uint32_t tile[kPairHeight * kPitch];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const Tile at(p, order, blockIdx.x, kPairHeight, kPairWidth);
  from += at.from + y * p.from_stride + 2 * x;
  to += at.to + 2 * y * p.to_stride + 2 * x;
  const bool whole = at.rows == kPairHeight && at.cols == kPairWidth;
  uint32_t held[kSteps];
  const auto read = [&](auto is_inside) {
    const uint16_t* row = from;
    OPSIN_UNROLL
    for (int k = 0; k < kSteps; ++k, row += kRows * p.from_stride) {
      if (is_inside(y + k * kRows, 2 * x)) held[k] = *reinterpret_cast<const uint32_t*>(row);
    }
    OPSIN_UNROLL
    for (int k = 0; k < kSteps; ++k) {
      const int i = y + k * kRows;
      if (is_inside(i, 2 * x)) tile[i * kPitch + x + k * kRows / kLanes] = held[k];
    }
  };
  const auto write = [&](auto is_inside) {
    uint16_t* column = to;
    OPSIN_UNROLL
    for (int k = 0; k < kLanes / kRows; ++k, column += 2 * kRows * p.to_stride) {
      const int word = y + k * kRows;
      OPSIN_UNROLL
      for (int c = 0; c < kParts; ++c) {
        const int i = 2 * x + c * kPairWidth;
        if (!is_inside(i, 2 * word)) continue;
        const uint32_t *upper = tile + i * kPitch + word + i / kLanes, *lower = upper + kPitch;
        auto* pair = reinterpret_cast<uint32_t*>(column + c * kPairWidth);
        *pair = (*upper & 0xffffu) | *lower << 16;
        pair = reinterpret_cast<uint32_t*>(column + p.to_stride + c * kPairWidth);
        *pair = *upper >> 16 | (*lower & 0xffff0000u);
      }
    }
  };
  const auto everywhere = [](int, int) { return true; };
  const auto in_part = [&](int row, int col) { return row < at.rows && col < at.cols; };
  if (whole) {
    read(everywhere);
  } else {
    read(in_part);
  }
  __syncthreads();
  if (whole) {
    write(everywhere);
  } else {
    write(in_part);
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

/// Whether all rows of both sides are made of aligned pairs of elements.
bool has_pairs(const StridedTranspose& p, const void* from, const void* to) {
  bool even = (p.rows | p.cols | p.from_stride | p.to_stride) % 2 == 0 &&
              (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) % 4 == 0;
  for (int d = 0; d < p.batch_rank; ++d) even = even && (p.from_batch[d] | p.to_batch[d]) % 2 == 0;
  return even;
}

template <class T>
void run_tiles(const void* from, void* to, const StridedTranspose& p) {
  constexpr int kSide = kTile<T>;
  const auto* source = static_cast<const T*>(from);
  auto* target = static_cast<T*>(to);
  if constexpr (sizeof(T) == 2) {
    if (has_pairs(p, from, to)) {
      const TileOrder order(p, kPairHeight, kPairWidth);
      return OPSIN_LAUNCH(transpose_pairs, order.tiles(p), dim3(kLanes, kRows), 0, p, order, source, target);
    }
  }
  const TileOrder order(p, kSide, kSide);
  OPSIN_LAUNCH(transpose_tiles<T>, order.tiles(p), dim3(kLanes, kRows), kSide * (kSide + 1) * sizeof(T), p,
               order, source, target);
}

template <class T>
void run_narrow(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols) {
  const bool few_cols = cols <= rows;
  const int64_t length = few_cols ? rows : cols;
  const auto width = static_cast<int>(few_cols ? cols : rows);
  const int64_t matrix_tiles = (length + kLength - 1) / kLength, tiles = batch * matrix_tiles;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, 0x7fffffff));
  OPSIN_LAUNCH(transpose_narrow<T>, grid, kThreads, static_cast<size_t>(kLength * width) * sizeof(T),
               static_cast<const T*>(from), static_cast<T*>(to), tiles, matrix_tiles, length, width,
               few_cols);
}

/// Calls body<T>() for a type of `item_size` bytes.
template <class Body>
void dispatch_size(size_t item_size, Body&& body) {
  switch (item_size) {
    case 1:
      return body.template operator()<uint8_t>();
    case 2:
      return body.template operator()<uint16_t>();
    case 4:
      return body.template operator()<uint32_t>();
    case 8:
      return body.template operator()<uint64_t>();
    default:
      return body.template operator()<Words>();
  }
}

}  // namespace

void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size) {
  if (std::min(rows, cols) > kNarrow) {
    const int64_t size = rows * cols;
    return transpose(from, to, StridedTranspose{rows, cols, cols, rows, 1, {batch}, {size}, {size}},
                     item_size);
  }
  dispatch_size(item_size, [&]<class T>() { run_narrow<T>(from, to, batch, rows, cols); });
}

bool fills_tiles(const StridedTranspose& shape) { return std::min(shape.rows, shape.cols) > kNarrow; }

void transpose(const void* from, void* to, const StridedTranspose& shape, size_t item_size) {
  dispatch_size(item_size, [&]<class T>() { run_tiles<T>(from, to, shape); });
}

}  // namespace opsin::cuda
