// The contract between softmax.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// `outer` blocks of n rows of `inner` neighbours; a vector goes down a column of a block. No size is 0.
struct SoftmaxParams {
  const void* x;
  void* y;
  int64_t outer, n, inner;
  DType dtype;
  bool log;
};

/// dx from dy and y.
struct SoftmaxBackwardParams {
  const void* grad_y;
  const void* y;
  void* grad_x;
  int64_t outer, n, inner;
  DType dtype;
  bool log;
};

extern OPSIN_API KernelSlot<void (*)(const SoftmaxParams&)> softmax_forward;
extern OPSIN_API KernelSlot<void (*)(const SoftmaxBackwardParams&)> softmax_backward;

void register_softmax_cpu();

namespace cpu {

/// `count` independent vectors of n elements. Elements of a vector are `stride` apart and vectors follow each
/// other `step` apart; both in elements. One of the two is 1.
struct SoftmaxPart {
  const void* x;
  void* y;
  int64_t count, step, n, stride;
  bool log;
};

struct SoftmaxBackwardPart {
  const void* grad_y;
  const void* y;
  void* grad_x;
  int64_t count, step, n, stride;
  bool log;
};

struct SoftmaxTable {
  void (*forward[kNumDTypes])(const SoftmaxPart&);
  void (*backward[kNumDTypes])(const SoftmaxBackwardPart&);
};
OPSIN_ISA_TABLE(SoftmaxTable, softmax_table)

}  // namespace cpu

}  // namespace opsin
