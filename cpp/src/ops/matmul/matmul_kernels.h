// The contract of the matrix product.
#pragma once

#include "core/kernel.h"
#include "cpu/gemm.h"

namespace opsin {

/// y[b, m, n] = a[b, m, k] x b[b, k, n] (+ bias[n]); a batch stride of 0 repeats an operand.
using MatmulParams = cpu::GemmParams;
extern OPSIN_API KernelSlot<void (*)(const MatmulParams&)> matmul_forward;

void register_matmul_cpu();

}  // namespace opsin
