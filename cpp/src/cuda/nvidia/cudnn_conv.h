// Convolutions as cuDNN graphs.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "cpu/conv.h"
#include "cuda/nvidia/cudnn.h"

namespace opsin::cuda::cudnn {

enum class ConvProduct : int32_t { kForward, kBackwardInput, kBackwardWeight };

/// One convolution and how it may run: the key of the plan caches, so every byte counts. Activations are
/// channels-last, weights [K, kernel..., C / groups].
struct ConvProblem {
  ConvProduct product = ConvProduct::kForward;
  /// Two axes (height, width) or three; one-dimensional convolutions have height 1.
  int32_t axes = 2;
  int32_t dtype = 0;
  /// Of the operands in memory, in bytes; at most kMostAlignment.
  int32_t alignment = 0;
  /// Forward only: y = relu(conv(x) + bias + residual), as far as asked for.
  int32_t bias = 0, residual = 0, relu = 0;
  int32_t tf32 = 0, deterministic = 0, benchmark = 0;
  int32_t device = 0;
  int32_t groups = 1;
  int32_t batch = 0, in_channels = 0, out_channels = 0;
  int32_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int32_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int32_t pad_begin[3] = {0, 0, 0}, pad_end[3] = {0, 0, 0};

  bool operator==(const ConvProblem&) const = default;
};
static_assert(std::has_unique_object_representations_v<ConvProblem>);

/// What cuDNN's vector accesses need at most.
inline constexpr int32_t kMostAlignment = 16;

/// The identifiers of the tensors in every convolution graph: x or its gradient, and so on.
inline constexpr int64_t kX = 1, kWeight = 2, kY = 3, kBias = 4, kResidual = 5;

/// False for sizes of 0 and beyond 32 bits and for negative padding, which cuDNN does not take.
bool make_problem(ConvProduct product, const cpu::ConvGeometry& geometry, DType dtype, ConvProblem& problem);

/// The same convolution with as much padding before as behind on each axis: another number behind where that
/// changes no window, else none, for an input that has it written out. cuDNN's gradients of weights need it:
/// with 9.19 on an H200 those of float32 and float64 are wrong for some small outputs otherwise.
struct EvenPadding {
  cpu::ConvGeometry geometry;
  /// The geometry that was given with the padding alone that has to be written out.
  cpu::ConvGeometry written;
  bool writes = false;

  explicit EvenPadding(const cpu::ConvGeometry& given);
};

Graph make_graph(const ConvProblem& problem, const Target& target);

EngineFilter engine_filter(const ConvProblem& problem);

/// For messages: "conv_backward_input float32 x [8, 64, 56, 56] weight [64, 64, 3, 3] stride [1, 1] ...".
std::string describe(const ConvProblem& problem);

}  // namespace opsin::cuda::cudnn
