// The matrix product by the engine's own CUDA kernel: any strides, every dtype the CPU has. It serves the
// emulated device, integers and complex numbers, and what cuBLASLt has no algorithm for.
#pragma once

#include "matmul_kernels.h"

#include <opsin/dtype.h>

namespace opsin::cuda {

/// As cpu/gemm.h describes it, for floating-point dtypes, device memory and the current stream; products are
/// added in the order of k.
void matmul(DType dtype, const MatmulParams& params);

/// to[b][r][c] = from[b * batch_stride + r * row_stride + c * column_stride], elements of 2, 4 or 8 bytes.
void pack_matrices(const void* from, int64_t batch, int64_t rows, int64_t columns, int64_t batch_stride,
                   int64_t row_stride, int64_t column_stride, size_t item_size, void* to);

}  // namespace opsin::cuda
