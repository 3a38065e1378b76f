// The contract of the optimizer steps.
#pragma once

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Tensors of one device and dtype whose elements lie side by side, in columns: parameters, gradients, state.
struct TensorColumns {
  static constexpr int kMost = 5;

  int64_t count;             ///< Tensors of a column.
  const int64_t* numel;      ///< By tensor.
  void* const* data[kMost];  ///< By column and tensor; null for a column that is not there.
  DType dtype;
};

struct SgdArgs {
  double lr, momentum, one_minus_dampening, weight_decay, sign;
  bool nesterov, first_step, has_buffer;
};
/// Columns: parameter, gradient, buffer.
struct SgdParams {
  TensorColumns tensors;
  SgdArgs args;
  const float* lr;  ///< In place of args.lr if not null; GPUs only.
};
extern OPSIN_API KernelSlot<void (*)(const SgdParams&)> sgd_update;

/// The numbers of a step.
struct AdamArgs {
  double step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, inv_sqrt_correction2, eps, weight_decay,
      decay_factor, sign;
  bool amsgrad;
};
/// Columns: parameter, gradient, exp_avg, exp_avg_sq, max_exp_avg_sq.
struct AdamParams {
  TensorColumns tensors;
  AdamArgs args;
  // What args was made from. GPUs make it anew where the learning rate or the step lies in their memory.
  double lr, decoupled_decay;
  int64_t step;
  const float* lr_pointer;  ///< In place of lr if not null.
  float* const* steps;      ///< By tensor, in place of step if not null; each is counted up first.
};
extern OPSIN_API KernelSlot<void (*)(const AdamParams&)> adam_update;

/// Multiplies one column by `factor`, or by 1 / *scale as a float32 if that is not null; *found_inf becomes 1
/// if an element was infinite or NaN and stays as it is otherwise.
struct UnscaleParams {
  TensorColumns tensors;
  double factor;
  const float* scale;
  float* found_inf;
};
extern OPSIN_API KernelSlot<void (*)(const UnscaleParams&)> unscale_update;

/// What GradScaler does after a step; see update_scale_().
struct ScaleParams {
  float* scale;
  int32_t* growth_tracker;
  const float* found_inf;
  double growth_factor, backoff_factor;
  int64_t growth_interval;
};
extern OPSIN_API KernelSlot<void (*)(const ScaleParams&)> scale_update;

void register_optim_cpu();

namespace cpu {

/// Dense loops over n elements of one dtype. sgd: param, grad, buffer (may alias param without one); adam:
/// param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq (may be null).
struct OptimTable {
  void (*sgd[kNumDTypes])(char* const* data, int64_t n, const SgdArgs* args);
  void (*adam[kNumDTypes])(char* const* data, int64_t n, const AdamArgs* args);
  /// Multiplies by `factor`; whether an element was infinite or NaN.
  bool (*unscale[kNumDTypes])(char* data, int64_t n, double factor);
};
OPSIN_ISA_TABLE(OptimTable, optim_table)

}  // namespace cpu

}  // namespace opsin
