// Optimizer loops, compiled once per instruction set. One pass over memory for each parameter.
#include "optim_functors.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
void sgd(char* const* data, int64_t n, const SgdArgs* args) {
  using T = Compute<S>;
  const optim::Sgd<T> step(*args);
  auto* __restrict p = reinterpret_cast<S*>(data[0]);
  const auto* __restrict g = reinterpret_cast<const S*>(data[1]);
  if (!args->has_buffer) {
    for (int64_t i = 0; i < n; ++i) {
      T x = static_cast<T>(p[i]);
      step.plain(x, static_cast<T>(g[i]));
      p[i] = static_cast<S>(x);
    }
    return;
  }
  auto* __restrict m = reinterpret_cast<S*>(data[2]);
  if (args->first_step) {
    for (int64_t i = 0; i < n; ++i) {
      T x = static_cast<T>(p[i]), buffer;
      step.first(x, static_cast<T>(g[i]), buffer);
      m[i] = static_cast<S>(buffer);
      p[i] = static_cast<S>(x);
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    T x = static_cast<T>(p[i]), buffer = static_cast<T>(m[i]);
    step.next(x, static_cast<T>(g[i]), buffer);
    m[i] = static_cast<S>(buffer);
    p[i] = static_cast<S>(x);
  }
}

template <class S>
void adam(char* const* data, int64_t n, const AdamArgs* args) {
  using T = Compute<S>;
  const optim::Adam<T> step(*args);
  auto* __restrict p = reinterpret_cast<S*>(data[0]);
  const auto* __restrict g = reinterpret_cast<const S*>(data[1]);
  auto* __restrict m = reinterpret_cast<S*>(data[2]);
  auto* __restrict v = reinterpret_cast<S*>(data[3]);
  auto* __restrict top = reinterpret_cast<S*>(data[4]);
  for (int64_t i = 0; i < n; ++i) {
    const T x = static_cast<T>(p[i]);
    T first = static_cast<T>(m[i]), second = static_cast<T>(v[i]);
    step.average(x, static_cast<T>(g[i]), first, second);
    m[i] = static_cast<S>(first);
    v[i] = static_cast<S>(second);
    if (args->amsgrad) {
      second = static_cast<T>(top[i]) < second ? second : static_cast<T>(top[i]);
      top[i] = static_cast<S>(second);
    }
    p[i] = static_cast<S>(step.template moved<double>(x, static_cast<T>(m[i]), second));
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
    bad |= optim::is_lost(x);
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
