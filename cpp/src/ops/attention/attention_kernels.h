// The contract between attention.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "core/philox_state.h"
#include "cpu/dispatch.h"

namespace opsin {

/// One matrix per batch and head; strides in elements.
struct AttentionMatrix {
  const void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, col = 0;
};

enum class AttentionMask : uint8_t {
  kNone,
  kSeen,  ///< bool; false: the query does not see the key.
  kAdded  ///< Added to the scores; stored in the dtype of the query.
};

/// out = dropout(softmax(scale query key^T + mask)) value. No size is 0, but for depth and value_depth.
/// Head h of the query uses head h / (heads / kv_heads) of key and value.
///
/// The weight of query i and key j in head h of batch b is dropped by word i % 4 of the block of Philox with
/// the number ((b heads + h) keys + j) ceil(queries / 4) + i / 4: where its upper 24 bits are below `least`.
struct AttentionParams {
  int64_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, depth = 0, value_depth = 0;
  AttentionMatrix query, key, value;
  /// Rows are queries; strides of 0 repeat. Batches are outer * mask_inner + inner: the matrix of a batch
  /// lies at outer * mask.batch + inner * mask_inner_stride.
  AttentionMatrix mask;
  int64_t mask_inner = 1, mask_inner_stride = 0;
  AttentionMatrix out;  ///< col = 1
  /// The logarithm of the sum of a row's exponentials, +inf for a row that sees nothing:
  /// [batch, heads, queries] in the type of computation.
  void* log_sum = nullptr;
  double scale = 1;
  AttentionMask mask_kind = AttentionMask::kNone;
  bool causal = false;
  uint32_t least = 0;  ///< 0: no dropout.
  double kept_scale = 1;
  PhiloxSeed random;
  DType dtype = kFloat32;
};

/// Gradients in the type of computation, col = 1, or null where they are not wanted.
struct AttentionBackwardParams : AttentionParams {
  AttentionMatrix grad_out;
  /// sum(grad_out out) of each row, [batch, heads, queries] in the type of computation.
  const void* delta = nullptr;
  AttentionMatrix grad_query, grad_key, grad_value;
  /// The gradient of a mask [outer, inner, heads, queries, keys], each size being 1 or that of the scores;
  /// contiguous, zeros.
  void* grad_mask = nullptr;
  int64_t mask_sizes[5] = {};
};

extern OPSIN_API KernelSlot<void (*)(const AttentionParams&)> attention_forward;
extern OPSIN_API KernelSlot<void (*)(const AttentionBackwardParams&)> attention_backward;

void register_attention_cpu();

namespace cpu {

// A tile holds scores of neighbouring keys and queries, one row per key, so that vectors run along queries
// and the maximum and the sum of a query need no step across lanes. T is float or double.

/// The softmax of queries so far, updated by a tile: scores become exp(score - max).
struct AttentionSoftmax {
  void* scores;  ///< T [keys][row]
  int64_t keys, queries, row;
  void* max;     ///< T [queries]: the largest score so far
  void* sum;     ///< T [queries]: the sum of exponentials so far
  void* factor;  ///< T [queries]: what earlier exponentials are to be multiplied by
};

/// scores become p = exp(score - log_sum), and grads p (grad - delta).
struct AttentionSlope {
  void* scores;
  void* grads;  ///< T [keys][row] both
  int64_t keys, queries, row;
  const void* log_sum;
  const void* delta;  ///< T [queries] both
};

/// Masks a tile, or adds a tile of gradients to that of the mask, whose query i and key j have the element at
/// i * query_stride + j * key_stride.
struct AttentionMaskTile {
  void* scores;
  int64_t keys, queries, row;
  const void* mask;
  int64_t query_stride, key_stride;
};

/// A tile times `scale`, rounded to bfloat16, where each of two may be null: by_keys[k / 2][row][k % 2],
/// filled up with zeros, and by_queries[k][row]. The queries fill vectors.
struct AttentionRound {
  const float* values;
  int64_t keys, queries, row;
  float scale;
  void* by_keys;
  void* by_queries;
};

/// c[rows][n] += a B for rows of a tile as they lie and B in panels of GEMM.
struct AttentionRows {
  const void* a;
  int64_t rows, a_row, depth;
  const void* b;
  int64_t b_panel;
  void* c;
  int64_t c_row, n;
};

struct AttentionTable {
  // By type of computation: float, double.
  void (*softmax[2])(const AttentionSoftmax&);
  void (*slope[2])(const AttentionSlope&);
  /// x[i] *= factor, count elements.
  void (*multiply[2])(void* x, int64_t count, double factor);
  /// Rows [queries][columns] of x times the factor of each.
  void (*multiply_rows[2])(void* x, int64_t queries, int64_t columns, const void* factor);
  void (*add_rows[2])(const AttentionRows&);
  /// `mask` is T here, and written.
  void (*add_to_mask[2])(const AttentionMaskTile&);
  void (*exclude[2])(const AttentionMaskTile&);
  /// By dtype of the mask.
  void (*add[kNumDTypes])(const AttentionMaskTile&);
};
OPSIN_ISA_TABLE(AttentionTable, attention_table)

/// What multiplies bfloat16 in pairs needs.
struct AttentionPairs {
  void (*round)(const AttentionRound&);
  void (*add_rows)(const AttentionRows&);
};

#if defined(__x86_64__)
namespace avx512_bf16 {
const AttentionPairs& attention_pairs();
}  // namespace avx512_bf16
#endif

}  // namespace cpu

}  // namespace opsin
