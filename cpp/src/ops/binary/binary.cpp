// The public functions of two tensors and their schemas.
#include "binary_call.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/unary.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/promotion.h"
#include "core/registry.h"
#include "ops/unary/unary_call.h"

namespace opsin {

void register_ternary(Registry& registry);

using binary::apply;
using binary::apply_;

namespace {

/// alpha * x, in the dtype of its sum with `other`.
Tensor scaled(const Tensor& x, const Scalar& alpha, const Tensor& other, const char* op) {
  using Kind = Scalar::Kind;
  const DType dtype = result_type({&x, &other});
  OPSIN_CHECK(Error, alpha.kind() != Kind::kBoolean || dtype == kBool, op,
              ": Boolean alpha only supported for Boolean results, got ", name(dtype));
  OPSIN_CHECK(Error, is_differentiable(dtype) || alpha.is_integral(), op,
              ": For integral input tensors, argument alpha must not be a floating point number, got ",
              name(dtype));
  OPSIN_CHECK(Error, alpha.kind() != Kind::kComplex || is_complex(dtype), op,
              ": For non-complex input tensors, argument alpha must not be a complex number, got ",
              name(dtype));
  // A multiple of a bool is a bool.
  return to(mul(to(x, dtype), wrap_number(alpha)), dtype);
}
bool is_one(const Scalar& alpha) { return alpha.kind() == Scalar::Kind::kInteger && alpha.to_int() == 1; }

void check_not_bool(const Tensor& a, const Tensor& b) {
  OPSIN_CHECK(Error, a.dtype() != kBool || b.dtype() != kBool,
              "sub: Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
              "`logical_xor()` operator instead.");
  OPSIN_CHECK(Error, a.dtype() != kBool && b.dtype() != kBool,
              "sub: Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to "
              "invert a mask, use the `~` or `logical_not()` operator instead.");
}

BinaryOp division(std::optional<std::string_view> rounding_mode) {
  if (!rounding_mode) return BinaryOp::Div;
  OPSIN_CHECK(Error, *rounding_mode == "trunc" || *rounding_mode == "floor",
              "div: expected rounding_mode to be one of None, 'trunc', or 'floor' but found '",
              *rounding_mode, "'");
  return *rounding_mode == "trunc" ? BinaryOp::DivTrunc : BinaryOp::DivFloor;
}

Tensor cube(const Tensor& x) { return unary::apply(UnaryOp::Cube, x); }
Tensor cube_(const Tensor& x) { return unary::apply_(UnaryOp::Cube, x); }

/// The function that is x^exponent for a few plain numbers, because a multiplication beats the general power.
using Unary = Tensor (*)(const Tensor&);
Unary simple_power(const Tensor& self, const Tensor& exponent, bool inplace) {
  if (!exponent.impl()->wrapped_number || !is_floating_point(self.dtype()) || self.impl()->wrapped_number)
    return nullptr;
  if (is_complex(exponent.dtype())) return nullptr;
  const double value = exponent.scalar().to_double();
  if (value == 2) return inplace ? square_ : square;
  if (value == 3) return inplace ? cube_ : cube;
  if (value == 0.5) return inplace ? sqrt_ : sqrt;
  if (value == -1) return inplace ? reciprocal_ : reciprocal;
  if (value == -0.5) return inplace ? rsqrt_ : rsqrt;
  return nullptr;
}
void check_power(const Tensor& self, const Tensor& exponent) {
  if (!is_integral(self.dtype()) || !exponent.impl()->wrapped_number || !is_integral(exponent.dtype()))
    return;
  OPSIN_CHECK(Error, exponent.scalar().to_int() >= 0,
              "pow: Integers to negative integer powers are not allowed.");
}

}  // namespace

#define OPSIN_ROW(Functor, function, doc) \
  Tensor function(const Tensor& self, const Tensor& other) { return apply(BinaryOp::Functor, self, other); }
OPSIN_BINARY_OPS(OPSIN_ROW)
OPSIN_BINARY_PURE_OPS(OPSIN_ROW)
OPSIN_INTEGER_OPS(OPSIN_ROW)
OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ROW(Functor, function, doc)                       \
  Tensor function##_(const Tensor& self, const Tensor& other) { \
    return apply_(BinaryOp::Functor, self, other);              \
  }
OPSIN_BINARY_OPS(OPSIN_ROW)
OPSIN_INTEGER_OPS(OPSIN_ROW)
OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW

Tensor add(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  return apply(BinaryOp::Add, self, is_one(alpha) ? other : scaled(other, alpha, self, "add"));
}
Tensor add_(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  return apply_(BinaryOp::Add, self, is_one(alpha) ? other : scaled(other, alpha, self, "add_"));
}
Tensor sub(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  check_not_bool(self, other);
  return apply(BinaryOp::Sub, self, is_one(alpha) ? other : scaled(other, alpha, self, "sub"));
}
Tensor sub_(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  check_not_bool(self, other);
  return apply_(BinaryOp::Sub, self, is_one(alpha) ? other : scaled(other, alpha, self, "sub_"));
}
Tensor rsub(const Tensor& self, const Tensor& other, const Scalar& alpha) {
  check_not_bool(self, other);
  return apply(BinaryOp::Sub, other, is_one(alpha) ? self : scaled(self, alpha, other, "rsub"));
}
Tensor div(const Tensor& self, const Tensor& other) { return apply(BinaryOp::Div, self, other); }
Tensor div_(const Tensor& self, const Tensor& other) { return apply_(BinaryOp::Div, self, other); }
Tensor div(const Tensor& self, const Tensor& other, std::optional<std::string_view> rounding_mode) {
  return apply(division(rounding_mode), self, other);
}
Tensor div_(const Tensor& self, const Tensor& other, std::optional<std::string_view> rounding_mode) {
  return apply_(division(rounding_mode), self, other);
}
Tensor floor_divide(const Tensor& self, const Tensor& other) {
  return apply(BinaryOp::DivFloor, self, other);
}
Tensor floor_divide_(const Tensor& self, const Tensor& other) {
  return apply_(BinaryOp::DivFloor, self, other);
}
Tensor pow(const Tensor& self, const Tensor& exponent) {
  if (autocast::is_on(DeviceType::kCUDA, self, exponent))
    return autocast::call<autocast::kFull>(opsin::pow, self, exponent);
  if (const Unary simple = simple_power(self, exponent, false)) return simple(self);
  check_power(self, exponent);
  return apply(BinaryOp::Pow, self, exponent);
}
Tensor pow_(const Tensor& self, const Tensor& exponent) {
  if (const Unary simple = simple_power(self, exponent, true)) return simple(self);
  check_power(self, exponent);
  return apply_(BinaryOp::Pow, self, exponent);
}
Tensor ldexp(const Tensor& self, const Tensor& other) {
  const Tensor y = mul(self, pow(wrap_number(2.0), other));
  return is_floating_point(self.dtype()) ? to(y, self.dtype()) : y;
}
Tensor ldexp_(const Tensor& self, const Tensor& other) { return mul_(self, pow(wrap_number(2.0), other)); }
Tensor parametric_relu(const Tensor& self, const Tensor& slope) {
  OPSIN_CHECK(Error, self.dtype() == slope.dtype(), "prelu: Type promoting not supported. Got ",
              name(self.dtype()), " and ", name(slope.dtype()));
  return apply(BinaryOp::Prelu, self, slope);
}

// |a - b| <= atol + rtol |b|, or equal (the infinities), or both NaN if that counts.
Tensor isclose(const Tensor& self, const Tensor& other, double rtol, double atol, bool equal_nan) {
  OPSIN_CHECK(Error, self.dtype() == other.dtype(), "isclose: expected both of one dtype, got ",
              name(self.dtype()), " and ", name(other.dtype()));
  OPSIN_CHECK(Error, rtol >= 0 && atol >= 0,
              "isclose: rtol and atol must be greater than or equal to zero, got ", rtol, " and ", atol);
  const NoGradGuard no_grad;
  Tensor close = eq(self, other);
  if (is_integral(self.dtype()) && rtol == 0 && atol == 0) return close;
  const DType dtype = is_integral(self.dtype()) ? kFloat64 : self.dtype();
  const Tensor a = to(self, dtype), b = to(other, dtype);
  if (equal_nan) close = logical_or(close, logical_and(ne(a, a), ne(b, b)));
  const Tensor error = abs(sub(a, b));
  const Tensor allowed = add(mul(abs(b), wrap_number(rtol)), wrap_number(atol));
  return logical_or(close, logical_and(isfinite(error), le(error, allowed)));
}

void register_binary(Registry& registry) {
  register_binary_cpu();
  register_ternary_cpu();
  using Plain = Tensor (*)(const Tensor&, const Tensor&);
  using Rounded = Tensor (*)(const Tensor&, const Tensor&, std::optional<std::string_view>);
#define OPSIN_ADD(name, function, doc) \
  registry.add<Plain(function)>(name "(Operand self, Operand other) -> Tensor", doc);
#define OPSIN_ADD_(name, function)                                                        \
  registry.add<Plain(function)>("Tensor." name "_(Tensor self, Operand other) -> Tensor", \
                                "In-place version of " name ".");
#define OPSIN_ROW(Functor, function, doc) OPSIN_ADD(#function, function, doc)
  OPSIN_BINARY_OPS(OPSIN_ROW)
  OPSIN_BINARY_PURE_OPS(OPSIN_ROW)
  OPSIN_INTEGER_OPS(OPSIN_ROW)
  OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ROW(Functor, function, doc) OPSIN_ADD_(#function, function##_)
  OPSIN_BINARY_OPS(OPSIN_ROW)
  OPSIN_INTEGER_OPS(OPSIN_ROW)
  OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ALIAS(alias, function)                        \
  OPSIN_ADD(#alias, function, "The same as " #function ".") \
  OPSIN_ADD_(#alias, function##_)
  OPSIN_ALIAS(multiply, mul)
  OPSIN_ALIAS(arctan2, atan2)
  OPSIN_ALIAS(greater, gt)
  OPSIN_ALIAS(greater_equal, ge)
  OPSIN_ALIAS(less, lt)
  OPSIN_ALIAS(less_equal, le)
  OPSIN_ALIAS(not_equal, ne)
  OPSIN_ALIAS(true_divide, div)
#undef OPSIN_ALIAS
  OPSIN_ADD("floor_divide", floor_divide, "The quotient rounded down.")
  OPSIN_ADD_("floor_divide", floor_divide_)
  OPSIN_ADD("ldexp", ldexp, "self * 2^other.")
  OPSIN_ADD_("ldexp", ldexp_)
#undef OPSIN_ADD
#undef OPSIN_ADD_
#define OPSIN_SCALED(name, function, doc)                                                                 \
  registry.add<&function>(name "(Operand self, Operand other, *, Number alpha=1) -> Tensor", doc);        \
  registry.add<&function##_>("Tensor." name "_(Tensor self, Operand other, *, Number alpha=1) -> Tensor", \
                             "In-place version of " name ".");
  OPSIN_SCALED("add", add, "self + alpha * other.")
  OPSIN_SCALED("sub", sub, "self - alpha * other.")
  OPSIN_SCALED("subtract", sub, "The same as sub.")
#undef OPSIN_SCALED
  registry.add<&rsub>("rsub(Operand self, Operand other, *, Number alpha=1) -> Tensor",
                      "other - alpha * self.");
  for (const char* name : {"div", "divide"}) {
    registry.add<Rounded(div)>(
        std::string(name) + "(Operand self, Operand other, *, str? rounding_mode=None) -> Tensor",
        "self / other: floating point also for integers, or rounded by 'trunc' or 'floor'.");
    registry.add<Rounded(div_)>(
        "Tensor." + std::string(name) + "_(Tensor self, Operand other, *, str? rounding_mode=None) -> Tensor",
        "In-place version of div.");
  }
  registry.add<&pow>("pow(Operand self, Operand exponent) -> Tensor", "self to the power of exponent.");
  registry.add<&pow_>("Tensor.pow_(Tensor self, Operand exponent) -> Tensor", "In-place version of pow.");
  registry.add<&isclose>(
      "isclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> "
      "Tensor",
      "Whether |self - other| <= atol + rtol * |other|, element by element.");
  register_ternary(registry);
}

}  // namespace opsin
