// A tensor as the T of a functor template: the gradient formulas of the table families, evaluated with
// differentiable ops.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

struct Var {
  explicit Var(Tensor tensor_) : tensor(std::move(tensor_)) {}
  explicit Var(double number) : tensor(wrap_number(Scalar(number))) {}
  Tensor tensor;
};

Var operator+(const Var& a, const Var& b);
Var operator-(const Var& a, const Var& b);
Var operator*(const Var& a, const Var& b);
Var operator/(const Var& a, const Var& b);
Var operator-(const Var& a);
Var operator<(const Var& a, const Var& b);
Var operator<=(const Var& a, const Var& b);
Var operator>(const Var& a, const Var& b);
Var operator>=(const Var& a, const Var& b);
Var operator==(const Var& a, const Var& b);
Var operator!=(const Var& a, const Var& b);
Var operator&&(const Var& a, const Var& b);
Var operator||(const Var& a, const Var& b);
Var operator!(const Var& a);

namespace math {
Var select(const Var& condition, const Var& yes, const Var& no);
Var exp(const Var& x);
Var log(const Var& x);
Var log1p(const Var& x);
Var sqrt(const Var& x);
Var sin(const Var& x);
Var cos(const Var& x);
Var sinh(const Var& x);
Var cosh(const Var& x);
Var tanh(const Var& x);
Var sigmoid(const Var& x);
Var erf(const Var& x);
Var abs(const Var& x);
Var digamma(const Var& x);
Var pow(const Var& x, const Var& y);
/// `n` holds a number.
Var polygamma(const Var& n, const Var& x);
}  // namespace math

}  // namespace opsin
