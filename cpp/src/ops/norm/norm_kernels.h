// The contract between the normalizations and their kernels. Sums are float64; numbers per channel or element
// that go into results have the compute type (float32 for 16-bit types).
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// How the values of channels lie. `columns`: batch * inner rows of `channels` neighbours. Otherwise
/// batch * channels rows of `inner` neighbours. No size is 0.
struct ChannelShape {
  int64_t batch, channels, inner;
  bool columns;
  DType dtype;
};

/// A float above this, and none other, is positive once it is rounded to `dtype`; below minus this, negative.
constexpr float least_positive(DType dtype) {
  return dtype == kFloat16 ? 0x1p-25f : dtype == kBFloat16 ? 0x1p-134f : 0;
}

/// A float above this, and none other, is `ceiling` or more once it is rounded to `dtype`: the ceiling of a
/// ReLU, which for its gradient is outside, 6 or infinity.
constexpr double greatest_below(double ceiling, DType dtype) {
  if (ceiling != 6) return ceiling;
  // Numbers of a 16-bit type from half a step below 6 on are rounded to it, which is even.
  constexpr double kStep = 0x1p-21;
  return dtype == kFloat64    ? 6 - 0x1p-50
         : dtype == kFloat16  ? 6 - 0x1p-9 - kStep
         : dtype == kBFloat16 ? 6 - 0x1p-6 - kStep
                              : 6 - kStep;
}

/// A number for each channel, of any floating-point dtype, `stride` elements apart; null if absent.
struct ChannelNumbers {
  void* data;
  int64_t stride;
  DType dtype;
};

/// What y = (x - mean) inverse weight + bias needs, where inverse = 1 / sqrt(variance + eps). In training
/// mean and variance are those of x, and the running ones, if there are any, move towards them: running = (1
/// - momentum) running + momentum value, with the unbiased variance.
struct BatchNormParams {
  ChannelShape shape;
  const void* x;  ///< May be null on the CPU unless `training`.
  ChannelNumbers weight, bias, running_mean, running_var;
  bool training;
  double momentum, eps;
  double* mean;  ///< Per channel, for the gradient.
  double* inverse;
  /// [3][channels] of the compute type: y = (x - mean) scale + offset, with the mean rounded and what that
  /// loses put into the offset.
  void* numbers;
};

/// y = (x - mean) scale + offset, + residual unless null, then kept in [0, ceiling] if that is not 0; each
/// rounded to the dtype.
struct NormalisedParams {
  ChannelShape shape;
  const void* x;
  const void* numbers;  ///< As batch_norm_statistics wrote them.
  const void* residual;
  double ceiling;
  void* y;
};

/// With g the gradient of y and xhat = (x - mean) inverse: grad_bias = sum(g), grad_weight = sum(g xhat), in
/// the compute type of x; grad_x = inverse weight (g - mean(g) - xhat mean(g xhat)), without the means unless
/// `training`. Any of them may be null.
struct BatchNormBackwardParams {
  ChannelShape shape;
  const void* x;
  const void* g;
  /// Of the ReLU that g comes from, by the next two: g counts where its output is positive and below.
  double ceiling;
  /// Null, or the numbers that made y: g is the gradient of the ReLU of y.
  const void* numbers;
  /// Null, or the output of the ReLU: what counts of g is written to `masked`. Only where there are sums to
  /// take.
  const void* relu_output;
  void* masked;
  ChannelNumbers weight;
  const double* mean;
  const double* inverse;
  bool training;
  void* grad_x;
  void* grad_weight;
  void* grad_bias;
};

/// `rows` rows of n neighbours, each normalised by its own mean and variance; with `rms`, the mean counts as
/// 0. Weight and bias, per element of a row, may be null. Their dtype is the compute type, or on a GPU that
/// of x: a conversion would be a launch of its own.
struct LayerNormParams {
  int64_t rows, n;
  bool rms;
  DType dtype, weights;
  const void* x;
  const void* weight;
  const void* bias;
  double eps;
  void* y;
  double* mean;  ///< Per row, for the gradient.
  double* inverse;
};

/// The gradients, of which any may be null; those of weight and bias have the dtype of these.
struct LayerNormBackwardParams {
  int64_t rows, n;
  bool rms;
  DType dtype, weights;
  const void* x;
  const void* g;
  const void* weight;
  const double* mean;
  const double* inverse;
  void* grad_x;
  void* grad_weight;
  void* grad_bias;
};

/// Samples of `channels` channels of `inner` values each: rows of channels with `columns`, otherwise rows of
/// values. `groups` divides channels; no size is 0.
struct GroupShape {
  int64_t batch, channels, groups, inner;
  bool columns;
  DType dtype;

  constexpr int64_t of_group() const { return channels / groups; }
};

/// y = (x - mean) inverse weight + bias with mean and inverse = 1 / sqrt(variance + eps) of the group of
/// channels in its sample. Weight and bias, per channel and of the compute type, may be null.
struct GroupNormParams {
  GroupShape shape;
  const void* x;
  const void* weight;
  const void* bias;
  double eps;
  void* y;
  double* mean;  ///< [batch][channels], the same in all of a group.
  double* inverse;
};

/// The gradients, of which any may be null; those of weight and bias are of the compute type.
struct GroupNormBackwardParams {
  GroupShape shape;
  const void* x;
  const void* g;
  const void* weight;
  const double* mean;
  const double* inverse;
  void* grad_x;
  void* grad_weight;
  void* grad_bias;
};

extern OPSIN_API KernelSlot<void (*)(const BatchNormParams&)> batch_norm_statistics;
extern OPSIN_API KernelSlot<void (*)(const NormalisedParams&)> batch_norm_apply;
extern OPSIN_API KernelSlot<void (*)(const BatchNormBackwardParams&)> batch_norm_backward;
extern OPSIN_API KernelSlot<void (*)(const LayerNormParams&)> layer_norm_forward;
extern OPSIN_API KernelSlot<void (*)(const LayerNormBackwardParams&)> layer_norm_backward;
extern OPSIN_API KernelSlot<void (*)(const GroupNormParams&)> group_norm_forward;
extern OPSIN_API KernelSlot<void (*)(const GroupNormBackwardParams&)> group_norm_backward;

void register_batch_norm_cpu();
void register_layer_norm_cpu();
void register_group_norm_cpu();

namespace cpu {

/// Values of channels. `columns`: rows of `channels` neighbours each, `rows` of them. Otherwise `rows`
/// neighbours of each of `channels` channels, which begin `pitch` elements after one another.
struct ChannelParams {
  int64_t rows, channels, pitch;
  bool columns;
  const void* x;
  const void* g;            ///< Gradient of the output, or null.
  const void* residual;     ///< Or null.
  const void* relu_output;  ///< For the sums, or null: g counts where it is positive and below `ceiling`,
  void* masked;             ///< and is written so here.
  void* y;                  ///< Output.
  const double* shift;      ///< Per channel, for the sums; with g, of the compute type's digits.
  double* sum;              ///< += g, or x - shift without g.
  double* product;          ///< += g (x - shift), or (x - shift)^2 without g.
  /// Rows of numbers per channel, of the compute type, `stride` apart: mean, scale, offset.
  const void* numbers;
  int64_t stride;
  /// The output passes ReLU, or the gradient comes from one and counts where the normalised x is positive and
  /// below `ceiling`.
  bool relu;
  double ceiling;  ///< 6 or infinity.
};

/// Some of the rows of a layer norm.
struct LayerNormPart {
  int64_t rows, n;
  bool rms;
  const void* x;
  const void* g;
  void* y;             ///< Forward: the output. Backward: the gradient of x, or null.
  const void* weight;  ///< Per element of a row, compute type; null for ones.
  const void* bias;
  double* mean;     ///< Per row: written forward, read backward.
  double* inverse;  ///< 1 / sqrt(variance + eps).
  double eps;
  double* weight_sum;  ///< Backward, per element: += g xhat; or null.
  double* bias_sum;    ///< += g; or null.
  void* buffer;        ///< With one of them: two rows of zeros, of the compute type.
};

struct NormTable {
  void (*sums[kNumDTypes])(const ChannelParams&);
  /// y = (x - mean) scale + offset, + residual, ReLU
  void (*apply[kNumDTypes])(const ChannelParams&);
  /// y = g a - b - (x - mean) c, where a, b, c are the next three rows of numbers; without x, y = g a
  void (*apply_backward[kNumDTypes])(const ChannelParams&);
  void (*layer_forward[kNumDTypes])(const LayerNormPart&);
  void (*layer_backward[kNumDTypes])(const LayerNormPart&);
  /// values[i] = 1 / sqrt(values[i] + eps)
  void (*inverse_roots)(double* values, int64_t count, double eps);
};
OPSIN_ISA_TABLE(NormTable, norm_table)

}  // namespace cpu

}  // namespace opsin
