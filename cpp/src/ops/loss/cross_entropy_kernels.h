// The contract between cross_entropy.cpp and its kernels: log-softmax and the choice of a class in one pass.
#pragma once

#include <opsin/dtype.h>
#include <opsin/shape.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Classes that may be used as indices, and the weight of each position: 0 where the class is ignored. A
/// label out of range is an IndexError that names it and, where it can, its place in `sizes`.
struct LabelParams {
  const int64_t* target;
  const void* class_weight;  ///< Per class, in `dtype`; null for ones.
  int64_t* index;
  void* weight;
  DType dtype;  ///< float32 or float64.
  int64_t count, classes, ignore_index;
  IntSpan sizes;
  const char* op;  ///< A literal.
};

/// Scores lie as `outer` blocks of `classes` rows of `inner` neighbours; a position is a column of a block.
/// Scales, sums and losses have the compute type of the scores (float32 for 16-bit types). No size is 0.
struct CrossEntropyParams {
  const void* x;
  const int64_t* target;  ///< Class per position; ignored positions have a zero scale.
  const void* scale;  ///< Forward: weight of the position. Backward: weight times the gradient of the loss.
  void* log_sum;      ///< log(sum(exp(x))) per position: written forward, read backward.
  void* loss;         ///< Forward: scale * (log_sum - x[target]).
  void* grad_x;       ///< Backward: scale * (exp(x - log_sum) - [class == target]).
  int64_t outer, classes, inner;
  DType dtype;
};

/// By the compute type of the scores.
extern OPSIN_API KernelSlot<void (*)(const LabelParams&)> class_labels;
extern OPSIN_API KernelSlot<void (*)(const CrossEntropyParams&)> cross_entropy_forward;
extern OPSIN_API KernelSlot<void (*)(const CrossEntropyParams&)> cross_entropy_backward;

void register_cross_entropy_cpu();

namespace cpu {

/// As CrossEntropyParams, for `count` positions. `inner` == 1: the classes of a position follow each other,
/// and so do positions. Otherwise positions are neighbours and classes `inner` elements apart.
struct CrossEntropyPart {
  const void* x;
  const int64_t* target;
  const void* scale;
  void* log_sum;
  void* loss;
  void* grad_x;
  int64_t count, classes, inner;
};

struct CrossEntropyTable {
  void (*forward[kNumDTypes])(const CrossEntropyPart&);
  void (*backward[kNumDTypes])(const CrossEntropyPart&);
};
OPSIN_ISA_TABLE(CrossEntropyTable, cross_entropy_table)

}  // namespace cpu

}  // namespace opsin
