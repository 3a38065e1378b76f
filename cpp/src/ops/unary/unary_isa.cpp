// Values of the unary ops, compiled once per instruction set.
#include "unary_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class F, class T>
void kernel(void* const* data, int64_t n, const void* params) {
  const unary::Args<T> args = read_args<T>(params);
  using Out = decltype(F::value(T(), args));
  auto* y = static_cast<Out*>(data[0]);
  const auto* x = static_cast<const T*>(data[1]);
  if constexpr (requires { F::bounded(x[0]); }) {
    for_bounded_blocks(
        x, n,
        [&](int64_t begin, int64_t end) {
#pragma GCC ivdep
          for (int64_t i = begin; i < end; ++i) y[i] = F::bounded(x[i]);
        },
        [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) y[i] = F::value(x[i], args);
        });
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = F::value(x[i], args);
  }
}

template <class F>
constexpr void fill(UnaryTable& table, UnaryOp op) {
  auto& row = table.kernel[static_cast<int>(op)];
  row[static_cast<int>(kFloat32)] = kernel<F, float>;
  row[static_cast<int>(kFloat64)] = kernel<F, double>;
  if constexpr (F::kKind == unary::Kind::kSame) {
    row[static_cast<int>(kUInt8)] = kernel<F, uint8_t>;
    row[static_cast<int>(kInt8)] = kernel<F, int8_t>;
    row[static_cast<int>(kInt16)] = kernel<F, int16_t>;
    row[static_cast<int>(kInt32)] = kernel<F, int32_t>;
    row[static_cast<int>(kInt64)] = kernel<F, int64_t>;
  }
}

constexpr UnaryTable make_table() {
  UnaryTable table{};
#define OPSIN_ROW(Functor, function, doc) fill<unary::Functor>(table, UnaryOp::Functor);
  OPSIN_UNARY_OPS(OPSIN_ROW)
  OPSIN_UNARY_PARAM_OPS(OPSIN_ROW)
  OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
  return table;
}

}  // namespace

const UnaryTable& unary_table() {
  static constexpr UnaryTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
