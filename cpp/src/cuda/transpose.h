// Transposes of batches of matrices, whatever their elements are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace opsin::cuda {

/// to[n][j][i] = from[n][i][j] for elements of `item_size` bytes (1, 2, 4, 8 or 16), i < rows, j < cols.
void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size);

/// The same where matrices lie in larger tensors. Strides count elements: the columns of a row of `from` and
/// the rows of a column of `to` are neighbours.
struct StridedTranspose {
  static constexpr int kMaxBatchRank = 10;

  int64_t rows, cols, from_stride, to_stride;
  int batch_rank;
  int64_t batch[kMaxBatchRank], from_batch[kMaxBatchRank], to_batch[kMaxBatchRank];
};
/// Whether matrices are large enough on both sides for transpose().
bool fills_tiles(const StridedTranspose& shape);
void transpose(const void* from, void* to, const StridedTranspose& shape, size_t item_size);

}  // namespace opsin::cuda
