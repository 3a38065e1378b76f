// The gradient of the weights of a convolution in groups of a few channels, row by row. Vectors run over the
// channels of the output; a tap takes one product per channel of a group: the gradient times the source with
// that channel in all lanes of the group. The sums of a row of taps stay in registers, so every such vector
// is made once for all the outputs that read it. The dense kernel would copy each group into panels first,
// and leave the lanes beyond a group empty.
#pragma once

#include "conv_depthwise.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Channels of a group at a time: with three taps, their sums are 24 of 32 registers or 12 of 16.
#if defined(__AVX512F__)
constexpr int narrow_members = 8;
#else
constexpr int narrow_members = 4;
#endif

// A vector of outputs, K taps along the width that are neighbours, outputs STEP pixels apart; K = 1: any
// step. Groups of G channels are shorter than vectors; G = 0: as long or longer, N channels from one on.
template <class S, int G, int K, int STEP>
struct NarrowSums {
  using T = Compute<S>;
  static constexpr int N = G > 0 ? G : narrow_members;
  // One tap has too few sums for the latency of a multiply-add: each output of a step has its own.
  static constexpr int outputs = K > 1 ? 4 : 8 / N;
  static constexpr int sums = K > 1 ? K : outputs;
  const ConvDepthwiseOuter<S>& a;
  Vector<T> sum[sums][N];

  template <int J>
  OPSIN_INLINE static Vector<T> channel(const S* x) {
    if constexpr (G > 0) {
      return member<T, G, J>(load_wide(x));
    } else {
      return broadcast(widen(x[J]));
    }
  }

  // The products of pixel i, counted from the first of P outputs.
  template <int P, int J>
  OPSIN_INLINE void multiply(int i, const S* x, const Vector<T>* g) {
    const Vector<T> v = channel<J>(x);
    if constexpr (K == 1) {
      sum[i][J] = fma(v, g[i], sum[i][J]);
    } else {
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) {
        const int q = (i - t) / STEP;
        if (i >= t && (i - t) % STEP == 0 && q < P) sum[t][J] = fma(v, g[q], sum[t][J]);
      }
    }
  }

  // Outputs [p, p + P). Unless EDGE, all pixels are inside.
  template <int P, bool EDGE, int... J>
  OPSIN_INLINE void add(const S* source, const S* grad, int64_t p, std::integer_sequence<int, J...>) {
    constexpr int pixels = K == 1 ? P : (P - 1) * STEP + K;
    const int64_t first = p * (K == 1 ? a.step : STEP) + a.first, distance = K == 1 ? a.step : 1;
    const S* x = source + first * a.pixel_step;
    grad += p * a.pixel_step;
    Vector<T> g[P];
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i, x += distance * a.pixel_step) {
      if (i % STEP == 0 && i / STEP < P) g[i / STEP] = load_wide(grad + i / STEP * a.pixel_step);
      if (EDGE && (first + i * distance < 0 || first + i * distance >= a.size)) continue;
      (multiply<P, J>(i, x, g), ...);
    }
  }
};

// Channels [c, c + lanes) of the outputs and, in their groups, those from `member` on.
template <class S, int G, int K, int STEP>
[[gnu::noinline]] void narrow_sums(const ConvDepthwiseOuter<S>& a, int64_t row, int64_t c, int64_t member) {
  using T = Compute<S>;
  using Sums = NarrowSums<S, G, K, STEP>;
  constexpr int lanes = lanes_of<T>, P = Sums::outputs;
  constexpr auto members = std::make_integer_sequence<int, Sums::N>{};
  // What is left at the end is computed with some channels before it once more.
  const int64_t at = c + lanes <= a.channels ? c : a.channels - lanes;
  const int64_t from = G > 0 ? at : at - at % a.group + member;
  const int64_t before = a.first < 0 ? (-a.first + a.step - 1) / a.step : 0;
  const int64_t room = a.size - a.first - K;
  const int64_t inside = room < 0 ? 0 : room / a.step + 1;
  Sums sums{a, {}};
  for (int64_t y = 0; y < a.output_rows; ++y) {
    const S* source = a.source[y * a.kernel_rows + row];
    if (source == nullptr) continue;
    const S* grad = a.grad[y] + at;
    int64_t p = a.begin;
    for (; p + P <= a.end; p += P) {
      if (p >= before && p + P <= inside) {
        sums.template add<P, false>(source + from, grad, p, members);
      } else {
        sums.template add<P, true>(source + from, grad, p, members);
      }
    }
    for (; p < a.end; ++p) sums.template add<1, true>(source + from, grad, p, members);
  }
  for (int t = 0; t < K; ++t) {
#pragma GCC unroll 8
    for (int j = 0; j < Sums::N; ++j) {
      Vector<T> sum = sums.sum[t][j];
      for (int i = 1; K == 1 && i < Sums::sums; ++i) sum += sums.sum[i][j];
      T* out = a.out + ((row * a.row_taps + t) * a.group + member + j) * a.channels + at;
      if (at == c) {
        store(out, load(out) + sum);
      } else {
        alignas(64) T lane[lanes];
        store(lane, sum);
        for (int64_t i = c - at; i < lanes; ++i) out[i] += lane[i];
      }
    }
  }
}

template <class S, int G, int K, int STEP>
void narrow_rows(const ConvDepthwiseOuter<S>& a) {
  for (int64_t c = 0; c < a.channels; c += lanes_of<Compute<S>>) {
    for (int64_t row = 0; row < a.kernel_rows; ++row) {
      for (int64_t member = 0; member < a.group; member += NarrowSums<S, G, K, STEP>::N)
        narrow_sums<S, G, K, STEP>(a, row, c, member);
    }
  }
}

template <class S, int G>
void narrow_group(const ConvDepthwiseOuter<S>& a) {
  if constexpr (has_depthwise_taps<S>) {
    if (a.spacing == 1 && a.row_taps == 3) {
      if (a.step == 1) return narrow_rows<S, G, 3, 1>(a);
      if (a.step == 2) return narrow_rows<S, G, 3, 2>(a);
    }
  }
  // `row_taps` tells where the sums of the rows lie, the kernel sees a single tap of them.
  ConvDepthwiseOuter<S> tap = a;
  for (int64_t t = 0; t < a.row_taps; ++t, tap.first += a.spacing, tap.out += a.group * a.channels)
    narrow_rows<S, G, 1, 1>(tap);
}

template <class S>
void conv_narrow_outer(const ConvDepthwiseOuter<S>& a) {
  constexpr int lanes = lanes_of<Compute<S>>;
  if constexpr (lanes > 2) {
    if (a.group == 2) return narrow_group<S, 2>(a);
  }
  if constexpr (lanes > 4) {
    if (a.group == 4) return narrow_group<S, 4>(a);
  }
  if constexpr (lanes > 8) {
    if (a.group == 8) return narrow_group<S, 8>(a);
  }
  if constexpr (sizeof(S) == sizeof(Compute<S>)) narrow_group<S, 0>(a);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
