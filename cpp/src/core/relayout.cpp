#include "core/relayout.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "core/backend.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

int64_t spatial_size(IntSpan sizes) {
  int64_t count = 1;
  for (size_t i = 2; i < sizes.size(); ++i) count *= sizes[i];
  return count;
}

struct Complex128 {
  double re, im;
};

constexpr int64_t kVector = 16;
template <class T>
using Vector [[gnu::vector_size(kVector)]] = T;

/// The elements of the lower (or upper) halves of a and b in turn.
template <class T>
Vector<T> interleave(Vector<T> a, Vector<T> b, bool upper) {
  constexpr int n = kVector / sizeof(T);
  Vector<T> from{};
  for (int i = 0; i < n; ++i) {
    from[i] = static_cast<T>(i / 2 + (i % 2 == 0 ? 0 : n) + (upper ? n / 2 : 0));
  }
  return __builtin_shuffle(a, b, from);
}

/// A square as wide as a vector: every step shuffles row i together with the row half a square below.
template <class T>
void transpose_square(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int n = kVector / sizeof(T);
  Vector<T> rows[n], next[n];
  for (int i = 0; i < n; ++i) std::memcpy(&rows[i], from + i * from_stride, kVector);
#pragma GCC unroll 4
  for (int width = 1; width < n; width *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave<T>(rows[i], rows[i + n / 2], false);
      next[2 * i + 1] = interleave<T>(rows[i], rows[i + n / 2], true);
    }
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
  for (int i = 0; i < n; ++i) std::memcpy(to + i * to_stride, &rows[i], kVector);
}

/// to[col][row] = from[row][col] for a block that leaves both sides in the first cache, a line of each row at
/// a time.
template <class T>
void transpose_block(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                     int64_t cols) {
  constexpr int64_t n = std::max<int64_t>(1, kVector / sizeof(T)), line = 64 / sizeof(T);
  const int64_t whole_rows = rows / n * n, whole_cols = cols / n * n;
  if constexpr (n > 1) {
    for (int64_t col0 = 0; col0 < whole_cols; col0 += line) {
      const int64_t col1 = std::min(whole_cols, col0 + line);
      for (int64_t row = 0; row < whole_rows; row += n) {
        for (int64_t col = col0; col < col1; col += n) {
          transpose_square(from + row * from_stride + col, from_stride, to + col * to_stride + row,
                           to_stride);
        }
      }
    }
  }
  for (int64_t col = 0; col < cols; ++col) {
    for (int64_t row = n > 1 && col < whole_cols ? whole_rows : 0; row < rows; ++row) {
      to[col * to_stride + row] = from[row * from_stride + col];
    }
  }
}

/// to[col][row] = from[row][col] for the three rows that images have, whose columns fill no vectors.
template <class T>
void interleave_three(const T* from, int64_t from_stride, T* to, int64_t cols) {
  const T *first = from, *second = from + from_stride, *third = second + from_stride;
  int64_t col = 0;
  // Written in one piece, with what the next column replaces.
  if constexpr (sizeof(T) == 2 && std::endian::native == std::endian::little) {
    for (; col + 1 < cols; ++col) {
      const uint64_t column = first[col] | uint64_t{second[col]} << 16 | uint64_t{third[col]} << 32;
      std::memcpy(to + 3 * col, &column, sizeof column);
    }
  }
  for (; col < cols; ++col) {
    to[3 * col] = first[col];
    to[3 * col + 1] = second[col];
    to[3 * col + 2] = third[col];
  }
}

/// to[n][j][i] = from[n][i][j].
template <class T>
void transpose_batches(const T* from, T* to, int64_t batch, int64_t rows, int64_t cols) {
  constexpr int64_t kRows = 32, kCols = 256;
  const int64_t row_blocks = (rows + kRows - 1) / kRows, col_blocks = (cols + kCols - 1) / kCols;
  const int64_t work = std::min(rows, kRows) * std::min(cols, kCols);
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, work));
  cpu::parallel_for(batch * row_blocks * col_blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block % row_blocks * kRows, col = block / row_blocks % col_blocks * kCols;
      const int64_t base = block / row_blocks / col_blocks * rows * cols;
      if (rows == 3) {
        interleave_three(from + base + col, cols, to + base + col * rows, std::min(cols - col, kCols));
        continue;
      }
      transpose_block(from + base + row * cols + col, cols, to + base + col * rows + row, rows,
                      std::min(rows - row, kRows), std::min(cols - col, kCols));
    }
  });
}

void transpose_items(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size,
                     Device device) {
  if (!device.is_cpu()) return backend(device).transpose(from, to, batch, rows, cols, item_size, device);
  const auto run = [&]<class T>() {
    transpose_batches(static_cast<const T*>(from), static_cast<T*>(to), batch, rows, cols);
  };
  switch (item_size) {
    case 1:
      return run.template operator()<uint8_t>();
    case 2:
      return run.template operator()<uint16_t>();
    case 4:
      return run.template operator()<uint32_t>();
    case 8:
      return run.template operator()<uint64_t>();
    default:
      return run.template operator()<Complex128>();
  }
}

}  // namespace

Dims channels_last_strides(IntSpan sizes) {
  Dims strides(sizes.size());
  int64_t stride = std::max<int64_t>(sizes[1], 1);
  strides[1] = 1;
  for (size_t i = sizes.size(); i-- > 2;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(sizes[i], 1);
  }
  strides[0] = stride;
  return strides;
}

bool is_same_order(IntSpan sizes) { return sizes[1] == 1 || spatial_size(sizes) == 1; }

void relay_to_row_major(const void* from, void* to, IntSpan sizes, size_t item_size, Device device) {
  transpose_items(from, to, sizes[0], spatial_size(sizes), sizes[1], item_size, device);
}

void relay_to_channels_last(const void* from, void* to, IntSpan sizes, size_t item_size, Device device) {
  transpose_items(from, to, sizes[0], sizes[1], spatial_size(sizes), item_size, device);
}

}  // namespace opsin
