// The contract between loss.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

struct PairTable {
  /// The sum of (x - y)^2 over n elements; floating dtypes only.
  double (*squared_error[kNumDTypes])(const void* x, const void* y, int64_t n);
};
OPSIN_ISA_TABLE(PairTable, pair_table)

}  // namespace opsin::cpu
