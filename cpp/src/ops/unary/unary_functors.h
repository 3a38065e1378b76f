// One functor per unary op: its value, and its derivative dy/dx as a function of x and y. `kInput` and
// `kOutput` say which of the two the derivative reads, so that only that one is saved. `p` holds the numeric
// parameters.
#pragma once

#include "special.h"

#include "core/math.h"

namespace opsin::unary {

/// What an op does with integers: computes in the default float dtype, keeps them, or answers with a bool (of
/// the value in the default float dtype), or refuses them.
enum class Kind : uint8_t { kFloat, kSame, kBoolean, kOnlyFloat };

template <class T>
struct Args {
  T a, b, c;
};

inline constexpr unsigned kNone = 0, kX = 1, kY = 2;

#define OPSIN_UNARY(Name, kind, reads, expression, derivative_expression)                              \
  struct Name {                                                                                        \
    static constexpr Kind kKind = Kind::kind;                                                          \
    static constexpr bool kInput = ((reads) & kX) != 0, kOutput = ((reads) & kY) != 0, kSmooth = true; \
    template <class T>                                                                                 \
    OPSIN_FN static T value(T x, [[maybe_unused]] const Args<T>& p) {                                  \
      return expression;                                                                               \
    }                                                                                                  \
    template <class T>                                                                                 \
    OPSIN_FN static T derivative([[maybe_unused]] const T& x, [[maybe_unused]] const T& y,             \
                                 [[maybe_unused]] const Args<T>& p) {                                  \
      return derivative_expression;                                                                    \
    }                                                                                                  \
  };
// Without a derivative: questions and bits.
#define OPSIN_QUESTION(Name, kind, expression)                              \
  struct Name {                                                             \
    static constexpr Kind kKind = Kind::kind;                               \
    static constexpr bool kInput = false, kOutput = false, kSmooth = false; \
    template <class T>                                                      \
    OPSIN_FN static auto value(T x, const Args<T>&) {                       \
      return expression;                                                    \
    }                                                                       \
  };

template <class T>
OPSIN_FN T sign_of(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
  } else if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<T>((x > T(0)) - (x < T(0)));
  } else {
    return math::select(x > T(0.0), T(1.0), math::select(x < T(0.0), T(-1.0), T(0.0)));
  }
}
/// Rounds with `function` unless T is an integer.
#define OPSIN_ROUND(name, function)              \
  template <class T>                             \
  OPSIN_FN T name(T x) {                         \
    if constexpr (std::is_floating_point_v<T>) { \
      return function(x);                        \
    } else {                                     \
      return x;                                  \
    }                                            \
  }
OPSIN_ROUND(floor_of, std::floor)
OPSIN_ROUND(ceil_of, std::ceil)
OPSIN_ROUND(trunc_of, std::trunc)
OPSIN_ROUND(nearest_of, std::nearbyint)
#undef OPSIN_ROUND

template <class T>
OPSIN_FN T relu6_of(T x) {
  return x < T(0) ? T(0) : x > T(6) ? T(6) : x;
}
/// s is sigmoid(x): d(x s) = s + x s (1 - s).
template <class T>
OPSIN_FN T silu_derivative(const T& x, const T& s) {
  return s * (T(1.0) + x * (T(1.0) - s));
}
/// Phi(x) and e^(-x^2 / 2) in float. By the tail Q = Phi(-|x|) = e^(-x^2 / 2) g(|x|) with g smooth in
/// (|x| - 3) / (|x| + 3), which needs one polynomial where erf needs two and keeps the digits of the negative
/// tail. Both are 0 from 13 on, where the smallest normal number is near.
struct Normal {
  float below, density;
};
OPSIN_FN Normal normal_of(float x) {
  const float size = std::fabs(x), bounded = size < 13.0f ? size : 13.0f,
              t = math::detail::quick_quotient(bounded - 3, bounded + 3);
  const float g = math::detail::horner(t, 0.121513948f, -0.206402622f, 0.123225022f, -0.0462132475f,
                                       0.00613219251f, 0.00290442839f, -0.000984276383f, -0.000339556464f,
                                       0.000116207929f, 5.40938601e-5f);
  const float density = size > 13.0f ? 0.0f : math::exp_bounded(-0.5f * bounded * bounded);
  const float tail = g * density;
  return {x > 0.0f ? 1.0f - tail : tail, density};
}
/// x Phi(x).
template <class T>
OPSIN_FN T gelu_of(T x) {
  if constexpr (std::is_same_v<T, float>) {
    return x * normal_of(x).below;
  } else {
    return T(0.5) * x * (T(1) + math::erf(x * T(0.70710678118654752)));
  }
}
/// Phi(x) + x Phi'(x).
template <class T>
OPSIN_FN T gelu_derivative(const T& x) {
  if constexpr (std::is_same_v<T, float>) {
    const Normal normal = normal_of(x);
    return normal.below + x * (0.3989422804014327f * normal.density);
  } else {
    return T(0.5) * (T(1.0) + math::erf(x * T(0.70710678118654752))) +
           x * (T(0.3989422804014327) * math::exp(T(-0.5) * (x * x)));
  }
}
/// s is sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), because (1 + tanh u) / 2 = sigmoid(2 u).
template <class T>
OPSIN_FN T gelu_tanh_derivative(const T& x, const T& s) {
  return s + x * (s * (T(1.0) - s)) * (T(1.5957691216057308) + T(0.21406444881780073) * (x * x));
}
/// ln(1 + e^x) without overflow.
template <class T>
OPSIN_FN T softplus_of(const T& x) {
  return math::select(x > T(20.0), x, math::log1p(math::exp(x)));
}
/// t is tanh(softplus(x)), s is sigmoid(x).
template <class T>
OPSIN_FN T mish_derivative(const T& x, const T& t, const T& s) {
  return t + x * (s * (T(1.0) - t * t));
}

template <class T>
OPSIN_FN T cos_pi_of(const T& x) {
  if constexpr (std::is_floating_point_v<T>) {
    return math::cos_pi(x);
  } else {
    return math::cos(T(3.1415926535897932) * x);
  }
}

OPSIN_UNARY(Abs, kSame, kX, math::abs(x), sign_of(x))
OPSIN_UNARY(Neg, kSame, kNone, T(-x), T(-1.0))
OPSIN_UNARY(Sign, kSame, kNone, sign_of(x), T(0.0))
OPSIN_UNARY(Floor, kSame, kNone, floor_of(x), T(0.0))
OPSIN_UNARY(Ceil, kSame, kNone, ceil_of(x), T(0.0))
OPSIN_UNARY(Trunc, kSame, kNone, trunc_of(x), T(0.0))
OPSIN_UNARY(Round, kSame, kNone, nearest_of(x), T(0.0))
// a = 10^|decimals|, b > 0 for decimals > 0.
OPSIN_UNARY(RoundTo, kFloat, kNone, p.b > T(0) ? nearest_of(x * p.a) / p.a : nearest_of(x / p.a) * p.a,
            T(0.0))
OPSIN_UNARY(Frac, kSame, kNone, T(x - trunc_of(x)), T(1.0))
OPSIN_UNARY(Square, kSame, kX, T(x* x), T(2.0) * x)
OPSIN_UNARY(Cube, kSame, kX, T(x* x* x), T(3.0) * (x * x))
OPSIN_UNARY(Sqrt, kFloat, kY, math::sqrt(x), T(0.5) / y)
OPSIN_UNARY(Rsqrt, kFloat, kY, T(1) / math::sqrt(x), T(-0.5) * (y * (y * y)))
OPSIN_UNARY(Reciprocal, kFloat, kY, T(1) / x, -(y* y))
OPSIN_UNARY(Exp, kFloat, kY, math::exp(x), y)
OPSIN_UNARY(Exp2, kFloat, kY, math::exp2(x), y* T(0.69314718055994531))
OPSIN_UNARY(Expm1, kFloat, kY, math::expm1(x), y + T(1.0))
OPSIN_UNARY(Log, kFloat, kX, math::log(x), T(1.0) / x)
OPSIN_UNARY(Log2, kFloat, kX, math::log2(x), T(1.4426950408889634) / x)
OPSIN_UNARY(Log10, kFloat, kX, math::log10(x), T(0.43429448190325183) / x)
OPSIN_UNARY(Log1p, kFloat, kX, math::log1p(x), T(1.0) / (x + T(1.0)))
OPSIN_UNARY(Asin, kFloat, kX, math::asin(x), T(1.0) / math::sqrt(T(1.0) - x * x))
OPSIN_UNARY(Acos, kFloat, kX, math::acos(x), T(-1.0) / math::sqrt(T(1.0) - x * x))
OPSIN_UNARY(Atan, kFloat, kX, math::atan(x), T(1.0) / (T(1.0) + x * x))
OPSIN_UNARY(Sinh, kFloat, kX, math::sinh(x), math::cosh(x))
OPSIN_UNARY(Cosh, kFloat, kX, math::cosh(x), math::sinh(x))
OPSIN_UNARY(Tanh, kFloat, kY, math::tanh(x), T(1.0) - y * y)
OPSIN_UNARY(Asinh, kFloat, kX, math::asinh(x), T(1.0) / math::sqrt(x * x + T(1.0)))
OPSIN_UNARY(Acosh, kFloat, kX, math::acosh(x), T(1.0) / math::sqrt(x * x - T(1.0)))
OPSIN_UNARY(Atanh, kFloat, kX, math::atanh(x), T(1.0) / (T(1.0) - x * x))
OPSIN_UNARY(Sigmoid, kFloat, kY, math::sigmoid(x), y*(T(1.0) - y))
OPSIN_UNARY(Erf, kFloat, kX, math::erf(x), T(1.1283791670955126) * math::exp(-(x * x)))
OPSIN_UNARY(Erfc, kFloat, kX, math::erfc(x), T(-1.1283791670955126) * math::exp(-(x * x)))
OPSIN_UNARY(Erfinv, kFloat, kY, math::erfinv(x), T(0.88622692545275801) * math::exp(y * y))
OPSIN_UNARY(Lgamma, kFloat, kX, math::lgamma(x), math::digamma(x))
OPSIN_UNARY(Deg2rad, kFloat, kNone, x* T(0.017453292519943295), T(0.017453292519943295))
OPSIN_UNARY(Rad2deg, kFloat, kNone, x* T(57.295779513082323), T(57.295779513082323))
// relu(NaN) = NaN.
OPSIN_UNARY(Relu, kSame, kY, x < T(0) ? T(0) : x, math::select(y > T(0.0), T(1.0), T(0.0)))
// Bounds a and b.
OPSIN_UNARY(Clamp, kFloat, kX,
            (x < p.a ? p.a : x) > p.b ? p.b
            : x < p.a                 ? p.a
                                      : x,
            math::select(x >= p.a && x <= p.b, T(1.0), T(0.0)))
// The values for NaN, inf and -inf.
OPSIN_UNARY(NanToNum, kSame, kX,
            x != x                        ? p.a
            : x == math::detail::kInf<T>  ? p.b
            : x == -math::detail::kInf<T> ? p.c
                                          : x,
            math::select(x - x == T(0.0), T(1.0), T(0.0)))
// The argument is kept in [a, b]; c is the derivative outside.
OPSIN_UNARY(Logit, kFloat, kX,
            math::log((x < p.a   ? p.a
                       : x > p.b ? p.b
                                 : x) /
                      (T(1) - (x < p.a   ? p.a
                               : x > p.b ? p.b
                                         : x))),
            math::select(x >= p.a && x <= p.b, T(1.0) / (x * (T(1.0) - x)), p.c))
// sin(pi x) / (pi x)
OPSIN_UNARY(Sinc, kFloat, kX | kY, x == T(0) ? T(1) : math::sin_pi(x) / (T(3.1415926535897932) * x),
            math::select(x == T(0.0), T(0.0), (cos_pi_of(x) - y) / x))

/// Sine and cosine: `bounded` is the vector form, right up to math::kTrigonometricBound.
struct Sin {
  static constexpr Kind kKind = Kind::kFloat;
  static constexpr bool kInput = true, kOutput = false, kSmooth = true;
  template <class T>
  OPSIN_FN static T value(T x, const Args<T>&) {
    return std::sin(x);
  }
  template <class T>
  OPSIN_FN static T bounded(T x) {
    return math::sin_bounded(x);
  }
  template <class T>
  OPSIN_FN static T derivative(const T& x, const T&, const Args<T>&) {
    return math::cos(x);
  }
  template <class T>
  OPSIN_FN static T bounded_derivative(T x) {
    return math::cos_bounded(x);
  }
};
struct Cos {
  static constexpr Kind kKind = Kind::kFloat;
  static constexpr bool kInput = true, kOutput = false, kSmooth = true;
  template <class T>
  OPSIN_FN static T value(T x, const Args<T>&) {
    return std::cos(x);
  }
  template <class T>
  OPSIN_FN static T bounded(T x) {
    return math::cos_bounded(x);
  }
  template <class T>
  OPSIN_FN static T derivative(const T& x, const T&, const Args<T>&) {
    return -math::sin(x);
  }
  template <class T>
  OPSIN_FN static T bounded_derivative(T x) {
    return -math::sin_bounded(x);
  }
};

struct Tan {
  static constexpr Kind kKind = Kind::kFloat;
  static constexpr bool kInput = false, kOutput = true, kSmooth = true;
  template <class T>
  OPSIN_FN static T value(T x, const Args<T>&) {
    return std::tan(x);
  }
  template <class T>
  OPSIN_FN static T bounded(T x) {
    return math::tan_bounded(x);
  }
  template <class T>
  OPSIN_FN static T derivative(const T&, const T& y, const Args<T>&) {
    return T(1.0) + y * y;
  }
};

template <class T>
OPSIN_FN T trigamma_of(const T& x) {
  if constexpr (std::is_floating_point_v<T>) {
    return math::trigamma(x);
  } else {
    return math::polygamma(T(1.0), x);
  }
}
OPSIN_UNARY(Digamma, kFloat, kX, math::digamma(x), trigamma_of(x))
OPSIN_UNARY(Trigamma, kFloat, kX, math::trigamma(x), math::polygamma(T(2.0), x))
/// The derivative of order a >= 2 of digamma.
struct Polygamma {
  static constexpr Kind kKind = Kind::kFloat;
  static constexpr bool kInput = true, kOutput = false, kSmooth = true;
  template <class T>
  OPSIN_FN static T value(T x, const Args<T>& p) {
    return static_cast<T>(special::polygamma(static_cast<double>(p.a), static_cast<double>(x)));
  }
  template <class T>
  OPSIN_FN static T derivative(const T& x, const T&, const Args<T>& p) {
    return math::polygamma(p.a + T(1.0), x);
  }
};

OPSIN_QUESTION(Isnan, kBoolean, x != x)
OPSIN_QUESTION(Isinf, kBoolean, math::abs(x) == std::numeric_limits<T>::infinity())
OPSIN_QUESTION(Isfinite, kBoolean, math::abs(x) < std::numeric_limits<T>::infinity())
OPSIN_QUESTION(Isposinf, kBoolean, x == std::numeric_limits<T>::infinity())
OPSIN_QUESTION(Isneginf, kBoolean, x == -std::numeric_limits<T>::infinity())
OPSIN_QUESTION(Signbit, kBoolean, std::signbit(x))
OPSIN_QUESTION(LogicalNot, kBoolean, x == T(0))

// --- activations ---

OPSIN_UNARY(LeakyRelu, kOnlyFloat, kX, x > T(0) ? x : x * p.a, math::select(x > T(0.0), T(1.0), p.a))
// b x above 0, a (e^(c x) - 1) below.
OPSIN_UNARY(Elu, kOnlyFloat, kX, x > T(0) ? x * p.b : math::expm1(x * p.c) * p.a,
            math::select(x > T(0.0), p.b, p.a* p.c* math::exp(x* p.c)))
// x Phi(x), and its tanh form: Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016).
OPSIN_UNARY(Gelu, kOnlyFloat, kX, gelu_of(x), gelu_derivative(x))
OPSIN_UNARY(GeluTanh, kOnlyFloat, kX,
            x* math::sigmoid(T(1.5957691216057308) * (x + T(0.044715) * (x * x * x))),
            gelu_tanh_derivative(x, math::sigmoid(T(1.5957691216057308) * (x + T(0.044715) * (x * x * x)))))
OPSIN_UNARY(Silu, kOnlyFloat, kX, x* math::sigmoid(x), silu_derivative(x, math::sigmoid(x)))
// x tanh(ln(1 + e^x)): Misra (2019).
OPSIN_UNARY(Mish, kOnlyFloat, kX, x* math::tanh(math::log1p(math::exp(x))),
            mish_derivative(x, math::tanh(softplus_of(x)), math::sigmoid(x)))
// ln(1 + e^(a x)) / a; x itself where a x > b.
OPSIN_UNARY(Softplus, kOnlyFloat, kX, x* p.a > p.b ? x : math::log1p(math::exp(x * p.a)) / p.a,
            math::select(x* p.a > p.b, T(1.0), math::sigmoid(x* p.a)))
OPSIN_UNARY(Softsign, kOnlyFloat, kX, x / (T(1) + math::abs(x)),
            T(1.0) / ((T(1.0) + math::abs(x)) * (T(1.0) + math::abs(x))))
OPSIN_UNARY(Softshrink, kOnlyFloat, kX,
            x > p.a    ? x - p.a
            : x < -p.a ? x + p.a
                       : x * T(0),
            math::select(x >= -p.a && x <= p.a, T(0.0), T(1.0)))
OPSIN_UNARY(Hardshrink, kOnlyFloat, kX, x >= -p.a && x <= p.a ? T(0) : x,
            math::select(x >= -p.a && x <= p.a, T(0.0), T(1.0)))
OPSIN_UNARY(Hardtanh, kOnlyFloat, kX,
            (x < p.a ? p.a : x) > p.b ? p.b
            : x < p.a                 ? p.a
                                      : x,
            math::select(x > p.a && x < p.b, T(1.0), T(0.0)))
OPSIN_UNARY(Relu6, kOnlyFloat, kY, relu6_of(x), math::select(y > T(0.0) && y < T(6.0), T(1.0), T(0.0)))
OPSIN_UNARY(Hardsigmoid, kOnlyFloat, kX, relu6_of(x + T(3)) / T(6),
            math::select(x > T(-3.0) && x < T(3.0), T(0.16666666666666667), T(0.0)))
OPSIN_UNARY(Hardswish, kOnlyFloat, kX, x* relu6_of(x + T(3)) / T(6),
            math::select(x <= T(-3.0), T(0.0), math::select(x < T(3.0), x / T(3.0) + T(0.5), T(1.0))))
OPSIN_UNARY(Logsigmoid, kOnlyFloat, kX, (x > T(0) ? T(0) : x) - math::log1p(math::exp(-math::abs(x))),
            math::sigmoid(-x))
OPSIN_UNARY(Tanhshrink, kOnlyFloat, kX, x - math::tanh(x), math::tanh(x) * math::tanh(x))
// x above a, else b.
OPSIN_UNARY(Threshold, kOnlyFloat, kX, x <= p.a ? p.b : x, math::select(x <= p.a, T(0.0), T(1.0)))

#undef OPSIN_UNARY
#undef OPSIN_QUESTION

}  // namespace opsin::unary
