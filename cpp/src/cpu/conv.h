// Convolution of the CPU backend: 1 to 3 dimensions, any stride, dilation, groups and padding, channels last.
#pragma once

#include <cstdint>
#include <string>

#include <opsin/dtype.h>

namespace opsin::cpu {

struct KeptWeight;

/// The batch norm that follows a convolution, see NormalisedParams in ops/norm/norm_kernels.h.
struct ConvAfter {
  const void* numbers;   ///< [3][out channels] of the type of computation
  const void* residual;  ///< as y, or null
  double ceiling;
};

/// How products are computed. What an algorithm has no kernel for (see conv_obstacle) is an error, never
/// another algorithm:
///     auto       the fastest of the others, by shape, dtype and product
///     direct     loops over taps around packed weights; every geometry, all three products
///     im2col     copies of the windows, times the weights; every geometry, all three products
///     fft        products of spectra; every geometry, all three products
///     winograd   minimal filtering for 3x3, not in float64; forward and gradient of the input; the gradient
///                of the weight is direct, but in bfloat16 by AVX512-BF16
enum class ConvAlgorithm : int32_t { kAuto, kDirect, kIm2col, kFft, kWinograd };

/// Sizes of a convolution. The kernels always see three axes (depth, height, width): with fewer, the leading
/// ones have size 1, kernel 1, stride 1, dilation 1 and no padding.
///
///     y[n, o, k] = bias[k] + sum over taps t and channels c of the group of k:
///                  x[n, o * stride - pad_begin + t * dilation, c] * weight[k, c, t]         (zero outside of
///                  x)
///
/// `out` is what pad_end and the rounding of the caller make of it; out <= 0 on any axis means nothing to
/// compute.
struct ConvGeometry {
  int spatial = 2;
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int64_t pad_begin[3] = {0, 0, 0}, pad_end[3] = {0, 0, 0};
  ConvAlgorithm algorithm = ConvAlgorithm::kAuto;
  /// Set where the weight's packed form may be kept.
  const KeptWeight* weight = nullptr;
  /// Set where the forward product applies it, see conv_applies().
  const ConvAfter* after = nullptr;
};

// Everything below is dense and of one dtype (float32, float64, float16 or bfloat16; others raise TypeError):
//     x, grad_x             [N, D, H, W, C]        channels last
//     y, grad_y             [N, OD, OH, OW, K]     channels last
//     weight, grad_weight   [K, C / groups, kD, kH, kW]
//     bias, grad_bias       [K] or null
// Outputs are overwritten and must not overlap inputs. float16 and bfloat16 are summed in float32 and rounded
// once. Results are bit-identical for any number of threads. Raises OutOfMemoryError when no scratch memory
// is left.

/// Why the geometry cannot have its algorithm, as the end of an error message ("needs ..., got ..."); empty
/// where it can. The products below raise ValueError with it.
std::string conv_obstacle(const ConvGeometry& geometry, DType dtype);

/// Whether conv_forward() does what is to be done after the convolution in its registers.
bool conv_applies(const ConvGeometry& geometry, DType dtype);

void conv_forward(const ConvGeometry& geometry, DType dtype, const void* x, const void* weight,
                  const void* bias, void* y);
void conv_backward_input(const ConvGeometry& geometry, DType dtype, const void* grad_y, const void* weight,
                         void* grad_x);
void conv_backward_weight(const ConvGeometry& geometry, DType dtype, const void* x, const void* grad_y,
                          void* grad_weight, void* grad_bias);

}  // namespace opsin::cpu
