// Largest and smallest elements, and where they are.
#include "along.h"
#include "arg_kernels.h"
#include "fold.h"
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "autograd/var.h"
#include "core/call.h"
#include "core/dispatch.h"

namespace opsin {

constinit KernelSlot<void (*)(const ArgParams&)> arg_forward{"argmax"};

namespace {

void check_not_empty(const Tensor& x, uint64_t mask, const char* op, bool all) {
  for (size_t d = 0; d < x.sizes().size(); ++d) {
    if (!(mask >> d & 1) || x.sizes()[d] != 0) continue;
    if (all) {
      detail::raise<Error>(op, ": Expected reduction dim to be specified for input.numel() == 0, got input ",
                           str(x.sizes()), " (there is no identity)");
    }
    detail::raise<IndexError>(op, ": Expected reduction dim ", d, " to have non-zero size, got input ",
                              str(x.sizes()));
  }
}

/// One largest (or smallest) value over a set of dimensions.
template <bool kMax>
struct Extremum {
  static constexpr const char* kName = kMax ? "amax" : "amin";
  struct Params {
    uint64_t mask;
    bool keepdim;
    Dims kept_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    return plan.settle(plan.run(kMax ? Fold::Max : Fold::Min, x.dtype()));
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y) {
    saver.save(0, x);
    saver.save_output(1, y);
  }
  // Elements that tie share the gradient evenly; NaN results give it to the NaN.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0).detach(), y = reshape(ctx.saved(1).detach(), p.kept_sizes);
    const Tensor chosen = to(logical_or(eq(x, y), logical_and(ne(x, x), ne(y, y))), x.dtype());
    Dims dims;
    for (size_t d = 0; d < p.kept_sizes.size(); ++d) {
      if (p.mask >> d & 1) dims.push_back(static_cast<int64_t>(d));
    }
    const Tensor share = dims.empty() ? chosen : div(chosen, sum(chosen, dims, true));
    ctx.set(0, mul(reshape(ctx.grad(), p.kept_sizes), share));
  }
};

/// Values and positions along one dimension, in the layout of x without it.
std::array<Tensor, 2> find_along(const Tensor& x, int64_t dim, bool keepdim, bool max, const char* op) {
  const FoldPlan plan(x, uint64_t{1} << dim, keepdim);
  if (is_complex(x.dtype())) detail::raise_unsupported(op, x.dtype());
  const auto kernel = arg_forward.get(x.device(), x.dtype());
  const Tensor values = plan.make_output(x.dtype()), positions = plan.make_output(kInt64);
  if (values.numel() > 0) {
    kernel({plan.shape(), max, values.impl()->mutable_physical_data(),
            reinterpret_cast<int64_t*>(positions.impl()->mutable_physical_data())});
  }
  return {plan.settle(values), plan.settle(positions)};
}

template <bool kMax>
struct ExtremumAlong {
  static constexpr const char* kName = kMax ? "max" : "min";
  struct Params {
    int64_t dim;
    bool keepdim;
    int64_t size;
    Dims kept_sizes;
  };
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& x) {
    return find_along(x, p.dim, p.keepdim, kMax, kName);
  }
  static void save(Saver& saver, const Params&, const Tensor&, const std::array<Tensor, 2>& y) {
    saver.save(0, y[1]);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (!ctx.grad().defined()) return;
    ctx.set(0,
            put_along(reshape(ctx.grad(), p.kept_sizes), p.dim, reshape(ctx.saved(0), p.kept_sizes), p.size));
  }
};

template <bool kMax>
Tensor extremum(const Tensor& self, IntSpan dim, bool keepdim, const char* op) {
  const uint64_t mask = reduced_mask(self, dim, op);
  check_not_empty(self, mask, op, dim.empty());
  return call<Extremum<kMax>>({mask, keepdim, reduced_sizes(self, mask, true)}, self);
}

template <bool kMax>
std::array<Tensor, 2> extremum_along(const Tensor& self, int64_t dim, bool keepdim, const char* op) {
  dim = wrap_dim(dim, self.dim(), op);
  const uint64_t mask = uint64_t{1} << dim;
  check_not_empty(self, mask, op, false);
  return call<ExtremumAlong<kMax>>(
      {dim, keepdim, self.dim() == 0 ? 1 : self.size(dim), reduced_sizes(self, mask, true)}, self);
}

Tensor position(const Tensor& self, std::optional<int64_t> dim, bool keepdim, bool max, const char* op) {
  const Tensor x = self.detach();
  if (dim) {
    const int64_t d = wrap_dim(*dim, x.dim(), op);
    check_not_empty(x, uint64_t{1} << d, op, false);
    return find_along(x, d, keepdim, max, op)[1];
  }
  check_not_empty(x, ~uint64_t{0}, op, true);
  const Tensor y = find_along(reshape(x, Dims{-1}), 0, false, max, op)[1];
  return keepdim ? reshape(y, Dims(x.sizes().size(), 1)) : y;
}

}  // namespace

Tensor amax(const Tensor& self, IntSpan dim, bool keepdim) {
  return extremum<true>(self, dim, keepdim, "amax");
}
Tensor amin(const Tensor& self, IntSpan dim, bool keepdim) {
  return extremum<false>(self, dim, keepdim, "amin");
}
Tensor max(const Tensor& self) { return extremum<true>(self, {}, false, "max"); }
Tensor min(const Tensor& self) { return extremum<false>(self, {}, false, "min"); }
std::array<Tensor, 2> max(const Tensor& self, int64_t dim, bool keepdim) {
  return extremum_along<true>(self, dim, keepdim, "max");
}
std::array<Tensor, 2> min(const Tensor& self, int64_t dim, bool keepdim) {
  return extremum_along<false>(self, dim, keepdim, "min");
}
Tensor argmax(const Tensor& self, std::optional<int64_t> dim, bool keepdim) {
  return position(self, dim, keepdim, true, "argmax");
}
Tensor argmin(const Tensor& self, std::optional<int64_t> dim, bool keepdim) {
  return position(self, dim, keepdim, false, "argmin");
}

std::array<Tensor, 2> aminmax(const Tensor& self, std::optional<int64_t> dim, bool keepdim) {
  const Dims dims = dim ? Dims{*dim} : Dims();
  return {extremum<false>(self, dims, keepdim, "aminmax"), extremum<true>(self, dims, keepdim, "aminmax")};
}

void register_extremum(Registry& registry) {
  using Full = Tensor (*)(const Tensor&);
  using Along = std::array<Tensor, 2> (*)(const Tensor&, int64_t, bool);
  registry.add<static_cast<Full>(&max)>("max(Tensor self) -> Tensor",
                                        "The largest element; NaN if there is one.");
  registry.add<static_cast<Along>(&max)>(
      "max(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
      "The largest elements along a dimension and where they come first.");
  registry.add<&maximum>("max(Tensor self, Tensor other) -> Tensor",
                         "The larger of both, element by element.");
  registry.add<static_cast<Full>(&min)>("min(Tensor self) -> Tensor",
                                        "The smallest element; NaN if there is one.");
  registry.add<static_cast<Along>(&min)>(
      "min(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
      "The smallest elements along a dimension and where they come first.");
  registry.add<&minimum>("min(Tensor self, Tensor other) -> Tensor",
                         "The smaller of both, element by element.");
  registry.add<&amax>("amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
                      "The largest elements over dimensions; ties share the gradient evenly.");
  registry.add<&amin>("amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
                      "The smallest elements over dimensions; ties share the gradient evenly.");
  registry.add<&aminmax>(
      "aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)",
      "The smallest and the largest elements.");
  registry.add<&argmax>("argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
                        "Where the largest element comes first; in the flattened tensor without `dim`.");
  registry.add<&argmin>("argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
                        "Where the smallest element comes first; in the flattened tensor without `dim`.");
}

}  // namespace opsin
