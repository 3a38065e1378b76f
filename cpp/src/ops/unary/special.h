// Special functions that are too rare for vector loops: scalar, in double precision.
#pragma once

#include "core/math.h"

namespace opsin::special {

inline constexpr double kPi = 3.1415926535897932;

/// The inverse of erf: Winitzki's closed form as a start (2e-3), then Halley's method on erfc, which stays
/// exact where erf is close to 1.
OPSIN_FN double erfinv(double x) {
  const double size = std::fabs(x);
  if (!(size < 1))
    return size == 1 ? std::copysign(math::detail::kInf<double>, x) : math::detail::kNaN<double>;
  if (size < 1e-8) return x * 0.88622692545275801;                      // sqrt(pi) / 2; the next term is x^3
  const double l = std::log1p(-size * size), a = 4.3307467508 + l / 2;  // 2 / (0.147 pi)
  double y = std::sqrt(std::sqrt(a * a - l / 0.147) - a);
  for (int i = 0; i < 3; ++i) {
    const double error = size > 0.5 ? (1 - size) - std::erfc(y) : std::erf(y) - size;
    const double step = error * 0.88622692545275801 * std::exp(y * y);
    y -= step / (1 + y * step);
  }
  return std::copysign(y, x);
}

/// psi(x) = d/dx ln Gamma(x): recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.18),
/// and reflection below 0.
OPSIN_FN double digamma(double x) {
  if (x == 0) return std::copysign(math::detail::kInf<double>, -x);
  double result = 0;
  if (x < 0) {
    if (x == std::floor(x)) return math::detail::kNaN<double>;
    // The fraction first: tan(pi x) of a large x has no digits left.
    result = -kPi / std::tan(kPi * (x - std::floor(x)));
    x = 1 - x;
  }
  if (x == math::detail::kInf<double>) return x;
  while (x < 10) {
    result -= 1 / x;
    x += 1;
  }
  const double z = 1 / (x * x);
  return result + std::log(x) - 0.5 / x -
         z * math::detail::horner(z, 8.33333333333333333e-2, -8.33333333333333333e-3, 3.96825396825396825e-3,
                                  -4.16666666666666667e-3, 7.57575757575757576e-3, -2.10927960927960928e-2,
                                  8.33333333333333333e-2);
}

/// The n-th derivative of digamma, (-1)^(n+1) n! zeta(n + 1, x), for n >= 1; Hurwitz's zeta by
/// Euler-Maclaurin.
OPSIN_FN double polygamma(double n, double x) {
  if (n < 1) return digamma(x);
  const double s = n + 1;
  if (x <= 0 && x == std::floor(x)) {
    return std::fmod(n, 2) == 1 ? math::detail::kInf<double> : math::detail::kNaN<double>;
  }
  if (x == math::detail::kInf<double>) return 0;
  double sum = 0;
  while (x < 12 + n) {
    sum += std::pow(x, -s);
    x += 1;
  }
  // B_2k / (2k)!
  const double bernoulli[] = {8.33333333333333333e-2,  -1.38888888888888889e-3, 3.30687830687830688e-5,
                              -8.26719576719576720e-7, 2.08767569878680990e-8,  -5.28419013868749318e-10,
                              1.33825365306846788e-11};
  const double power = std::pow(x, -s);
  sum += x * power / n + power / 2;
  double factor = s * power / x;
  for (int k = 0; k < 7; ++k) {
    sum += bernoulli[k] * factor;
    factor *= (s + 2 * k + 1) * (s + 2 * k + 2) / (x * x);
  }
  return (std::fmod(n, 2) == 1 ? 1 : -1) * std::tgamma(s) * sum;
}

}  // namespace opsin::special

namespace opsin::math {

// Functions that only std has; 16-bit types come as float.
#define OPSIN_SCALAR_FUNCTION(name, expression) \
  template <Floating T>                         \
  OPSIN_FN T name(T x) {                        \
    return static_cast<T>(expression);          \
  }
OPSIN_SCALAR_FUNCTION(sinh, std::sinh(x))
OPSIN_SCALAR_FUNCTION(cosh, std::cosh(x))
OPSIN_SCALAR_FUNCTION(asinh, std::asinh(x))
OPSIN_SCALAR_FUNCTION(acosh, std::acosh(x))
OPSIN_SCALAR_FUNCTION(atanh, std::atanh(x))
OPSIN_SCALAR_FUNCTION(erfc, std::erfc(x))
OPSIN_SCALAR_FUNCTION(lgamma, std::lgamma(static_cast<double>(x)))
OPSIN_SCALAR_FUNCTION(digamma, special::digamma(static_cast<double>(x)))
OPSIN_SCALAR_FUNCTION(erfinv, special::erfinv(static_cast<double>(x)))
#undef OPSIN_SCALAR_FUNCTION
template <Floating T>
OPSIN_FN T polygamma(T n, T x) {
  return static_cast<T>(special::polygamma(static_cast<double>(n), static_cast<double>(x)));
}

}  // namespace opsin::math
