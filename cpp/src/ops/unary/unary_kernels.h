// The unary ops as a table, and the contract with their kernels.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin {

// X(Functor, function, documentation). Ops without numeric parameters; they exist as function, method and in
// place.
#define OPSIN_UNARY_OPS(X)                                                                  \
  X(Abs, abs, "The absolute value, |x|.")                                                   \
  X(Acos, acos, "The inverse cosine, in [0, pi].")                                          \
  X(Acosh, acosh, "The inverse hyperbolic cosine.")                                         \
  X(Asin, asin, "The inverse sine, in [-pi/2, pi/2].")                                      \
  X(Asinh, asinh, "The inverse hyperbolic sine.")                                           \
  X(Atan, atan, "The inverse tangent, in [-pi/2, pi/2].")                                   \
  X(Atanh, atanh, "The inverse hyperbolic tangent.")                                        \
  X(Ceil, ceil, "The smallest integer that is not less.")                                   \
  X(Cos, cos, "The cosine of an angle in radians.")                                         \
  X(Cosh, cosh, "The hyperbolic cosine.")                                                   \
  X(Deg2rad, deg2rad, "Degrees to radians.")                                                \
  X(Erf, erf, "The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x.") \
  X(Erfc, erfc, "The complementary error function, 1 - erf(x).")                            \
  X(Erfinv, erfinv, "The inverse of erf; infinite at -1 and 1, NaN beyond.")                \
  X(Exp, exp, "The exponential, e^x.")                                                      \
  X(Exp2, exp2, "2^x.")                                                                     \
  X(Expm1, expm1, "e^x - 1, exact near 0.")                                                 \
  X(Floor, floor, "The largest integer that is not greater.")                               \
  X(Frac, frac, "What follows the point: x - trunc(x).")                                    \
  X(Lgamma, lgamma, "The logarithm of |Gamma(x)|.")                                         \
  X(Log, log, "The natural logarithm.")                                                     \
  X(Log10, log10, "The logarithm to base 10.")                                              \
  X(Log1p, log1p, "ln(1 + x), exact near 0.")                                               \
  X(Log2, log2, "The logarithm to base 2.")                                                 \
  X(Neg, neg, "The negative, -x.")                                                          \
  X(Rad2deg, rad2deg, "Radians to degrees.")                                                \
  X(Reciprocal, reciprocal, "1 / x.")                                                       \
  X(Relu, relu, "The rectified linear unit, max(0, x).")                                    \
  X(Rsqrt, rsqrt, "1 / sqrt(x).")                                                           \
  X(Sigmoid, sigmoid, "The logistic function, 1 / (1 + e^-x).")                             \
  X(Sign, sign, "-1, 0 or 1.")                                                              \
  X(Sin, sin, "The sine of an angle in radians.")                                           \
  X(Sinc, sinc, "sin(pi x) / (pi x); 1 at 0.")                                              \
  X(Sinh, sinh, "The hyperbolic sine.")                                                     \
  X(Sqrt, sqrt, "The square root; NaN below zero.")                                         \
  X(Square, square, "x^2.")                                                                 \
  X(Tan, tan, "The tangent of an angle in radians.")                                        \
  X(Tanh, tanh, "The hyperbolic tangent.")                                                  \
  X(Trunc, trunc, "The integer part, towards 0.")

// With signatures of their own in unary.cpp and activation.cpp.
#define OPSIN_UNARY_PARAM_OPS(X)  \
  X(Clamp, clamp, "")             \
  X(Cube, pow, "")                \
  X(Digamma, digamma, "")         \
  X(Trigamma, polygamma, "")      \
  X(Logit, logit, "")             \
  X(NanToNum, nan_to_num, "")     \
  X(Polygamma, polygamma, "")     \
  X(Round, round, "")             \
  X(RoundTo, round, "")           \
  X(Elu, elu, "")                 \
  X(Gelu, gelu, "")               \
  X(GeluTanh, gelu, "")           \
  X(Hardshrink, hardshrink, "")   \
  X(Hardsigmoid, hardsigmoid, "") \
  X(Hardswish, hardswish, "")     \
  X(Hardtanh, hardtanh, "")       \
  X(LeakyRelu, leaky_relu, "")    \
  X(Logsigmoid, logsigmoid, "")   \
  X(Mish, mish, "")               \
  X(Relu6, relu6, "")             \
  X(Silu, silu, "")               \
  X(Softplus, softplus, "")       \
  X(Softshrink, softshrink, "")   \
  X(Softsign, softsign, "")       \
  X(Tanhshrink, tanhshrink, "")   \
  X(Threshold, threshold, "")

// Results are bool and have no gradient.
#define OPSIN_QUESTIONS(X)                                                  \
  X(Isnan, isnan, "Whether the element is NaN.")                            \
  X(Isinf, isinf, "Whether the element is infinite.")                       \
  X(Isfinite, isfinite, "Whether the element is neither NaN nor infinite.") \
  X(Isposinf, isposinf, "Whether the element is positive infinity.")        \
  X(Isneginf, isneginf, "Whether the element is negative infinity.")        \
  X(Signbit, signbit, "Whether the sign is negative, also of -0.")          \
  X(LogicalNot, logical_not, "Whether the element is zero.")

enum class UnaryOp : uint8_t {
#define OPSIN_ROW(Functor, function, doc) Functor,
  OPSIN_UNARY_OPS(OPSIN_ROW) OPSIN_UNARY_PARAM_OPS(OPSIN_ROW) OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
      kCount,
};

/// Numeric parameters of a unary op; meaning by op.
struct UnaryArgs {
  double a = 0, b = 0, c = 0;
};

inline constexpr int kUnaryCount = static_cast<int>(UnaryOp::kCount);

/// By op. Operands: y, x; `params` is a UnaryArgs.
extern OPSIN_API ElementwiseSlot unary_forward[kUnaryCount];
/// Operands: grad_x, grad_y, x, y (x and y alias when the op needs one of them only).
extern OPSIN_API ElementwiseSlot unary_backward[kUnaryCount];

void register_unary_cpu();

namespace cpu {

/// Kernels by op and computing dtype; `params` is a UnaryArgs.
struct UnaryTable {
  DenseFn kernel[kUnaryCount][kNumDTypes];
};
/// y, x.
OPSIN_ISA_TABLE(UnaryTable, unary_table)
/// grad_x, grad_y, x, y (x and y alias when the op needs one of them only).
OPSIN_ISA_TABLE(UnaryTable, unary_backward_table)
}  // namespace cpu

}  // namespace opsin
