// Derivatives of the unary ops times the incoming gradient, compiled once per instruction set.
#include "unary_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class F, class T>
void kernel(void* const* data, int64_t n, const void* params) {
  const unary::Args<T> args = read_args<T>(params);
  auto* grad_x = static_cast<T*>(data[0]);
  const auto* grad_y = static_cast<const T*>(data[1]);
  const auto* x = static_cast<const T*>(data[2]);
  const auto* y = static_cast<const T*>(data[3]);
  if constexpr (requires { F::bounded_derivative(x[0]); }) {
    for_bounded_blocks(
        x, n,
        [&](int64_t begin, int64_t end) {
#pragma GCC ivdep
          for (int64_t i = begin; i < end; ++i) grad_x[i] = grad_y[i] * F::bounded_derivative(x[i]);
        },
        [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) grad_x[i] = grad_y[i] * F::derivative(x[i], y[i], args);
        });
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) grad_x[i] = grad_y[i] * F::derivative(x[i], y[i], args);
  }
}

constexpr UnaryTable make_table() {
  UnaryTable table{};
#define OPSIN_ROW(Functor, function, doc)                                        \
  table.kernel[static_cast<int>(UnaryOp::Functor)][static_cast<int>(kFloat32)] = \
      kernel<unary::Functor, float>;                                             \
  table.kernel[static_cast<int>(UnaryOp::Functor)][static_cast<int>(kFloat64)] = \
      kernel<unary::Functor, double>;
  OPSIN_UNARY_OPS(OPSIN_ROW)
  OPSIN_UNARY_PARAM_OPS(OPSIN_ROW)
#undef OPSIN_ROW
  return table;
}

}  // namespace

const UnaryTable& unary_backward_table() {
  static constexpr UnaryTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
