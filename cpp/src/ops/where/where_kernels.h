// The contract of the selection loops.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Operands: y, condition (bool), a, b.
extern OPSIN_API ElementwiseSlot where_forward;

namespace cpu {

/// Loops by element size in bytes: 1, 2, 4, 8, 16 at index log2(size). Operands: y, condition (bool), a, b.
struct WhereTable {
  LoopFn loop[5];
};
OPSIN_ISA_TABLE(WhereTable, where_table)

}  // namespace cpu

}  // namespace opsin
