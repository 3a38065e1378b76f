// The contract of the convolution kernels: geometry, and one entry point for each of the three products.
#pragma once

#include "core/kernel.h"
#include "cpu/conv.h"

namespace opsin {

using ConvAlgorithm = cpu::ConvAlgorithm;
using ConvGeometry = cpu::ConvGeometry;

/// geometry, dtype, x, weight, bias or null, y
extern OPSIN_API
    KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, const void*, void*)>
        conv_forward;
/// geometry, dtype, grad_y, weight, grad_x
extern OPSIN_API KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*)>
    conv_backward_input;
/// geometry, dtype, x, grad_y, grad_weight, grad_bias or null
extern OPSIN_API KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*, void*)>
    conv_backward_weight;

}  // namespace opsin
