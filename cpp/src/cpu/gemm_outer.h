// The plan of GEMM for products of few steps of k. Internal to GEMM.
#pragma once

#include "cpu/gemm_block.h"

namespace opsin::cpu::gemm {

/// Whether writing C takes most of the time of the product.
bool prefers_outer(const Problem& g);

void run_outer(const Problem& g);

}  // namespace opsin::cpu::gemm
