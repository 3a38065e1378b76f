// Which element of a row is the largest or smallest, and where: the contract between extremum.cpp and the
// kernels.
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

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

}  // namespace opsin::cpu
