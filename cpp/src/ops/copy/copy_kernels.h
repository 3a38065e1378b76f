// The contract of the conversion loops.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin::cpu {

/// loop[from][to] over real dtypes. Operands: to, from.
struct CastTable {
  LoopFn loop[kNumDTypes][kNumDTypes];
};
OPSIN_ISA_TABLE(CastTable, cast_table)

}  // namespace opsin::cpu
