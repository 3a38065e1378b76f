// Convolution to one to four channels, as of the heads of segmentation or of the gradient of images: vectors
// run over the source channels, and each output is a scalar product. The register tiles of conv_tile.h would
// leave most of the lanes of output channels empty.
#pragma once

#include "conv_vector.h"
#include "dot.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// The sums over the lanes of as many vectors as these have lanes: lane l becomes that of vector l. Every sum
// is added up in the same order.
template <class T, int D = lanes_of<T> / 2>
OPSIN_INLINE void fold(Vector<T>* r) {
#pragma GCC unroll 16
  for (int i = 0; i < D; ++i) {
    exchange<T, D>(r[i], r[i + D]);
    r[i] += r[i + D];
  }
  if constexpr (D > 1) fold<T, D / 2>(r);
}

// P pixels from the start of a list, N = columns.
template <class S, int P, int N>
[[gnu::noinline]] void thin_tile(const ConvTiles<S>& a, const S* const* source, S* const* target) {
  using T = Compute<S>;
  using D = Dot<S>;
  constexpr int lanes = lanes_of<T>, sums = (P * N + lanes - 1) / lanes * lanes;
  Vector<T> sum[sums] = {};
  const S* weight = a.weight;
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows, weight += N * a.channels) {
    for (int64_t c = 0; c < a.channels; c += lanes * D::step) {
      typename D::Steps w[N];
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) w[n] = D::load(weight + n * a.channels + c);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const typename D::Steps x = D::load(source[p] + a.source_offset + c);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[p * N + n] = D::fma(x, w[n], sum[p * N + n]);
      }
    }
  }
  alignas(64) T out[sums];
#pragma GCC unroll 8
  for (int i = 0; i < sums; i += lanes) {
    fold<T>(sum + i);
    store(out + i, sum[i]);
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
      narrow(a.bias != nullptr ? out[p * N + n] + a.bias[n] : out[p * N + n],
             target[p] + a.target_offset + n);
  }
}

// As many sums as registers hold beside the weights.
template <class S, int N>
void thin_of(const ConvTiles<S>& a) {
  constexpr int rows = N > 2 || tile_rows > 8 ? tile_rows / 2 : tile_rows;
  const S* const* source = a.source;
  int64_t p = 0;
  for (; p + tile_rows <= a.pixels; p += tile_rows, source += a.taps * tile_rows) {
#pragma GCC unroll 2
    for (int i = 0; i < tile_rows; i += rows) thin_tile<S, rows, N>(a, source + i, a.target + p + i);
  }
  for (; p < a.pixels; ++p) thin_tile<S, 1, N>(a, source++, a.target + p);
}

template <class S>
void thin(const ConvTiles<S>& a) {
  if (a.columns == 1) return thin_of<S, 1>(a);
  if (a.columns == 2) return thin_of<S, 2>(a);
  if (a.columns == 3) return thin_of<S, 3>(a);
  thin_of<S, 4>(a);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
