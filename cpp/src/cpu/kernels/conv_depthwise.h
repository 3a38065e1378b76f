// Depthwise convolution and convolution in groups of 2, 4 or 8 channels, row by row. Vectors run over the
// channels; a tile of neighbouring outputs is summed in registers, so that the weights of a row of taps stay
// there too and every pixel is loaded once for all the outputs that read it. 16-bit floats are converted as
// they are loaded and stored.
//
// In groups, one vector holds several of them: each tap takes one product per channel of a group, of weights
// with the source vector permuted inside the groups. The dense kernel would leave most lanes empty. A group
// that fills a vector gains from the weights in registers.
#pragma once

#include "conv_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Outputs of a tile: enough independent sums for the latency of a multiply-add, and a divisor of the widths
// that networks have (7, 14, 28, 56, 112).
constexpr int depthwise_outputs = 7;

// Code of its own for the usual taps, in the types that images have.
template <class S>
constexpr bool has_depthwise_taps = sizeof(Compute<S>) == 4;

// What is multiplied several times: the compiler would load it each time, as a part of the product. Vectors
// of 512 bits come no faster than they are multiplied, shorter ones twice as fast, and have fewer registers.
template <class V>
OPSIN_INLINE V in_register(V value) {
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#endif
  return value;
}

// Lane l becomes lane J of the group of l.
template <class T, int G, int J, int... L>
OPSIN_INLINE Vector<T> member(Vector<T> x, std::integer_sequence<int, L...>) {
  using Lane = typename VectorOf<T>::Lane;
  const typename VectorOf<T>::Index index = {static_cast<Lane>(L - L % G + J)...};
  return __builtin_shuffle(x, index);
}
template <class T, int G, int J>
OPSIN_INLINE Vector<T> member(Vector<T> x) {
  if constexpr (G == 1) return x;
  return member<T, G, J>(x, std::make_integer_sequence<int, lanes_of<T>>{});
}

// The source channels J of the groups of a vector that starts at x, which is where a group starts.
template <class S, int G, int J>
OPSIN_INLINE Vector<Compute<S>> load_member(const S* x) {
  if constexpr (G == lanes_of<Compute<S>> && __is_same(S, Compute<S>)) {
    return broadcast(x[J]);
  } else {
    return member<Compute<S>, G, J>(load_wide(x));
  }
}

// A vector of channels c of outputs [p, p + P); K taps along the width that are neighbours, outputs STEP
// pixels apart. K = 0: any taps and any step. Unless EDGE, all pixels are inside; with more than one
// output, less than K pixels are outside on each side.
template <class S, int G, int K, int STEP, int P, bool EDGE>
struct DepthwiseTile {
  using T = Compute<S>;
  const ConvDepthwise<S>& a;
  int64_t before, inside;  // pixels of those that the outputs read
  Vector<T> sum[P];

  static constexpr int pixels = (P - 1) * STEP + K;

  OPSIN_INLINE bool outside([[maybe_unused]] int pixel) const {
    if constexpr (!EDGE) return false;
    return ((P == 1 || pixel < K - 1) && pixel < before) ||
           ((P == 1 || pixel > pixels - K) && pixel >= inside);
  }

  // The products with channel J of each group of a row of taps.
  template <int J>
  OPSIN_INLINE void add(const S* x, const T* weight) {
    const int64_t stride = G * a.channels;
    weight += J * a.channels;
    if constexpr (K > 0) {
      Vector<T> w[K];
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) w[t] = load(weight + t * stride);
#pragma GCC unroll 32
      for (int i = 0; i < pixels; ++i, x += a.source_step) {
        if (outside(i)) continue;
        const Vector<T> v = in_register(load_member<S, G, J>(x));
#pragma GCC unroll 8
        for (int t = 0; t < K; ++t) {
          const int p = (i - t) / STEP;
          if (i >= t && (i - t) % STEP == 0 && p < P) sum[p] = fma(v, w[t], sum[p]);
        }
      }
    } else {
      for (int64_t t = 0; t < a.taps; ++t, x += a.spacing * a.source_step, weight += stride) {
        const Vector<T> w = load(weight);
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p)
          sum[p] = fma(load_member<S, G, J>(x + p * a.step * a.source_step), w, sum[p]);
      }
    }
  }

  template <int... J>
  OPSIN_INLINE void run(int64_t p, int64_t c, std::integer_sequence<int, J...>) {
    const Vector<T> bias = a.bias != nullptr ? load(a.bias + c) : Vector<T>{};
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) sum[i] = bias;
    for (int64_t r = 0; r < a.row_count; ++r) {
      const S* x = a.rows[r].source + (p * a.step + a.first) * a.source_step + c;
      (add<J>(x, a.rows[r].weight + c), ...);
    }
    S* target = a.target + p * a.target_step + c;
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) store_some(target + i * a.target_step, sum[i], lanes_of<T>);
  }
};

// Fetches the rows that only the next row of outputs reads, the pixels of a tile in the order of memory, and
// evenly over its vectors of channels.
template <class S>
struct DepthwiseAhead {
  static constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(S));
  const ConvDepthwise<S>& a;
  const S* next;
  int64_t c = 0;

  // `x`: the first pixel of the last row of the tile.
  OPSIN_INLINE DepthwiseAhead(const ConvDepthwise<S>& row, const S* x) : a(row), next(x + a.row_elements) {}

  // As many elements.
  OPSIN_INLINE void fetch(int64_t count) {
    for (; count > 0; count -= line, next += line, c += line) {
      if (c >= a.channels) {
        next += a.source_step - c;
        c = 0;
      }
      for (int64_t row = 0; row < a.ahead_rows; ++row) __builtin_prefetch(next + row * a.row_elements, 0, 2);
    }
  }
};

// The stores into the target may not change what is known of the row, so that each has a copy of it.
template <class S, int G, int K, int STEP, int P, bool EDGE>
[[gnu::noinline]] void depthwise_tile(const ConvDepthwise<S>& row, int64_t p) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const ConvDepthwise<S> a = row;
  const int64_t pixel = p * a.step + a.first;
  DepthwiseAhead<S> ahead(a, a.rows[a.row_count - 1].source + pixel * a.source_step);
  for (int64_t c = 0; c < a.channels; c += lanes) {
    if (a.ahead_rows > 0) ahead.fetch(P * a.step * lanes);
    // What is left at the end is computed with some channels before it once more.
    const int64_t at = c + lanes <= a.channels ? c : a.channels - lanes;
    DepthwiseTile<S, G, K, STEP, P, EDGE>{a, -pixel, a.size - pixel, {}}.run(
        p, at, std::make_integer_sequence<int, G>{});
  }
}

// The same of R rows of taps at once, whose weights stay in registers: a sum only lives from its first column
// of pixels to its last. ADD: the sums of other rows are in the target. AFTER: something follows the sums.
template <class S, int K, int STEP, int P, int R, bool ADD, bool AFTER>
[[gnu::noinline]] void depthwise_block(const ConvDepthwise<S>& a, const typename ConvDepthwise<S>::Row* rows,
                                       int64_t p) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, pixels = (P - 1) * STEP + K;
  const int64_t source_step = a.source_step, target_step = a.target_step, channels = a.channels;
  const int64_t pixel = p * STEP + a.first, before = -pixel, inside = a.size - pixel;
  const T* bias = a.bias;
  [[maybe_unused]] const ConvAfterSums<S> after = a.after;
  // Without a ReLU everything is kept: a branch per output would cost more.
  constexpr T infinity = static_cast<T>(__builtin_inf());
  const bool clamps = after.ceiling > 0;
  [[maybe_unused]] const Vector<T> negative = broadcast(clamps ? -least<S> : -infinity),
                                   zero = broadcast(clamps ? T{} : -infinity),
                                   most = broadcast(clamps ? after.ceiling : infinity);
  S* const target = a.target + p * target_step;
  const S* source[R];
  const T* weight[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    source[r] = rows[r].source + pixel * source_step;
    weight[r] = rows[r].weight;
  }
  DepthwiseAhead<S> ahead(a, source[R - 1]);
  for (int64_t c = 0; c < channels; c += lanes) {
    if (!ADD && a.ahead_rows > 0) ahead.fetch(P * STEP * lanes);
    // What is left at the end is computed with some channels before it once more.
    const int64_t at = c + lanes <= channels ? c : channels - lanes;
    Vector<T> w[R][K], sum[P];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int t = 0; t < K; ++t) w[r][t] = load(weight[r] + t * channels + at);
    }
    Vector<T> mean, scale, shift;
    if constexpr (AFTER) {
      mean = load(after.numbers + at);
      scale = load(after.numbers + after.stride + at);
      shift = load(after.numbers + 2 * after.stride + at);
    }
    const Vector<T> start = !ADD && bias != nullptr ? load(bias + at) : Vector<T>{};
    int64_t x = at;
    S* y = target + at;
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i, x += source_step) {
      if (i % STEP == 0 && i / STEP < P) sum[i / STEP] = ADD ? load_wide(y + i / STEP * target_step) : start;
      const bool outside =
          ((P == 1 || i < K - 1) && i < before) || ((P == 1 || i > pixels - K) && i >= inside);
      if (!outside) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          const Vector<T> v = in_register(load_wide(source[r] + x));
#pragma GCC unroll 8
          for (int t = K - 1; t >= 0; --t) {
            const int q = (i - t) / STEP;
            if (i >= t && (i - t) % STEP == 0 && q < P) sum[q] = fma(v, w[r][t], sum[q]);
          }
        }
      }
      if (i >= K - 1 && (i - K + 1) % STEP == 0) {
        const int q = (i - K + 1) / STEP;
        if constexpr (AFTER) {
          sum[q] = fma(rounded_to<S>(sum[q]) - mean, scale, shift);
          sum[q] = sum[q] < negative ? zero : sum[q];
          sum[q] = sum[q] > most ? most : sum[q];
        }
        store_some(y + q * target_step, sum[q], lanes);
      }
    }
  }
}

// An output at an edge, or of less than a vector of channels: the taps that are inside.
template <class S, int G, int... J>
[[gnu::noinline]] void depthwise_edge(const ConvDepthwise<S>& a, int64_t p,
                                      std::integer_sequence<int, J...>) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int64_t pixel = p * a.step + a.first;
  int64_t from = 0, to = a.taps;
  while (from < to && pixel + from * a.spacing < 0) ++from;
  while (from < to && pixel + (to - 1) * a.spacing >= a.size) --to;
  if constexpr (G == 1) {
    // Part of a vector takes longer to load than these products.
    if (2 * a.channels <= lanes) {
      for (int64_t c = 0; c < a.channels; ++c) {
        T sum = a.bias != nullptr ? a.bias[c] : T{};
        for (int64_t r = 0; r < a.row_count; ++r) {
          for (int64_t t = from; t < to; ++t) {
            const S x = a.rows[r].source[(pixel + t * a.spacing) * a.source_step + c];
            sum = fma(widen(x), a.rows[r].weight[t * a.channels + c], sum);
          }
        }
        narrow(sum, a.target + p * a.target_step + c);
      }
      return;
    }
  }
  for (int64_t c = 0; c < a.channels; c += lanes) {
    const int64_t count = a.channels - c;
    Vector<T> sum = a.bias != nullptr ? load_some<T>(a.bias + c, count) : Vector<T>{};
    for (int64_t r = 0; r < a.row_count; ++r) {
      const S* x = a.rows[r].source + (pixel + from * a.spacing) * a.source_step + c;
      const T* weight = a.rows[r].weight + from * G * a.channels + c;
      for (int64_t t = from; t < to; ++t, x += a.spacing * a.source_step, weight += G * a.channels) {
        const Vector<T> v = load_some<T>(x, count);
        ((sum = fma(member<T, G, J>(v), load_some<T>(weight + J * a.channels, count), sum)), ...);
      }
    }
    store_some(a.target + p * a.target_step + c, sum, count);
  }
}

template <class S, int G, int K>
constexpr bool has_depthwise_blocks = G == 1 && K == 3 && takes_after<S>;

// All rows of taps, three at a time.
template <class S, int K, int STEP, int P>
void depthwise_blocks(const ConvDepthwise<S>& a, int64_t p) {
  const auto* rows = a.rows;
  if (a.after.numbers != nullptr) {
    if (a.row_count >= 3) return depthwise_block<S, K, STEP, P, 3, false, true>(a, rows, p);
    if (a.row_count == 2) return depthwise_block<S, K, STEP, P, 2, false, true>(a, rows, p);
    return depthwise_block<S, K, STEP, P, 1, false, true>(a, rows, p);
  }
  if (a.row_count >= 3) {
    depthwise_block<S, K, STEP, P, 3, false, false>(a, rows, p);
  } else if (a.row_count == 2) {
    depthwise_block<S, K, STEP, P, 2, false, false>(a, rows, p);
  } else {
    depthwise_block<S, K, STEP, P, 1, false, false>(a, rows, p);
  }
  if constexpr (__is_same(S, Compute<S>)) {
    int64_t left = a.row_count - 3;
    for (; left >= 3; left -= 3) depthwise_block<S, K, STEP, P, 3, true, false>(a, rows += 3, p);
    if (left == 2) depthwise_block<S, K, STEP, P, 2, true, false>(a, rows + 3, p);
    if (left == 1) depthwise_block<S, K, STEP, P, 1, true, false>(a, rows + 3, p);
  }
}

// Whether more than K - 1 pixels of the outputs are outside on a side.
template <int K, int STEP, int P, class S>
OPSIN_INLINE bool is_short(const ConvDepthwise<S>& a, int64_t p) {
  const int64_t pixel = p * STEP + a.first;
  return -pixel >= K || a.size - pixel <= (P - 1) * STEP;
}

template <class S, int G, int K, int STEP, int P>
void depthwise_outputs_of(const ConvDepthwise<S>& a, int64_t p) {
  if constexpr (has_depthwise_blocks<S, G, K>) {
    // What is left of the channels at the end is computed twice, but must not be added twice; nor may sums
    // be rounded on the way.
    const bool adds = __is_same(S, Compute<S>) && a.channels % lanes_of<Compute<S>> == 0;
    if ((a.row_count <= 3 || adds) && (P == 1 || !is_short<K, STEP, P>(a, p)))
      return depthwise_blocks<S, K, STEP, P>(a, p);
  }
  if constexpr (K == 0) {
    depthwise_tile<S, G, K, STEP, P, false>(a, p);
  } else {
    constexpr int64_t pixels = (P - 1) * STEP + K;
    const int64_t pixel = p * STEP + a.first, inside = a.size - pixel;
    if constexpr (P > 1) {
      if (pixel >= 0 && inside >= pixels) return depthwise_tile<S, G, K, STEP, P, false>(a, p);
      if (is_short<K, STEP, P>(a, p)) {
        for (int i = 0; i < P; ++i) depthwise_outputs_of<S, G, K, STEP, 1>(a, p + i);
        return;
      }
    }
    depthwise_tile<S, G, K, STEP, P, true>(a, p);
  }
}

template <class S, int G, int K, int STEP>
void depthwise_row(const ConvDepthwise<S>& a) {
  int64_t p = a.begin;
  const auto edge = [&] { depthwise_edge<S, G>(a, p++, std::make_integer_sequence<int, G>{}); };
  // Outputs whose taps are all inside.
  const int64_t before = a.first < 0 ? (-a.first + a.step - 1) / a.step : 0;
  const int64_t room = a.size - 1 - a.first - (a.taps - 1) * a.spacing;
  const int64_t inside = room < 0 ? 0 : room / a.step + 1;
  const bool tiles = a.row_count > 0 && a.channels >= lanes_of<Compute<S>>;
  const int64_t last = !tiles ? 0 : K == 0 && inside < a.end ? inside : a.end;
  if constexpr (K == 0) {
    while (p < a.end && p < before) edge();
  }
  constexpr int P = depthwise_outputs;
  for (; p + P <= last; p += P) depthwise_outputs_of<S, G, K, STEP, P>(a, p);
  if constexpr (G == 1) {
    for (; p + 4 <= last; p += 4) depthwise_outputs_of<S, G, K, STEP, 4>(a, p);
  }
  for (; p < last; ++p) depthwise_outputs_of<S, G, K, STEP, 1>(a, p);
  while (p < a.end) edge();
}

template <class S, int G>
void depthwise_group(const ConvDepthwise<S>& a) {
  if constexpr (has_depthwise_taps<S>) {
    if (a.spacing == 1 && a.step == 1) {
      if (a.taps == 1) return depthwise_row<S, G, 1, 1>(a);
      if (a.taps == 2) return depthwise_row<S, G, 2, 1>(a);
      if (a.taps == 3) return depthwise_row<S, G, 3, 1>(a);
      if constexpr (G == 1) {
        if (a.taps == 5) return depthwise_row<S, G, 5, 1>(a);
        if (a.taps == 7) return depthwise_row<S, G, 7, 1>(a);
      }
    }
    if (a.spacing == 1 && a.step == 2 && a.taps == 3) return depthwise_row<S, G, 3, 2>(a);
  }
  depthwise_row<S, G, 0, 0>(a);
}

template <class S>
void conv_depthwise(const ConvDepthwise<S>& a) {
  constexpr int lanes = lanes_of<Compute<S>>;
  if (a.group == 1) return depthwise_group<S, 1>(a);
  if (a.group == 2) return depthwise_group<S, 2>(a);
  if constexpr (lanes >= 8 || __is_same(S, float)) {
    if (a.group == 4) return depthwise_group<S, 4>(a);
  }
  if constexpr (lanes >= 16 || (lanes >= 8 && __is_same(S, float))) {
    if (a.group == 8) return depthwise_group<S, 8>(a);
  }
  if constexpr (lanes >= 16 && __is_same(S, float)) {
    if (a.group == 16) return depthwise_group<S, 16>(a);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
