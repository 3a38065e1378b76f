// The contract between cross_entropy.cpp and its kernels: log-softmax and the choice of a class in one pass.
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// Scores of `count` positions. `inner` == 1: the classes of a position follow each other, and so do
/// positions. Otherwise positions are neighbours and classes `inner` elements apart. Scales, sums and losses
/// have the compute type of the scores (float32 for 16-bit types).
struct CrossEntropyParams {
  const void* x;
  const int64_t* target;  ///< Class per position; ignored positions have a zero scale.
  const void* scale;  ///< Forward: weight of the position. Backward: weight times the gradient of the loss.
  void* log_sum;      ///< log(sum(exp(x))) per position: written forward, read backward.
  void* loss;         ///< Forward: scale * (log_sum - x[target]).
  void* grad_x;       ///< Backward: scale * (exp(x - log_sum) - [class == target]).
  int64_t count, classes, inner;
};

struct CrossEntropyTable {
  void (*forward[kNumDTypes])(const CrossEntropyParams&);
  void (*backward[kNumDTypes])(const CrossEntropyParams&);
};
OPSIN_ISA_TABLE(CrossEntropyTable, cross_entropy_table)

}  // namespace opsin::cpu
