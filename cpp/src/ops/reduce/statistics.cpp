// Variances, norms and logarithms of sums of exponentials.
#include "fold.h"
#include "parts.h"

#include <cmath>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "autograd/var.h"
#include "core/call.h"
#include "core/promotion.h"

namespace opsin {

namespace {

/// y = sum (x - mean)^2 / (n - correction), from two passes: the mean in float64, then the squares around it.
///   dx = dy 2 (x - mean) / (n - correction) + dmean / n.
/// For the standard deviation s = sqrt(y): dy = ds / (2 s), taken as 0 where s is 0.
struct VarMean {
  static constexpr const char* kName = "var_mean";
  struct Params {
    uint64_t mask;
    bool keepdim, root;
    double divisor;
    Dims dims, kept_sizes;
  };
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    const auto n = static_cast<double>(reduced_count(x, p.mask));
    const Tensor mean = plan.run(Fold::Sum, kFloat64, {.divisor = n});
    const Tensor y =
        plan.run(Fold::CenteredSquares, x.dtype(), {.divisor = p.divisor, .root = p.root ? 2.0 : 1.0}, mean);
    return {plan.settle(y), to(plan.settle(mean), x.dtype())};
  }
  static void save(Saver& saver, const Params& p, const Tensor& x, const std::array<Tensor, 2>& y) {
    saver.save(0, x);
    if (p.root) saver.save_output(1, y[0]);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0);
    const Tensor center = opsin::mean(x, p.dims, true);
    Tensor grad_x;
    if (Tensor grad = ctx.grad(0); grad.defined()) {
      if (p.root) {
        const Tensor s = ctx.saved(1);
        grad = where(eq(s, wrap_number(0.0)), wrap_number(0.0), grad / (s * Scalar(2.0)));
      }
      grad_x = reshape(grad * Scalar(2 / p.divisor), p.kept_sizes) * (x - center);
    }
    if (const Tensor& grad = ctx.grad(1); grad.defined()) {
      const double n =
          static_cast<double>(x.numel()) / static_cast<double>(std::max<int64_t>(1, center.numel()));
      const Tensor part = expand(reshape(grad / Scalar(n), p.kept_sizes), x.sizes());
      grad_x = grad_x.defined() ? grad_x + part : part;
    }
    ctx.set(0, grad_x);
  }
};

std::array<Tensor, 2> moments(const Tensor& self, IntSpan dim, double correction, bool keepdim, bool root,
                              const char* op) {
  OPSIN_CHECK(Error, is_floating_point(self.dtype()), op, ": only support floating point dtypes, got ",
              name(self.dtype()));
  const uint64_t mask = reduced_mask(self, dim, op);
  Dims dims;
  for (size_t d = 0; d < self.sizes().size(); ++d) {
    if (mask >> d & 1) dims.push_back(static_cast<int64_t>(d));
  }
  const double divisor = std::max(0.0, static_cast<double>(reduced_count(self, mask)) - correction);
  return call<VarMean>({mask, keepdim, root, divisor, std::move(dims), reduced_sizes(self, mask, true)},
                       self);
}

/// y = (sum |x|^p)^(1/p); p = 0 counts, infinities choose. dx = dy sgn(x) (|x| / y)^(p-1), 0 where x or y is
/// 0; for an infinite p the chosen elements share dy.
struct Norm {
  static constexpr const char* kName = "norm";
  struct Params {
    double p;
    uint64_t mask;
    bool keepdim;
    Dims kept_sizes, dims;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    if (p.p == 0) return to(plan.settle(plan.run(Fold::CountNonzero, kInt64)), x.dtype());
    const Fold fold = p.p == 1           ? Fold::SumAbs
                      : p.p == 2         ? Fold::SumSquares
                      : p.p == INFINITY  ? Fold::MaxAbs
                      : p.p == -INFINITY ? Fold::MinAbs
                                         : Fold::SumPowers;
    return plan.settle(plan.run(fold, x.dtype(), {.power = p.p, .root = p.p}));
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y) {
    saver.save(0, x);
    saver.save_output(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (p.p == 0) return;
    const Var zero(0.0), one(1.0);
    const Var x(ctx.saved(0)), y(reshape(ctx.saved(1), p.kept_sizes)),
        grad(reshape(ctx.grad(), p.kept_sizes));
    const auto sign = [&] { return math::select(x > zero, one, math::select(x < zero, Var(-1.0), zero)); };
    if (p.p == 1) {
      ctx.set(0, (grad * sign()).tensor);
    } else if (p.p == 2) {
      ctx.set(0, (x * math::select(y == zero, zero, grad / math::select(y == zero, one, y))).tensor);
    } else if (std::isinf(p.p)) {
      const Var chosen(to((math::abs(x) == y).tensor, x.tensor.dtype()));
      const Var count(sum(chosen.tensor, p.dims, true));
      ctx.set(0, (grad * sign() * chosen / count).tensor);
    } else {
      const Var none = x == zero || y == zero;
      // Where there is no gradient the logarithm sees a 1, so that second derivatives stay finite.
      const Var ratio = math::select(none, one, math::abs(x) / math::select(y == zero, one, y));
      ctx.set(0,
              (grad * math::select(none, zero, sign() * math::exp(math::log(ratio) * Var(p.p - 1)))).tensor);
    }
  }
};

/// y = log sum exp(x), with the maximum taken out. dx = dy exp(x - y).
struct LogSumExp {
  static constexpr const char* kName = "logsumexp";
  struct Params {
    uint64_t mask;
    bool keepdim;
    Dims kept_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const FoldPlan plan(x, p.mask, p.keepdim);
    const Tensor max = plan.run(Fold::Max, x.dtype());
    return plan.settle(plan.run(Fold::LogSumExp, x.dtype(), {}, max));
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y) {
    saver.save(0, x);
    saver.save_output(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0), y = reshape(ctx.saved(1), p.kept_sizes);
    ctx.set(0, reshape(ctx.grad(), p.kept_sizes) * exp(x - y));
  }
};

double to_correction(std::optional<Scalar> correction) { return correction ? correction->to_double() : 1; }

Tensor p_norm(const Tensor& self, double p, IntSpan dim, bool keepdim, std::optional<DType> dtype,
              const char* op) {
  const Tensor x = to(self, autocast::full_dtype(self, dtype).value_or(self.dtype()));
  OPSIN_CHECK(Error, is_floating_point(x.dtype()), op, ": Expected a floating point tensor as input, got ",
              name(x.dtype()), " (pass dtype=)");
  const uint64_t mask = reduced_mask(x, dim, op);
  Dims dims;
  for (size_t d = 0; d < x.sizes().size(); ++d) {
    if (mask >> d & 1) dims.push_back(static_cast<int64_t>(d));
  }
  OPSIN_CHECK(Error, p >= 0 ? !std::isinf(p) || reduced_count(x, mask) > 0 : reduced_count(x, mask) > 0, op,
              ": cannot compute the ", p, " norm over no elements (input ", str(x.sizes()),
              " has no identity)");
  return call<Norm>({p, mask, keepdim, reduced_sizes(x, mask, true), std::move(dims)}, x);
}

}  // namespace

Tensor var(const Tensor& self, IntSpan dim, double correction, bool keepdim) {
  return moments(self, dim, correction, keepdim, false, "var")[0];
}
Tensor std(const Tensor& self, IntSpan dim, double correction, bool keepdim) {
  return moments(self, dim, correction, keepdim, true, "std")[0];
}
std::array<Tensor, 2> var_mean(const Tensor& self, IntSpan dim, double correction, bool keepdim) {
  return moments(self, dim, correction, keepdim, false, "var_mean");
}
std::array<Tensor, 2> std_mean(const Tensor& self, IntSpan dim, double correction, bool keepdim) {
  return moments(self, dim, correction, keepdim, true, "std_mean");
}

Tensor norm(const Tensor& self, double p, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  return p_norm(self, p, dim, keepdim, dtype, "norm");
}

Tensor vector_norm(const Tensor& x, double ord, IntSpan dim, bool keepdim, std::optional<DType> dtype) {
  return p_norm(x, ord, dim, keepdim, dtype, "linalg.vector_norm");
}

Tensor logsumexp(const Tensor& self, IntSpan dim, bool keepdim) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kFull>(logsumexp, self, dim, keepdim);
  const Tensor x = to(self, floating_type(self.dtype()));
  const uint64_t mask = reduced_mask(x, dim, "logsumexp");
  return call<LogSumExp>({mask, keepdim, reduced_sizes(x, mask, true)}, x);
}

Tensor trace(const Tensor& self) {
  if (autocast::is_on(DeviceType::kCPU, self)) return autocast::call<autocast::kFull>(trace, self);
  OPSIN_CHECK(ShapeError, self.dim() == 2, "trace: expected a matrix, got input ", str(self.sizes()));
  const Tensor x = contiguous(self);
  const Dims& strides = x.strides();
  return sum(as_strided(x, Dims{std::min(x.sizes()[0], x.sizes()[1])}, Dims{strides[0] + strides[1]}));
}

namespace {

// PyTorch's three ways to call a variance.
template <auto kFunction>
auto moments_all(const Tensor& self, bool unbiased) {
  return kFunction(self, {}, unbiased ? 1 : 0, false);
}
template <auto kFunction>
auto moments_unbiased(const Tensor& self, std::optional<IntSpan> dim, bool unbiased, bool keepdim) {
  return kFunction(self, dim.value_or(IntSpan{}), unbiased ? 1 : 0, keepdim);
}
template <auto kFunction>
auto moments_corrected(const Tensor& self, std::optional<IntSpan> dim, std::optional<Scalar> correction,
                       bool keepdim) {
  return kFunction(self, dim.value_or(IntSpan{}), to_correction(correction), keepdim);
}

template <auto kFunction>
void register_moments(Registry& registry, const std::string& name, const char* result, const char* doc) {
  registry.add<&moments_all<kFunction>>(name + "(Tensor self, bool unbiased=True) -> " + result, doc);
  registry.add<&moments_unbiased<kFunction>>(
      name + "(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> " + result, doc);
  registry.add<&moments_corrected<kFunction>>(
      name + "(Tensor self, int[1]? dim=None, *, Number? correction=1, bool keepdim=False) -> " + result,
      doc);
}

Tensor norm_number(const Tensor& self, std::optional<Scalar> p, std::optional<IntSpan> dim, bool keepdim,
                   std::optional<DType> dtype) {
  return norm(self, p ? p->to_double() : 2.0, dim.value_or(IntSpan{}), keepdim, dtype);
}
Tensor norm_name(const Tensor& self, std::string_view p, std::optional<IntSpan> dim, bool keepdim,
                 std::optional<DType> dtype) {
  OPSIN_CHECK(ValueError, p == "fro", "norm: expected p to be a number or \"fro\", got \"", p, "\"");
  return norm(self, 2.0, dim.value_or(IntSpan{}), keepdim, dtype);
}
Tensor vector_norm_number(const Tensor& x, const Scalar& ord, std::optional<IntSpan> dim, bool keepdim,
                          std::optional<DType> dtype) {
  return vector_norm(x, ord.to_double(), dim.value_or(IntSpan{}), keepdim, dtype);
}

}  // namespace

void register_statistics(Registry& registry) {
  register_moments<&var>(registry, "var", "Tensor",
                         "The variance; divides by n - correction (n - 1 if unbiased).");
  register_moments<&opsin::std>(registry, "std", "Tensor", "The standard deviation, the root of var().");
  register_moments<&var_mean>(registry, "var_mean", "(Tensor, Tensor)", "The variance and the mean.");
  register_moments<&std_mean>(registry, "std_mean", "(Tensor, Tensor)",
                              "The standard deviation and the mean.");
  registry.add<&norm_number>(
      "norm(Tensor self, Number? p=2, int[1]? dim=None, bool keepdim=False, dtype? dtype=None) -> Tensor",
      "The p-norm (sum |x|^p)^(1/p) of the elements over dimensions; p may be 0 and +-inf.");
  registry.add<&norm_name>(
      "norm(Tensor self, str p, int[1]? dim=None, bool keepdim=False, dtype? dtype=None) -> Tensor",
      "The Frobenius norm for p=\"fro\".");
  registry.add<&vector_norm_number>(
      "linalg.vector_norm(Tensor x, Number ord=2, int[1]? dim=None, bool keepdim=False, *, dtype? "
      "dtype=None) -> Tensor",
      "The p-norm of the elements over dimensions.");
  registry.add<&logsumexp>("logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor",
                           "log(sum(exp(x))) over dimensions, without overflow.");
  registry.add<&trace>("trace(Tensor self) -> Tensor", "The sum of the diagonal of a matrix.");
}

}  // namespace opsin
