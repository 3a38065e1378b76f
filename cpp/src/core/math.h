// Scalar mathematics of the kernels, written without branches so that compilers vectorise loops over it; CUDA
// uses the same source. Every functor of the table families is a template over T = float, double, an integer
// type, or Var (a tensor, for gradients that are differentiated again); the overloads for Var are in
// autograd/var.h.
//
// Methods: argument reduction after W. J. Cody and W. Waite, "Software Manual for the Elementary Functions"
// (1980), and P. T. P. Tang's table-free variants; polynomials are Chebyshev interpolants of the reduced
// functions, fitted in 50 decimal digits. Infinities, NaN, signed zeros and subnormals come out as C's
// <cmath> gives them. Largest error found by cpp/tests/math_test.cpp, in units of the last place (float /
// double):
//   exp 1.1 / 1.0   exp2 1.1 / 1.1   expm1 1.7 / 2.0   log 0.9 / 0.9   log2 1.9 / 2.0   log10 2.0 / 1.9 log1p
//   0.9 / 0.9 sin, cos 1.5 / 2.2   tanh 2.4 / 2.4   sigmoid 2.3 / 2.3   erf 1.3 / 1.4   atan 1.9 / 1.7
//   asin 2.4 / 2.2 acos 1.3 / 1.2   atan2 2.0 / 2.0   pow 0.6 (float; double is <cmath>'s)
#pragma once

#include <cmath>
#include <type_traits>

#include "core/math_parts.h"

namespace opsin::math {

template <Real T>
OPSIN_FN T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}
template <Real T>
OPSIN_FN T abs(T x) {
  if constexpr (Floating<T>) {
    return std::fabs(x);
  } else if constexpr (std::is_unsigned_v<T>) {
    return x;
  } else {
    return x < T(0) ? T(-x) : x;
  }
}
template <Floating T>
OPSIN_FN T copysign(T x, T sign) {
  return std::copysign(x, sign);
}
template <Floating T>
OPSIN_FN T sqrt(T x) {
  return std::sqrt(x);
}
/// 1 / sqrt(x)
template <Floating T>
OPSIN_FN T rsqrt(T x) {
  return T(1) / std::sqrt(x);
}

template <Floating T>
OPSIN_FN T exp(T x) {
#if defined(__CUDA_ARCH__)
  // The GPU has an instruction for powers of two, so its own takes half as many instructions.
  if constexpr (detail::is_float<T>) return ::expf(x);
#endif
  x = detail::is_float<T> ? detail::clamp(x, T(-106), T(89)) : detail::clamp(x, T(-747), T(710));
  T r;
  detail::Int<T> n;
  detail::reduce_exp(x, r, n);
  return detail::scale<T>(T(1) + (r + r * r * detail::exp_tail(r)), n);
}
/// exp(x) for |x| <= 87 (float) or 708 (double): nothing to bound, one factor.
template <Floating T>
OPSIN_FN T exp_bounded(T x) {
  T r;
  detail::Int<T> n;
  detail::reduce_exp(x, r, n);
  return (T(1) + (r + r * r * detail::exp_tail(r))) * detail::power_of_two<T>(n);
}
template <Floating T>
OPSIN_FN T exp2(T x) {
  x = detail::is_float<T> ? detail::clamp(x, T(-152), T(129)) : detail::clamp(x, T(-1078), T(1025));
  const T k = x + detail::kMagic<T>;
  const detail::Int<T> n = detail::minus(detail::to_bits(k), detail::to_bits(detail::kMagic<T>));
  const T r = (x - (k - detail::kMagic<T>)) * T(0.69314718055994531);
  return detail::scale<T>(T(1) + (r + r * r * detail::exp_tail(r)), n);
}
/// e^x - 1
template <Floating T>
OPSIN_FN T expm1(T x) {
  using namespace detail;
  const T bounded = is_float<T> ? detail::clamp(x, T(-40), T(89)) : detail::clamp(x, T(-80), T(710));
  T r;
  Int<T> n;
  reduce_exp(bounded, r, n);
  // 2^n (e^r - 1) + 2^n - 1, factored so that 2^n may overflow last.
  const Int<T> half = half_of<T>(n);
  const T inverse = power_of_two<T>(-half) * power_of_two<T>(half - n);
  const T y = ((r + r * r * exp_tail(r)) + (T(1) - inverse)) * power_of_two<T>(half) *
              power_of_two<T>(minus(n, half));
  return x == T(0) ? x : y;
}
template <Floating T>
OPSIN_FN T log(T x) {
  using namespace detail;
  T f, e;
  split_log(x, f, e);
  constexpr T kHigh = is_float<T> ? T(0.693115234375) : T(0x1.62e42fee00000p-1);
  constexpr T kLow = is_float<T> ? T(3.19461849453e-5) : T(0x1.a39ef35793c76p-33);
  return log_special(x, e * kHigh + (f - (T(0.5) * f * f - (log_tail(f) + e * kLow))));
}
template <Floating T>
OPSIN_FN T log2(T x) {
  T f, e;
  detail::split_log(x, f, e);
  const T y = detail::log_reduced(f);
  return detail::log_special(x, e + (y + y * T(0.44269504088896341)));
}
template <Floating T>
OPSIN_FN T log10(T x) {
  using namespace detail;
  T f, e;
  split_log(x, f, e);
  constexpr T kHigh = is_float<T> ? T(0.301025390625) : T(0x1.3441350800000p-2);
  constexpr T kLow = is_float<T> ? T(4.6050389812e-6) : T(0x1.f79fef311f12bp-34);
  return log_special(x, e * kHigh + (e * kLow + log_reduced(f) * T(0.43429448190325183)));
}
/// ln(1 + x)
template <Floating T>
OPSIN_FN T log1p(T x) {
  using namespace detail;
  const T u = T(1) + x;
  T f, e;
  split_log(u, f, e);
  // What the rounding of 1 + x lost.
  const T correction = (x - (u - T(1))) / u;
  constexpr T kHigh = is_float<T> ? T(0.693115234375) : T(0x1.62e42fee00000p-1);
  constexpr T kLow = is_float<T> ? T(3.19461849453e-5) : T(0x1.a39ef35793c76p-33);
  const T y = e * kHigh + (f - (T(0.5) * f * f - (log_tail(f) + (e * kLow + correction))));
  return x == T(0) ? x : log_special(u, y);
}

/// Up to here sin_bounded() and cos_bounded() are right; their callers take std::sin and std::cos beyond.
template <Floating T>
inline constexpr T kTrigonometricBound = detail::is_float<T> ? T(8192) : T(1e6);

template <Floating T>
OPSIN_FN T sin_bounded(T x) {
  T r;
  detail::Int<T> q;
  detail::reduce_quarter(x, r, q);
  const T y = detail::sin_or_cos(r, q);
  return x == T(0) ? x : y;
}
template <Floating T>
OPSIN_FN T cos_bounded(T x) {
  T r;
  detail::Int<T> q;
  detail::reduce_quarter(x, r, q);
  return detail::sin_or_cos(r, q + 1);
}
template <Floating T>
OPSIN_FN T tan_bounded(T x) {
  T r;
  detail::Int<T> q;
  detail::reduce_quarter(x, r, q);
  const T y = detail::sin_or_cos(r, q) / detail::sin_or_cos(r, q + 1);
  return x == T(0) ? x : y;
}
template <Floating T>
OPSIN_FN T sin(T x) {
  return std::fabs(x) <= kTrigonometricBound<T> ? sin_bounded(x) : std::sin(x);
}
template <Floating T>
OPSIN_FN T cos(T x) {
  return std::fabs(x) <= kTrigonometricBound<T> ? cos_bounded(x) : std::cos(x);
}

template <Floating T>
OPSIN_FN T tanh(T x) {
  // Beyond, 1 to the last bit.
  const T twice = detail::clamp(T(2) * std::fabs(x), T(0), T(44));
  const T t = expm1(twice);
  return std::copysign(detail::quick_quotient(t, t + T(2)), x);
}
/// 1 / (1 + e^-x)
template <Floating T>
OPSIN_FN T sigmoid(T x) {
  return detail::quick_quotient(T(1), T(1) + exp(-x));
}
template <Floating T>
OPSIN_FN T erf(T x) {
  using namespace detail;
  const T size = std::fabs(x);
  const T near = size > T(1) ? T(1) : size, z = near * near;
  if constexpr (is_float<T>) {
    const T small = size + size * horner(z, 0.128379166f, -0.376126267f, 0.112835947f, -0.026854212f,
                                         0.00518908742f, -0.000801686429f, 7.87587506e-5f);
    const T far = detail::clamp(size, T(1), T(4));
    const T large =
        1 - exp(horner(far, 0.000416329218f, -1.13067514f, -0.63095303f, -0.111055017f, 0.0270995233f,
                       -0.00506494692f, 0.000685836683f, -6.22983533e-5f, 3.32168459e-6f, -7.58268197e-8f));
    return std::copysign(size < T(1) ? small : large, x);
  } else {
    const T small = erf_near(size, z);
    const T far = detail::clamp(size, T(1), T(6)), t = (far - 3) / (far + 3);
    // erfc(x) e^(x^2) is smooth in t.
    const T tail =
        horner(t, 0.17900115118138995, -0.32623356004303723, 0.24560380171233091, -0.15011593650077581,
               0.071665837197973308, -0.024392499318790735, 0.0042691363330778686, 0.00070774644356119724,
               -0.0005970619531815352, 4.525520140579536e-5, 6.4056577940516657e-5, -1.2859347351455289e-5,
               -7.9776965796440729e-6, 2.1124428949403866e-6, 1.2459620847174092e-6, -2.6915157592850125e-7,
               -2.0355575642200859e-7);
    return std::copysign(size < T(1) ? small : 1 - tail * exp(-far * far), x);
  }
}

template <Floating T>
OPSIN_FN T atan(T x) {
  const T size = std::fabs(x);
  // Infinity over 1 leaves only -1 / infinity.
  return std::copysign(detail::atan_quotient(size, T(1)), x);
}
template <Floating T>
OPSIN_FN T atan2(T y, T x) {
  T up = std::fabs(y), right = std::fabs(x);
  // Infinities against finite values as 1 against 0, and both 0 as the angle 0; only the signs count there.
  const bool up_infinite = up == detail::kInf<T>, right_infinite = right == detail::kInf<T>;
  up = right_infinite ? T(0) : up;
  right = up_infinite ? T(0) : right;
  up = up_infinite ? T(1) : up;
  // One condition at a time: GCC makes no vectors of several in one question.
  right = right_infinite ? T(1) : right;
  right = up + right == T(0) ? T(1) : right;
  // Room for the sum and the multiple that the reduction takes.
  constexpr T kLarge = std::numeric_limits<T>::max() / 8;
  const T shrink = (up > right ? up : right) > kLarge ? T(0.125) : T(1);
  up *= shrink;
  right *= shrink;
  const T angle = detail::atan_quotient(up, right);
  const T left = T(3.1415926535897932) - angle;
  return std::copysign(detail::to_bits(x) < 0 ? left : angle, y);
}
template <Floating T>
OPSIN_FN T asin(T x) {
  const T size = std::fabs(x);
  const bool outer = size > T(0.5);
  const T z = outer ? (T(1) - size) * T(0.5) : x * x;
  const T t = outer ? std::sqrt(z) : size;
  const T inner = t + t * z * detail::asin_tail(z);
  return std::copysign(outer ? T(1.5707963267948966) - T(2) * inner : inner, x);
}
template <Floating T>
OPSIN_FN T acos(T x) {
  const T size = std::fabs(x);
  const bool outer = size > T(0.5);
  const T z = outer ? (T(1) - size) * T(0.5) : x * x;
  const T t = outer ? std::sqrt(z) : x;
  const T inner = t + t * z * detail::asin_tail(z);
  const T far = x < T(0) ? T(3.1415926535897932) - T(2) * inner : T(2) * inner;
  return outer ? far : T(1.5707963267948966) - inner;
}

/// x^y with all special cases of C's pow().
OPSIN_FN float pow(float x, float y) {
  using namespace detail;
  const float size = std::fabs(x);
  float f, e;
  split_log(size, f, e);
  // log2 and exp2 in double precision, to about 2^-40: what y multiplies must stay below half a unit of a
  // float.
  const double m = f, s = m / (m + 2), z = s * s;
  const double log2_size = e + s * horner(z, 2.8853900817778502, 0.96179669411321272, 0.57707794235945908,
                                          0.41220925678615497, 0.31990537392276171, 0.28290661659068111);
  const double log2_special = size == 0.0f ? -kInf<double> : size < kInf<float> ? log2_size : double(size);
  const double exponent = detail::clamp(y * log2_special, -160.0, 160.0);
  const double rounded = exponent + kMagic<double>;
  const double k = rounded - kMagic<double>, r = exponent - k;
  const double p =
      horner(r, 0.99999999995890975, 0.69314718055678223, 0.24022651219745797, 0.055504109068067352,
             0.0096180247818729238, 0.0013333477833756699, 0.00015469994762702359, 1.5303905090584551e-5);
  // 2^k by double's exponent, which holds all of it; one rounding to float, right for subnormals too.
  const double power = p * power_of_two<double>(minus(to_bits(rounded), to_bits(kMagic<double>)));
  float result = static_cast<float>(power);
  // Bitwise logic on purpose: a short circuit is a branch, and so is a choice between x and a constant.
  const bool y_infinite = std::fabs(y) == kInf<float>;
  result = (size == 1.0f) & y_infinite ? 1.0f : result;
  const float whole = detail::clamp(y, -0x1p24f, 0x1p24f);
  const auto n = static_cast<int32_t>(whole == whole ? whole : 0.0f);
  const bool is_whole = static_cast<float>(n) == whole;
  const int32_t odd = is_whole ? n & 1 : 0;
  result = from_bits<float>(to_bits(result) |
                            (to_bits(x) & static_cast<int32_t>(static_cast<uint32_t>(odd) << 31)));
  const bool undefined = (x < 0.0f) & !is_whole & (size < kInf<float>)&!y_infinite;
  result = undefined ? kNaN<float> : result;
  return (x == 1.0f) | (y == 0.0f) ? 1.0f : result;
}
OPSIN_FN double pow(double x, double y) { return std::pow(x, y); }

}  // namespace opsin::math
