// Gradients of the binary and ternary ops: expressions over differentiable tensors, from grad_y = g, the
// operands a, b (and c) and the result y. `kReads` says which of them each gradient reads, so that only those
// are saved. Broadcasting and promotion are undone by the engine, so the formulas ignore them.
#pragma once

#include <opsin/ops/binary.h>

#include "autograd/var.h"

namespace opsin::binary {

inline constexpr unsigned kA = 1, kB = 2, kY = 4;

struct Gradients {
  unsigned reads[2];
  Var (*grad_a)(const Var& g, const Var& a, const Var& b, const Var& y);
  Var (*grad_b)(const Var& g, const Var& a, const Var& b, const Var& y);
};

#define OPSIN_GRADIENTS(Name, reads_a, expression_a, reads_b, expression_b)                           \
  inline constexpr Gradients k##Name##Gradients = {                                                   \
      {reads_a, reads_b},                                                                             \
      []([[maybe_unused]] const Var& g, [[maybe_unused]] const Var& a, [[maybe_unused]] const Var& b, \
         [[maybe_unused]] const Var& y) { return expression_a; },                                     \
      []([[maybe_unused]] const Var& g, [[maybe_unused]] const Var& a, [[maybe_unused]] const Var& b, \
         [[maybe_unused]] const Var& y) { return expression_b; }};

inline Var one_if(const Var& condition) { return math::select(condition, Var(1.0), Var(0.0)); }
/// Equal operands share the gradient.
inline Var share_of(const Var& wins, const Var& ties) { return math::select(ties, Var(0.5), one_if(wins)); }
inline Var is_nan(const Var& x) { return x != x; }
inline Var quotient(const Var& a, const Var& b, const char* rounding) {
  return Var(div(a.tensor, b.tensor, rounding));
}

OPSIN_GRADIENTS(Add, 0, g, 0, g)
OPSIN_GRADIENTS(Sub, 0, g, 0, -g)
OPSIN_GRADIENTS(Mul, kB, g* b, kA, g* a)
OPSIN_GRADIENTS(Div, kB, g / b, kA | kB, -g*((a / b) / b))
OPSIN_GRADIENTS(DivTrunc, 0, g* Var(0.0), 0, g* Var(0.0))
OPSIN_GRADIENTS(DivFloor, 0, g* Var(0.0), 0, g* Var(0.0))
// y = a - b floor(a / b), and floor has slope 0.
OPSIN_GRADIENTS(Remainder, 0, g, kA | kB, -g* quotient(a, b, "floor"))
OPSIN_GRADIENTS(Fmod, 0, g, kA | kB, -g* quotient(a, b, "trunc"))
// a^b = e^(b ln a); at b = 0 constant in a, at a = 0 constant in b >= 0 (0^0 = 1).
OPSIN_GRADIENTS(Pow, kA | kB, math::select(b == Var(0.0), Var(0.0), g*(b* math::pow(a, b - Var(1.0)))),
                kA | kB | kY, math::select(a == Var(0.0) && b >= Var(0.0), Var(0.0), g*(y* math::log(a))))
OPSIN_GRADIENTS(Maximum, kA | kB, g* share_of(a > b, a == b), kA | kB, g* share_of(b > a, a == b))
OPSIN_GRADIENTS(Minimum, kA | kB, g* share_of(a < b, a == b), kA | kB, g* share_of(b < a, a == b))
OPSIN_GRADIENTS(Fmax, kA | kB, g* one_if(a >= b || is_nan(b)), kA | kB, g* one_if(!(a >= b || is_nan(b))))
OPSIN_GRADIENTS(Fmin, kA | kB, g* one_if(a <= b || is_nan(b)), kA | kB, g* one_if(!(a <= b || is_nan(b))))
OPSIN_GRADIENTS(ClampMin, kA | kB, g* one_if(a >= b), kA | kB, g* one_if(a < b))
OPSIN_GRADIENTS(ClampMax, kA | kB, g* one_if(a <= b), kA | kB, g* one_if(a > b))
OPSIN_GRADIENTS(Atan2, kA | kB, g*(b / (a * a + b * b)), kA | kB, -g*(a / (a * a + b * b)))
OPSIN_GRADIENTS(Copysign, kA | kY, math::select(a == Var(0.0), Var(0.0), g*(y / a)), 0, g* Var(0.0))
OPSIN_GRADIENTS(Xlogy, kA | kB, math::select(a == Var(0.0) && b <= Var(0.0), Var(0.0), g* math::log(b)),
                kA | kB, g*(a / b))
OPSIN_GRADIENTS(Hypot, kA | kY, g*(a / y), kB | kY, g*(b / y))
OPSIN_GRADIENTS(Logaddexp, kA | kB, g* math::sigmoid(a - b), kA | kB, g* math::sigmoid(b - a))
OPSIN_GRADIENTS(Logaddexp2, kA | kB, g* math::sigmoid((a - b) * Var(0.69314718055994531)), kA | kB,
                g* math::sigmoid((b - a) * Var(0.69314718055994531)))
OPSIN_GRADIENTS(Prelu, kA | kB, g* math::select(a > Var(0.0), Var(1.0), b), kA,
                g* math::select(a > Var(0.0), Var(0.0), a))
#undef OPSIN_GRADIENTS

}  // namespace opsin::binary
