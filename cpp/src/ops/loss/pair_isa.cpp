// Sums over pairs of elements, compiled once per instruction set.
#include "pair_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
double squared_error(const void* first, const void* second, int64_t n) {
  const auto* x = static_cast<const S*>(first);
  const auto* y = static_cast<const S*>(second);
  const auto square = [&](int64_t i) __attribute__((always_inline)) {
    const auto d = static_cast<double>(static_cast<Compute<S>>(x[i]) - static_cast<Compute<S>>(y[i]));
    return d * d;
  };
  constexpr int kLanes = 32;
  alignas(64) double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += square(i + j);
  }
  for (int j = 0; i + j < n; ++j) lanes[j] += square(i + j);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

constexpr PairTable make_table() {
  PairTable table{};
  table.squared_error[static_cast<int>(kFloat16)] = squared_error<float16>;
  table.squared_error[static_cast<int>(kBFloat16)] = squared_error<bfloat16>;
  table.squared_error[static_cast<int>(kFloat32)] = squared_error<float>;
  table.squared_error[static_cast<int>(kFloat64)] = squared_error<double>;
  return table;
}

constexpr PairTable kTable = make_table();

}  // namespace

const PairTable& pair_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
