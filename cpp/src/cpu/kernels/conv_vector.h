// What the convolution kernels add to the vectors of gemm_vector.h: the tile height and row operations.
#pragma once

#include "conv_table.h"
#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// The tile with two vectors of output channels fills the registers: 28 + 3 of 32, 12 + 3 of 16; without FMA
// the product needs a register too.
#if defined(__AVX512F__)
constexpr int tile_rows = 14;
#elif defined(__AVX2__)
constexpr int tile_rows = 6;
#else
constexpr int tile_rows = 4;
#endif

// Steps of an outer product for each line that is fetched ahead: about as long as a core's share of the
// memory takes for one.
#if defined(__AVX512F__)
constexpr int fetch_steps = 1;
#else
constexpr int fetch_steps = 4;
#endif

// Whether the kernels for S take what follows the sums.
template <class S>
constexpr bool takes_after = __is_same(S, Compute<S>);
#if defined(__AVX512BF16__)
template <>
constexpr bool takes_after<BFloat16> = true;
#endif

// What becomes of a value in memory: ops apart would round it there.
template <class S>
OPSIN_INLINE Vector<S> rounded_to(Vector<S> value) {
  return value;
}
#if defined(__AVX512BF16__)
template <class S>
  requires(__is_same(S, BFloat16))
OPSIN_INLINE Float rounded_to(Float value) {
  return widened_from_bfloat16(rounded_to_bfloat16(value));
}
#endif

// A value below minus this is negative once it is rounded to S.
template <class S>
constexpr Compute<S> least = 0;
template <>
constexpr float least<BFloat16> = 0x1p-134f;

// Within [0, most], which keeps NaN and what rounds to -0.
template <class S, class V>
OPSIN_INLINE V kept_below(V value, V most) {
  if constexpr (least<S> == 0) {
    value = value < V{} ? V{} : value;
  } else {
    value = value < -least<S> ? V{} : value;
  }
  return value > most ? most : value;
}

// What follows a sum of `count` columns, of which there are numbers; `out` is where it will be written.
template <class S, class Some>
OPSIN_INLINE Vector<Compute<S>> after_sum(const ConvAfterSums<S>& a, Vector<Compute<S>> sum, int64_t column,
                                          [[maybe_unused]] const S* out, Some load_columns) {
  const Compute<S>* numbers = a.numbers + column;
  Vector<Compute<S>> value = fma(rounded_to<S>(sum) - load_columns(numbers), load_columns(numbers + a.stride),
                                 load_columns(numbers + 2 * a.stride));
  if (a.residual != nullptr) value = rounded_to<S>(value) + load_columns(a.residual + (out - a.target));
  return a.ceiling > 0 ? kept_below<S>(value, broadcast(a.ceiling)) : value;
}

template <class S>
void conv_unpack(const ConvUnpack<S>& a) {
  using T = Compute<S>;
  // By whole lines of the cache, which the stores past it need.
  constexpr int lanes = lanes_of<T>, line = 64 / static_cast<int>(sizeof(S));
  const int64_t columns = a.channels * a.taps;
  const bool streams =
      a.stream && !a.accumulate && reinterpret_cast<uintptr_t>(a.out) % 64 == 0 && a.lane_stride % line == 0;
  const int64_t tap_stride = a.channels * a.width;
  for (int64_t lane = 0; lane < a.lanes; lane += lanes) {
    const T* in = a.in + lane;
    int64_t t = 0;
    for (int64_t j = 0; j < columns; j += line) {
      Vector<T> square[line];
      const int64_t some = columns - j < line ? columns - j : line;
#pragma GCC unroll 32
      for (int i = 0; i < line; ++i) {
        if (i >= some) {
          square[i] = Vector<T>{};
          continue;
        }
        const T* from = in + t * tap_stride;
        square[i] = load(from);
        for (int64_t s = 1; s < a.splits; ++s) square[i] += load(from + s * a.split_stride);
        if (++t == a.taps) {
          t = 0;
          in += a.width;
        }
      }
#pragma GCC unroll 8
      for (int k = 0; k < line; k += lanes) transpose<T>(square + k);
      S* out = a.out + lane * a.lane_stride + j;
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i, out += a.lane_stride) {
        if (lane + i >= a.lanes) break;
        if (streams && some == line) {
#pragma GCC unroll 8
          for (int k = 0; k < line; k += lanes) stream(out + k, square[k + i]);
          continue;
        }
#pragma GCC unroll 8
        for (int k = 0; k < line; k += lanes) {
          if (k >= some) break;
          Vector<T> sum = square[k + i];
          if (a.accumulate) sum += load_some<T>(out + k, some - k);
          store_some(out + k, sum, some - k);
        }
      }
    }
  }
  if (streams) stream_fence();
}

// Row by row, so that whole rows stream from memory.
template <class T>
void panels(const ConvPanels<T>& a) {
  constexpr int lanes = lanes_of<T>;
  const int64_t whole = a.columns / a.width, rest = a.columns % a.width;
  const int64_t last = rest > lanes ? a.width : lanes;
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* in = a.in + r * a.stride;
    T* out = a.out + r * a.width;
    for (int64_t i = 0; i < whole; ++i, in += a.width, out += a.panel) {
      for (int64_t j = 0; j < a.width; j += lanes) store(out + j, load(in + j));
    }
    if (rest == 0) continue;
    out += r * (last - a.width);
    for (int64_t j = 0; j < last; j += lanes) {
      store(out + j, rest > j ? load_some<T>(in + j, rest - j) : Vector<T>{});
    }
  }
}

template <class T>
void gather(const ConvGather<T>& a) {
  constexpr int lanes = lanes_of<T>;
  T* out = a.out;
  for (int64_t p = 0; p < a.pixels; ++p, out += a.out_stride) {
    const T* in = a.source[p] + a.source_offset;
    if (p + 8 < a.pixels) {
      const T* ahead = a.source[p + 8] + a.source_offset;
      for (int64_t i = 0; i < a.channels; i += 64 / static_cast<int64_t>(sizeof(T)))
        __builtin_prefetch(ahead + i);
    }
    int64_t c = 0;
    for (; c + lanes <= a.channels; c += lanes) store(out + c, load(in + c));
    if (c < a.channels) store_some(out + c, load_some<T>(in + c, a.channels - c), a.channels - c);
  }
}

template <class S>
void sum_rows(const ConvSum<S>& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  for (int64_t j = 0; j < a.columns; j += lanes) {
    Vector<T> sum = {};
    for (int64_t r = 0; r < a.rows; ++r) sum += load_some<T>(a.in + r * a.stride + j, a.columns - j);
    if (a.accumulate) sum += load_some<T>(a.out + j, a.columns - j);
    store_some(a.out + j, sum, a.columns - j);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
