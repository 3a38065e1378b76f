// Transposes of batches of matrices, whatever their elements are.
#pragma once

#include <cstddef>
#include <cstdint>

namespace opsin::cuda {

/// to[n][j][i] = from[n][i][j] for elements of `item_size` bytes (1, 2, 4, 8 or 16), i < rows, j < cols.
void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size);

}  // namespace opsin::cuda
