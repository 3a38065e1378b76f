#include "autograd/var.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/unary.h>

namespace opsin {

Var operator+(const Var& a, const Var& b) { return Var(add(a.tensor, b.tensor)); }
Var operator-(const Var& a, const Var& b) {
  // Numbers stay one: a tensor made of two would be rounded to the default dtype.
  if (a.tensor.impl()->wrapped_number && b.tensor.impl()->wrapped_number) {
    return Var(a.tensor.scalar().to<double>() - b.tensor.scalar().to<double>());
  }
  return Var(sub(a.tensor, b.tensor));
}
Var operator*(const Var& a, const Var& b) { return Var(mul(a.tensor, b.tensor)); }
Var operator/(const Var& a, const Var& b) { return Var(div(a.tensor, b.tensor)); }
Var operator-(const Var& a) { return Var(neg(a.tensor)); }
Var operator<(const Var& a, const Var& b) { return Var(lt(a.tensor, b.tensor)); }
Var operator<=(const Var& a, const Var& b) { return Var(le(a.tensor, b.tensor)); }
Var operator>(const Var& a, const Var& b) { return Var(gt(a.tensor, b.tensor)); }
Var operator>=(const Var& a, const Var& b) { return Var(ge(a.tensor, b.tensor)); }
Var operator==(const Var& a, const Var& b) { return Var(eq(a.tensor, b.tensor)); }
Var operator!=(const Var& a, const Var& b) { return Var(ne(a.tensor, b.tensor)); }
Var operator&&(const Var& a, const Var& b) { return Var(logical_and(a.tensor, b.tensor)); }
Var operator||(const Var& a, const Var& b) { return Var(logical_or(a.tensor, b.tensor)); }
Var operator!(const Var& a) { return Var(eq(a.tensor, wrap_number(false))); }

namespace math {
Var select(const Var& condition, const Var& yes, const Var& no) {
  return Var(where(condition.tensor, yes.tensor, no.tensor));
}
Var exp(const Var& x) { return Var(opsin::exp(x.tensor)); }
Var log(const Var& x) { return Var(opsin::log(x.tensor)); }
Var log1p(const Var& x) { return Var(opsin::log1p(x.tensor)); }
Var sqrt(const Var& x) { return Var(opsin::sqrt(x.tensor)); }
Var sin(const Var& x) { return Var(opsin::sin(x.tensor)); }
Var cos(const Var& x) { return Var(opsin::cos(x.tensor)); }
Var sinh(const Var& x) { return Var(opsin::sinh(x.tensor)); }
Var cosh(const Var& x) { return Var(opsin::cosh(x.tensor)); }
Var tanh(const Var& x) { return Var(opsin::tanh(x.tensor)); }
Var sigmoid(const Var& x) { return Var(opsin::sigmoid(x.tensor)); }
Var erf(const Var& x) { return Var(opsin::erf(x.tensor)); }
Var abs(const Var& x) { return Var(opsin::abs(x.tensor)); }
Var digamma(const Var& x) { return Var(opsin::digamma(x.tensor)); }
Var pow(const Var& x, const Var& y) { return Var(opsin::pow(x.tensor, y.tensor)); }
Var polygamma(const Var& n, const Var& x) {
  return Var(opsin::polygamma(n.tensor.scalar().to_int(), x.tensor));
}
}  // namespace math

}  // namespace opsin
