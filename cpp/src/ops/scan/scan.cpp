// Running results along a dimension.
#include "scan_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/scan.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "core/call.h"
#include "core/promotion.h"
#include "core/registry.h"

namespace opsin {

constinit ScanSlot cumsum_forward("cumsum");
constinit ScanSlot cumprod_forward("cumprod");
constinit ScanSlot linear_scan_forward("linear_scan");
constinit ScanSlot logcumsumexp_forward("logcumsumexp");
constinit ScanSlot cummax_forward("cummax");
constinit ScanSlot cummin_forward("cummin");

namespace {

struct AlongParams {
  int64_t dim;
  bool reverse;
};

/// Scans `x`, which is row-major, along `dim`.
Tensor scan(const ScanSlot& slot, const AlongParams& along, const Tensor& x, const Tensor& a = {},
            const Tensor& positions = {}) {
  const auto kernel = slot.get(x.device(), x.dtype());
  const Tensor y = empty(x.sizes(), x.dtype(), x.device());
  ScanParams p{.x = x.impl()->data(),
               .a = a.defined() ? a.impl()->data() : nullptr,
               .y = y.impl()->mutable_physical_data(),
               .positions = positions.defined() ? positions.mutable_data<int64_t>() : nullptr,
               .outer = 1,
               .n = 1,
               .inner = 1,
               .reverse = along.reverse,
               .dtype = x.dtype()};
  for (int64_t d = 0; d < x.dim(); ++d)
    (d < along.dim ? p.outer : d == along.dim ? p.n : p.inner) *= x.size(d);
  if (x.numel() > 0) kernel(p);
  return y;
}

struct CumSum {
  static constexpr const char* kName = "cumsum";
  using Params = AlongParams;
  static Tensor forward(const Params& p, const Tensor& input) {
    return scan(cumsum_forward, p, contiguous(input));
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
  using Params = AlongParams;
  static Tensor forward(const Params& p, const Tensor& u, const Tensor& a) {
    return scan(linear_scan_forward, p, contiguous(u), contiguous(to(a, u.dtype())));
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
  using Params = AlongParams;
  static Tensor forward(const Params& p, const Tensor& input) {
    return scan(cumprod_forward, p, contiguous(input));
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
  using Params = AlongParams;
  static Tensor forward(const Params& p, const Tensor& input) {
    return scan(logcumsumexp_forward, p, contiguous(input));
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
    const Tensor x = contiguous(input), positions = empty(x.sizes(), kInt64, x.device());
    return {scan(kMax ? cummax_forward : cummin_forward, {p.dim, false}, x, {}, positions), positions};
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
  return call<CumSum>({wrap_dim(dim, self.dim(), "cumsum"), false},
                      to(self, sum_type(self, autocast::full_dtype(self, dtype))));
}
Tensor cumprod(const Tensor& self, int64_t dim, std::optional<DType> dtype) {
  return call<CumProd>({wrap_dim(dim, self.dim(), "cumprod"), false},
                       to(self, sum_type(self, autocast::full_dtype(self, dtype))));
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
  register_scan_cpu();
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
