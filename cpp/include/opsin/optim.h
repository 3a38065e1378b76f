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
/// or is empty without momentum; `first_step` sets m = g. All tensors of a parameter share shape, device and
/// floating-point dtype. `lr`, if defined, is a number that replaces that of the options; on a GPU nobody
/// waits for it.
OPSIN_API void sgd_step(TensorSpan params, TensorSpan grads, TensorSpan buffers, const SgdOptions& options,
                        bool first_step, const Tensor& lr = {});

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
/// be empty. `lr` as for sgd_step. `steps`, if not empty, holds a float32 number on the GPU for each
/// parameter, which is counted up and replaces `step`: such a step can be captured in a graph.
OPSIN_API void adam_step(TensorSpan params, TensorSpan grads, TensorSpan exp_avgs, TensorSpan exp_avg_sqs,
                         TensorSpan max_exp_avg_sqs, int64_t step, const AdamOptions& options,
                         const Tensor& lr = {}, TensorSpan steps = {});

/// Multiplies floating-point gradients by `factor` in place. Returns whether an element of them was infinite
/// or NaN: a step with them would be lost.
OPSIN_API bool unscale_grads(TensorSpan grads, double factor);
/// The same without waiting for a GPU: divides by `scale`, and sets `found_inf` to 1 where that function
/// would return true. Both are float32 numbers on the device of the gradients.
OPSIN_API void unscale_grads(TensorSpan grads, const Tensor& scale, const Tensor& found_inf);
/// Multiplies `scale` by `backoff_factor` if `found_inf` is not 0, and by `growth_factor`, unless that makes
/// it infinite, after `growth_interval` calls in a row without; `growth_tracker` (int32) counts them.
OPSIN_API void update_scale_(const Tensor& scale, const Tensor& growth_tracker, const Tensor& found_inf,
                             double growth_factor, double backoff_factor, int64_t growth_interval);

}  // namespace opsin
