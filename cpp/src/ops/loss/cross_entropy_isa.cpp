// Cross-entropy loops, compiled once per instruction set.
#include "cross_entropy_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

constexpr int kLanes = 32;
constexpr int64_t kBlock = 64;

template <class S>
OPSIN_FN Compute<S> log_sum_of(const S* x, int64_t n) {
  using T = Compute<S>;
  alignas(64) T max[kLanes];
  alignas(64) double sum[kLanes];
  for (int j = 0; j < kLanes; ++j) {
    max[j] = -std::numeric_limits<T>::infinity();
    sum[j] = 0;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j)
      max[j] = static_cast<T>(x[i + j]) > max[j] ? static_cast<T>(x[i + j]) : max[j];
  }
  for (int64_t j = 0; i + j < n; ++j)
    max[j] = static_cast<T>(x[i + j]) > max[j] ? static_cast<T>(x[i + j]) : max[j];
  T most = max[0];
  for (int j = 1; j < kLanes; ++j) most = max[j] > most ? max[j] : most;
  for (i = 0; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j)
      sum[j] += static_cast<double>(math::exp(static_cast<T>(x[i + j]) - most));
  }
  for (int64_t j = 0; i + j < n; ++j)
    sum[j] += static_cast<double>(math::exp(static_cast<T>(x[i + j]) - most));
  double total = 0;
  for (int j = 0; j < kLanes; ++j) total += sum[j];
  return static_cast<T>(std::log(total) + static_cast<double>(most));
}

template <class S>
void forward(const CrossEntropyPart& p) {
  using T = Compute<S>;
  const auto* x = static_cast<const S*>(p.x);
  const auto* scale = static_cast<const T*>(p.scale);
  auto* log_sum = static_cast<T*>(p.log_sum);
  auto* loss = static_cast<T*>(p.loss);
  if (p.inner == 1) {
    for (int64_t i = 0; i < p.count; ++i) log_sum[i] = log_sum_of(x + i * p.classes, p.classes);
  }
  for (int64_t from = 0; p.inner != 1 && from < p.count; from += kBlock) {
    const int64_t width = from + kBlock < p.count ? kBlock : p.count - from;
    alignas(64) T max[kBlock];
    alignas(64) double sum[kBlock];
    for (int64_t j = 0; j < kBlock; ++j) {
      max[j] = -std::numeric_limits<T>::infinity();
      sum[j] = 0;
    }
    for (int64_t c = 0; c < p.classes; ++c) {
      const S* row = x + c * p.inner + from;
      for (int64_t j = 0; j < width; ++j)
        max[j] = static_cast<T>(row[j]) > max[j] ? static_cast<T>(row[j]) : max[j];
    }
    for (int64_t c = 0; c < p.classes; ++c) {
      const S* row = x + c * p.inner + from;
      for (int64_t j = 0; j < width; ++j)
        sum[j] += static_cast<double>(math::exp(static_cast<T>(row[j]) - max[j]));
    }
    for (int64_t j = 0; j < width; ++j) {
      log_sum[from + j] = static_cast<T>(math::log(sum[j]) + static_cast<double>(max[j]));
    }
  }
  for (int64_t i = 0; i < p.count; ++i) {
    const S* own = p.inner == 1 ? x + i * p.classes + p.target[i] : x + i + p.target[i] * p.inner;
    loss[i] = scale[i] == T(0) ? T(0) : scale[i] * (log_sum[i] - static_cast<T>(*own));
  }
}

template <class S>
void backward(const CrossEntropyPart& p) {
  using T = Compute<S>;
  const auto* x = static_cast<const S*>(p.x);
  const auto* scale = static_cast<const T*>(p.scale);
  const auto* log_sum = static_cast<const T*>(p.log_sum);
  auto* grad_x = static_cast<S*>(p.grad_x);
  if (p.inner == 1) {
    for (int64_t i = 0; i < p.count; ++i) {
      const S* row = x + i * p.classes;
      S* to = grad_x + i * p.classes;
      const T s = scale[i], base = log_sum[i];
      if (s == T(0)) {
        for (int64_t c = 0; c < p.classes; ++c) to[c] = S(0.0f);
        continue;
      }
#pragma GCC ivdep
      for (int64_t c = 0; c < p.classes; ++c)
        to[c] = static_cast<S>(s * math::exp(static_cast<T>(row[c]) - base));
      // Again for the right class: a difference of the rounded value would lose digits in 16 bits.
      const int64_t t = p.target[i];
      to[t] = static_cast<S>(s * (math::exp(static_cast<T>(row[t]) - base) - T(1)));
    }
    return;
  }
  for (int64_t c = 0; c < p.classes; ++c) {
    const S* row = x + c * p.inner;
    S* to = grad_x + c * p.inner;
#pragma GCC ivdep
    for (int64_t i = 0; i < p.count; ++i) {
      const T own = p.target[i] == c ? T(1) : T(0);
      const T value = scale[i] * (math::exp(static_cast<T>(row[i]) - log_sum[i]) - own);
      to[i] = static_cast<S>(scale[i] == T(0) ? T(0) : value);
    }
  }
}

constexpr CrossEntropyTable make_table() {
  CrossEntropyTable table{};
  const auto set = [&]<class S>(DType dtype) {
    table.forward[static_cast<int>(dtype)] = forward<S>;
    table.backward[static_cast<int>(dtype)] = backward<S>;
  };
  set.template operator()<float16>(kFloat16);
  set.template operator()<bfloat16>(kBFloat16);
  set.template operator()<float>(kFloat32);
  set.template operator()<double>(kFloat64);
  return table;
}

}  // namespace

const CrossEntropyTable& cross_entropy_table() {
  static constexpr CrossEntropyTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
