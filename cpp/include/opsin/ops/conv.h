// Convolution (cross-correlation, as networks use the word) and its transpose. Input [N, C, spatial...] or
// [C, spatial...]; float32, float64, float16 or bfloat16, all operands alike. Lists have one entry, or one
// for each spatial axis; numeric padding also has two for each axis, (before, behind) of the first one first:
// {top, bottom, left, right}. ShapeError when sizes don't fit.
//
// Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Convolution with weight [K, C / groups, kernel...] and bias [K] or undefined. The output is [N, K,
/// out...] with out = floor((size + before + behind - dilation * (kernel - 1) - 1) / stride) + 1 for each
/// axis, size = (in - 1) * input_dilation + 1: input_dilation puts that many zeros less one between the
/// elements of the input. `strict` raises ShapeError where the division leaves a rest, and names sizes
/// without one.
///
/// `algorithm` is that of this product and of its gradients of every order:
///   "auto"      the fastest, by shape and dtype
///   "direct"    sums over the taps of the kernel
///   "im2col"    a matrix product with copies of the windows, at most 8 MB of them at a time
///   "fft"       products of spectra, tile by tile; at most 32 MB of them and 12 MB for each thread, but one
///               tile, which exceeds that for kernels of tens of thousands of taps. A stride is paid for as
///               if it were 1. Errors are relative to the largest outputs of a tile, and a NaN or an infinity
///               spreads over it. "auto" takes it from 31 taps on where it is faster
///   "winograd"  minimal filtering in tiles of 2x2, 4x4 or, in 16 bits, 6x6 outputs, for kernels that end in
///               3x3 with stride and dilation 1, not in float64; the gradient of the weight is direct, but in
///               bfloat16 with instructions for it and without groups ("auto" takes it there too, where it is
///               at least a tenth faster): its error is then about 2.6 times that of rounding it. Outputs are
///               off by at most (C / groups * kD + 32) 2^-24 kappa sum over c of (greatest |input_c| in the
///               tile and a border of one) * (sum of |weight_c|), kappa = 16, 175.5 or 1565, then rounded; on
///               random data 0.4 to 2.6 (6x6: 9) times as far as "direct". Infinities and NaNs reach a whole
///               tile.
/// "auto" takes it where it is a twentieth faster (float32: a tenth; for images below about 14x14 that
/// depends on the batch). CUDA makes its own choice, for "auto" and "direct". ValueError for what a device
/// does not have.
OPSIN_API Tensor conv1d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");
OPSIN_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");
OPSIN_API Tensor conv3d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                        IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");
/// Padding by name; ValueError for others:
///   "valid"       none
///   "same"        the output has the size of the input; stride 1 only, as in PyTorch
///   "same_upper"  ceil(size / stride) outputs; of an odd total the end gets one more, as in TensorFlow and
///                 ONNX
///   "same_lower"  the same with one more before
///   "causal"      no output of the first axis sees what comes after its position; the other axes are as with
///                 "same_upper"
OPSIN_API Tensor conv1d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");
OPSIN_API Tensor conv2d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");
OPSIN_API Tensor conv3d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,
                        std::string_view padding, IntSpan dilation = {}, int64_t groups = 1,
                        bool strict = false, IntSpan input_dilation = {},
                        std::string_view algorithm = "auto");

/// Transposed convolution (also: deconvolution, fractionally strided convolution) with weight [C, K / groups,
/// kernel...]: the transpose of the matrix of the convolution with that weight, which maps [N, K, out...] to
/// [N, C, in...]. out = (in - 1) * stride - before - behind + dilation * (kernel - 1) + output_padding + 1.
/// ShapeError where output_padding is not smaller than stride or dilation, or no output is left.
OPSIN_API Tensor conv_transpose1d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                  IntSpan stride = {}, IntSpan padding = {}, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");
OPSIN_API Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                  IntSpan stride = {}, IntSpan padding = {}, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");
OPSIN_API Tensor conv_transpose3d(const Tensor& input, const Tensor& weight, const Tensor& bias = {},
                                  IntSpan stride = {}, IntSpan padding = {}, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");
/// Padding by name: "valid", or for an output of stride * in: "same_upper" and "same_lower", the transposes
/// of the convolutions of that name; "same", at stride 1; "causal", where no output of the first axis sees
/// inputs after its position.
OPSIN_API Tensor conv_transpose1d(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                  IntSpan stride, std::string_view padding, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");
OPSIN_API Tensor conv_transpose2d(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                  IntSpan stride, std::string_view padding, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");
OPSIN_API Tensor conv_transpose3d(const Tensor& input, const Tensor& weight, const Tensor& bias,
                                  IntSpan stride, std::string_view padding, IntSpan output_padding = {},
                                  int64_t groups = 1, IntSpan dilation = {},
                                  std::string_view algorithm = "auto");

}  // namespace opsin
