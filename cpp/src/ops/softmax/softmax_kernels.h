// The contract between softmax.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// `count` independent vectors of n elements. Elements of a vector are `stride` apart and vectors follow each
/// other `step` apart; both in elements. One of the two is 1.
struct SoftmaxParams {
  const void* x;
  void* y;
  int64_t count, step, n, stride;
  bool log;
};

/// dx from dy (in x's place) and y.
struct SoftmaxBackwardParams {
  const void* grad_y;
  const void* y;
  void* grad_x;
  int64_t count, step, n, stride;
  bool log;
};

struct SoftmaxTable {
  void (*forward[kNumDTypes])(const SoftmaxParams&);
  void (*backward[kNumDTypes])(const SoftmaxBackwardParams&);
};
OPSIN_ISA_TABLE(SoftmaxTable, softmax_table)

}  // namespace opsin::cpu
