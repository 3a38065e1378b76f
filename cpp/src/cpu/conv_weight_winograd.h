// The gradient of the weights of 3x3 taps by Winograd's minimal filtering, conv_weight_winograd.cpp. S is
// BFloat16, where has_bf16_kernels().
#pragma once

#include "conv_plan.h"

namespace opsin::cpu::conv {

/// Whether it fits and, unless it is asked for, saves time.
template <class S>
bool winograd_weight_pays(const ConvGeometry& geometry);
template <class S>
void winograd_backward_weight(const ConvGeometry& geometry, const S* x, const S* grad_y, S* grad_weight,
                              Compute<S>* grad_bias, bool accumulate);

}  // namespace opsin::cpu::conv
