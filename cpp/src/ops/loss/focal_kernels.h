// The contract of the focal loss and its kernels, and the function that both sides share.
#pragma once

#include "core/elementwise.h"
#include "core/math.h"
#include "cpu/dispatch.h"

namespace opsin {

struct FocalArgs {
  double alpha;  ///< -1 for none.
  double gamma;
};
/// Operands: y, x, target; and dx, dy, x, target.
extern OPSIN_API ElementwiseSlot focal_forward, focal_backward;

/// The loss of one element.
template <class T>
struct Focal {
  T alpha, gamma;

  /// `square`: gamma is 2, which needs no pow().
  OPSIN_FN T value(T x, T t, bool square) const {
    const Terms terms(x, t);
    return balance(t) * terms.cross * power(terms.miss, square);
  }
  OPSIN_FN T slope(T dy, T x, T t, bool square) const {
    const Terms terms(x, t);
    const T miss = terms.miss, whole = power(miss, square);
    // Where miss is 0, p or q is.
    const T lower = square ? miss : whole / (miss > T(0) ? miss : T(1));
    const T turn = terms.cross * gamma * lower * (terms.p * terms.q) * (T(1) - T(2) * t);
    return dy * balance(t) * ((terms.p - t) * whole + turn);
  }

 private:
  struct Terms {
    T p, q;   ///< sigmoid(x), and 1 less that.
    T cross;  ///< Minus the logarithm of p_t; mixed for t between 0 and 1.
    T miss;   ///< 1 - p_t

    OPSIN_FN Terms(T x, T t) {
      const T e = math::exp(-math::abs(x)), more = T(1) / (T(1) + e), less = e * more;
      p = x < T(0) ? less : more;
      q = x < T(0) ? more : less;
      cross = (T(1) - t) * x + (math::log1p(e) + (x < T(0) ? -x : T(0)));
      miss = p * (T(1) - t) + q * t;
    }
  };
  OPSIN_FN T balance(T t) const { return alpha < T(0) ? T(1) : alpha * t + (T(1) - alpha) * (T(1) - t); }
  OPSIN_FN T power(T miss, bool square) const { return square ? miss * miss : math::pow(miss, gamma); }
};

namespace cpu {

struct FocalTable {
  DenseFn forward[2], backward[2];  ///< float32, float64
};
OPSIN_ISA_TABLE(FocalTable, focal_table)

}  // namespace cpu

}  // namespace opsin
