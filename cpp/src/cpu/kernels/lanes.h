// Sums over the lanes of a vector, and lanes in another order.
#pragma once

#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

/// The sum of all lanes, halves first: few steps that wait for each other.
template <class T>
OPSIN_INLINE T sum_of_lanes(Vector<T> v) {
  T lane[lanes_of<T>];
  store(lane, v);
#pragma GCC unroll 4
  for (int half = lanes_of<T> / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

/// Every second of the 2 * lanes elements of a and b.
template <class T>
OPSIN_INLINE Vector<T> halve(Vector<T> a, Vector<T> b, int odd) {
  typename VectorOf<T>::Index from{};
  for (int i = 0; i < lanes_of<T>; ++i) from[i] = 2 * i + odd;
  return __builtin_shuffle(a, b, from);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
