// One functor per op of two or three operands: the value. The gradients are in binary_gradients.h.
#pragma once

#include "core/math.h"

namespace opsin::binary {

/// Which dtypes an op computes in: the common one; never an integer (true division); floating point only;
/// integers only, with or without bool; the common one with results of bool.
enum class Kind : uint8_t { kArithmetic, kFloat, kOnlyFloat, kInteger, kBits, kComparison };

#define OPSIN_BINARY(Name, kind, expression)                                 \
  struct Name {                                                              \
    static constexpr Kind kKind = Kind::kind;                                \
    template <class T>                                                       \
    OPSIN_FN static auto value([[maybe_unused]] T a, [[maybe_unused]] T b) { \
      return expression;                                                     \
    }                                                                        \
  };

/// T(x) for bool means "not zero" already; integers wrap without undefined overflow.
template <class T>
OPSIN_FN auto wide(T x) {
  if constexpr (std::is_same_v<T, bool> || std::is_floating_point_v<T>) {
    return x;
  } else {
    return static_cast<std::make_unsigned_t<T>>(x);
  }
}
/// C's truncating quotient; the one that overflows wraps, and b is never 0 (checked before).
template <class T>
OPSIN_FN T divide_truncating(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::trunc(a / b);
  } else if constexpr (std::is_signed_v<T>) {
    return b == T(-1) ? static_cast<T>(0 - wide(a)) : static_cast<T>(a / b);
  } else {
    return static_cast<T>(a / b);
  }
}
template <class T>
OPSIN_FN T modulo_truncating(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmod(a, b);
  } else if constexpr (std::is_signed_v<T>) {
    return b == T(-1) ? T(0) : static_cast<T>(a % b);
  } else {
    return static_cast<T>(a % b);
  }
}
/// The remainder with the sign of b, from the one with the sign of a.
template <class T>
OPSIN_FN T floored_modulo(T m, T b) {
  return (m != T(0)) & ((b < T(0)) != (m < T(0))) ? static_cast<T>(m + b) : m;
}
/// Python's floor division from m = fmod(a, b), so that it agrees with the remainder.
template <class T>
OPSIN_FN T floored_quotient(T a, T b, T m) {
  const T exact = a / b;
  const T quotient = (a - m) / b - ((m != T(0)) & ((b < T(0)) != (m < T(0))) ? T(1) : T(0));
  const T whole = std::floor(quotient);
  const T rounded = quotient - whole > T(0.5) ? whole + T(1) : whole;
  const T signed_zero = std::copysign(T(0), exact);
  return b == T(0) ? exact : quotient == T(0) ? signed_zero : rounded;
}
template <class T>
OPSIN_FN T divide_flooring(T a, T b) {
  const T m = modulo_truncating(a, b);
  if constexpr (std::is_floating_point_v<T>) {
    return floored_quotient(a, b, m);
  } else {
    const T quotient = divide_truncating(a, b);
    return m != T(0) && (b < T(0)) != (m < T(0)) ? static_cast<T>(quotient - 1) : quotient;
  }
}
/// Whether near_modulo() may stand for fmod: its quotient must be exact.
OPSIN_FN bool is_near(float a, float b) {
  return (std::fabs(static_cast<double>(a) / static_cast<double>(b)) < 0x1p29) & (std::fabs(b) < INFINITY);
}
/// fmod by one division in double precision, whose truncation is at most one too large.
OPSIN_FN float near_modulo(float a, float b) {
  const double x = a, y = std::fabs(static_cast<double>(b)), size = std::fabs(x);
  const auto quotient = static_cast<double>(static_cast<int32_t>(size / y));
  const double m = size - quotient * y;
  return static_cast<float>(std::copysign(m < 0 ? m + y : m, x));
}
template <class T>
OPSIN_FN T power(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return math::pow(a, b);
  } else {
    if constexpr (std::is_signed_v<T>) {
      if (b < T(0)) return a == T(1) ? T(1) : a == T(-1) ? (b % 2 ? T(-1) : T(1)) : T(0);
    }
    auto base = static_cast<uint64_t>(a), result = uint64_t{1};
    for (auto n = static_cast<uint64_t>(b); n; n >>= 1) {
      if (n & 1) result *= base;
      base *= base;
    }
    return static_cast<T>(result);
  }
}
template <class T>
OPSIN_FN T greatest_divisor(T a, T b) {
  auto x = static_cast<uint64_t>(math::abs(a)), y = static_cast<uint64_t>(math::abs(b));
  while (y) {
    const uint64_t rest = x % y;
    x = y;
    y = rest;
  }
  return static_cast<T>(x);
}
template <class T>
OPSIN_FN T least_multiple(T a, T b) {
  const T divisor = greatest_divisor(a, b);
  return divisor == T(0) ? T(0) : math::abs(static_cast<T>(wide(static_cast<T>(a / divisor)) * wide(b)));
}
/// Shifts by more than the width are the limit of shifting one by one.
template <class T>
OPSIN_FN T shift_left(T a, T b) {
  constexpr auto kBits = static_cast<T>(sizeof(T) * 8);
  return b < T(0) || b >= kBits ? T(0) : static_cast<T>(static_cast<uint64_t>(a) << static_cast<int>(b));
}
template <class T>
OPSIN_FN T shift_right(T a, T b) {
  constexpr auto kLast = static_cast<T>(sizeof(T) * 8 - 1);
  if constexpr (std::is_unsigned_v<T>) {
    return b > kLast ? T(0) : static_cast<T>(a >> static_cast<int>(b));
  } else {
    return static_cast<T>(a >> static_cast<int>(b < T(0) || b > kLast ? kLast : b));
  }
}
/// ln(e^a + e^b)
template <class T>
OPSIN_FN T log_add_exp(T a, T b) {
  const T high = a > b ? a : b, low = a > b ? b : a;
  // Equal infinities have no difference.
  return a == b && math::abs(a) == std::numeric_limits<T>::infinity()
             ? a
             : high + math::log1p(math::exp(low - high));
}
template <class T>
OPSIN_FN T log_add_exp2(T a, T b) {
  const T high = a > b ? a : b, low = a > b ? b : a;
  return a == b && math::abs(a) == std::numeric_limits<T>::infinity()
             ? a
             : high + math::log1p(math::exp2(low - high)) * T(1.4426950408889634);
}
template <class T>
OPSIN_FN T x_log_y(T a, T b) {
  const T y = a * math::log(b);
  return b != b ? b : a == T(0) ? T(0) : y;
}

template <class T>
OPSIN_FN T angle_of(T a, T b) {
  // Before the question, because a choice between calls would be a branch.
  const T angle = math::atan2(a, b);
  return (a != a) | (b != b) ? a + b : angle;
}
/// sqrt(a^2 + b^2) without overflow between; infinite as soon as one of both is.
template <class T>
OPSIN_FN T length_of(T a, T b) {
  T y;
  if constexpr (std::is_same_v<T, float>) {
    y = static_cast<float>(std::sqrt(static_cast<double>(a) * a + static_cast<double>(b) * b));
  } else {
    const T x = math::abs(a), z = math::abs(b), high = x > z ? x : z, low = x > z ? z : x;
    const T ratio = low / (high == T(0) ? T(1) : high);
    y = (a != a) | (b != b) ? a + b : high * std::sqrt(T(1) + ratio * ratio);
  }
  constexpr T kInf = std::numeric_limits<T>::infinity();
  return (math::abs(a) == kInf) | (math::abs(b) == kInf) ? kInf : y;
}

OPSIN_BINARY(Add, kArithmetic, T(wide(a) + wide(b)))
OPSIN_BINARY(Sub, kArithmetic, T(wide(a) - wide(b)))
struct Mul {
  static constexpr Kind kKind = Kind::kArithmetic;
  template <class T>
  OPSIN_FN static T value(T a, T b) {
    if constexpr (std::is_same_v<T, bool>) {
      return a && b;
    } else if constexpr (std::is_same_v<T, int16_t>) {
      // They would be promoted to int, whose product may overflow.
      return static_cast<T>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
    } else {
      return static_cast<T>(wide(a) * wide(b));
    }
  }
};
OPSIN_BINARY(Div, kFloat, a / b)
OPSIN_BINARY(DivTrunc, kArithmetic, divide_truncating(a, b))
// With `from_modulo`, the value from m = fmod(a, b).
#define OPSIN_DIVISION(Name, expression, from_modulo_expression)                     \
  struct Name {                                                                      \
    static constexpr Kind kKind = Kind::kArithmetic;                                 \
    template <class T>                                                               \
    OPSIN_FN static T value(T a, T b) {                                              \
      return expression;                                                             \
    }                                                                                \
    template <class T>                                                               \
    OPSIN_FN static T from_modulo([[maybe_unused]] T a, [[maybe_unused]] T b, T m) { \
      return from_modulo_expression;                                                 \
    }                                                                                \
  };
OPSIN_DIVISION(DivFloor, divide_flooring(a, b), floored_quotient(a, b, m))
OPSIN_DIVISION(Remainder, floored_modulo(modulo_truncating(a, b), b), floored_modulo(m, b))
OPSIN_DIVISION(Fmod, modulo_truncating(a, b), m)
#undef OPSIN_DIVISION
OPSIN_BINARY(Pow, kArithmetic, power(a, b))
OPSIN_BINARY(Maximum, kArithmetic, a != a ? a : (a < b || b != b) ? b : a)
OPSIN_BINARY(Minimum, kArithmetic, a != a ? a : (b < a || b != b) ? b : a)
OPSIN_BINARY(Fmax, kArithmetic, b != b || a >= b ? a : b)
OPSIN_BINARY(Fmin, kArithmetic, b != b || a <= b ? a : b)
OPSIN_BINARY(ClampMin, kArithmetic, a != a ? a : (a < b || b != b) ? b : a)
OPSIN_BINARY(ClampMax, kArithmetic, a != a ? a : (b < a || b != b) ? b : a)
OPSIN_BINARY(Atan2, kFloat, angle_of(a, b))
OPSIN_BINARY(Copysign, kFloat, math::copysign(a, b))
OPSIN_BINARY(Xlogy, kFloat, x_log_y(a, b))
OPSIN_BINARY(Hypot, kOnlyFloat, length_of(a, b))
OPSIN_BINARY(Logaddexp, kOnlyFloat, log_add_exp(a, b))
OPSIN_BINARY(Logaddexp2, kOnlyFloat, log_add_exp2(a, b))
OPSIN_BINARY(Prelu, kOnlyFloat, a > T(0) ? a : a * b)
OPSIN_BINARY(Gcd, kInteger, greatest_divisor(a, b))
OPSIN_BINARY(Lcm, kInteger, least_multiple(a, b))
OPSIN_BINARY(ShiftLeft, kInteger, shift_left(a, b))
OPSIN_BINARY(ShiftRight, kInteger, shift_right(a, b))
OPSIN_BINARY(BitwiseAnd, kBits, T(a& b))
OPSIN_BINARY(BitwiseOr, kBits, T(a | b))
OPSIN_BINARY(BitwiseXor, kBits, T(a ^ b))
OPSIN_BINARY(Eq, kComparison, a == b)
OPSIN_BINARY(Ne, kComparison, a != b)
OPSIN_BINARY(Lt, kComparison, a < b)
OPSIN_BINARY(Le, kComparison, a <= b)
OPSIN_BINARY(Gt, kComparison, a > b)
OPSIN_BINARY(Ge, kComparison, a >= b)
OPSIN_BINARY(LogicalAnd, kComparison, a != T(0) && b != T(0))
OPSIN_BINARY(LogicalOr, kComparison, a != T(0) || b != T(0))
OPSIN_BINARY(LogicalXor, kComparison, (a != T(0)) != (b != T(0)))
#undef OPSIN_BINARY

/// Whether the op exists between bools.
template <class F>
constexpr bool takes_bool() {
  return F::kKind == Kind::kComparison || F::kKind == Kind::kBits || std::is_same_v<F, Add> ||
         std::is_same_v<F, Mul> || std::is_same_v<F, Maximum> || std::is_same_v<F, Minimum> ||
         std::is_same_v<F, Fmax> || std::is_same_v<F, Fmin>;
}

}  // namespace opsin::binary

namespace opsin::ternary {

/// The number that an op takes besides its operands, in both forms.
struct Value {
  double real;
  int64_t integer;
  template <class T>
  OPSIN_FN T as() const {
    return std::is_integral_v<T> ? static_cast<T>(integer) : static_cast<T>(real);
  }
};

#define OPSIN_TERNARY(Name, integers, expression)                  \
  struct Name {                                                    \
    static constexpr bool kIntegers = integers;                    \
    template <class T>                                             \
    OPSIN_FN static T value(T a, T b, T c, [[maybe_unused]] T v) { \
      return static_cast<T>(expression);                           \
    }                                                              \
  };
// The nearer end is the base, so that weights 0 and 1 give the ends exactly.
OPSIN_TERNARY(Lerp, false, math::abs(c) < T(0.5) ? a + c * (b - a) : b - (b - a) * (T(1) - c))
OPSIN_TERNARY(Addcmul, true, a + v * b * c)
OPSIN_TERNARY(Addcdiv, false, a + v * (b / c))
// The upper bound wins where the bounds cross; NaN anywhere gives NaN.
OPSIN_TERNARY(Clamp, true, binary::Minimum::value(binary::Maximum::value(a, b), c))
#undef OPSIN_TERNARY

}  // namespace opsin::ternary
