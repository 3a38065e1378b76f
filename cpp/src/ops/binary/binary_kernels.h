// The binary and ternary ops as tables, and the contract with their kernels.
#pragma once

#include "core/elementwise.h"
#include "cpu/dispatch.h"

namespace opsin {

// X(Functor, function, documentation). `Operand` arguments: tensors or numbers, broadcast and promoted; as
// function, method and in place.
#define OPSIN_BINARY_OPS(X)                                                       \
  X(Mul, mul, "The product of both operands.")                                    \
  X(Remainder, remainder, "a - b * floor(a / b), with the sign of b.")            \
  X(Fmod, fmod, "a - b * trunc(a / b), with the sign of a.")                      \
  X(Atan2, atan2, "The angle of the point (x=other, y=self), in [-pi, pi].")      \
  X(Copysign, copysign, "The size of self with the sign of other.")               \
  X(Xlogy, xlogy, "self * ln(other); 0 where self is 0, NaN where other is NaN.") \
  X(Hypot, hypot, "sqrt(self^2 + other^2).")

// The same without an in-place variant.
#define OPSIN_BINARY_PURE_OPS(X)                                                                            \
  X(Maximum, maximum, "The larger of both operands; NaN if either is. Equal operands share the gradient.")  \
  X(Minimum, minimum, "The smaller of both operands; NaN if either is. Equal operands share the gradient.") \
  X(Fmax, fmax, "The larger of both operands; NaN only if both are.")                                       \
  X(Fmin, fmin, "The smaller of both operands; NaN only if both are.")                                      \
  X(Logaddexp, logaddexp, "ln(e^self + e^other), without overflow.")                                        \
  X(Logaddexp2, logaddexp2, "log2(2^self + 2^other), without overflow.")

// With signatures of their own.
// clang-format off
#define OPSIN_BINARY_SPECIAL_OPS(X)                                                         \
  X(Add, add, "")                                                                           \
  X(Sub, sub, "")                                                                           \
  X(Div, div, "")                                                                           \
  X(DivTrunc, div, "") X(DivFloor, floor_divide, "") X(Pow, pow, "") X(ClampMin, clamp, "") \
      X(ClampMax, clamp, "") X(Prelu, prelu, "")
// clang-format on

// On integers, without gradients.
#define OPSIN_INTEGER_OPS(X)                                                       \
  X(Gcd, gcd, "The greatest common divisor of two integers.")                      \
  X(Lcm, lcm, "The least common multiple of two integers.")                        \
  X(ShiftLeft, bitwise_left_shift, "self * 2^other for integers.")                 \
  X(ShiftRight, bitwise_right_shift, "self / 2^other for integers, rounded down.") \
  X(BitwiseAnd, bitwise_and, "Bitwise and of integers or bools.")                  \
  X(BitwiseOr, bitwise_or, "Bitwise or of integers or bools.")                     \
  X(BitwiseXor, bitwise_xor, "Bitwise exclusive or of integers or bools.")

#define OPSIN_COMPARISON_OPS(X)                                    \
  X(Eq, eq, "Whether self == other.")                              \
  X(Ne, ne, "Whether self != other.")                              \
  X(Lt, lt, "Whether self < other.")                               \
  X(Le, le, "Whether self <= other.")                              \
  X(Gt, gt, "Whether self > other.")                               \
  X(Ge, ge, "Whether self >= other.")                              \
  X(LogicalAnd, logical_and, "Whether both operands are nonzero.") \
  X(LogicalOr, logical_or, "Whether an operand is nonzero.")       \
  X(LogicalXor, logical_xor, "Whether exactly one operand is nonzero.")

#define OPSIN_TERNARY_OPS(X) X(Lerp, lerp) X(Addcmul, addcmul) X(Addcdiv, addcdiv) X(Clamp, clamp)

enum class BinaryOp : uint8_t {
#define OPSIN_ROW(Functor, function, doc) Functor,
  OPSIN_BINARY_OPS(OPSIN_ROW) OPSIN_BINARY_PURE_OPS(OPSIN_ROW) OPSIN_BINARY_SPECIAL_OPS(OPSIN_ROW)
      OPSIN_INTEGER_OPS(OPSIN_ROW) OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
          kCount,
};
enum class TernaryOp : uint8_t {
#define OPSIN_ROW(Functor, function) Functor,
  OPSIN_TERNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
      kCount,
};

inline constexpr int kBinaryCount = static_cast<int>(BinaryOp::kCount);
inline constexpr int kTernaryCount = static_cast<int>(TernaryOp::kCount);

/// By op. Operands: y, a, b.
extern OPSIN_API ElementwiseSlot binary_forward[kBinaryCount];
/// Operands: y, a, b, c; `params` is a ternary::Value.
extern OPSIN_API ElementwiseSlot ternary_forward[kTernaryCount];

void register_binary_cpu();
void register_ternary_cpu();

namespace cpu {

/// Kernels by op and computing dtype. Operands: y, a, b.
struct BinaryTable {
  DenseFn kernel[kBinaryCount][kNumDTypes];
};
OPSIN_ISA_TABLE(BinaryTable, binary_table)
/// Operands: y, a, b, c; `params` is a ternary::Value.
struct TernaryTable {
  DenseFn kernel[kTernaryCount][kNumDTypes];
};
OPSIN_ISA_TABLE(TernaryTable, ternary_table)
}  // namespace cpu

}  // namespace opsin
