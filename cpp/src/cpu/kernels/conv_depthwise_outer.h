// Weight gradients of depthwise convolution.
//
// Of few neighbouring taps, by rows of outputs: a tile of their gradients stays in registers, the sums in the
// first-level cache, and the channels run innermost, so that pixels come in the order of memory. A vector of
// channels along whole rows would need its sums in registers alone, but read a line of the cache here and
// there. Of other taps, that way: a vector of channels and a tap at a time.
//
// What is left of the channels at the end is computed with some channels before it once more, and has a
// vector of sums of its own.
#pragma once

#include "conv_depthwise.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Outputs of a tile, whose gradients are in registers beside K sums and a pixel.
#if defined(__AVX512F__)
constexpr int depthwise_grads = 2 * depthwise_outputs;
#else
constexpr int depthwise_grads = depthwise_outputs;
#endif

// What only the next row of outputs reads, in the order of memory.
template <class S>
struct DepthwiseNext {
  const S *grad = nullptr, *source[2] = {};

  OPSIN_INLINE DepthwiseNext(const ConvDepthwiseOuter<S>& a, int64_t y) {
    if (!a.ahead || y + 1 >= a.output_rows) return;
    const S* const* rows = a.source + y * a.kernel_rows;
    const int64_t last = a.kernel_rows - 1;
    grad = a.grad[y + 1];
    source[0] = rows[a.kernel_rows + last];
    if (last > 0 && rows[a.kernel_rows + last - 1] != rows[last]) source[1] = rows[a.kernel_rows + last - 1];
  }
};

template <class S>
OPSIN_INLINE void fetch_pixels(const S* pixels, int count, int64_t step) {
#pragma GCC unroll 32
  for (int i = 0; i < count; ++i, pixels += step) __builtin_prefetch(pixels, 0, 2);
}

// K taps of outputs [p, p + P), which lie STEP pixels apart. With more than one output, less than K pixels
// are outside on each side.
template <class S, int K, int STEP, int P>
[[gnu::noinline]] void depthwise_tile_sums(const ConvDepthwiseOuter<S>& outer, int64_t y, int64_t p) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, pixels = (P - 1) * STEP + K, line = 64 / static_cast<int>(sizeof(S));
  // The stores of sums may not change what is known of the row.
  const ConvDepthwiseOuter<S> a = outer;
  const DepthwiseNext<S> next(a, y);
  const int64_t step = a.pixel_step, pixel = p * STEP + a.first, ahead = p * STEP * step;
  const int64_t before = -pixel, inside = a.size - pixel;
  const S* const* const source = a.source + y * a.kernel_rows;
  const S* const grad = a.grad[y] + p * step;
  for (int64_t c = 0; c < a.channels; c += lanes) {
    const int64_t at = c + lanes <= a.channels ? c : a.channels - lanes;
    if (next.grad != nullptr && c % line == 0) {
      fetch_pixels(next.grad + p * step + c, P, step);
      if (next.source[0] != nullptr) fetch_pixels(next.source[0] + ahead + c, P * STEP, step);
      if (next.source[1] != nullptr) fetch_pixels(next.source[1] + ahead + c, P * STEP, step);
    }
    Vector<T> g[P];
    const S* above = grad + at;
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i, above += step) g[i] = load_wide(above);
    if (a.grad_sum != nullptr) {
      Vector<T> sum = load(a.grad_sum + c);
#pragma GCC unroll 16
      for (int i = 0; i < P; ++i) sum += g[i];
      store(a.grad_sum + c, sum);
    }
    T* out = a.out + c;
    for (int64_t r = 0; r < a.kernel_rows; ++r, out += K * a.sum_step) {
      if (source[r] == nullptr) continue;
      const S* x = source[r] + pixel * step + at;
      Vector<T> sum[K];
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) sum[t] = load(out + t * a.sum_step);
#pragma GCC unroll 32
      for (int i = 0; i < pixels; ++i, x += step) {
        const bool edge = P == 1 || i < K - 1 || i > pixels - K;
        if (edge && (i < before || i >= inside)) continue;
        const Vector<T> v = in_register(load_wide(x));
#pragma GCC unroll 8
        for (int t = 0; t < K; ++t) {
          const int q = (i - t) / STEP;
          if (i >= t && (i - t) % STEP == 0 && q < P) sum[t] = fma(v, g[q], sum[t]);
        }
      }
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) store(out + t * a.sum_step, sum[t]);
    }
  }
}

template <class S, int K, int STEP>
void depthwise_row_sums(const ConvDepthwiseOuter<S>& a) {
  constexpr int P = depthwise_outputs, most = depthwise_grads;
  const auto fits = [&a](int64_t p, int outputs) {
    const int64_t pixel = p * STEP + a.first;
    return p + outputs <= a.end && -pixel < K && a.size - pixel > (outputs - 1) * STEP;
  };
  for (int64_t y = 0; y < a.output_rows; ++y) {
    for (int64_t p = a.begin; p < a.end;) {
      const int64_t left = a.end - p;
      // In tiles of four, no single output is left.
      const bool fours = left == 8 || left == 12;
      if (P < most && fits(p, most)) {
        depthwise_tile_sums<S, K, STEP, most>(a, y, p);
        p += most;
      } else if (!fours && fits(p, P)) {
        depthwise_tile_sums<S, K, STEP, P>(a, y, p);
        p += P;
      } else if (fits(p, 4)) {
        depthwise_tile_sums<S, K, STEP, 4>(a, y, p);
        p += 4;
      } else {
        depthwise_tile_sums<S, K, STEP, 1>(a, y, p++);
      }
    }
  }
}

template <class S>
void conv_depthwise_outer_rows(const ConvDepthwiseOuter<S>& a) {
  if constexpr (has_depthwise_taps<S>) {
    if (a.step == 1) {
      if (a.row_taps == 3) return depthwise_row_sums<S, 3, 1>(a);
      if (a.row_taps == 5) return depthwise_row_sums<S, 5, 1>(a);
      return depthwise_row_sums<S, 7, 1>(a);
    }
    a.row_taps == 3 ? depthwise_row_sums<S, 3, 2>(a) : depthwise_row_sums<S, 5, 2>(a);
  }
}

// The sums over some outputs of one tap of R rows, for a vector of channels.
template <class S, int R>
struct DepthwiseTapSums {
  using T = Compute<S>;
  static constexpr int outputs = 4;
  const ConvDepthwiseOuter<S>& a;
  Vector<T> sum[R];

  // Outputs [p, p + P). Unless EDGE, all pixels are inside.
  template <int P, bool EDGE>
  OPSIN_INLINE void add(const S* const* source, const S* grad, int64_t p, int64_t c) {
    Vector<T> g[P];
    const int64_t pixel = p * a.step + a.first;
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) g[i] = load_wide(grad + (p + i) * a.pixel_step + c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      if (source[r] == nullptr) continue;
      const S* x = source[r] + pixel * a.pixel_step + c;
#pragma GCC unroll 8
      for (int i = 0; i < P; ++i, x += a.step * a.pixel_step) {
        if (EDGE && (pixel + i * a.step < 0 || pixel + i * a.step >= a.size)) continue;
        sum[r] = fma(load_wide(x), g[i], sum[r]);
      }
    }
  }
};

template <class S, int R>
[[gnu::noinline]] void depthwise_tap_sums(const ConvDepthwiseOuter<S>& a, int64_t row) {
  using T = Compute<S>;
  using Sums = DepthwiseTapSums<S, R>;
  constexpr int lanes = lanes_of<T>, P = Sums::outputs;
  const int64_t before = a.first < 0 ? (-a.first + a.step - 1) / a.step : 0;
  const int64_t room = a.size - a.first - 1;
  const int64_t inside = room < 0 ? 0 : room / a.step + 1;
  for (int64_t c = 0; c < a.channels; c += lanes) {
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
      T* out = a.out + (row + r) * a.row_taps * a.sum_step + c;
      store(out, load(out) + sums.sum[r]);
    }
  }
}

// Less than a vector of channels.
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
  T* out = a.out + row * a.row_taps * a.sum_step;
  store_some(out, load_some<T>(out, a.channels) + sum, a.channels);
}

template <class S>
void conv_depthwise_outer(const ConvDepthwiseOuter<S>& a) {
  const bool few = a.channels < lanes_of<Compute<S>>;
  // `row_taps` tells where the sums of the rows lie.
  ConvDepthwiseOuter<S> tap = a;
  for (int64_t t = 0; t < a.row_taps; ++t, tap.first += a.spacing, tap.out += a.sum_step) {
    int64_t row = 0;
    for (; !few && row + 4 <= a.kernel_rows; row += 4) depthwise_tap_sums<S, 4>(tap, row);
    for (; row < a.kernel_rows; ++row) few ? depthwise_few(tap, row) : depthwise_tap_sums<S, 1>(tap, row);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
