// What the functions of math.h are made of: bit patterns, polynomials and the reduction of arguments.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define OPSIN_FN __host__ __device__ __forceinline__
#else
// Always inlined: a shared out-of-line copy would be the same symbol for every instruction set.
#define OPSIN_FN [[gnu::always_inline]] inline
#endif

namespace opsin::math {

template <class T>
concept Real = std::is_arithmetic_v<T>;
template <class T>
concept Floating = std::is_floating_point_v<T>;

namespace detail {

template <class T>
inline constexpr bool is_float = std::is_same_v<T, float>;
template <class T>
using Int = std::conditional_t<is_float<T>, int32_t, int64_t>;
template <class T>
using UInt = std::conditional_t<is_float<T>, uint32_t, uint64_t>;
template <class T>
inline constexpr int kMantissa = is_float<T> ? 23 : 52;
template <class T>
inline constexpr int kBias = is_float<T> ? 127 : 1023;
/// Adding it rounds to the nearest integer, which is then in the low bits.
template <class T>
inline constexpr T kMagic = is_float<T> ? T(0x1.8p23) : T(0x1.8p52);
template <class T>
inline constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
inline constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

template <Floating T>
OPSIN_FN Int<T> to_bits(T x) {
  return __builtin_bit_cast(Int<T>, x);
}
template <Floating T>
OPSIN_FN T from_bits(Int<T> bits) {
  return __builtin_bit_cast(T, bits);
}
/// Bit patterns of special values leave the range of signed integers: these wrap around.
template <class I>
OPSIN_FN I plus(I a, I b) {
  using U = std::make_unsigned_t<I>;
  return static_cast<I>(static_cast<U>(a) + static_cast<U>(b));
}
template <class I>
OPSIN_FN I minus(I a, I b) {
  using U = std::make_unsigned_t<I>;
  return static_cast<I>(static_cast<U>(a) - static_cast<U>(b));
}
/// 2^n for n in the normal range.
template <Floating T>
OPSIN_FN T power_of_two(Int<T> n) {
  return from_bits<T>(plus<Int<T>>(n, kBias<T>) << kMantissa<T>);
}
/// n / 2, rounded down; there is no vector shift that keeps the sign of 64-bit integers below AVX-512.
template <Floating T>
OPSIN_FN Int<T> half_of(Int<T> n) {
  return static_cast<Int<T>>(static_cast<UInt<T>>(plus<Int<T>>(n, 4096)) >> 1) - 2048;
}
/// p * 2^n with one rounding, for n that may leave the normal range.
template <Floating T>
OPSIN_FN T scale(T p, Int<T> n) {
  const Int<T> half = half_of<T>(n);
  return p * power_of_two<T>(half) * power_of_two<T>(minus(n, half));
}

/// a / b for b where 1 / b is a normal number; in float on a GPU without the last rounding (2 ulp), which
/// there costs several times the quotient. 0 for |b| > 2^126.
template <Floating T>
OPSIN_FN T quick_quotient(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (is_float<T>) return __fdividef(a, b);
#endif
  return a / b;
}

template <Floating T>
OPSIN_FN T horner(T, T c) {
  return c;
}
/// c0 + c1 x + c2 x^2 + ...
template <Floating T, class... C>
OPSIN_FN T horner(T x, T c0, C... rest) {
  return c0 + x * horner(x, T(rest)...);
}

/// Keeps NaN.
template <Floating T>
OPSIN_FN T clamp(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

/// x = n ln 2 + r with |r| <= ln 2 / 2.
template <Floating T>
OPSIN_FN void reduce_exp(T x, T& r, Int<T>& n) {
  T k = x * T(1.4426950408889634) + kMagic<T>;
  n = minus(to_bits(k), to_bits(kMagic<T>));
  k -= kMagic<T>;
  if constexpr (is_float<T>) {
    r = (x - k * 0.693115234375f) - k * 3.19461849453e-5f;
  } else {
    r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
  }
}
/// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2.
template <Floating T>
OPSIN_FN T exp_tail(T r) {
  if constexpr (is_float<T>) {
    return horner(r, 0.5f, 0.166665767f, 0.0416665542f, 0.00836323288f, 0.00139262508f);
  } else {
    return horner(r, 0.5, 0.16666666666666671, 0.04166666666666667, 0.0083333333333260831,
                  0.0013888888888883711, 0.00019841269875002279, 2.4801587325677462e-5, 2.7557255170000887e-6,
                  2.755727347871858e-7, 2.5105312729622102e-8, 2.0914755325893202e-9);
  }
}

/// x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), for finite x > 0.
template <Floating T>
OPSIN_FN void split_log(T x, T& f, T& e) {
  constexpr int kLift = is_float<T> ? 24 : 54;
  const bool subnormal = x < std::numeric_limits<T>::min();
  x = subnormal ? x * T(is_float<T> ? 0x1p24 : 0x1p54) : x;
  const Int<T> root_half = is_float<T> ? Int<T>(0x3f3504f3) : Int<T>(0x3fe6a09e667f3bcd);
  constexpr Int<T> kOffset = Int<T>(is_float<T> ? 128 : 1024) << kMantissa<T>;
  const Int<T> n =
      static_cast<Int<T>>(static_cast<UInt<T>>(plus(minus(to_bits(x), root_half), kOffset)) >> kMantissa<T>) -
      (is_float<T> ? 128 : 1024);
  f = from_bits<T>(minus(to_bits(x), n << kMantissa<T>)) - T(1);
  // By the rounding constant, because 64-bit integers convert in vectors with AVX-512 only.
  e = from_bits<T>(plus(n, to_bits(kMagic<T>))) - kMagic<T>;
  e -= subnormal ? T(kLift) : T(0);
}
/// ln(1 + f) - f + f^2 / 2.
template <Floating T>
OPSIN_FN T log_tail(T f) {
  if constexpr (is_float<T>) {
    return f * f * f *
           horner(f, 0.333333312f, -0.24999997f, 0.200007157f, -0.166678023f, 0.142490576f, -0.124256873f,
                  0.116854199f, -0.114797338f, 0.0697161147f);
  } else {
    // s = f / (2 + f): ln(1 + f) = 2 atanh(s) = f - (f^2 / 2 - s (f^2 / 2 + s^2 R(s^2))).
    const T s = f / (2 + f), z = s * s;
    return s * (0.5 * f * f + z * horner(z, 0.66666666666666666, 0.40000000000000883, 0.28571428570799785,
                                         0.22222222392581045, 0.18181795547521136, 0.15386244737621667,
                                         0.13268638369266824, 0.13088034850927554));
  }
}
/// ln(1 + f).
template <Floating T>
OPSIN_FN T log_reduced(T f) {
  return f - (T(0.5) * f * f - log_tail(f));
}
/// What a logarithm is where x is no finite positive number.
template <Floating T>
OPSIN_FN T log_special(T x, T y) {
  y = x < T(0) ? kNaN<T> : y;
  y = x == T(0) ? -kInf<T> : y;
  return x < kInf<T> ? y : x;
}

/// x = q pi / 2 + r with |r| <= pi / 4; for |x| up to kTrigonometricBound.
template <Floating T>
OPSIN_FN void reduce_quarter(T x, T& r, Int<T>& q) {
  T k = x * T(0.63661977236758134) + kMagic<T>;
  q = to_bits(k);
  k -= kMagic<T>;
  if constexpr (is_float<T>) {
    // Products with these 33-bit parts are exact, so nothing is lost where x is close to a multiple.
    const double wide = static_cast<double>(x) - static_cast<double>(k) * 0x1.921fb54400000p+0;
    r = static_cast<float>(wide - static_cast<double>(k) * 0x1.0b4611a626331p-34);
  } else {
    r = ((x - k * 0x1.921fb54400000p+0) - k * 0x1.0b4611a600000p-34) - k * 0x1.3198a2e037073p-69;
  }
}
template <Floating T>
OPSIN_FN T sin_or_cos(T r, Int<T> q) {
  const T z = r * r;
  T s, c;
  if constexpr (is_float<T>) {
    s = r + r * z * horner(z, -0.166666667f, 0.00833333187f, -0.00019840082f, 2.72493141e-6f);
    c = 1 - (0.5f * z - z * z * horner(z, 0.0416666646f, -0.00138883007f, 2.45474372e-5f));
  } else {
    s = r + r * z *
                horner(z, -0.16666666666666667, 0.0083333333333333315, -0.00019841269841265017,
                       2.7557319219301919e-6, -2.5052106219521894e-8, 1.6058529572267876e-10,
                       -7.5865765881710725e-13);
    c = 1 - (0.5 * z - z * z *
                           horner(z, 0.041666666666666667, -0.0013888888888888888, 2.480158730158462e-5,
                                  -2.7557319221382116e-7, 2.0876755783894038e-9, -1.1470459749675606e-11,
                                  4.7458048897606742e-14));
  }
  const T value = (q & 1) != 0 ? c : s;
  return (q & 2) != 0 ? -value : value;
}

/// (atan(t) - t) / t^3 at z = t^2, |t| <= tan(pi / 8).
template <Floating T>
OPSIN_FN T atan_tail(T z) {
  if constexpr (is_float<T>) {
    return horner(z, -0.333333318f, 0.199995401f, -0.142639439f, 0.107436051f, -0.0645150952f);
  } else {
    return horner(z, -0.33333333333333333, 0.19999999999999804, -0.14285714285659728, 0.11111111105145725,
                  -0.090909087530171783, 0.076922963610482178, -0.066664246345993367, 0.058789261105281008,
                  -0.052304330074828921, 0.045514962374949303, -0.034568068014968876, 0.016282993238924487);
  }
}
/// atan(y / x) for y, x >= 0 and not both 0 or both infinite.
template <Floating T>
OPSIN_FN T atan_quotient(T y, T x) {
  const bool steep = y > T(2.414213562373095) * x, middle = y > T(0.41421356237309503) * x;
  const T numerator = steep ? -x : middle ? y - x : y;
  const T denominator = steep ? y : middle ? y + x : x;
  const T t = numerator / denominator, z = t * t;
  const T offset = steep ? T(1.5707963267948966) : middle ? T(0.78539816339744828) : T(0);
  constexpr T kLow =
      is_float<T> ? T(-4.37113883e-8) : T(6.123233995736766e-17);  // pi / 2 less its rounded value
  const T low = steep ? kLow : middle ? kLow / 2 : T(0);
  return offset + (t + (t * z * atan_tail(z) + low));
}
/// (asin(t) - t) / t^3 at z = t^2, |t| <= 1/2.
template <Floating T>
OPSIN_FN T asin_tail(T z) {
  if constexpr (is_float<T>) {
    return horner(z, 0.166666663f, 0.0750009476f, 0.0445993192f, 0.0311017278f, 0.0171437168f, 0.0337007263f);
  } else {
    return horner(z, 0.16666666666666667, 0.074999999999999911, 0.044642857142883563, 0.030381944441346387,
                  0.02237215928067093, 0.017352757444179823, 0.013965010669331847, 0.011549075679439491,
                  0.0097928639883010346, 0.0081350141931936477, 0.0087991404519149829, 0.0003664940923274731,
                  0.0225861124015735, -0.024063914377949608, 0.030744526924322196);
  }
}

/// erf(x) for 0 <= x <= 1, at z = x^2.
OPSIN_FN double erf_near(double x, double z) {
  return x + x * horner(z, 0.12837916709551257, -0.37612638903183748, 0.11283791670954879,
                        -0.026866170645076793, 0.0052239776248180145, -0.00085483269808337899,
                        0.00012055331111642711, -1.4925595266831182e-5, 1.6461000484121368e-6,
                        -1.6350312701054695e-7, 1.4659775274047436e-8, -1.1372848856791674e-9,
                        5.9571761477489114e-11);
}

}  // namespace detail

}  // namespace opsin::math
