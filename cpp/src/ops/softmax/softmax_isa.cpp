// Softmax loops, compiled once per instruction set.
#include "softmax_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

constexpr int kLanes = 32;

template <class T, class F>
OPSIN_FN T fold_lanes(int64_t n, T identity, F value) {
  alignas(64) T lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = identity;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = value(lanes[j], i + j);
  }
  for (int64_t j = 0; i + j < n; ++j) lanes[j] = value(lanes[j], i + j);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] = value.merge(lanes[j], lanes[j + width]);
  }
  return lanes[0];
}

template <class S>
struct MaxOf {
  using T = Compute<S>;
  const S* x;
  OPSIN_FN T operator()(T a, int64_t i) const { return merge(a, static_cast<T>(x[i])); }
  // NaN stays out: it comes back through the exponentials.
  OPSIN_FN T merge(T a, T b) const { return a > b ? a : b; }
};

template <class S>
struct SumOf {
  using T = Compute<S>;
  const S* x;
  OPSIN_FN double operator()(double a, int64_t i) const {
    return a + static_cast<double>(static_cast<T>(x[i]));
  }
  OPSIN_FN double merge(double a, double b) const { return a + b; }
};

template <class S>
struct SumOfExp {
  using T = Compute<S>;
  const S* x;
  T max;
  OPSIN_FN double operator()(double a, int64_t i) const {
    return a + static_cast<double>(math::exp(static_cast<T>(x[i]) - max));
  }
  OPSIN_FN double merge(double a, double b) const { return a + b; }
};

template <class S>
struct SumOfProducts {
  using T = Compute<S>;
  const S* x;
  const S* y;
  OPSIN_FN double operator()(double a, int64_t i) const {
    return a + static_cast<double>(static_cast<T>(x[i])) * static_cast<double>(static_cast<T>(y[i]));
  }
  OPSIN_FN double merge(double a, double b) const { return a + b; }
};

/// As many exponentials of a row of 16-bit values are held for the division by their sum.
constexpr int64_t kHeldRow = 4096;

/// log y = x - (max + log sum exp(x - max)); y = exp(x - max) / sum.
template <class S>
OPSIN_FN void forward_row(const S* x, S* y, int64_t n, bool log) {
  using T = Compute<S>;
  const T max = fold_lanes<T>(n, -std::numeric_limits<T>::infinity(), MaxOf<S>{x});
  if (log) {
    const T log_sum = static_cast<T>(std::log(fold_lanes<double>(n, 0.0, SumOfExp<S>{x, max})));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<S>((static_cast<T>(x[i]) - max) - log_sum);
    return;
  }
  if constexpr (std::is_same_v<S, T>) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = math::exp(x[i] - max);
    const T scale = static_cast<T>(1 / fold_lanes<double>(n, 0.0, SumOf<S>{y}));
    for (int64_t i = 0; i < n; ++i) y[i] *= scale;
  } else if (n <= kHeldRow) {
    alignas(64) T held[kHeldRow];
    for (int64_t i = 0; i < n; ++i) held[i] = math::exp(static_cast<T>(x[i]) - max);
    const T scale = static_cast<T>(1 / fold_lanes<double>(n, 0.0, SumOf<T>{held}));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<S>(held[i] * scale);
  } else {
    const T scale = static_cast<T>(1 / fold_lanes<double>(n, 0.0, SumOfExp<S>{x, max}));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<S>(math::exp(static_cast<T>(x[i]) - max) * scale);
  }
}

/// kBlock vectors side by side.
constexpr int64_t kBlock = 64;
/// Rows of a block that are held: rows of an image are often a power of two apart and then evict each other
/// from the cache between the passes.
constexpr int64_t kHeldRows = 64;

/// `count` is kBlock where it can be: a constant makes all loops whole vectors.
template <bool kLog, class S>
OPSIN_FN void forward_held_columns(const S* x, S* y, int64_t count, int64_t n, int64_t stride) {
  using T = Compute<S>;
  alignas(64) T held[kHeldRows * kBlock];
  alignas(64) T max[kBlock];
  alignas(64) double sum[kBlock] = {};
  alignas(64) T last[kBlock];
  for (int64_t j = 0; j < count; ++j) max[j] = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      const T value = static_cast<T>(x[i * stride + j]);
      held[i * kBlock + j] = value;
      max[j] = value > max[j] ? value : max[j];
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    T* row = held + i * kBlock;
    for (int64_t j = 0; j < count; ++j) {
      const T value = row[j] - max[j], power = math::exp(value);
      row[j] = kLog ? value : power;
      sum[j] += static_cast<double>(power);
    }
  }
  for (int64_t j = 0; j < count; ++j) last[j] = static_cast<T>(kLog ? math::log(sum[j]) : 1 / sum[j]);
  for (int64_t i = 0; i < n; ++i) {
    const T* row = held + i * kBlock;
    S* out = y + i * stride;
#pragma GCC ivdep
    for (int64_t j = 0; j < count; ++j) {
      out[j] = static_cast<S>(kLog ? row[j] - last[j] : row[j] * last[j]);
    }
  }
}

template <class S>
void forward_columns(const S* x, S* y, int64_t count, int64_t n, int64_t stride, bool log) {
  using T = Compute<S>;
  alignas(64) T max[kBlock];
  alignas(64) double sum[kBlock];
  alignas(64) T last[kBlock];
  for (int64_t j = 0; j < count; ++j) {
    max[j] = -std::numeric_limits<T>::infinity();
    sum[j] = 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    const S* row = x + i * stride;
    for (int64_t j = 0; j < count; ++j) {
      const T value = static_cast<T>(row[j]);
      max[j] = value > max[j] ? value : max[j];
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const S* row = x + i * stride;
    for (int64_t j = 0; j < count; ++j)
      sum[j] += static_cast<double>(math::exp(static_cast<T>(row[j]) - max[j]));
  }
  for (int64_t j = 0; j < count; ++j) last[j] = static_cast<T>(log ? math::log(sum[j]) : 1 / sum[j]);
  for (int64_t i = 0; i < n; ++i) {
    const S* row = x + i * stride;
    S* out = y + i * stride;
    if (log) {
#pragma GCC ivdep
      for (int64_t j = 0; j < count; ++j)
        out[j] = static_cast<S>((static_cast<T>(row[j]) - max[j]) - last[j]);
    } else {
#pragma GCC ivdep
      for (int64_t j = 0; j < count; ++j)
        out[j] = static_cast<S>(math::exp(static_cast<T>(row[j]) - max[j]) * last[j]);
    }
  }
}

template <bool kLog, class S>
void forward_few_rows(const S* x, S* y, int64_t count, int64_t n, int64_t stride) {
  if (count == kBlock) return forward_held_columns<kLog>(x, y, kBlock, n, stride);
  forward_held_columns<kLog>(x, y, count, n, stride);
}

template <class S>
void forward(const SoftmaxPart& p) {
  const auto* x = static_cast<const S*>(p.x);
  auto* y = static_cast<S*>(p.y);
  if (p.stride == 1) {
    for (int64_t c = 0; c < p.count; ++c) forward_row(x + c * p.step, y + c * p.step, p.n, p.log);
    return;
  }
  for (int64_t c = 0; c < p.count; c += kBlock) {
    const int64_t count = p.count - c < kBlock ? p.count - c : kBlock;
    if (p.n > kHeldRows) {
      forward_columns(x + c, y + c, count, p.n, p.stride, p.log);
    } else if (p.log) {
      forward_few_rows<true>(x + c, y + c, count, p.n, p.stride);
    } else {
      forward_few_rows<false>(x + c, y + c, count, p.n, p.stride);
    }
  }
}

/// softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy).
template <class S>
OPSIN_FN void backward_row(const S* grad_y, const S* y, S* grad_x, int64_t n, bool log) {
  using T = Compute<S>;
  if (log) {
    const T sum = static_cast<T>(fold_lanes<double>(n, 0.0, SumOf<S>{grad_y}));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      grad_x[i] = static_cast<S>(static_cast<T>(grad_y[i]) - math::exp(static_cast<T>(y[i])) * sum);
    }
  } else {
    const T sum = static_cast<T>(fold_lanes<double>(n, 0.0, SumOfProducts<S>{grad_y, y}));
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      grad_x[i] = static_cast<S>(static_cast<T>(y[i]) * (static_cast<T>(grad_y[i]) - sum));
    }
  }
}

template <class S>
void backward_columns(const S* grad_y, const S* y, S* grad_x, int64_t count, int64_t n, int64_t stride,
                      bool log) {
  using T = Compute<S>;
  alignas(64) double sum[kBlock] = {};
  for (int64_t i = 0; i < n; ++i) {
    const S* g = grad_y + i * stride;
    const S* row = y + i * stride;
    if (log) {
      for (int64_t j = 0; j < count; ++j) sum[j] += static_cast<double>(static_cast<T>(g[j]));
    } else {
      for (int64_t j = 0; j < count; ++j) {
        sum[j] += static_cast<double>(static_cast<T>(g[j])) * static_cast<double>(static_cast<T>(row[j]));
      }
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const S* g = grad_y + i * stride;
    const S* row = y + i * stride;
    S* out = grad_x + i * stride;
    if (log) {
#pragma GCC ivdep
      for (int64_t j = 0; j < count; ++j) {
        out[j] =
            static_cast<S>(static_cast<T>(g[j]) - math::exp(static_cast<T>(row[j])) * static_cast<T>(sum[j]));
      }
    } else {
#pragma GCC ivdep
      for (int64_t j = 0; j < count; ++j) {
        out[j] = static_cast<S>(static_cast<T>(row[j]) * (static_cast<T>(g[j]) - static_cast<T>(sum[j])));
      }
    }
  }
}

template <class S>
void backward(const SoftmaxBackwardPart& p) {
  const auto* grad_y = static_cast<const S*>(p.grad_y);
  const auto* y = static_cast<const S*>(p.y);
  auto* grad_x = static_cast<S*>(p.grad_x);
  if (p.stride == 1) {
    for (int64_t c = 0; c < p.count; ++c) {
      backward_row(grad_y + c * p.step, y + c * p.step, grad_x + c * p.step, p.n, p.log);
    }
    return;
  }
  for (int64_t c = 0; c < p.count; c += kBlock) {
    backward_columns(grad_y + c, y + c, grad_x + c, c + kBlock < p.count ? kBlock : p.count - c, p.n,
                     p.stride, p.log);
  }
}

constexpr SoftmaxTable make_table() {
  SoftmaxTable table{};
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

const SoftmaxTable& softmax_table() {
  static constexpr SoftmaxTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
