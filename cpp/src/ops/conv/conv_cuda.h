// Convolution by the engine's own CUDA kernels: any geometry, every floating-point dtype. They serve the
// emulated device and what cuDNN has no plan for.
#pragma once

#include "conv_kernels.h"

namespace opsin::cuda {

// As cpu/conv.h describes them, for device memory and on the current stream.
void conv_forward(const ConvGeometry& geometry, DType dtype, const void* x, const void* weight,
                  const void* bias, void* y);
void conv_backward_input(const ConvGeometry& geometry, DType dtype, const void* grad_y, const void* weight,
                         void* grad_x);
/// grad_weight or grad_bias may be null.
void conv_backward_weight(const ConvGeometry& geometry, DType dtype, const void* x, const void* grad_y,
                          void* grad_weight, void* grad_bias);

/// y[r][k] += bias[k] for rows [rows, filters].
void add_bias(DType dtype, const void* bias, int64_t rows, int64_t filters, void* y);

}  // namespace opsin::cuda
