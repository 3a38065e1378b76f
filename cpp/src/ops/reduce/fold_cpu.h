// How the CPU goes through the outputs of a fold.
#pragma once

#include "fold_kernels.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin::cpu {

inline constexpr int64_t kMaxFoldBlock = 512;

/// How many outputs are folded together.
inline int64_t fold_block(const FoldShape& shape) {
  // Several outputs when the elements of one come in short runs, which for neighbouring outputs are
  // neighbours in memory.
  const int64_t most =
      shape.rows ? std::clamp<int64_t>(16384 / std::max<int64_t>(1, shape.reduced_sizes[0]), 1, kMaxFoldBlock)
                 : kMaxFoldBlock;
  return std::max<int64_t>(1, std::min(most, shape.kept_sizes[0]));
}

/// The first element of the outputs with index `row` in all but the fastest kept dimension.
inline const char* fold_start(const FoldShape& shape, int64_t row) {
  const char* x = shape.x;
  for (size_t d = 1; d < shape.kept_sizes.size(); ++d) {
    x += row % shape.kept_sizes[d] * shape.kept_strides[d];
    row /= shape.kept_sizes[d];
  }
  return x;
}

/// Calls body(first, count, x) on several threads for blocks of outputs; their first elements lie at
/// x + i * kept_strides[0].
template <class Body>
void for_fold_blocks(const FoldShape& shape, Body&& body) {
  const int64_t block = fold_block(shape), width = shape.kept_sizes[0];
  const int64_t per_row = (width + block - 1) / block;
  const int64_t blocks = shape.outputs == 0 ? 0 : shape.outputs / width * per_row;
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, block * shape.reduced));
  parallel_for(blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = i % per_row * block, count = std::min(block, width - from);
      body(i / per_row * width + from, count, fold_start(shape, i / per_row) + from * shape.kept_strides[0]);
    }
  });
}

}  // namespace opsin::cpu
