// Values of the binary ops, compiled once per instruction set.
#include "binary_functors.h"
#include "binary_kernels.h"

#include <opsin/dtype.h>

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

using binary::Kind;

template <class F, class T>
void kernel(void* const* data, int64_t n, const void*) {
  using Out = decltype(F::value(T(), T()));
  auto* y = static_cast<Out*>(data[0]);
  const auto* a = static_cast<const T*>(data[1]);
  const auto* b = static_cast<const T*>(data[2]);
  int64_t i = 0;
  if constexpr (std::is_same_v<T, float> && requires { F::from_modulo(a[0], b[0], a[0]); }) {
    // Blocks in which all quotients are moderate are vectors; others take fmod.
    constexpr int64_t kBlock = 64;
    for (; i + kBlock <= n; i += kBlock) {
      int32_t far = 0;
      for (int64_t j = i; j < i + kBlock; ++j) far |= !binary::is_near(a[j], b[j]);
      if (far) {
        for (int64_t j = i; j < i + kBlock; ++j) y[j] = F::value(a[j], b[j]);
      } else {
#pragma GCC ivdep
        for (int64_t j = i; j < i + kBlock; ++j) {
          y[j] = F::from_modulo(a[j], b[j], binary::near_modulo(a[j], b[j]));
        }
      }
    }
  }
#pragma GCC ivdep
  for (; i < n; ++i) y[i] = F::value(a[i], b[i]);
}

template <class F>
constexpr void fill(BinaryTable& table, BinaryOp op) {
  auto& row = table.kernel[static_cast<int>(op)];
  if constexpr (F::kKind != Kind::kInteger && F::kKind != Kind::kBits) {
    row[static_cast<int>(kFloat32)] = kernel<F, float>;
    row[static_cast<int>(kFloat64)] = kernel<F, double>;
  }
  if constexpr (F::kKind != Kind::kFloat && F::kKind != Kind::kOnlyFloat) {
    row[static_cast<int>(kUInt8)] = kernel<F, uint8_t>;
    row[static_cast<int>(kInt8)] = kernel<F, int8_t>;
    row[static_cast<int>(kInt16)] = kernel<F, int16_t>;
    row[static_cast<int>(kInt32)] = kernel<F, int32_t>;
    row[static_cast<int>(kInt64)] = kernel<F, int64_t>;
  }
  if constexpr (binary::takes_bool<F>()) row[static_cast<int>(kBool)] = kernel<F, bool>;
}

constexpr BinaryTable make_table() {
  BinaryTable table{};
#define OPSIN_ROW(Functor, function, doc) fill<binary::Functor>(table, BinaryOp::Functor);
  OPSIN_BINARY_OPS(OPSIN_ROW)
  OPSIN_BINARY_PURE_OPS(OPSIN_ROW)
  OPSIN_BINARY_SPECIAL_OPS(OPSIN_ROW)
  OPSIN_INTEGER_OPS(OPSIN_ROW)
  OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
  return table;
}

}  // namespace

const BinaryTable& binary_table() {
  static constexpr BinaryTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
