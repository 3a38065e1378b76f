// Optimizer loops, compiled once per instruction set. One pass over memory for each parameter.
#include "optim_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
void sgd(char* const* data, int64_t n, const SgdArgs* args) {
  using T = Compute<S>;
  auto* __restrict p = reinterpret_cast<S*>(data[0]);
  const auto* __restrict g = reinterpret_cast<const S*>(data[1]);
  const auto lr = static_cast<T>(args->lr), momentum = static_cast<T>(args->momentum),
             scale = static_cast<T>(args->one_minus_dampening), decay = static_cast<T>(args->weight_decay),
             sign = static_cast<T>(args->sign);
  if (!args->has_buffer) {
    for (int64_t i = 0; i < n; ++i) {
      const T x = static_cast<T>(p[i]);
      p[i] = static_cast<S>(x - lr * (sign * static_cast<T>(g[i]) + decay * x));
    }
    return;
  }
  auto* __restrict m = reinterpret_cast<S*>(data[2]);
  const T keep = args->first_step ? T(0) : momentum;
  const T take = args->first_step ? T(1) : scale;
  const T from_grad = args->nesterov ? T(1) : T(0);
  const T from_buffer = args->nesterov ? momentum : T(1);
  if (args->first_step) {
    // The buffer is not read, because it holds nothing yet.
    for (int64_t i = 0; i < n; ++i) {
      const T x = static_cast<T>(p[i]);
      const T grad = sign * static_cast<T>(g[i]) + decay * x;
      m[i] = static_cast<S>(grad);
      p[i] = static_cast<S>(x - lr * (from_grad * grad + from_buffer * grad));
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const T x = static_cast<T>(p[i]);
    const T grad = sign * static_cast<T>(g[i]) + decay * x;
    const T buffer = keep * static_cast<T>(m[i]) + take * grad;
    m[i] = static_cast<S>(buffer);
    p[i] = static_cast<S>(x - lr * (from_grad * grad + from_buffer * buffer));
  }
}

template <class S>
void adam(char* const* data, int64_t n, const AdamArgs* args) {
  using T = Compute<S>;
  auto* __restrict p = reinterpret_cast<S*>(data[0]);
  const auto* __restrict g = reinterpret_cast<const S*>(data[1]);
  auto* __restrict m = reinterpret_cast<S*>(data[2]);
  auto* __restrict v = reinterpret_cast<S*>(data[3]);
  auto* __restrict top = reinterpret_cast<S*>(data[4]);
  const auto step = static_cast<T>(args->step_size), beta1 = static_cast<T>(args->beta1),
             rest1 = static_cast<T>(args->one_minus_beta1), beta2 = static_cast<T>(args->beta2),
             rest2 = static_cast<T>(args->one_minus_beta2),
             correction = static_cast<T>(args->inv_sqrt_correction2), eps = static_cast<T>(args->eps),
             decay = static_cast<T>(args->weight_decay), shrink = static_cast<T>(args->decay_factor),
             sign = static_cast<T>(args->sign);
  const auto update = [&](int64_t i, T largest) {
    const T x = static_cast<T>(p[i]) * shrink;
    p[i] = static_cast<S>(x - step * static_cast<T>(m[i]) / (__builtin_sqrt(largest) * correction + eps));
  };
  for (int64_t i = 0; i < n; ++i) {
    const T grad = sign * static_cast<T>(g[i]) + decay * static_cast<T>(p[i]);
    m[i] = static_cast<S>(beta1 * static_cast<T>(m[i]) + rest1 * grad);
    const T second = beta2 * static_cast<T>(v[i]) + rest2 * grad * grad;
    v[i] = static_cast<S>(second);
    if (!args->amsgrad) {
      update(i, second);
      continue;
    }
    const T largest = static_cast<T>(top[i]) < second ? second : static_cast<T>(top[i]);
    top[i] = static_cast<S>(largest);
    update(i, largest);
  }
}

template <class S>
bool unscale(char* data, int64_t n, double factor) {
  using T = Compute<S>;
  auto* g = reinterpret_cast<S*>(data);
  const auto f = static_cast<T>(factor);
  int bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T x = static_cast<T>(g[i]);
    // Infinite and NaN values are those that don't leave 0 behind.
    bad |= x - x != T(0);
    g[i] = static_cast<S>(x * f);
  }
  return bad != 0;
}

constexpr OptimTable make_table() {
  OptimTable table{};
  table.sgd[static_cast<int>(kFloat16)] = sgd<float16>;
  table.sgd[static_cast<int>(kBFloat16)] = sgd<bfloat16>;
  table.sgd[static_cast<int>(kFloat32)] = sgd<float>;
  table.sgd[static_cast<int>(kFloat64)] = sgd<double>;
  table.adam[static_cast<int>(kFloat16)] = adam<float16>;
  table.adam[static_cast<int>(kBFloat16)] = adam<bfloat16>;
  table.adam[static_cast<int>(kFloat32)] = adam<float>;
  table.adam[static_cast<int>(kFloat64)] = adam<double>;
  table.unscale[static_cast<int>(kFloat16)] = unscale<float16>;
  table.unscale[static_cast<int>(kBFloat16)] = unscale<bfloat16>;
  table.unscale[static_cast<int>(kFloat32)] = unscale<float>;
  table.unscale[static_cast<int>(kFloat64)] = unscale<double>;
  return table;
}

constexpr OptimTable kTable = make_table();

}  // namespace

const OptimTable& optim_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
