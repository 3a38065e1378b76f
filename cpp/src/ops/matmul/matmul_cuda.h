// The matrix product by the engine's own CUDA kernel: any strides, every dtype the CPU has. It serves the
// emulated device, integers and complex numbers, and what cuBLASLt has no algorithm for.
#pragma once

#include "matmul_kernels.h"

#include <opsin/dtype.h>

namespace opsin::cuda {

/// As cpu/gemm.h describes it, for floating-point dtypes, device memory and the current stream; products are
/// added in the order of k.
void matmul(DType dtype, const MatmulParams& params);

}  // namespace opsin::cuda
