// The public functions of one tensor and their schemas.
#include "unary_call.h"

#include <limits>

#include <opsin/ops/binary.h>
#include <opsin/ops/unary.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"

namespace opsin {

void register_activations(Registry& registry);

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// neg and relu have no meaning for bool; abs, sign, floor, ... leave it as it is.
void check_not_bool(const Tensor& self, const char* op) {
  if (self.dtype() == kBool) detail::raise_unsupported(op, kBool);
}

bool keeps_integers(UnaryOp op) {
  return op == UnaryOp::Abs || op == UnaryOp::Sign || op == UnaryOp::Floor || op == UnaryOp::Ceil ||
         op == UnaryOp::Trunc || op == UnaryOp::Round || op == UnaryOp::Frac || op == UnaryOp::Square ||
         op == UnaryOp::Neg || op == UnaryOp::Relu;
}

Tensor table_function(UnaryOp op, const char* name, const Tensor& self) {
  if (__builtin_expect(self.dtype() == kBool, 0) && keeps_integers(op)) {
    if (op == UnaryOp::Sign || op == UnaryOp::Abs) return clone(self);
    if (op == UnaryOp::Square) return unary::apply(op, to(self, kInt64));
    detail::raise_unsupported(name, kBool);
  }
  return unary::apply(op, self);
}

Tensor table_function_(UnaryOp op, const char* name, const Tensor& self) {
  if (__builtin_expect(self.dtype() == kBool, 0) && keeps_integers(op)) {
    if (op == UnaryOp::Sign || op == UnaryOp::Abs) return self;
    detail::raise_unsupported(name, kBool);
  }
  return unary::apply_(op, self);
}

/// 10^|decimals|, and whether decimals > 0.
UnaryArgs rounding(int64_t decimals) {
  double scale = 1;
  for (int64_t i = 0; i < std::abs(decimals) && i < 400; ++i) scale *= 10;
  return {scale, decimals > 0 ? 1.0 : -1.0, 0};
}

UnaryArgs logit_bounds(std::optional<double> eps) {
  // Outside [0, 1] log gives NaN by itself, and so does the derivative.
  if (!eps) return {-kInfinity, kInfinity, kNaN};
  return {*eps, 1 - *eps, 0};
}

/// The values nan_to_num() puts in, by default the largest of the dtype.
UnaryArgs replacements(DType dtype, std::optional<double> nan, std::optional<double> posinf,
                       std::optional<double> neginf) {
  const double largest = dtype == kFloat64    ? std::numeric_limits<double>::max()
                         : dtype == kFloat16  ? 65504.0
                         : dtype == kBFloat16 ? 3.3895313892515355e38
                                              : static_cast<double>(std::numeric_limits<float>::max());
  return {nan.value_or(0), posinf.value_or(largest), neginf.value_or(-largest)};
}

}  // namespace

#define OPSIN_ROW(Functor, function, doc)                                                           \
  Tensor function(const Tensor& self) { return table_function(UnaryOp::Functor, #function, self); } \
  Tensor function##_(const Tensor& self) { return table_function_(UnaryOp::Functor, #function "_", self); }
OPSIN_UNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ROW(Functor, function, doc) \
  Tensor function(const Tensor& self) { return unary::apply(UnaryOp::Functor, self); }
OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW

Tensor logical_not_(const Tensor& self) { return unary::apply_(UnaryOp::LogicalNot, self); }
Tensor positive(const Tensor& self) {
  check_not_bool(self, "positive");
  return self;
}
Tensor digamma(const Tensor& self) { return unary::apply(UnaryOp::Digamma, self); }
Tensor digamma_(const Tensor& self) { return unary::apply_(UnaryOp::Digamma, self); }
Tensor polygamma(int64_t n, const Tensor& self) {
  OPSIN_CHECK(Error, n >= 0, "polygamma: expected n >= 0, got ", n,
              " (polygamma(n, x) does not support negative n.)");
  if (n == 0) return digamma(self);
  return unary::apply(n == 1 ? UnaryOp::Trigamma : UnaryOp::Polygamma, self, {static_cast<double>(n)});
}
Tensor round(const Tensor& self, int64_t decimals) {
  check_not_bool(self, "round");
  if (decimals == 0 || is_integral(self.dtype())) return unary::apply(UnaryOp::Round, self);
  return unary::apply(UnaryOp::RoundTo, self, rounding(decimals));
}
Tensor round_(const Tensor& self, int64_t decimals) {
  check_not_bool(self, "round_");
  if (decimals == 0 || is_integral(self.dtype())) return unary::apply_(UnaryOp::Round, self);
  return unary::apply_(UnaryOp::RoundTo, self, rounding(decimals));
}
Tensor logit(const Tensor& self, std::optional<double> eps) {
  return unary::apply(UnaryOp::Logit, self, logit_bounds(eps));
}
Tensor logit_(const Tensor& self, std::optional<double> eps) {
  return unary::apply_(UnaryOp::Logit, self, logit_bounds(eps));
}
Tensor nan_to_num(const Tensor& self, std::optional<double> nan, std::optional<double> posinf,
                  std::optional<double> neginf) {
  if (is_integral(self.dtype())) return clone(self);
  return unary::apply(UnaryOp::NanToNum, self, replacements(self.dtype(), nan, posinf, neginf));
}
Tensor nan_to_num_(const Tensor& self, std::optional<double> nan, std::optional<double> posinf,
                   std::optional<double> neginf) {
  if (is_integral(self.dtype())) return self;
  return unary::apply_(UnaryOp::NanToNum, self, replacements(self.dtype(), nan, posinf, neginf));
}
Tensor bitwise_not(const Tensor& self) {
  if (!is_integral(self.dtype())) detail::raise_unsupported("bitwise_not", self.dtype());
  return self.dtype() == kBool ? logical_not(self) : bitwise_xor(self, wrap_number(-1));
}
Tensor bitwise_not_(const Tensor& self) {
  if (!is_integral(self.dtype())) detail::raise_unsupported("bitwise_not_", self.dtype());
  return self.dtype() == kBool ? logical_not_(self) : bitwise_xor_(self, wrap_number(-1));
}

void register_unary(Registry& registry) {
  register_unary_cpu();
#define OPSIN_ROW(Functor, function, doc)                                    \
  registry.add<&function>(#function "(Tensor self) -> Tensor", doc);         \
  registry.add<&function##_>("Tensor." #function "_(Tensor self) -> Tensor", \
                             "In-place version of " #function ".");
  OPSIN_UNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ROW(Functor, function, doc) registry.add<&function>(#function "(Tensor self) -> Tensor", doc);
  OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ALIAS(alias, function)                                                       \
  registry.add<&function>(#alias "(Tensor self) -> Tensor", "The same as " #function "."); \
  registry.add<&function##_>("Tensor." #alias "_(Tensor self) -> Tensor", "The same as " #function "_.");
  OPSIN_ALIAS(absolute, abs)
  OPSIN_ALIAS(arccos, acos)
  OPSIN_ALIAS(arccosh, acosh)
  OPSIN_ALIAS(arcsin, asin)
  OPSIN_ALIAS(arcsinh, asinh)
  OPSIN_ALIAS(arctan, atan)
  OPSIN_ALIAS(arctanh, atanh)
  OPSIN_ALIAS(fix, trunc)
  OPSIN_ALIAS(negative, neg)
#undef OPSIN_ALIAS
  registry.add<&logical_not_>("Tensor.logical_not_(Tensor self) -> Tensor",
                              "In-place version of logical_not.");
  registry.add<&positive>("positive(Tensor self) -> Tensor", "The tensor itself.");
  registry.add<&digamma>("digamma(Tensor self) -> Tensor", "The derivative of lgamma.");
  registry.add<&digamma_>("Tensor.digamma_(Tensor self) -> Tensor", "In-place version of digamma.");
  registry.add<&polygamma>("polygamma(int n, Tensor input) -> Tensor", "The n-th derivative of digamma.");
  registry.add<&round>("round(Tensor self, *, int decimals=0) -> Tensor",
                       "The nearest multiple of 10^-decimals; halves go to the even one.");
  registry.add<&round_>("Tensor.round_(Tensor self, *, int decimals=0) -> Tensor",
                        "In-place version of round.");
  registry.add<&logit>("logit(Tensor self, float? eps=None) -> Tensor",
                       "ln(x / (1 - x)), of x kept in [eps, 1 - eps] if eps is given.");
  registry.add<&logit_>("Tensor.logit_(Tensor self, float? eps=None) -> Tensor",
                        "In-place version of logit.");
  registry.add<&nan_to_num>(
      "nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor",
      "NaN and the infinities replaced, by default by 0 and the largest values of the dtype.");
  registry.add<&nan_to_num_>(
      "Tensor.nan_to_num_(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor",
      "In-place version of nan_to_num.");
  registry.add<&bitwise_not>("bitwise_not(Tensor self) -> Tensor",
                             "Every bit inverted; of a bool, logical not.");
  registry.add<&bitwise_not_>("Tensor.bitwise_not_(Tensor self) -> Tensor",
                              "In-place version of bitwise_not.");
  register_activations(registry);
}

}  // namespace opsin
