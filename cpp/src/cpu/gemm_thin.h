// The plan of GEMM for products of a few rows with a B whose columns are adjacent. Internal to GEMM.
#pragma once

#include "cpu/gemm_block.h"

namespace opsin::cpu::gemm {

bool prefers_thin(const Problem& g);

void run_thin(const Problem& g);

}  // namespace opsin::cpu::gemm
