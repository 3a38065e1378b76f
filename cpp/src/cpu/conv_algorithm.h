// Which algorithm a product of a convolution runs with.
#pragma once

#include "conv.h"

#include "cpu/half.h"

namespace opsin::cpu::conv {

enum class Product { kForward, kBackwardInput, kBackwardWeight };

/// The algorithm of a product, never kAuto. The choice depends on shape and dtype alone.
ConvAlgorithm choose_algorithm(const ConvGeometry& geometry, DType dtype, Product product);

/// grad_bias (+)= sums of grad_y over images and positions.
template <class S>
void bias_gradient(const ConvGeometry& geometry, const S* grad_y, Compute<S>* grad_bias, bool accumulate);

// Any geometry with elements in all three tensors, float or double.

/// Most bytes of copied windows that exist at once.
inline constexpr int64_t im2col_bytes = int64_t{8} << 20;
template <class T>
void im2col_forward(const ConvGeometry&, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void im2col_backward_input(const ConvGeometry&, const T* grad_y, const T* weight, T* grad_x);
template <class T>
void im2col_backward_weight(const ConvGeometry&, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                            bool accumulate);

/// Most bytes of spectra that exist at once: those of the input, and those of each thread.
inline constexpr int64_t fft_shared_bytes = int64_t{32} << 20, fft_thread_bytes = int64_t{12} << 20;
template <class T>
void fft_forward(const ConvGeometry&, const T* x, const T* weight, const T* bias, T* y);
template <class T>
void fft_backward_input(const ConvGeometry&, const T* grad_y, const T* weight, T* grad_x);
template <class T>
void fft_backward_weight(const ConvGeometry&, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                         bool accumulate);

// Winograd, conv_winograd.cpp.
/// Whether there are kernels: `choose_algorithm` then honours algorithm="winograd".
bool winograd_fits(const ConvGeometry& geometry, DType dtype);
/// What is asked for, as the end of an error message ("needs ...").
const char* winograd_needs();
/// Whether "auto" takes it for a product, which implies winograd_fits().
bool winograd_pays(const ConvGeometry& geometry, DType dtype, Product product);
/// The outputs along an edge of its tiles for a product.
int64_t winograd_tile(const ConvGeometry& geometry, DType dtype, Product product);
/// float, BFloat16 or Float16.
template <class S>
void winograd_forward(const ConvGeometry&, const S* x, const S* weight, const float* bias, S* y);
template <class S>
void winograd_backward_input(const ConvGeometry&, const S* grad_y, const S* weight, S* grad_x);
/// With elements in all three tensors.
template <class S>
void winograd_backward_weight(const ConvGeometry&, const S* x, const S* grad_y, S* grad_weight,
                              float* grad_bias, bool accumulate);

}  // namespace opsin::cpu::conv
