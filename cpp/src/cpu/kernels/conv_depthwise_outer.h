// Weight gradients of depthwise convolution.
//
// Of few neighbouring taps, by rows of outputs: a tile of their gradients stays in registers, the sums in the
// first-level cache, and the channels run innermost, so that pixels come in the order of memory. With 512
// bits, pixels that the last-level cache holds come from there fast enough in any order: nine sums of two
// vectors of channels stay in registers along a block of rows. Of other taps, a vector of channels and a tap
// at a time.
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

#if defined(__AVX512F__)
// V vectors of channels beside each other.
template <class S, int V>
struct DepthwiseVectors {
  using T = Compute<S>;
  using Rest = DepthwiseVectors<S, V - 1>;
  static constexpr int lanes = lanes_of<T>;
  Vector<T> first;
  Rest rest;

  OPSIN_INLINE static DepthwiseVectors load(const S* x) {
    return {in_register(load_wide(x)), Rest::load(x + lanes)};
  }
  OPSIN_INLINE static DepthwiseVectors load_sums(const T* sums) {
    return {cpu::OPSIN_ISA_NS::load(sums), Rest::load_sums(sums + lanes)};
  }
  OPSIN_INLINE void store(T* sums) const {
    cpu::OPSIN_ISA_NS::store(sums, first);
    rest.store(sums + lanes);
  }
  OPSIN_INLINE void add(const DepthwiseVectors& x) {
    first += x.first;
    rest.add(x.rest);
  }
  OPSIN_INLINE void add_product(const DepthwiseVectors& x, const DepthwiseVectors& y) {
    first = fma(x.first, y.first, first);
    rest.add_product(x.rest, y.rest);
  }
};
template <class S>
struct DepthwiseVectors<S, 0> {
  using T = Compute<S>;
  OPSIN_INLINE static DepthwiseVectors load(const S*) { return {}; }
  OPSIN_INLINE static DepthwiseVectors load_sums(const T*) { return {}; }
  OPSIN_INLINE void store(T*) const {}
  OPSIN_INLINE void add(const DepthwiseVectors&) {}
  OPSIN_INLINE void add_product(const DepthwiseVectors&, const DepthwiseVectors&) {}
};

// The sums of three taps of a row.
template <class S, int V>
struct DepthwiseTaps {
  using Vectors = DepthwiseVectors<S, V>;
  const S* x;
  Vectors sum0, sum1, sum2;

  OPSIN_INLINE static DepthwiseTaps load(const Compute<S>* sums, int64_t step) {
    return {nullptr, Vectors::load_sums(sums), Vectors::load_sums(sums + step),
            Vectors::load_sums(sums + 2 * step)};
  }
  OPSIN_INLINE void store(Compute<S>* sums, int64_t step) const {
    sum0.store(sums);
    sum1.store(sums + step);
    sum2.store(sums + 2 * step);
  }
  OPSIN_INLINE void add(int t, const Vectors& g, int64_t offset) {
    const Vectors v = Vectors::load(x + offset);
    if (t == 0) sum0.add_product(v, g);
    if (t == 1) sum1.add_product(v, g);
    if (t == 2) sum2.add_product(v, g);
  }
  // A pixel that is the first tap of an output, the second of the one before and the third of the one before
  // that.
  OPSIN_INLINE void add(const Vectors& g, const Vectors& before, const Vectors& first, int64_t offset) {
    const Vectors v = Vectors::load(x + offset);
    sum0.add_product(v, g);
    sum1.add_product(v, before);
    sum2.add_product(v, first);
  }
  // Two pixels with outputs two pixels apart: the first is the third tap of the output before.
  OPSIN_INLINE void add(const Vectors& g, const Vectors& before, int64_t offset, int64_t next) {
    const Vectors v = Vectors::load(x + offset);
    sum0.add_product(v, g);
    sum2.add_product(v, before);
    sum1.add_product(Vectors::load(x + next), g);
  }
};

// Outputs beside each other of a row, and what is fetched meanwhile: as many pixels elsewhere.
template <class S>
struct DepthwiseRowOutputs {
  const S *grad, *next_grad, *next_source;
  int64_t count, step;            // outputs, elements from pixel to pixel
  int64_t first, before, inside;  // of column 0: elements behind the source; the columns that exist
};

template <int BYTES, class S>
OPSIN_INLINE void fetch_lines(const S* pixel) {
  constexpr int line = 64 / static_cast<int>(sizeof(S));
#pragma GCC unroll 2
  for (int i = 0; i < BYTES; i += 64) __builtin_prefetch(pixel + i / 64 * line, 0, 2);
}

// Adds to the sums of some rows of three taps.
template <class S, int STEP, int V, class... Row>
OPSIN_INLINE void depthwise_add_row(const DepthwiseRowOutputs<S>& a, Row&... rows) {
  using Vectors = DepthwiseVectors<S, V>;
  constexpr int taps = 3, bytes = V * lanes_of<Compute<S>> * static_cast<int>(sizeof(S));
  const int64_t count = a.count, step = a.step, columns = (count - 1) * STEP + taps;
  const int64_t begin = a.before > 0 ? a.before : 0, end = a.inside < columns ? a.inside : columns;
  // Outputs [from, to) are the last that their first STEP columns belong to, with all taps of these.
  constexpr int64_t least = STEP == 1 ? 2 : 1;
  int64_t from = (begin + STEP - 1) / STEP, to = end / STEP;
  if (from < least) from = least;
  if (to > count) to = count;
  if (to < from) to = from;
  const auto edge = [&](int64_t i) __attribute__((always_inline)) {
    fetch_lines<bytes>(a.next_source + a.first + i * step);
#pragma GCC unroll 4
    for (int t = 0; t < taps; ++t) {
      const int64_t q = (i - t) / STEP;
      if (i < t || (i - t) % STEP != 0 || q >= count) continue;
      const Vectors g = Vectors::load(a.grad + q * step);
      (rows.add(t, g, a.first + i * step), ...);
    }
  };
  const int64_t head = from * STEP < end ? from * STEP : end;
  fetch_lines<bytes>(a.next_grad);
  if (STEP == 1) fetch_lines<bytes>(a.next_grad + step);
  for (int64_t i = begin; i < head; ++i) edge(i);
  if (from < to) {
    const S *g = a.grad + from * step, *next_grad = a.next_grad + from * step;
    int64_t offset = a.first + from * STEP * step;
    Vectors before = Vectors::load(g - step);
    [[maybe_unused]] Vectors first = STEP == 1 ? Vectors::load(g - 2 * step) : before;
    for (int64_t q = from; q < to; ++q, g += step, next_grad += step, offset += STEP * step) {
      const Vectors now = Vectors::load(g);
      fetch_lines<bytes>(next_grad);
      fetch_lines<bytes>(a.next_source + offset);
      if constexpr (STEP == 1) {
        (rows.add(now, before, first, offset), ...);
        first = before;
      } else {
        fetch_lines<bytes>(a.next_source + offset + step);
        (rows.add(now, before, offset, offset + step), ...);
      }
      before = now;
    }
  }
  for (int64_t i = head > to * STEP ? head : to * STEP; i < end; ++i) edge(i);
}

// All sums of three rows of three taps over outputs [p, p + count) of rows [from, to), of V vectors of
// channels: they stay in registers along the rows, and pixels in the first-level cache from row to row.
template <class S, int STEP, int V>
OPSIN_INLINE void depthwise_vector_sums(const ConvDepthwiseOuter<S>& a, int64_t kernel_row, int64_t from,
                                        int64_t to, int64_t p, int64_t count, int64_t c, int64_t at) {
  constexpr int lanes = lanes_of<Compute<S>>;
  using Taps = DepthwiseTaps<S, V>;
  using Vectors = typename Taps::Vectors;
  const int64_t step = a.pixel_step, pixel = p * STEP + a.first, row_sums = 3 * a.sum_step;
  Compute<S>* const out = a.out + kernel_row * row_sums + c;
  Taps taps0 = Taps::load(out, a.sum_step), taps1 = Taps::load(out + row_sums, a.sum_step),
       taps2 = Taps::load(out + 2 * row_sums, a.sum_step);
  DepthwiseRowOutputs<S> outputs{nullptr, nullptr,           nullptr, count,
                                 step,    pixel * step + at, -pixel,  a.size - pixel};
  for (int64_t y = from; y < to; ++y) {
    const S* const* const source = a.source + y * a.kernel_rows + kernel_row;
    outputs.grad = a.grad[y] + p * step + at;
    // The next row, or the first with the channels that follow.
    const bool ends = y + 1 == to;
    const int64_t next = ends ? from : y + 1, shift = ends ? V * lanes : 0;
    const S* const last = a.source[next * a.kernel_rows + kernel_row + 2];
    outputs.next_source = (last != nullptr ? last : a.grad[next]) + shift;
    outputs.next_grad = a.grad[next] + p * step + at + shift;
    taps0.x = source[0];
    taps1.x = source[1];
    taps2.x = source[2];
    if (taps0.x != nullptr && taps1.x != nullptr && taps2.x != nullptr) {
      depthwise_add_row<S, STEP, V>(outputs, taps0, taps1, taps2);
    } else {
      if (taps0.x != nullptr) depthwise_add_row<S, STEP, V>(outputs, taps0);
      if (taps1.x != nullptr) depthwise_add_row<S, STEP, V>(outputs, taps1);
      if (taps2.x != nullptr) depthwise_add_row<S, STEP, V>(outputs, taps2);
    }
  }
  taps0.store(out, a.sum_step);
  taps1.store(out + row_sums, a.sum_step);
  taps2.store(out + 2 * row_sums, a.sum_step);
  if (kernel_row > 0 || a.grad_sum == nullptr) return;
  Vectors sum = Vectors::load_sums(a.grad_sum + c);
  for (int64_t y = from; y < to; ++y) {
    const S* grad = a.grad[y] + p * step + at;
    for (int64_t i = 0; i < count; ++i, grad += step) sum.add(Vectors::load(grad));
  }
  sum.store(a.grad_sum + c);
}

template <class S, int STEP>
[[gnu::noinline]] void depthwise_block_sums(const ConvDepthwiseOuter<S>& outer, int64_t row, int64_t from,
                                            int64_t to, int64_t p, int64_t count) {
  constexpr int lanes = lanes_of<Compute<S>>;
  // The stores of sums may not change what is known of the rows.
  const ConvDepthwiseOuter<S> a = outer;
  int64_t c = 0;
  for (; c + 2 * lanes <= a.channels; c += 2 * lanes)
    depthwise_vector_sums<S, STEP, 2>(a, row, from, to, p, count, c, c);
  for (; c < a.channels; c += lanes) {
    const int64_t at = c + lanes <= a.channels ? c : a.channels - lanes;
    depthwise_vector_sums<S, STEP, 1>(a, row, from, to, p, count, c, at);
  }
}

// The same of all rows: blocks whose pixels stay in the second-level cache, and of a vector of channels in
// the first.
template <class S, int STEP>
void depthwise_all_sums(const ConvDepthwiseOuter<S>& a) {
  constexpr int64_t rows = 14, outputs = 28;
  const int64_t all = a.end - a.begin, parts = (all + outputs - 1) / outputs;
  for (int64_t y = 0; y < a.output_rows; y += rows) {
    const int64_t last = y + rows < a.output_rows ? y + rows : a.output_rows;
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t p = a.begin + all * i / parts, end = a.begin + all * (i + 1) / parts;
      for (int64_t row = 0; row < a.kernel_rows; row += 3)
        depthwise_block_sums<S, STEP>(a, row, y, last, p, end - p);
    }
  }
}
#endif

template <class S, int K, int STEP>
void depthwise_row_sums(const ConvDepthwiseOuter<S>& a) {
#if defined(__AVX512F__)
  if constexpr (K == 3) {
    if (!a.ahead && a.kernel_rows % 3 == 0) return depthwise_all_sums<S, STEP>(a);
  }
#endif
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
