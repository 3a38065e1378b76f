#include "core/relayout.h"

#include <algorithm>
#include <cstdint>

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

/// to[n][j][i] = from[n][i][j] in blocks that keep both sides in the first-level cache.
template <class T>
void transpose_batches(const T* from, T* to, int64_t batch, int64_t rows, int64_t cols) {
  constexpr int64_t kBlock = 32;
  const int64_t row_blocks = (rows + kBlock - 1) / kBlock;
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, kBlock * cols));
  cpu::parallel_for(batch * row_blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t base = block / row_blocks * rows * cols;
      const int64_t row0 = block % row_blocks * kBlock;
      const int64_t row1 = std::min(rows, row0 + kBlock);
      for (int64_t col0 = 0; col0 < cols; col0 += kBlock) {
        const int64_t col1 = std::min(cols, col0 + kBlock);
        for (int64_t col = col0; col < col1; ++col) {
          for (int64_t row = row0; row < row1; ++row)
            to[base + col * rows + row] = from[base + row * cols + col];
        }
      }
    }
  });
}

void transpose_items(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols,
                     size_t item_size) {
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

void relay_to_row_major(const void* from, void* to, IntSpan sizes, size_t item_size) {
  transpose_items(from, to, sizes[0], spatial_size(sizes), sizes[1], item_size);
}

void relay_to_channels_last(const void* from, void* to, IntSpan sizes, size_t item_size) {
  transpose_items(from, to, sizes[0], sizes[1], spatial_size(sizes), item_size);
}

}  // namespace opsin
