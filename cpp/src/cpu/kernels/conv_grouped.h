// Convolution in groups of 2, 4 or 8 channels, one vector for several groups: each tap takes one product per
// channel of a group, of weights with the source vector permuted inside the groups. The dense kernel would
// leave most lanes empty.
#pragma once

#include "conv_depthwise.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Lane l becomes lane J of the group of l.
template <class T, int G, int J, int... L>
OPSIN_INLINE Vector<T> member(Vector<T> x, std::integer_sequence<int, L...>) {
  using Lane = typename VectorOf<T>::Lane;
  const typename VectorOf<T>::Index index = {static_cast<Lane>(L - L % G + J)...};
  return __builtin_shuffle(x, index);
}

template <class T, int P, int G, int J>
OPSIN_INLINE void add_member(Vector<T> (&sum)[P], const Vector<T> (&x)[P], const T* weight, int64_t count) {
  const Vector<T> w = load_some<T>(weight, count);
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    sum[p] = fma(member<T, G, J>(x[p], std::make_integer_sequence<int, lanes_of<T>>{}), w, sum[p]);
  }
}

template <class S, int P, int... J>
OPSIN_INLINE void grouped_tile(const ConvDepthwise<S>& a, const S* const* source, S* const* target, int64_t c,
                               int64_t count, std::integer_sequence<int, J...>) {
  using T = Compute<S>;
  constexpr int group = sizeof...(J);
  const Vector<T> bias = a.bias != nullptr ? load_some<T>(a.bias + c, count) : Vector<T>{};
  Vector<T> sum[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) sum[p] = bias;
  const T* weight = a.weight + c;
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows, weight += group * a.weight_stride) {
    Vector<T> x[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) x[p] = load_some<T>(source[p] + c, count);
    (add_member<T, P, group, J>(sum, x, weight + J * a.weight_stride, count), ...);
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) store_some(target[p] + c, sum[p], count);
}

template <class S, int G, int P>
void grouped_pixels(const ConvDepthwise<S>& a, const S* const* source, S* const* target) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const int64_t end = a.offset + a.channels;
  int64_t c = a.offset;
  for (; c + lanes <= end; c += lanes) {
    grouped_tile<S, P>(a, source, target, c, lanes, std::make_integer_sequence<int, G>{});
  }
  if (c < end) grouped_tile<S, P>(a, source, target, c, end - c, std::make_integer_sequence<int, G>{});
}

template <class S, int G>
void grouped_of(const ConvDepthwise<S>& a) {
  const S* const* source = a.source;
  for (int64_t p = 0; p < a.pixels; p += tile_rows, source += a.taps * tile_rows) {
    const int64_t rows = a.pixels - p < tile_rows ? a.pixels - p : tile_rows;
    int64_t i = 0;
    for (; i + depthwise_rows <= rows; i += depthwise_rows) {
      grouped_pixels<S, G, depthwise_rows>(a, source + i, a.target + p + i);
    }
    for (; i < rows; ++i) grouped_pixels<S, G, 1>(a, source + i, a.target + p + i);
  }
}

template <class S>
void conv_grouped(const ConvDepthwise<S>& a) {
  constexpr int lanes = lanes_of<Compute<S>>;
  if (a.group == 2) grouped_of<S, 2>(a);
  if constexpr (lanes >= 8) {
    if (a.group == 4) grouped_of<S, 4>(a);
  }
  if constexpr (lanes >= 16) {
    if (a.group == 8) grouped_of<S, 8>(a);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
