// Depthwise convolution: vectors run over the channels, and every vector of weights serves several pixels.
// 16-bit floats are converted as they are loaded and stored.
#pragma once

#include "conv_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Pixels share a load of the weights; the row list of `tiles` is read in parts.
#if defined(__AVX512F__)
constexpr int depthwise_rows = 7;
#else
constexpr int depthwise_rows = tile_rows;
#endif

template <class S, int P, int NV>
OPSIN_INLINE void depthwise_tile(const ConvDepthwise<S>& a, const S* const* source, S* const* target,
                                 int64_t c, int64_t count) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[P][NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
    const Vector<T> bias =
        a.bias != nullptr ? load_some<T>(a.bias + c + v * lanes, count - v * lanes) : Vector<T>{};
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) sum[p][v] = bias;
  }
  const T* weight = a.weight + c;
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows, weight += a.weight_stride) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const Vector<T> w = load_some<T>(weight + v * lanes, count - v * lanes);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        sum[p][v] = fma(load_some<T>(source[p] + c + v * lanes, count - v * lanes), w, sum[p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store_some(target[p] + c + v * lanes, sum[p][v], count - v * lanes);
  }
}

template <class S, int P>
void depthwise_pixels(const ConvDepthwise<S>& a, const S* const* source, S* const* target) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const int64_t end = a.offset + a.channels;
  int64_t c = a.offset;
  for (; c + 2 * lanes <= end; c += 2 * lanes) depthwise_tile<S, P, 2>(a, source, target, c, 2 * lanes);
  for (; c + lanes <= end; c += lanes) depthwise_tile<S, P, 1>(a, source, target, c, lanes);
  if (c < end) depthwise_tile<S, P, 1>(a, source, target, c, end - c);
}

template <class S>
void conv_depthwise(const ConvDepthwise<S>& a) {
  const S* const* source = a.source;
  for (int64_t p = 0; p < a.pixels; p += tile_rows, source += a.taps * tile_rows) {
    const int64_t rows = a.pixels - p < tile_rows ? a.pixels - p : tile_rows;
    int64_t i = 0;
    for (; i + depthwise_rows <= rows; i += depthwise_rows) {
      depthwise_pixels<S, depthwise_rows>(a, source + i, a.target + p + i);
    }
    for (; i < rows; ++i) depthwise_pixels<S, 1>(a, source + i, a.target + p + i);
  }
}

template <class S, int N>
OPSIN_INLINE void depthwise_outer_taps(const ConvDepthwiseOuter<S>& a, int64_t t, int64_t c, int64_t count) {
  using T = Compute<S>;
  Vector<T> sum[N] = {};
  const S* const* source = a.source + t * a.pixels;
  for (int64_t p = 0; p < a.pixels; ++p) {
    const Vector<T> g = load_some<T>(a.grad + p * a.grad_stride + c, count);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sum[i] = fma(load_some<T>(source[i * a.pixels + p] + c, count), g, sum[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    T* out = a.out + (t + i) * a.out_stride + c;
    if (a.accumulate) sum[i] += load_some<T>(out, count);
    store_some(out, sum[i], count);
  }
}

template <class S>
OPSIN_INLINE void depthwise_outer_channels(const ConvDepthwiseOuter<S>& a, int64_t c, int64_t count) {
  int64_t t = 0;
  for (; t + 9 <= a.taps; t += 9) depthwise_outer_taps<S, 9>(a, t, c, count);
  for (; t + 3 <= a.taps; t += 3) depthwise_outer_taps<S, 3>(a, t, c, count);
  for (; t < a.taps; ++t) depthwise_outer_taps<S, 1>(a, t, c, count);
}

template <class S>
void conv_depthwise_outer(const ConvDepthwiseOuter<S>& a) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const int64_t end = a.offset + a.channels;
  int64_t c = a.offset;
  for (; c + lanes <= end; c += lanes) depthwise_outer_channels(a, c, lanes);
  if (c < end) depthwise_outer_channels(a, c, end - c);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
