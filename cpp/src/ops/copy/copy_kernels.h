// The contract of the conversion loops.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin {

/// [to], by the dtype that is read. Operands: to, from.
extern OPSIN_API ElementwiseSlot copy_forward[kNumDTypes];

namespace cpu {

/// loop[from][to] over real dtypes. Operands: to, from.
struct CastTable {
  LoopFn loop[kNumDTypes][kNumDTypes];
};
OPSIN_ISA_TABLE(CastTable, cast_table)

}  // namespace cpu

}  // namespace opsin
