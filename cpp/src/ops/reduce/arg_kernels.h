// Which element of a row is the largest or smallest, and where: the contract between extremum.cpp and the
// kernels.
#pragma once

#include "fold_kernels.h"

namespace opsin {

/// The first extremum (the first NaN if there is one) of each output, in the dtype of what is folded, and its
/// int64 position. One dimension is reduced, which has elements.
struct ArgParams {
  FoldShape shape;
  bool max;
  char* values;
  int64_t* positions;
};
/// By the dtype of what is folded.
extern OPSIN_API KernelSlot<void (*)(const ArgParams&)> arg_forward;

namespace cpu {

/// Values and int64 positions of the first extremum (the first NaN if there is one) of `count` outputs with n
/// >= 1 elements each. `rows`: elements are neighbours and outputs `step` bytes apart; `columns`: the other
/// way round.
struct ArgKernel {
  void (*rows)(char* values, int64_t* positions, const char* x, int64_t count, int64_t step, int64_t n);
  void (*columns)(char* values, int64_t* positions, const char* x, int64_t count, int64_t step, int64_t n);
};

struct ArgTable {
  ArgKernel max[kNumDTypes];
  ArgKernel min[kNumDTypes];
};
OPSIN_ISA_TABLE(ArgTable, arg_table)

}  // namespace cpu

}  // namespace opsin
