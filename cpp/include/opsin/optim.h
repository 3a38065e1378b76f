// Optimizer steps over many parameters at once. They write parameters and state in place and record nothing.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// Options of stochastic gradient descent, as torch.optim.SGD defines them.
struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
};

/// One step: with g = grad + weight_decay * p (negated for maximize), m = momentum * m + (1 - dampening) * g,
/// the parameter moves by -lr * m (nesterov: -lr * (g + momentum * m)). `buffers` holds m for each parameter,
/// or is empty without momentum; `first_step` sets m = g. All tensors of a parameter share shape and
/// floating-point dtype.
OPSIN_API void sgd_step(TensorSpan params, TensorSpan grads, TensorSpan buffers, const SgdOptions& options,
                        bool first_step);

/// Options of Adam (https://arxiv.org/abs/1412.6980) and, with `decoupled`, AdamW
/// (https://arxiv.org/abs/1711.05101).
struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  bool amsgrad = false;
  bool maximize = false;
  bool decoupled = false;
};

/// Step number `step` (from 1): m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
/// p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps). `max_exp_avg_sqs` (amsgrad) may
/// be empty.
OPSIN_API void adam_step(TensorSpan params, TensorSpan grads, TensorSpan exp_avgs, TensorSpan exp_avg_sqs,
                         TensorSpan max_exp_avg_sqs, int64_t step, const AdamOptions& options);

/// Multiplies floating-point gradients by `factor` in place. Returns whether an element of them was infinite
/// or NaN: a step with them would be lost.
OPSIN_API bool unscale_grads(TensorSpan grads, double factor);

}  // namespace opsin
