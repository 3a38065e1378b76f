// Which algorithm a product of a convolution runs with.
#pragma once

#include "conv.h"

namespace opsin::cpu::conv {

enum class Product { kForward, kBackwardInput, kBackwardWeight };

/// The algorithm of a product, never kAuto. The choice depends on shape and dtype alone.
ConvAlgorithm choose_algorithm(const ConvGeometry& geometry, DType dtype, Product product);

// Winograd, conv_winograd.cpp.
/// Whether there are kernels: `choose_algorithm` then honours algorithm="winograd".
bool winograd_fits(const ConvGeometry& geometry, DType dtype);
/// What is asked for, as the end of an error message ("needs ...").
const char* winograd_needs();
/// Whether "auto" takes it for a product, which implies winograd_fits().
bool winograd_pays(const ConvGeometry& geometry, DType dtype, Product product);
void winograd_forward(const ConvGeometry& geometry, const float* x, const float* weight, const float* bias,
                      float* y);
void winograd_backward_input(const ConvGeometry& geometry, const float* grad_y, const float* weight,
                             float* grad_x);

}  // namespace opsin::cpu::conv
