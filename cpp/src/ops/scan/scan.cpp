// Running results along a dimension.
#include <cmath>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/scan.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/promotion.h"
#include "core/registry.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Running sums and products of floating-point values are kept in float64.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<compute_t<T>>, double,
                                std::conditional_t<std::is_integral_v<T>, int64_t, T>>;

/// Rows along `dim` of a row-major tensor: `outer` times n times `inner` elements.
struct Lines {
  int64_t outer = 1, n = 1, inner = 1;
  Lines(const Tensor& x, int64_t dim) {
    for (int64_t d = 0; d < x.dim(); ++d) (d < dim ? outer : d == dim ? n : inner) *= x.size(d);
  }
  /// Calls body(first, count): `count` lines side by side, whose first elements follow `first`.
  template <class Body>
  void run(Body&& body) const {
    if (outer * n * inner == 0) return;
    constexpr int64_t kWork = 16384, kWidth = 256;
    const int64_t width = std::min(inner, kWidth), parts = (inner + width - 1) / width;
    cpu::parallel_for(outer * parts, std::max<int64_t>(1, kWork / (width * n)),
                      [&](int64_t begin, int64_t end) {
                        for (int64_t i = begin; i < end; ++i) {
                          const int64_t from = i % parts * width;
                          body(i / parts * n * inner + from, std::min(width, inner - from));
                        }
                      });
  }
  int64_t at(int64_t i, bool reverse) const { return (reverse ? n - 1 - i : i) * inner; }
};

struct ScanParams {
  int64_t dim;
  bool reverse;
};

/// y = scan of x with state' = step(state, x), result(state).
template <class State, class T, class Step, class Result>
void scan_lines(const T* x, T* y, const Lines& lines, bool reverse, State start, Step step, Result result) {
  lines.run([&](int64_t first, int64_t count) {
    if (count == 1) {
      // In a register: through memory every element would wait for the one before.
      State state = start;
      for (int64_t i = 0; i < lines.n; ++i) {
        const int64_t at = first + lines.at(i, reverse);
        state = step(state, x[at]);
        y[at] = result(state);
      }
      return;
    }
    State states[256];
    std::fill_n(states, count, start);
    for (int64_t i = 0; i < lines.n; ++i) {
      const int64_t at = first + lines.at(i, reverse);
      for (int64_t k = 0; k < count; ++k) {
        states[k] = step(states[k], x[at + k]);
        y[at + k] = result(states[k]);
      }
    }
  });
}

struct CumSum {
  static constexpr const char* kName = "cumsum";
  using Params = ScanParams;
  static Tensor forward(const Params& p, const Tensor& input) {
    const Tensor x = contiguous(input), y = empty(x.sizes(), x.dtype(), x.device());
    dispatch_all(x.dtype(), kName, [&]<class T>() {
      using State = Wide<T>;
      scan_lines<State>(
          x.data<T>(), y.mutable_data<T>(), Lines(x, p.dim), p.reverse, State(0),
          [](State s, T v) { return s + static_cast<State>(static_cast<compute_t<T>>(v)); },
          [](State s) { return static_cast<T>(static_cast<compute_t<T>>(s)); });
    });
    return y;
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, call<CumSum>({p.dim, !p.reverse}, ctx.grad()));
  }
};

/// t moved by one step towards larger (by = 1) or smaller (by = -1) positions, with `fill` at the free end.
Tensor shift(const Tensor& t, int64_t dim, int by, double fill) {
  if (t.dim() == 0 || t.size(dim) <= 1) return full(t.sizes(), Scalar(fill), t.dtype(), t.device());
  const Tensor y = full(t.sizes(), Scalar(fill), t.dtype(), t.device());
  const int64_t n = t.size(dim), low = 1;
  copy_(by > 0 ? slice(y, dim, low, n) : slice(y, dim, 0, n - low),
        by > 0 ? slice(t, dim, 0, n - low) : slice(t, dim, low, n));
  return y;
}

/// y_k = u_k + a_k y_{k-1}, or y_{k+1} with `reverse`. With s the scan of dy in the other direction,
/// s_k = dy_k + a_{k+1} s_{k+1}: du = s, da_k = s_k y_{k-1}.
struct LinearScan {
  static constexpr const char* kName = "linear_scan";
  using Params = ScanParams;
  static Tensor forward(const Params& p, const Tensor& u_input, const Tensor& a_input) {
    const Tensor u = contiguous(u_input), a = contiguous(to(a_input, u.dtype())),
                 y = empty(u.sizes(), u.dtype());
    dispatch_all(u.dtype(), kName, [&]<class T>() {
      using State = Wide<T>;
      const Lines lines(u, p.dim);
      const T* us = u.data<T>();
      const T* as = a.data<T>();
      T* ys = y.mutable_data<T>();
      const auto wide = [](T v) { return static_cast<State>(static_cast<compute_t<T>>(v)); };
      lines.run([&](int64_t first, int64_t count) {
        if (count == 1) {
          State state{};
          for (int64_t i = 0; i < lines.n; ++i) {
            const int64_t at = first + lines.at(i, p.reverse);
            state = wide(us[at]) + (i == 0 ? State(0) : wide(as[at]) * state);
            ys[at] = static_cast<T>(static_cast<compute_t<T>>(state));
          }
          return;
        }
        State states[256]{};
        for (int64_t i = 0; i < lines.n; ++i) {
          const int64_t at = first + lines.at(i, p.reverse);
          for (int64_t k = 0; k < count; ++k) {
            states[k] = wide(us[at + k]) + (i == 0 ? State(0) : wide(as[at + k]) * states[k]);
            ys[at + k] = static_cast<T>(static_cast<compute_t<T>>(states[k]));
          }
        }
      });
    });
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& a, const Tensor& y) {
    saver.save(0, a);
    saver.save_output(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    const int by = p.reverse ? 1 : -1;
    const Tensor s = call<LinearScan>({p.dim, !p.reverse}, ctx.grad(), shift(ctx.saved(0), p.dim, by, 0));
    if (ctx.needs(0)) ctx.set(0, s);
    if (ctx.needs(1)) ctx.set(1, mul(s, shift(ctx.saved(1), p.dim, -by, 0)));
  }
};

/// dx_k = (product before k) R_k with R_k = dy_k + x_{k+1} R_{k+1}: no division, so zeros are as good as any
/// value.
struct CumProd {
  static constexpr const char* kName = "cumprod";
  using Params = ScanParams;
  static Tensor forward(const Params& p, const Tensor& input) {
    const Tensor x = contiguous(input), y = empty(x.sizes(), x.dtype(), x.device());
    dispatch_all(x.dtype(), kName, [&]<class T>() {
      using State = Wide<T>;
      scan_lines<State>(
          x.data<T>(), y.mutable_data<T>(), Lines(x, p.dim), false, State(1),
          [](State s, T v) { return s * static_cast<State>(static_cast<compute_t<T>>(v)); },
          [](State s) { return static_cast<T>(static_cast<compute_t<T>>(s)); });
    });
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y) {
    saver.save(0, x);
    saver.save_output(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor behind = call<LinearScan>({p.dim, true}, ctx.grad(), shift(ctx.saved(0), p.dim, -1, 0));
    ctx.set(0, mul(shift(ctx.saved(1), p.dim, 1, 1), behind));
  }
};

/// dx_k = exp(x_k - y_k) E_k with E_k = dy_k + exp(y_k - y_{k+1}) E_{k+1}; y never falls, so nothing
/// overflows.
struct LogCumSumExp {
  static constexpr const char* kName = "logcumsumexp";
  using Params = ScanParams;
  struct State {
    double max, sum;
  };
  static Tensor forward(const Params& p, const Tensor& input) {
    const Tensor x = contiguous(input), y = empty(x.sizes(), x.dtype(), x.device());
    dispatch_floating(x.dtype(), kName, [&]<class T>() {
      const auto step = [](State s, T value) -> State {
        const auto v = static_cast<double>(static_cast<compute_t<T>>(value));
        if (std::isnan(v) || std::isnan(s.max)) return {NAN, NAN};
        if (v <= s.max)
          return {s.max, std::isinf(v) ? s.sum + (v == s.max && v > 0) : s.sum + std::exp(v - s.max)};
        return {v, std::isinf(s.max) || std::isinf(v) ? 1 : s.sum * std::exp(s.max - v) + 1};
      };
      scan_lines<State>(x.data<T>(), y.mutable_data<T>(), Lines(x, p.dim), false, State{-INFINITY, 0}, step,
                        [](State s) {
                          return static_cast<T>(
                              static_cast<compute_t<T>>(s.max + (std::isinf(s.max) ? 0 : std::log(s.sum))));
                        });
    });
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y) {
    saver.save(0, x);
    saver.save_output(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0), y = ctx.saved(1);
    const Tensor steps = exp(sub(y, shift(y, p.dim, -1, 0)));
    ctx.set(0, mul(exp(sub(x, y)), call<LinearScan>({p.dim, true}, ctx.grad(), steps)));
  }
};

template <bool kMax>
struct CumExtremum {
  static constexpr const char* kName = kMax ? "cummax" : "cummin";
  struct Params {
    int64_t dim, size;
  };
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& input) {
    const Tensor x = contiguous(input), y = empty(x.sizes(), x.dtype()), at_tensor = empty(x.sizes(), kInt64);
    dispatch_real(x.dtype(), kName, [&]<class T>() {
      const Lines lines(x, p.dim);
      const T* xs = x.data<T>();
      T* ys = y.mutable_data<T>();
      int64_t* positions = at_tensor.mutable_data<int64_t>();
      const auto takes = [](compute_t<T> next, compute_t<T> best) {
        return next != next || (best == best && (kMax ? next >= best : next <= best));
      };
      lines.run([&](int64_t first, int64_t count) {
        if (count == 1) {
          compute_t<T> best = static_cast<compute_t<T>>(xs[first]);
          int64_t where = 0;
          for (int64_t i = 0; i < lines.n; ++i) {
            const int64_t at = first + i * lines.inner;
            if (takes(static_cast<compute_t<T>>(xs[at]), best)) {
              best = static_cast<compute_t<T>>(xs[at]);
              where = i;
            }
            ys[at] = static_cast<T>(best);
            positions[at] = where;
          }
          return;
        }
        for (int64_t i = 0; i < lines.n; ++i) {
          const int64_t at = first + i * lines.inner;
          for (int64_t k = at; k < at + count; ++k) {
            const bool take = i == 0 || takes(static_cast<compute_t<T>>(xs[k]),
                                              static_cast<compute_t<T>>(ys[k - lines.inner]));
            ys[k] = take ? xs[k] : ys[k - lines.inner];
            positions[k] = take ? i : positions[k - lines.inner];
          }
        }
      });
    });
    return {y, at_tensor};
  }
  static void save(Saver& saver, const Params&, const Tensor&, const std::array<Tensor, 2>& y) {
    saver.save(0, y[1]);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.grad().defined()) ctx.set(0, put_along(ctx.grad(), p.dim, ctx.saved(0), p.size));
  }
};

DType sum_type(const Tensor& self, std::optional<DType> dtype) {
  return dtype.value_or(is_integral(self.dtype()) ? kInt64 : self.dtype());
}

template <bool kMax>
std::array<Tensor, 2> cumulative_extremum(const Tensor& self, int64_t dim) {
  dim = wrap_dim(dim, self.dim(), CumExtremum<kMax>::kName);
  return call<CumExtremum<kMax>>({dim, self.dim() == 0 ? 1 : self.size(dim)}, self);
}

}  // namespace

Tensor cumsum(const Tensor& self, int64_t dim, std::optional<DType> dtype) {
  return call<CumSum>({wrap_dim(dim, self.dim(), "cumsum"), false}, to(self, sum_type(self, dtype)));
}
Tensor cumprod(const Tensor& self, int64_t dim, std::optional<DType> dtype) {
  return call<CumProd>({wrap_dim(dim, self.dim(), "cumprod"), false}, to(self, sum_type(self, dtype)));
}
Tensor logcumsumexp(const Tensor& self, int64_t dim) {
  return call<LogCumSumExp>({wrap_dim(dim, self.dim(), "logcumsumexp"), false},
                            to(self, floating_type(self.dtype())));
}
std::array<Tensor, 2> cummax(const Tensor& self, int64_t dim) { return cumulative_extremum<true>(self, dim); }
std::array<Tensor, 2> cummin(const Tensor& self, int64_t dim) {
  return cumulative_extremum<false>(self, dim);
}

void register_scan(Registry& registry) {
  registry.add<&cumsum>("cumsum(Tensor self, int dim, *, dtype? dtype=None) -> Tensor",
                        "Running sums along a dimension.");
  registry.add<&cumprod>("cumprod(Tensor self, int dim, *, dtype? dtype=None) -> Tensor",
                         "Running products along a dimension.");
  registry.add<&logcumsumexp>("logcumsumexp(Tensor self, int dim) -> Tensor",
                              "log(cumsum(exp(x))) along a dimension, without overflow.");
  registry.add<&cummax>("cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)",
                        "The largest element so far along a dimension and where it is.");
  registry.add<&cummin>("cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)",
                        "The smallest element so far along a dimension and where it is.");
}

}  // namespace opsin
