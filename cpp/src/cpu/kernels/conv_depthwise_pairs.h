// Rows of a depthwise convolution of bfloat16 by products of pairs (VDPBF16PS): the same channel of two rows
// of taps that lie below each other is a pair, so that three rows take two products per tap instead of three,
// and nothing is widened. 32 channels at a time, a line of the cache, whose weights stay in registers along
// the row.
#pragma once

#include "conv_vector.h"
#include "dot.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// What is 32 channels in memory, in the order in which rows are interleaved: the lower and the upper four of
// every eight.
struct ByEights {
  Float low, high;

  OPSIN_INLINE static ByEights load(const float* p) {
    const Float first = cpu::OPSIN_ISA_NS::load(p), second = cpu::OPSIN_ISA_NS::load(p + 16);
    return {_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xdd)};
  }
};

// Two rows of 32 channels as pairs.
struct PairsByEights {
  __m512bh low, high;

  OPSIN_INLINE static PairsByEights of(__m512i first, __m512i second) {
    return {reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(first, second)),
            reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(first, second))};
  }
  // Of numbers that are exact.
  OPSIN_INLINE static PairsByEights of(ByEights first, ByEights second) {
    const auto join = [](Float one, Float other) {
      return reinterpret_cast<__m512bh>(
          _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(one), 16), _mm512_castps_si512(other)));
    };
    return {join(first.low, second.low), join(first.high, second.high)};
  }
};

OPSIN_INLINE __m512i rounded(ByEights sums) {
  const auto halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(sums.high, sums.low));
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), halves);
}

// R rows of three taps that are neighbours, outputs STEP pixels apart. AFTER: something follows the sums.
template <int R, int STEP, bool AFTER>
struct DepthwisePairs {
  static constexpr int taps = 3, pairs = (R + 1) / 2;
  const BFloat16* source[R];  // of the channels, pixel 0
  BFloat16* target;           // output 0
  int64_t source_step, target_step, size, first;
  PairsByEights weight[pairs][taps];
  ByEights start, mean, scale, shift;
  float ceiling;  // 0: everything is kept

  OPSIN_INLINE void load(const ConvDepthwise<BFloat16>& a, int64_t c) {
    const ByEights none{Float{}, Float{}};
#pragma GCC unroll 2
    for (int i = 0; i < pairs; ++i) {
#pragma GCC unroll 3
      for (int t = 0; t < taps; ++t) {
        const auto of_row = [&](int r) {
          return r < R ? ByEights::load(a.rows[r].weight + t * a.channels + c) : none;
        };
        weight[i][t] = PairsByEights::of(of_row(2 * i), of_row(2 * i + 1));
      }
    }
    start = a.bias != nullptr ? ByEights::load(a.bias + c) : none;
    if constexpr (AFTER) {
      mean = ByEights::load(a.after.numbers + c);
      scale = ByEights::load(a.after.numbers + a.after.stride + c);
      shift = ByEights::load(a.after.numbers + 2 * a.after.stride + c);
    }
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) source[r] = a.rows[r].source + c;
    target = a.target + c;
  }

  OPSIN_INLINE void store(ByEights sum, BFloat16* out) const {
    __m512i value = rounded(sum);
    if constexpr (AFTER) {
      const auto follow = [&](__m512i bits, Float m, Float s, Float b) {
        const Float after = fma(_mm512_castsi512_ps(bits) - m, s, b);
        return ceiling > 0 ? kept_below<BFloat16>(after, broadcast(ceiling)) : after;
      };
      const __m512i none = _mm512_setzero_si512();
      sum.low = follow(_mm512_unpacklo_epi16(none, value), mean.low, scale.low, shift.low);
      sum.high = follow(_mm512_unpackhi_epi16(none, value), mean.high, scale.high, shift.high);
      value = rounded(sum);
    }
    _mm512_storeu_si512(out, value);
  }

  // Outputs [p, p + P). A sum only lives from its first column of pixels to its last. With more than one
  // output, less than `taps` pixels are outside on each side.
  template <int P>
  OPSIN_INLINE void run(int64_t p) const {
    constexpr int pixels = (P - 1) * STEP + taps;
    const int64_t pixel = p * STEP + first, before = -pixel, inside = size - pixel;
    int64_t x = pixel * source_step;
    BFloat16* out = target + p * target_step;
    ByEights sum[P];
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i, x += source_step) {
      if (i % STEP == 0 && i / STEP < P) sum[i / STEP] = start;
      const bool outside =
          ((P == 1 || i < taps - 1) && i < before) || ((P == 1 || i > pixels - taps) && i >= inside);
      if (!outside) {
#pragma GCC unroll 2
        for (int j = 0; j < pairs; ++j) {
          const auto row = [&](int r) {
            return r < R ? _mm512_loadu_si512(source[r] + x) : _mm512_setzero_si512();
          };
          const PairsByEights v = PairsByEights::of(row(2 * j), row(2 * j + 1));
#pragma GCC unroll 3
          for (int t = taps - 1; t >= 0; --t) {
            const int q = (i - t) / STEP;
            if (i >= t && (i - t) % STEP == 0 && q < P) {
              sum[q].low = _mm512_dpbf16_ps(sum[q].low, v.low, weight[j][t].low);
              sum[q].high = _mm512_dpbf16_ps(sum[q].high, v.high, weight[j][t].high);
            }
          }
        }
      }
      if (i >= taps - 1 && (i - taps + 1) % STEP == 0) {
        const int q = (i - taps + 1) / STEP;
        store(sum[q], out + q * target_step);
      }
    }
  }
};

template <int R, int STEP, bool AFTER>
[[gnu::noinline]] void depthwise_pairs_of(const ConvDepthwise<BFloat16>& a) {
  using Row = DepthwisePairs<R, STEP, AFTER>;
  constexpr int P = depthwise_outputs;
  // Outputs at a time for all channels: further along the row, memory would be read far out of its order, and
  // lines that two blocks of channels share would come twice.
  const int64_t together = a.channels % 32 == 0 ? 2 * P : P;
  const int64_t begin = a.begin, end = a.end, ahead_rows = a.ahead_rows, row_elements = a.row_elements;
  Row row;
  row.source_step = a.source_step;
  row.target_step = a.target_step;
  row.size = a.size;
  row.first = a.first;
  row.ceiling = a.after.ceiling;
  for (int64_t from = begin; from < end; from += together) {
    const int64_t to = from + together < end ? from + together : end;
    for (int64_t c = 0; c < a.channels; c += 32) {
      // What is left at the end is computed with some channels before it once more.
      row.load(a, c + 32 <= a.channels ? c : a.channels - 32);
      int64_t p = from;
      while (p < to) {
        const int64_t pixel = p * STEP + row.first;
        const bool tile = p + P <= to && -pixel < Row::taps && row.size - pixel > (P - 1) * STEP;
        const int64_t outputs = tile ? P : 1;
        for (int64_t i = 1; i <= ahead_rows; ++i) {
          const BFloat16* next = row.source[R - 1] + pixel * row.source_step + i * row_elements;
          for (int64_t j = 0; j < outputs * STEP; ++j, next += row.source_step)
            __builtin_prefetch(next, 0, 2);
        }
        tile ? row.template run<P>(p) : row.template run<1>(p);
        p += outputs;
      }
    }
  }
}

// Whether there are such rows for it.
inline bool has_depthwise_pairs(const ConvDepthwise<BFloat16>& a) {
  return a.group == 1 && a.taps == 3 && a.spacing == 1 && a.step <= 2 && a.row_count >= 1 &&
         a.row_count <= 3 && a.channels >= 32;
}

template <int R, int STEP>
void depthwise_pairs_with(const ConvDepthwise<BFloat16>& a) {
  a.after.numbers != nullptr ? depthwise_pairs_of<R, STEP, true>(a) : depthwise_pairs_of<R, STEP, false>(a);
}

template <int R>
void depthwise_pairs_rows(const ConvDepthwise<BFloat16>& a) {
  a.step == 1 ? depthwise_pairs_with<R, 1>(a) : depthwise_pairs_with<R, 2>(a);
}

inline void depthwise_pairs(const ConvDepthwise<BFloat16>& a) {
  if (a.row_count == 1) return depthwise_pairs_rows<1>(a);
  if (a.row_count == 2) return depthwise_pairs_rows<2>(a);
  depthwise_pairs_rows<3>(a);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
