// Values of the ternary ops, compiled once per instruction set.
#include "binary_functors.h"
#include "binary_kernels.h"

#include <opsin/dtype.h>

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class F, class T>
void kernel(void* const* data, int64_t n, const void* params) {
  const T v = static_cast<const ternary::Value*>(params)->as<T>();
  auto* y = static_cast<T*>(data[0]);
  const auto* a = static_cast<const T*>(data[1]);
  const auto* b = static_cast<const T*>(data[2]);
  const auto* c = static_cast<const T*>(data[3]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = F::value(a[i], b[i], c[i], v);
}

template <class F>
constexpr void fill(TernaryTable& table, TernaryOp op) {
  auto& row = table.kernel[static_cast<int>(op)];
  row[static_cast<int>(kFloat32)] = kernel<F, float>;
  row[static_cast<int>(kFloat64)] = kernel<F, double>;
  if constexpr (F::kIntegers) {
    row[static_cast<int>(kUInt8)] = kernel<F, uint8_t>;
    row[static_cast<int>(kInt8)] = kernel<F, int8_t>;
    row[static_cast<int>(kInt16)] = kernel<F, int16_t>;
    row[static_cast<int>(kInt32)] = kernel<F, int32_t>;
    row[static_cast<int>(kInt64)] = kernel<F, int64_t>;
  }
}

constexpr TernaryTable make_table() {
  TernaryTable table{};
#define OPSIN_ROW(Functor, function) fill<ternary::Functor>(table, TernaryOp::Functor);
  OPSIN_TERNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
  return table;
}

}  // namespace

const TernaryTable& ternary_table() {
  static constexpr TernaryTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
