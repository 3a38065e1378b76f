// Sums, products, counts and tests over dimensions.
#include "along_kernels.h"
#include "fold.h"
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"

namespace opsin {

namespace {

struct ReduceParams {
  uint64_t mask;
  bool keepdim;
  Dims input_sizes, kept_sizes;
  double divisor = 1;
};

ReduceParams params_of(const Tensor& x, IntSpan dim, bool keepdim, const char* op) {
  const uint64_t mask = reduced_mask(x, dim, op);
  return {mask, keepdim, x.sizes(), reduced_sizes(x, mask, true), 1};
}

/// A gradient per output, repeated for the elements that went into it.
Tensor spread(const Tensor& grad, const ReduceParams& p) {
  return expand(reshape(grad, p.kept_sizes), p.input_sizes);
}

/// y = (sum over x) / divisor, so dx = dy / divisor.
struct Sum {
  static constexpr const char* kName = "sum";
  using Params = ReduceParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    return plan.settle(
        plan.run(Fold::Sum, is_integral(x.dtype()) ? kInt64 : x.dtype(), {.divisor = p.divisor}));
  }
  static void backward(Backward& ctx, const Params& p) {
    // Nothing was divided where there was nothing to sum.
    ctx.set(0, spread(p.divisor == 1 || p.divisor == 0 ? ctx.grad() : div(ctx.grad(), wrap_number(p.divisor)),
                      p));
  }
};

/// The gradient reaches what is not NaN.
struct NanSum {
  static constexpr const char* kName = "nansum";
  using Params = ReduceParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    return plan.settle(plan.run(Fold::NanSum, x.dtype()));
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor&) { saver.save(0, x); }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0).detach();
    ctx.set(0, where(eq(x, x), reshape(ctx.grad(), p.kept_sizes), wrap_number(0.0)));
  }
};

/// What comes before each element along `dim` multiplied up; 1 for the first. With `reverse`, what comes
/// after.
Tensor exclusive_product(const Tensor& x, int64_t dim, bool reverse) {
  const int64_t n = x.size(dim);
  Tensor product = ones(x.sizes(), x.dtype(), x.device());
  // Doubling: after step k every element holds the product of the 2^k before it.
  const auto shifted = [&](const Tensor& t, int64_t by) {
    const Tensor y = ones(t.sizes(), t.dtype(), t.device());
    if (by >= n) return y;
    const Tensor kept = reverse ? slice(t, dim, by, n) : slice(t, dim, 0, n - by);
    const Tensor target = reverse ? slice(y, dim, 0, n - by) : slice(y, dim, by, n);
    copy_(target, kept);
    return y;
  };
  product = shifted(x, 1);
  for (int64_t by = 1; by < n; by *= 2) product = mul(product, shifted(product, by));
  return product;
}

/// y = prod x. dx_i = dy prod_{j != i} x_j, taken as the product of what lies before and behind i, which also
/// holds where elements are zero.
struct Prod {
  static constexpr const char* kName = "prod";
  using Params = ReduceParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    return plan.settle(plan.run(Fold::Prod, is_integral(x.dtype()) ? kInt64 : x.dtype()));
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor&) { saver.save(0, x); }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0);
    int64_t dim = -1;
    for (size_t d = 0; d < p.input_sizes.size(); ++d) {
      if (p.mask >> d & 1) dim = dim == -1 ? static_cast<int64_t>(d) : -2;
    }
    const bool flat = dim < 0;
    const Tensor row = flat ? reshape(x, Dims{-1}) : x;
    if (row.numel() == 0) {
      ctx.set(0, expand(reshape(ctx.grad(), p.kept_sizes), p.input_sizes));
      return;
    }
    const Tensor others =
        mul(exclusive_product(row, flat ? 0 : dim, false), exclusive_product(row, flat ? 0 : dim, true));
    ctx.set(0, mul(reshape(ctx.grad(), p.kept_sizes), flat ? reshape(others, p.input_sizes) : others));
  }
};

Tensor test(const Tensor& self, uint64_t mask, bool keepdim, Fold fold) {
  const Tensor x = is_complex(self.dtype()) ? ne(self.detach(), wrap_number(0)) : self.detach();
  const FoldPlan plan(x, mask, keepdim);
  return plan.settle(plan.run(fold, self.dtype() == kUInt8 ? kUInt8 : kBool));
}

/// The dtype that sum() and prod() give.
DType sum_type(const Tensor& self, std::optional<DType> dtype) {
  return dtype.value_or(is_integral(self.dtype()) ? kInt64 : self.dtype());
}
/// `self` as it is summed: integers that stay integers are widened while they are read.
Tensor sum_input(const Tensor& self, DType dtype) {
  return is_integral(self.dtype()) && is_integral(dtype) && dtype != kBool ? self : to(self, dtype);
}

}  // namespace

Tensor sum(const Tensor& self, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  const DType result = sum_type(self, autocast::full_dtype(self, dtype));
  const Tensor x = sum_input(self, result);
  return to(call<Sum>(params_of(x, dim, keepdim, "sum"), x), result);
}

Tensor mean(const Tensor& self, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  OPSIN_CHECK(Error, is_differentiable(dtype.value_or(self.dtype())),
              "mean: could not infer output dtype. Input dtype must be either a floating point or complex "
              "dtype. Got: ",
              name(self.dtype()), " (pass dtype=)");
  const Tensor x = to(self, dtype.value_or(self.dtype()));
  ReduceParams params = params_of(x, dim, keepdim, "mean");
  params.divisor = static_cast<double>(reduced_count(x, params.mask));
  return call<Sum>(params, x);
}

Tensor nansum(const Tensor& self, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  if (!is_floating_point(self.dtype())) return sum(self, dim, keepdim, dtype);
  const Tensor x = to(self, dtype.value_or(self.dtype()));
  return call<NanSum>(params_of(x, dim, keepdim, "nansum"), x);
}

Tensor nanmean(const Tensor& self, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  OPSIN_CHECK(Error, is_differentiable(self.dtype()),
              "nanmean: expected input to have floating point or complex dtype, got ", name(self.dtype()));
  const Tensor x = self.detach();
  return div(nansum(self, dim, keepdim, dtype),
             to(sum(eq(x, x), dim, keepdim), dtype.value_or(self.dtype())));
}

Tensor prod(const Tensor& self, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  if (autocast::is_active()) return autocast::call<autocast::kFull>(prod, self, dim, keepdim, dtype);
  const DType result = sum_type(self, dtype);
  const Tensor x = sum_input(self, result);
  return to(call<Prod>(params_of(x, dim, keepdim, "prod"), x), result);
}

Tensor all(const Tensor& self, IntSpan dim, bool keepdim) {
  return test(self, reduced_mask(self, dim, "all"), keepdim, Fold::All);
}
Tensor any(const Tensor& self, IntSpan dim, bool keepdim) {
  return test(self, reduced_mask(self, dim, "any"), keepdim, Fold::Any);
}

Tensor count_nonzero(const Tensor& self, IntSpan dim) {
  const Tensor x = is_complex(self.dtype()) ? ne(self.detach(), wrap_number(0)) : self.detach();
  const FoldPlan plan(x, reduced_mask(x, dim, "count_nonzero"), false);
  return plan.settle(plan.run(Fold::CountNonzero, kInt64));
}

Tensor sum_to_size(const Tensor& self, IntSpan size) {
  if (self.sizes() == Dims(size)) return self;
  bool fits = size.size() <= self.sizes().size();
  const size_t extra = fits ? self.sizes().size() - size.size() : 0;
  Dims dims;
  for (size_t i = 0; fits && i < self.sizes().size(); ++i) {
    if (i < extra) {
      dims.push_back(static_cast<int64_t>(i));
    } else if (size[i - extra] != self.sizes()[i]) {
      fits = size[i - extra] == 1;
      dims.push_back(static_cast<int64_t>(i));
    }
  }
  OPSIN_CHECK(ShapeError, fits, "sum_to_size: size ", str(size), " is not expandable to the size ",
              str(self.sizes()), " of the tensor");
  return reshape(sum(self, dims, /*keepdim=*/true), size);
}

namespace {
Tensor prod_along(const Tensor& self, int64_t dim, bool keepdim, std::optional<DType> dtype) {
  return prod(self, Dims{dim}, keepdim, dtype);
}
// Unlike the other reductions, PyTorch's tests take an empty list for no dimension at all.
template <Fold kFold>
Tensor test_over(const Tensor& self, std::optional<IntSpan> dim, bool keepdim) {
  constexpr const char* kName = kFold == Fold::All ? "all" : "any";
  const uint64_t mask = dim && dim->empty() ? 0 : reduced_mask(self, dim.value_or(IntSpan{}), kName);
  return test(self, mask, keepdim, kFold);
}
Tensor prod_all(const Tensor& self, std::optional<DType> dtype) { return prod(self, {}, false, dtype); }
}  // namespace

namespace {
/// PyTorch folds nothing when the list of dimensions is empty but given.
template <Tensor (*kFunction)(const Tensor&, IntSpan, bool)>
Tensor all_or_elements(const Tensor& self, std::optional<IntSpan> dim, bool keepdim) {
  if (!dim || !dim->empty()) return kFunction(self, dim.value_or(IntSpan()), keepdim);
  return to(ne(self, wrap_number(0)), self.dtype() == kUInt8 ? kUInt8 : kBool);
}
}  // namespace

void register_reduce(Registry& registry) {
  register_fold_cpu();
  register_along_cpu();
  registry.add<with_dims<&sum>>(
      "sum(Tensor self, int[1]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      "The sum over the given dimensions, all if none are given; integers are summed as int64.");
  registry.add<with_dims<&mean>>(
      "mean(Tensor self, int[1]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      "The mean over the given dimensions, all if none are given.");
  registry.add<with_dims<&nansum>>(
      "nansum(Tensor self, int[1]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      "As sum(), with NaN counted as zero.");
  registry.add<with_dims<&nanmean>>(
      "nanmean(Tensor self, int[1]? dim=None, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
      "The mean of what is not NaN.");
  registry.add<&prod_all>("prod(Tensor self, *, dtype? dtype=None) -> Tensor",
                          "The product of all elements; integers are multiplied as int64.");
  registry.add<&prod_along>("prod(Tensor self, int dim, bool keepdim=False, *, dtype? dtype=None) -> Tensor",
                            "The product along a dimension.");
  registry.add<all_or_elements<&all>>("all(Tensor self, int[1]? dim=None, bool keepdim=False) -> Tensor",
                                      "Whether all elements are non-zero; bool, but uint8 for uint8.");
  registry.add<all_or_elements<&any>>("any(Tensor self, int[1]? dim=None, bool keepdim=False) -> Tensor",
                                      "Whether any element is non-zero; bool, but uint8 for uint8.");
  registry.add<with_dims<&count_nonzero>>("count_nonzero(Tensor self, int[1]? dim=None) -> Tensor",
                                          "How many elements are non-zero, as int64.");
  registry.add<&sum_to_size>("Tensor.sum_to_size(Tensor self, int[]... size) -> Tensor",
                             "Sums what broadcasting from `size` to the shape of this tensor repeats.");
  register_extremum(registry);
  register_statistics(registry);
}

}  // namespace opsin
