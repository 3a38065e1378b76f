// Weight gradients of depthwise convolution: a vector of channels and some taps at a time, whose sums stay in
// registers along a row of outputs.
#pragma once

#include "conv_depthwise.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// The sums over some outputs of R rows of K taps, for a vector of channels.
template <class S, int R, int K, int STEP>
struct DepthwiseSums {
  using T = Compute<S>;
  static constexpr int outputs = 4;
  const ConvDepthwiseOuter<S>& a;
  Vector<T> sum[R][K];

  // Outputs [p, p + P). Unless EDGE, all pixels are inside.
  template <int P, bool EDGE>
  OPSIN_INLINE void add(const S* const* source, const S* grad, int64_t p, int64_t c) {
    Vector<T> g[P];
    const int64_t step = K == 1 ? a.step : STEP, pixel = p * step + a.first;
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) g[i] = load_wide(grad + (p + i) * a.pixel_step + c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      if (source[r] == nullptr) continue;
      const S* x = source[r] + pixel * a.pixel_step + c;
      if constexpr (K == 1) {
#pragma GCC unroll 8
        for (int i = 0; i < P; ++i, x += step * a.pixel_step) {
          if (EDGE && (pixel + i * step < 0 || pixel + i * step >= a.size)) continue;
          sum[r][0] = fma(load_wide(x), g[i], sum[r][0]);
        }
      } else {
#pragma GCC unroll 32
        for (int i = 0; i < (P - 1) * STEP + K; ++i, x += a.pixel_step) {
          if (EDGE && (pixel + i < 0 || pixel + i >= a.size)) continue;
          const Vector<T> v = load_wide(x);
#pragma GCC unroll 8
          for (int t = 0; t < K; ++t) {
            const int q = (i - t) / STEP;
            if (i >= t && (i - t) % STEP == 0 && q < P) sum[r][t] = fma(v, g[q], sum[r][t]);
          }
        }
      }
    }
  }

  OPSIN_INLINE T* out(int64_t row, int64_t tap) const {
    return a.out + (row * a.row_taps + tap) * a.channels;
  }
};

template <class S, int R, int K, int STEP>
[[gnu::noinline]] void depthwise_sums(const ConvDepthwiseOuter<S>& a, int64_t row) {
  using T = Compute<S>;
  using Sums = DepthwiseSums<S, R, K, STEP>;
  constexpr int lanes = lanes_of<T>, P = Sums::outputs;
  const int64_t before = a.first < 0 ? (-a.first + a.step - 1) / a.step : 0;
  const int64_t room = a.size - a.first - K;
  const int64_t inside = room < 0 ? 0 : room / a.step + 1;
  for (int64_t c = 0; c < a.channels; c += lanes) {
    // What is left at the end is computed with some channels before it once more.
    const int64_t at = c + lanes <= a.channels ? c : a.channels - lanes;
    Sums sums{a, {}};
    for (int64_t y = 0; y < a.output_rows; ++y) {
      const S* const* source = a.source + y * a.kernel_rows + row;
      const S* grad = a.grad[y];
      int64_t p = a.begin;
      for (; p + P <= a.end; p += P) {
        if (p >= before && p + P <= inside) {
          sums.template add<P, false>(source, grad, p, at);
        } else {
          sums.template add<P, true>(source, grad, p, at);
        }
      }
      if (a.end - p == 3) {
        sums.template add<3, true>(source, grad, p, at);
        p += 3;
      }
      for (; p < a.end; ++p) sums.template add<1, true>(source, grad, p, at);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) {
        T* out = sums.out(row + r, t) + at;
        if (at == c) {
          store(out, load(out) + sums.sum[r][t]);
        } else {
          alignas(64) T lane[lanes];
          store(lane, sums.sum[r][t]);
          for (int64_t i = c - at; i < lanes; ++i) out[i] += lane[i];
        }
      }
    }
  }
}

// Less than a vector of channels, one tap per row.
template <class S>
void depthwise_few(const ConvDepthwiseOuter<S>& a, int64_t row) {
  using T = Compute<S>;
  Vector<T> sum = {};
  for (int64_t y = 0; y < a.output_rows; ++y) {
    const S* source = a.source[y * a.kernel_rows + row];
    for (int64_t p = a.begin; source != nullptr && p < a.end; ++p) {
      const int64_t pixel = p * a.step + a.first;
      if (pixel < 0 || pixel >= a.size) continue;
      const Vector<T> x = load_some<T>(source + pixel * a.pixel_step, a.channels);
      sum = fma(x, load_some<T>(a.grad[y] + p * a.pixel_step, a.channels), sum);
    }
  }
  T* out = a.out + row * a.row_taps * a.channels;
  store_some(out, load_some<T>(out, a.channels) + sum, a.channels);
}

// R rows of taps at a time.
template <class S, int R, int K, int STEP>
void depthwise_sum_rows(const ConvDepthwiseOuter<S>& a) {
  int64_t row = 0;
  for (; row + R <= a.kernel_rows; row += R) depthwise_sums<S, R, K, STEP>(a, row);
  for (; row < a.kernel_rows; ++row) depthwise_sums<S, 1, K, STEP>(a, row);
}

template <class S>
void conv_depthwise_outer(const ConvDepthwiseOuter<S>& a) {
  const bool few = a.channels < lanes_of<Compute<S>>;
  if constexpr (has_depthwise_taps<S>) {
    if (!few && a.spacing == 1 && a.step == 1) {
      if (a.row_taps == 3) return depthwise_sum_rows<S, 3, 3, 1>(a);
      if (a.row_taps == 5) return depthwise_sum_rows<S, 2, 5, 1>(a);
      if (a.row_taps == 7) return depthwise_sum_rows<S, 1, 7, 1>(a);
    }
    if (!few && a.spacing == 1 && a.step == 2 && a.row_taps == 3) return depthwise_sum_rows<S, 3, 3, 2>(a);
  }
  ConvDepthwiseOuter<S> tap = a;
  for (int64_t t = 0; t < a.row_taps; ++t, tap.first += a.spacing, tap.out += a.channels) {
    if (!few) {
      depthwise_sum_rows<S, 4, 1, 0>(tap);
    } else {
      for (int64_t row = 0; row < a.kernel_rows; ++row) depthwise_few(tap, row);
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
