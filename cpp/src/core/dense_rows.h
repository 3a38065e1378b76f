// Kernels over consecutive elements of the computing type, the only form in which the elementwise families
// are compiled for each instruction set. Strided and broadcast rows and 16-bit floats reach them in blocks
// that stay in the first cache, so that one loop of an op serves all of them.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin {

/// How an operand lies in memory against what the kernel computes with.
enum class Stored : uint8_t { kPlain, kHalf, kBrainFloat };

struct DenseCall {
  DenseFn kernel;
  const void* params;
  int operands;
  uint8_t size[Elementwise::kMaxOperands];  ///< Bytes of an element in memory.
  Stored stored[Elementwise::kMaxOperands];
};

namespace cpu {
struct DenseTable {
  LoopFn rows;  ///< `params` is a DenseCall.
};
OPSIN_ISA_TABLE(DenseTable, dense_table)
}  // namespace cpu

}  // namespace opsin
