// Attention of a few queries on the CPU (pooling by a class token, decoding): keys and values are read once,
// by their rows as they lie. Vectors run along a row, because a tile of scores (attention_kernels.h) would be
// mostly empty.
#pragma once

#include "attention_kernels.h"

namespace opsin {

namespace attention {

/// Queries that share a head of keys and are computed together, and the keys that they meet at a time
/// (measured with AVX2).
constexpr int64_t kFewQueries = 8, kFewKeys = 64;
/// Elements that rows of vectors are filled up to: whole vectors of every instruction set.
constexpr int64_t kFewColumns = 16;

/// Compute all and return true, or return false where tiles are the better way. They depend on the shape and
/// the layout alone.
bool forward_few(const AttentionParams& p);
bool backward_few(const AttentionBackwardParams& p);

}  // namespace attention

namespace cpu {

/// Rows of a matrix, `queries` vectors of as many columns, and a number for each of both. T is the type of
/// computation.
struct AttentionFew {
  const void* rows;  ///< [count][columns], `stride` apart
  int64_t count, stride, columns;
  int64_t queries;
  void* vectors;  ///< T [queries][vector_stride], zeros after `columns`
  int64_t vector_stride;
  void* products;  ///< T [queries][kFewKeys]
};

struct AttentionFewTable {
  // By storage dtype.
  /// products[i][j] = vectors[i] rows[j]
  void (*dot[kNumDTypes])(const AttentionFew&);
  /// vectors[i] += sum over j of products[i][j] rows[j]
  void (*add[kNumDTypes])(const AttentionFew&);
  // By type of computation: float, double.
  /// rows[j] = sum over i of products[i][j] vectors[i], or += that; rows are of T and written.
  void (*outer[2])(const AttentionFew&, bool add);
  /// The scores [count] of a query become exp(score - max); returns what earlier exponentials are to be
  /// multiplied by. `max` and `sum` are those so far.
  double (*softmax[2])(void* scores, int64_t count, void* max, void* sum);
  /// scores [count] become p = exp(score - log_sum), and grads p (grad - delta).
  void (*slope[2])(void* scores, void* grads, int64_t count, double log_sum, double delta);
};
OPSIN_ISA_TABLE(AttentionFewTable, attention_few_table)

}  // namespace cpu

}  // namespace opsin
