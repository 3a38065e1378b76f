// One hidden unit of one step and its gradient: what the kernels of both devices compute.
#pragma once

#include "core/math.h"

namespace opsin::rnn {

// T is float or double. Gates come in as sums and go out activated.

template <class T>
struct LstmGates {
  T i, f, g, o;
};
/// h'; `c` becomes c'.
template <class T>
OPSIN_FN T lstm_forward(LstmGates<T>& x, T& c) {
  x.i = math::sigmoid(x.i);
  x.f = math::sigmoid(x.f);
  x.g = math::tanh(x.g);
  x.o = math::sigmoid(x.o);
  c = x.f * c + x.i * x.g;
  return x.o * math::tanh(c);
}
/// The gradients of the sums, from the activated gates, the state c before the step, and the gradients of h'
/// and c'; the latter becomes that of c.
template <class T>
OPSIN_FN LstmGates<T> lstm_backward(const LstmGates<T>& x, T c, T dh, T& dc) {
  const T t = math::tanh(x.f * c + x.i * x.g);
  const T d = dc + dh * x.o * (T(1) - t * t);
  dc = d * x.f;
  return {d * x.g * (x.i * (T(1) - x.i)), d * c * (x.f * (T(1) - x.f)), d * x.i * (T(1) - x.g * x.g),
          dh * t * (x.o * (T(1) - x.o))};
}

/// `hn` is the part of the sum of n that comes from h.
template <class T>
struct GruGates {
  T r, z, n, hn;
};
/// h' for h.
template <class T>
OPSIN_FN T gru_forward(GruGates<T>& x, T h) {
  x.r = math::sigmoid(x.r);
  x.z = math::sigmoid(x.z);
  x.n = math::tanh(x.n + x.r * x.hn);
  return x.n + x.z * (h - x.n);
}
/// The gradients of the sums; that of h, as far as it goes round the gates, is dh z.
template <class T>
OPSIN_FN GruGates<T> gru_backward(const GruGates<T>& x, T h, T dh) {
  const T dn = dh * (T(1) - x.z) * (T(1) - x.n * x.n);
  return {dn * x.hn * (x.r * (T(1) - x.r)), dh * (h - x.n) * (x.z * (T(1) - x.z)), dn, dn * x.r};
}

template <class T>
OPSIN_FN T rnn_forward(T sum, bool relu) {
  // NaN stays.
  return relu ? (sum < T(0) ? T(0) : sum) : math::tanh(sum);
}
template <class T>
OPSIN_FN T rnn_backward(T h, T dh, bool relu) {
  return relu ? (h > T(0) ? dh : T(0)) : dh * (T(1) - h * h);
}

}  // namespace opsin::rnn
