// The contract of the optimizer loops.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin::cpu {

struct SgdArgs {
  double lr, momentum, one_minus_dampening, weight_decay, sign;
  bool nesterov, first_step, has_buffer;
};

struct AdamArgs {
  double step_size, beta1, one_minus_beta1, beta2, one_minus_beta2, inv_sqrt_correction2, eps, weight_decay,
      decay_factor, sign;
  bool amsgrad;
};

/// Dense loops over n elements of one dtype. sgd: param, grad, buffer (may alias param without one); adam:
/// param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq (may be null).
struct OptimTable {
  void (*sgd[kNumDTypes])(char* const* data, int64_t n, const SgdArgs* args);
  void (*adam[kNumDTypes])(char* const* data, int64_t n, const AdamArgs* args);
  /// Multiplies by `factor`; whether an element was infinite or NaN.
  bool (*unscale[kNumDTypes])(char* data, int64_t n, double factor);
};
OPSIN_ISA_TABLE(OptimTable, optim_table)

}  // namespace opsin::cpu
