// Scans on the CPU: a thread runs along its lines one element after the other.
#include "scan_kernels.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Running sums and products of floating-point values are kept in float64.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<compute_t<T>>, double,
                                std::conditional_t<std::is_integral_v<T>, int64_t, T>>;

template <class T>
Wide<T> widen(T value) {
  return static_cast<Wide<T>>(static_cast<compute_t<T>>(value));
}
template <class T>
struct Narrow {
  T operator()(Wide<T> value) const { return static_cast<T>(static_cast<compute_t<T>>(value)); }
};

constexpr int64_t kWork = 16384;

/// Calls body(first, count): `count` lines side by side, whose first elements follow `first`.
template <class Body>
void for_lines(const ScanParams& p, Body&& body) {
  constexpr int64_t kWidth = 256;
  const int64_t width = std::min(p.inner, kWidth), parts = (p.inner + width - 1) / width;
  cpu::parallel_for(p.outer * parts, std::max<int64_t>(1, kWork / (width * p.n)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        const int64_t from = i % parts * width;
                        body(i / parts * p.n * p.inner + from, std::min(width, p.inner - from));
                      }
                    });
}

int64_t offset_of(const ScanParams& p, int64_t i) { return (p.reverse ? p.n - 1 - i : i) * p.inner; }

/// y = result(state) with state' = step(state, x, a).
template <class T, class State, class Step, class Result>
void scan_lines(const ScanParams& p, State start, Step step, Result result) {
  const auto* x = static_cast<const T*>(p.x);
  const auto* a = p.a ? static_cast<const T*>(p.a) : x;
  auto* y = static_cast<T*>(p.y);
  // The states are in registers; every element waits for the one before, so several lines go together.
  const auto along_memory = [&]<int kLines>(int64_t first) {
    State states[kLines];
    std::fill_n(states, kLines, start);
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t at = first + (p.reverse ? p.n - 1 - i : i);
#pragma GCC unroll 4
      for (int k = 0; k < kLines; ++k) {
        states[k] = step(states[k], x[at + k * p.n], a[at + k * p.n], i == 0);
        y[at + k * p.n] = result(states[k]);
      }
    }
  };
  if (p.inner == 1) {
    constexpr int kTogether = 4;
    cpu::parallel_for(p.outer, std::max<int64_t>(1, kWork / p.n), [&](int64_t begin, int64_t end) {
      for (; begin + kTogether <= end; begin += kTogether) {
        along_memory.template operator()<kTogether>(begin * p.n);
      }
      for (; begin < end; ++begin) along_memory.template operator()<1>(begin * p.n);
    });
    return;
  }
  for_lines(p, [&](int64_t first, int64_t count) {
    State states[256];
    std::fill_n(states, count, start);
    for (int64_t i = 0; i < p.n; ++i) {
      const int64_t at = first + offset_of(p, i);
      for (int64_t k = 0; k < count; ++k) {
        states[k] = step(states[k], x[at + k], a[at + k], i == 0);
        y[at + k] = result(states[k]);
      }
    }
  });
}

void sum(const ScanParams& p) {
  dispatch_all(p.dtype, "cumsum", [&]<class T>() {
    scan_lines<T>(p, Wide<T>(0), [](Wide<T> s, T x, T, bool) { return s + widen(x); }, Narrow<T>());
  });
}

void product(const ScanParams& p) {
  dispatch_all(p.dtype, "cumprod", [&]<class T>() {
    scan_lines<T>(p, Wide<T>(1), [](Wide<T> s, T x, T, bool) { return s * widen(x); }, Narrow<T>());
  });
}

void linear(const ScanParams& p) {
  dispatch_all(p.dtype, "linear_scan", [&]<class T>() {
    scan_lines<T>(
        p, Wide<T>(0),
        [](Wide<T> s, T x, T a, bool is_first) { return widen(x) + (is_first ? Wide<T>(0) : widen(a) * s); },
        Narrow<T>());
  });
}

struct Exponentials {
  double max, sum;
};

void log_sum_exp(const ScanParams& p) {
  dispatch_floating(p.dtype, "logcumsumexp", [&]<class T>() {
    const auto step = [](Exponentials s, T value, T, bool) -> Exponentials {
      const double v = widen(value);
      if (std::isnan(v) || std::isnan(s.max)) return {NAN, NAN};
      if (v <= s.max)
        return {s.max, std::isinf(v) ? s.sum + (v == s.max && v > 0) : s.sum + std::exp(v - s.max)};
      return {v, std::isinf(s.max) || std::isinf(v) ? 1 : s.sum * std::exp(s.max - v) + 1};
    };
    scan_lines<T>(p, Exponentials{-INFINITY, 0}, step, [](Exponentials s) {
      return Narrow<T>()(s.max + (std::isinf(s.max) ? 0 : std::log(s.sum)));
    });
  });
}

template <bool kMax>
void extremum(const ScanParams& p) {
  dispatch_real(p.dtype, kMax ? "cummax" : "cummin", [&]<class T>() {
    const auto* x = static_cast<const T*>(p.x);
    auto* y = static_cast<T*>(p.y);
    const auto takes = [](compute_t<T> next, compute_t<T> best) {
      return next != next || (best == best && (kMax ? next >= best : next <= best));
    };
    for_lines(p, [&](int64_t first, int64_t count) {
      if (count == 1) {
        auto best = static_cast<compute_t<T>>(x[first]);
        int64_t where = 0;
        for (int64_t i = 0; i < p.n; ++i) {
          const int64_t at = first + i * p.inner;
          if (takes(static_cast<compute_t<T>>(x[at]), best)) {
            best = static_cast<compute_t<T>>(x[at]);
            where = i;
          }
          y[at] = static_cast<T>(best);
          p.positions[at] = where;
        }
        return;
      }
      for (int64_t i = 0; i < p.n; ++i) {
        const int64_t at = first + i * p.inner;
        for (int64_t k = at; k < at + count; ++k) {
          const bool take =
              i == 0 || takes(static_cast<compute_t<T>>(x[k]), static_cast<compute_t<T>>(y[k - p.inner]));
          y[k] = take ? x[k] : y[k - p.inner];
          p.positions[k] = take ? i : p.positions[k - p.inner];
        }
      }
    });
  });
}

}  // namespace

void register_scan_cpu() {
  constexpr auto kDevice = DeviceType::kCPU;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    cumsum_forward.set(kDevice, dtype, sum);
    cumprod_forward.set(kDevice, dtype, product);
    linear_scan_forward.set(kDevice, dtype, linear);
    if (is_floating_point(dtype)) logcumsumexp_forward.set(kDevice, dtype, log_sum_exp);
    if (is_complex(dtype)) continue;
    cummax_forward.set(kDevice, dtype, extremum<true>);
    cummin_forward.set(kDevice, dtype, extremum<false>);
  }
}

}  // namespace opsin
