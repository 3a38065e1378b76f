// Values combined at an index for each element along one dimension.
#include "index_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>

#include "core/call.h"
#include "core/same_device.h"

namespace opsin {

namespace {

Tensor of_dtype(const Tensor& mask, const Tensor& like) { return to(mask, like.dtype()); }

// y[at] = y[at] (fold) v over all v that name the place; without `include_self` from the neutral value.
//
// Product: dx = dy y' / x' and dv = (dy y / v)[at], where x' and y' have 1 in place of zeros of x, and the
// one zero among the values of a place gets dy times the product of the others. Extremes: dy is shared evenly
// among all that equal the result.
struct ScatterFold {
  static constexpr const char* kName = "scatter_reduce";
  struct Params {
    int64_t dim;
    Fold fold;
    bool include_self;
  };

  static Tensor forward(const Params& p, const Tensor& x, const Tensor& at, const Tensor& values) {
    for (const Tensor& t : {at, values}) check_same_device(kName, x, t);
    const DType dtype = compute_type(x.dtype());
    const Tensor y = clone(contiguous(to(x, dtype)));
    const Tensor source = contiguous(to(values, dtype));
    const RowGeometry geometry = geometry_along(x, p.dim, size_along(at, p.dim), kName);
    along_fold.get(x.device(), dtype)({geometry, dtype, source.impl()->data(), y.impl()->mutable_data(),
                                       at.data<int64_t>(), p.fold, p.include_self});
    return opsin::to(y, x.dtype());
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& at, const Tensor& values,
                   const Tensor& y) {
    saver.save(0, x);
    saver.save(1, at);
    saver.save(2, values);
    saver.save_output(3, y);
  }
  static void backward(Backward& ctx, const Params& p);
};

void ScatterFold::backward(Backward& ctx, const Params& p) {
  const Tensor &grad = ctx.grad(), x = ctx.saved(0), at = ctx.saved(1), values = ctx.saved(2),
               y = ctx.saved(3);
  const Tensor zero = wrap_number(0), one = wrap_number(1);
  Tensor grad_x, grad_values;
  if (p.fold == Fold::kProduct) {
    const Tensor filled = masked_fill(x, eq(x, zero), one);
    grad_x = div(mul(grad, call<ScatterFold>(p, filled, at, values)), filled);
    const Tensor is_zero = eq(values, zero);
    const Tensor zeros_there = gather(
        scatter_add(zeros(x.sizes(), x.dtype(), x.device()), p.dim, at, of_dtype(is_zero, x)), p.dim, at);
    const Tensor alone = logical_and(is_zero, eq(zeros_there, one));
    const Tensor others = call<ScatterFold>(p, x, at, masked_fill(values, alone, one));
    grad_values = where(alone, gather(mul(grad, others), p.dim, at),
                        div(gather(mul(grad, y), p.dim, at), masked_fill(values, is_zero, one)));
  } else {
    const Tensor x_wins = of_dtype(eq(x, y), x), values_win = of_dtype(eq(values, gather(y, p.dim, at)), x);
    const Tensor share = div(grad, scatter_add(x_wins, p.dim, at, values_win));
    grad_x = mul(x_wins, share);
    grad_values = mul(values_win, gather(share, p.dim, at));
  }
  if (ctx.needs(0)) ctx.set(0, p.include_self ? grad_x : scatter(grad_x, p.dim, at, Scalar(0)));
  if (ctx.needs(2)) ctx.set(2, grad_values);
}

}  // namespace

Tensor fold_along(const Tensor& x, int64_t dim, const Tensor& at, const Tensor& values, Fold fold,
                  bool include_self) {
  return call<ScatterFold>({dim, fold, include_self}, x, at, values);
}

}  // namespace opsin
