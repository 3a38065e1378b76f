// Hyperbolic and special functions, without branches as in core/math.h, and at the end those that are too
// rare for vector loops: scalar, in double precision.
//
// Bounds that cpp/tests/math_test.cpp checks, in units of the last place: sinh and cosh 2.5, asinh, acosh and
// atanh 3, lgamma 4, erfc 6, erf(erfinv) 4.
#pragma once

#include "core/math.h"

namespace opsin::math {

namespace detail {

/// e^x / 2 for x >= 0, infinite only where that is.
template <Floating T>
OPSIN_FN T half_exp(T x) {
  T r;
  Int<T> n;
  reduce_exp(clamp(x, T(0), is_float<T> ? T(90) : T(711)), r, n);
  return scale<T>(T(1) + (r + r * r * exp_tail(r)), n - 1);
}
/// ln(1 + x) + ln 2 if `twice`.
template <Floating T>
OPSIN_FN T log1p_of(T x, bool twice) {
  return math::log1p(x) + (twice ? T(0.69314718055994531) : T(0));
}
/// x - 2 n for the n that brings it to [-1, 1]; there sine and cosine of pi x have their period.
template <Floating T>
OPSIN_FN T half_turns(T x) {
  const T n = (x * T(0.5) + kMagic<T>)-kMagic<T>;
  // Beyond, all values are even; infinity gives NaN.
  return std::fabs(x) < kMagic<T> ? x - T(2) * n : x - x;
}

}  // namespace detail

template <Floating T>
OPSIN_FN T cosh(T x) {
  const T half = detail::half_exp(std::fabs(x));
  return half + T(0.25) / half;
}
template <Floating T>
OPSIN_FN T sinh(T x) {
  const T size = std::fabs(x), half = detail::half_exp(size), z = x * x;
  T series;
  if constexpr (detail::is_float<T>) {
    series =
        detail::horner(z, 1.66666667e-1f, 8.33333333e-3f, 1.98412698e-4f, 2.75573192e-6f, 2.50521084e-8f);
  } else {
    series = detail::horner(z, 1.6666666666666667e-1, 8.3333333333333333e-3, 1.9841269841269841e-4,
                            2.7557319223985891e-6, 2.5052108385441719e-8, 1.6059043836821615e-10,
                            7.6471637318198165e-13, 2.8114572543455208e-15, 8.2206352466243297e-18);
  }
  return std::copysign(size < T(1) ? size + size * z * series : half - T(0.25) / half, x);
}
template <Floating T>
OPSIN_FN T asinh(T x) {
  const T size = std::fabs(x), z = size * size;
  const bool large = size > (detail::is_float<T> ? T(1e4) : T(1e9));
  const T y = large ? size - T(1) : size + z / (T(1) + std::sqrt(T(1) + z));
  return std::copysign(detail::log1p_of(y, large), x);
}
template <Floating T>
OPSIN_FN T acosh(T x) {
  const T t = x - T(1);
  const bool large = x > (detail::is_float<T> ? T(1e4) : T(1e9));
  const T y = detail::log1p_of(large ? t : t + std::sqrt(t * (t + T(2))), large);
  return x < T(1) ? detail::kNaN<T> : y;
}
template <Floating T>
OPSIN_FN T atanh(T x) {
  const T size = std::fabs(x);
  return std::copysign(T(0.5) * math::log1p(T(2) * size / (T(1) - size)), x);
}

/// sin(pi x) and cos(pi x)
template <Floating T>
OPSIN_FN T sin_pi(T x) {
  const T turns = detail::half_turns(x), size = std::fabs(turns);
  // Folded at 1/2, so that whole numbers give 0.
  return sin_bounded(T(3.1415926535897932) * (size > T(0.5) ? std::copysign(T(1) - size, turns) : turns));
}
template <Floating T>
OPSIN_FN T cos_pi(T x) {
  return cos_bounded(T(3.1415926535897932) * detail::half_turns(x));
}

namespace detail {

/// e^(x^2) erfc(x) for 0 <= x <= kErfcBound, beyond which erfc is 0. Times 1 + 2 x it is smooth in t.
template <Floating T>
inline constexpr T kErfcBound = is_float<T> ? T(11) : T(28);
template <Floating T>
OPSIN_FN T scaled_erfc(T x) {
  T smooth;
  if constexpr (is_float<T>) {
    smooth = horner((x - 2) / (x + 2), 1.27697839f, -0.0927639028f, -0.166031526f, 0.164053104f,
                    -0.0542032075f, -0.00804248141f, 0.00863181807f, 0.00126266341f, -0.00124907664f,
                    -0.000350061971f, 3.29297882e-5f);
  } else {
    smooth =
        horner((x - 4) / (x + 4), 1.2329951186255526, -0.13962111684056255, 0.015379652102606133,
               0.068097054254702127, -0.10103906603558063, 0.093732834997984629, -0.06633036582729279,
               0.037167515542420758, -0.016197733895959855, 0.0050319699523291529, -0.00075777430616933707,
               -0.00019925669640425624, 0.00015062567141369432, -2.4398609353512904e-5,
               -1.1232086023404734e-5, 5.7068274750682637e-6, 3.0994402010831545e-7, -8.1876625629157856e-7,
               5.883230632914435e-8, 1.0181247475149971e-7, -9.4562715249156916e-9, -8.9062086639346223e-9);
  }
  return smooth / (T(1) + T(2) * x);
}

}  // namespace detail

/// 1 - erf(x)
template <Floating T>
OPSIN_FN T erfc(T x) {
  const T size = std::fabs(x), bounded = size > detail::kErfcBound<T> ? detail::kErfcBound<T> : size;
  // The square in two parts, of which the first is exact: e to it magnifies its rounding.
  constexpr auto kHigh = static_cast<detail::Int<T>>(~((uint64_t{1} << (detail::is_float<T> ? 12 : 27)) - 1));
  const T high = detail::from_bits<T>(detail::to_bits(bounded) & kHigh);
  const T tail =
      detail::scaled_erfc(bounded) * math::exp(-high * high) * math::exp((high - bounded) * (high + bounded));
  return x < T(0) ? T(2) - tail : tail;
}

/// The inverse of erf by polynomials in w = -ln(1 - x^2) and its root, in double with a step of Halley's
/// method on erfc, which stays exact where erf is close to 1.
template <Floating T>
OPSIN_FN T erfinv(T x) {
  const T size = std::fabs(x), w = -math::log((T(1) - size) * (T(1) + size)), root = std::sqrt(w);
  const T near = detail::horner(w - T(2.5), T(1.501409351), 0.2466402894, -0.004177320041, -0.001252748503,
                                0.000218257724, -4.959691794e-6, -3.423414274e-6, 4.654174105e-7,
                                1.598430613e-8, -8.739010703e-9, 4.671932509e-10);
  T far;
  if constexpr (detail::is_float<T>) {
    far =
        detail::horner(root - 3, T(2.832976799), 1.00167486, 0.009445409096, -0.007635825245, 0.005685600337,
                       -0.003602230927, 0.001489921152, -5.26768404e-5, -0.0003146338503, 0.0001165715234);
  } else {
    far = detail::horner(root - 4, 3.839784044, 1.009497019, 0.001254045722, -0.0008902629236,
                         0.0003431357187, -8.580128391e-5, 2.471726411e-5, -4.981389215e-5, 3.791097646e-5,
                         -7.008355881e-6, -2.138422748e-6, 6.659103402e-7);
  }
  T y = size * (w < T(5) ? near : far);
  if constexpr (!detail::is_float<T>) {
    // Both, because a choice between calls would be a branch.
    const T scale = math::exp(y * y), above = (T(1) - size) * scale - detail::scaled_erfc(y),
            below = (detail::erf_near(y, y * y) - size) * scale;
    const T step = (size > T(0.5) ? above : below) * T(0.88622692545275801);
    y -= step / (T(1) + y * step);
  }
  y = size == T(1) ? detail::kInf<T> : y;
  return std::copysign(size > T(1) ? detail::kNaN<T> : y, x);
}

namespace detail {

/// The series of Stirling for ln Gamma, (z - 1/2) ln z - z + ..., for z >= 8.
OPSIN_FN double stirling(double z) {
  const double inverse = 1 / z;
  return (z - 0.5) * math::log(z) - z + 0.91893853320467274 +
         inverse * horner(inverse * inverse, 8.33333333333333333e-2, -2.77777777777777778e-3,
                          7.93650793650793651e-4, -5.95238095238095238e-4, 8.41750841750841751e-4,
                          -1.91752691752691753e-3, 6.41025641025641026e-3, -2.95506535947712418e-2);
}

}  // namespace detail

/// ln |Gamma(x)| of a float, in double precision: the recurrence brings x to 8 or more, the reflection brings
/// negative x there.
OPSIN_FN float lgamma(float value) {
  const double x = value, mirrored = x < 0 ? 1 - x : x;
  const bool small = mirrored < 8;
  const double product = mirrored * (mirrored + 1) * (mirrored + 2) * (mirrored + 3) * (mirrored + 4) *
                         (mirrored + 5) * (mirrored + 6) * (mirrored + 7);
  const double series = detail::stirling(small ? mirrored + 8 : mirrored), shift = small ? product : 1;
  const double sine = std::fabs(math::sin_pi(x));
  const double logarithm = math::log(x < 0 ? 3.1415926535897932 * shift / sine : shift);
  const double result = x < 0 ? logarithm - series : series - logarithm;
  return std::fabs(value) == detail::kInf<float> ? detail::kInf<float> : static_cast<float>(result);
}
OPSIN_FN double lgamma(double x) { return std::lgamma(x); }

/// psi(x) = d/dx ln Gamma(x): recurrence up to 8, then the asymptotic series (Abramowitz and Stegun 6.3.18),
/// and reflection below 0.
OPSIN_FN double digamma(double x) {
  const bool negative = x < 0;
  const double mirrored = negative ? 1 - x : x;
  // sum of 1 / (x + k) as one quotient.
  double numerator = 0, denominator = 1;
  for (int k = 0; k < 8; ++k) {
    const double factor = mirrored + k;
    numerator = numerator * factor + denominator;
    denominator *= factor;
  }
  const bool small = mirrored < 8;
  const double lost = small ? numerator / denominator : 0.0;
  const double up = small ? mirrored + 8 : mirrored, inverse = 1 / up, z = inverse * inverse;
  const double series =
      math::log(up) - 0.5 * inverse -
      z * detail::horner(z, 8.33333333333333333e-2, -8.33333333333333333e-3, 3.96825396825396825e-3,
                         -4.16666666666666667e-3, 7.57575757575757576e-3, -2.10927960927960928e-2,
                         8.33333333333333333e-2, -4.43259803921568627e-1);
  // pi / tan(pi x); the turns first, because tan(pi x) of a large x has no digits left.
  const double turns = detail::half_turns(x);
  const double sine = sin_bounded(3.1415926535897932 * turns),
               cosine = cos_bounded(3.1415926535897932 * turns);
  double result = series - lost - (negative ? 3.1415926535897932 * cosine / sine : 0.0);
  result = negative & ((turns == 0) | (std::fabs(turns) == 1)) ? detail::kNaN<double> : result;
  return x == 0 ? std::copysign(detail::kInf<double>, -x) : result;
}
OPSIN_FN float digamma(float x) { return static_cast<float>(digamma(static_cast<double>(x))); }

/// The derivative of digamma, in the same way.
OPSIN_FN double trigamma(double x) {
  const bool negative = x < 0;
  const double mirrored = negative ? 1 - x : x;
  // sum of 1 / (x + k)^2 as one quotient.
  double numerator = 0, denominator = 1;
  for (int k = 0; k < 8; ++k) {
    const double factor = (mirrored + k) * (mirrored + k);
    numerator = numerator * factor + denominator;
    denominator *= factor;
  }
  const bool small = mirrored < 8;
  const double lost = small ? numerator / denominator : 0.0;
  const double up = small ? mirrored + 8 : mirrored, inverse = 1 / up, z = inverse * inverse;
  const double series =
      inverse + 0.5 * z +
      inverse * z *
          detail::horner(z, 1.66666666666666667e-1, -3.33333333333333333e-2, 2.38095238095238095e-2,
                         -3.33333333333333333e-2, 7.57575757575757576e-2, -2.53113553113553114e-1,
                         1.16666666666666667, -7.09215686274509804, 5.49711779448621554e1);
  const double sine = math::sin_pi(x);
  const double value = series + lost;
  return negative ? 9.8696044010893586 / (sine * sine) - value : value;
}
OPSIN_FN float trigamma(float x) { return static_cast<float>(trigamma(static_cast<double>(x))); }

}  // namespace opsin::math

namespace opsin::special {

/// The n-th derivative of digamma, (-1)^(n+1) n! zeta(n + 1, x), for n >= 2; Hurwitz's zeta by
/// Euler-Maclaurin.
OPSIN_FN double polygamma(double n, double x) {
  const double s = n + 1;
  if (x <= 0 && x == std::floor(x)) {
    return std::fmod(n, 2) == 1 ? math::detail::kInf<double> : math::detail::kNaN<double>;
  }
  if (x == math::detail::kInf<double>) return 0;
  double sum = 0;
  for (; x < 12 + n; x += 1) sum += std::pow(x, -s);
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

template <Floating T>
OPSIN_FN T polygamma(T n, T x) {
  return static_cast<T>(special::polygamma(static_cast<double>(n), static_cast<double>(x)));
}

}  // namespace opsin::math
