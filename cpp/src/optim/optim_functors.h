// The steps for one element of each tensor, in the type that it is computed in.
#pragma once

#include "optim_kernels.h"

#include "core/math.h"

namespace opsin::optim {

template <class T>
struct Sgd {
  T lr, momentum, scale, decay, sign;
  bool nesterov;

  OPSIN_FN explicit Sgd(const SgdArgs& args)
      : lr(static_cast<T>(args.lr)),
        momentum(static_cast<T>(args.momentum)),
        scale(static_cast<T>(args.one_minus_dampening)),
        decay(static_cast<T>(args.weight_decay)),
        sign(static_cast<T>(args.sign)),
        nesterov(args.nesterov) {}

  OPSIN_FN T gradient(T p, T g) const { return sign * g + decay * p; }
  OPSIN_FN void plain(T& p, T g) const { p = p - lr * gradient(p, g); }
  /// The buffer is not read, because it holds nothing yet.
  OPSIN_FN void first(T& p, T g, T& m) const {
    m = gradient(p, g);
    move(p, m, m);
  }
  OPSIN_FN void next(T& p, T g, T& m) const {
    const T grad = gradient(p, g);
    m = momentum * m + scale * grad;
    move(p, grad, m);
  }

 private:
  OPSIN_FN void move(T& p, T grad, T buffer) const {
    const T from_grad = nesterov ? T(1) : T(0), from_buffer = nesterov ? momentum : T(1);
    p = p - lr * (from_grad * grad + from_buffer * buffer);
  }
};

template <class T>
struct Adam {
  T step_size, beta1, rest1, beta2, rest2, correction, eps, decay, shrink, sign;

  OPSIN_FN explicit Adam(const AdamArgs& args)
      : step_size(static_cast<T>(args.step_size)),
        beta1(static_cast<T>(args.beta1)),
        rest1(static_cast<T>(args.one_minus_beta1)),
        beta2(static_cast<T>(args.beta2)),
        rest2(static_cast<T>(args.one_minus_beta2)),
        correction(static_cast<T>(args.inv_sqrt_correction2)),
        eps(static_cast<T>(args.eps)),
        decay(static_cast<T>(args.weight_decay)),
        shrink(static_cast<T>(args.decay_factor)),
        sign(static_cast<T>(args.sign)) {}

  /// Running means of the gradient and its square.
  OPSIN_FN void average(T p, T g, T& m, T& v) const {
    const T grad = sign * g + decay * p;
    m = beta1 * m + rest1 * grad;
    v = beta2 * v + rest2 * grad * grad;
  }
  /// The new parameter, with m as it is stored; the quotient is computed as R.
  template <class R>
  OPSIN_FN T moved(T p, T m, T largest) const {
    return static_cast<T>(p * shrink -
                          step_size * m / (math::sqrt(static_cast<R>(largest)) * correction + eps));
  }
};

/// Whether x is infinite or NaN: such values don't leave 0 behind.
template <class T>
OPSIN_FN bool is_lost(T x) {
  return x - x != T(0);
}

/// A scale that was too large for the gradients falls; one that was not for a while grows, if it can.
OPSIN_FN void update_scale(const ScaleParams& p) {
  const double scale = static_cast<double>(*p.scale);
  const bool is_lost_step = *p.found_inf != 0;
  const int32_t good = is_lost_step ? 0 : *p.growth_tracker + 1;
  const bool grows = !is_lost_step && good == p.growth_interval;
  const auto next = static_cast<float>(scale * (is_lost_step ? p.backoff_factor : p.growth_factor));
  if (is_lost_step || (grows && !is_lost(next))) *p.scale = next;
  *p.growth_tracker = grows ? 0 : good;
}

}  // namespace opsin::optim
