// The contract between loss.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// y = scale times the sum of (a - b)^2 over n pairs of neighbours.
struct PairParams {
  const void* a;
  const void* b;
  void* y;
  int64_t n;
  double scale;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const PairParams&)> squared_error;

void register_pair_cpu();

namespace cpu {

struct PairTable {
  /// The sum of (x - y)^2 over n elements; floating dtypes only.
  double (*squared_error[kNumDTypes])(const void* x, const void* y, int64_t n);
};
OPSIN_ISA_TABLE(PairTable, pair_table)

}  // namespace cpu

}  // namespace opsin
