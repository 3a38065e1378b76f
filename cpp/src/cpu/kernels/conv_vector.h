// What the convolution kernels add to the vectors of gemm_vector.h: the tile height, partial and narrowing
// stores, and row operations.
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

// Writes the first `count` lanes, nothing if it is not positive.
template <class T>
OPSIN_INLINE void store_some(T* p, Vector<T> v, int64_t count) {
  if (count >= lanes_of<T>) {
    store(p, v);
    return;
  }
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1u);
  if constexpr (__is_same(T, float)) {
    _mm512_mask_storeu_ps(p, mask, v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), v);
  }
#else
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// The same, rounded to a 16-bit type.
#if defined(__AVX512F__)
OPSIN_INLINE void store_half(void* p, __m256i half, int64_t count) {
  if (count >= 16) return _mm256_storeu_si256(static_cast<__m256i*>(p), half);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1u), half);
}
OPSIN_INLINE void store_some(BFloat16* p, Float v, int64_t count) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  // A NaN keeps its sign and becomes quiet.
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  store_half(p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)), count);
}
OPSIN_INLINE void store_some(Float16* p, Float v, int64_t count) {
  store_half(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), count);
}
#else
template <class S>
  requires(!__is_same(S, Compute<S>))
OPSIN_INLINE void store_some(S* p, Float v, int64_t count) {
  const int64_t some = count < lanes_of<float> ? count : lanes_of<float>;
  for (int64_t i = 0; i < some; ++i) narrow(v[i], p + i);
}
#endif

template <class S>
void conv_unpack(const ConvUnpack<S>& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int64_t columns = a.channels * a.taps;
  for (int64_t lane = 0; lane < a.width; lane += lanes) {
    int64_t c = 0, t = 0;
    for (int64_t j = 0; j < columns; j += lanes) {
      Vector<T> square[lanes] = {};
      for (int i = 0; i < lanes && j + i < columns; ++i) {
        const T* in = a.in + (t * a.channels + c) * a.width + lane;
        Vector<T> sum = load(in);
        for (int64_t s = 1; s < a.splits; ++s) sum += load(in + s * a.split_stride);
        square[i] = sum;
        if (++t == a.taps) {
          t = 0;
          ++c;
        }
      }
      transpose<T>(square);
      for (int i = 0; i < lanes && lane + i < a.lanes; ++i) {
        S* out = a.out + (lane + i) * a.lane_stride + j;
        if (a.accumulate) square[i] += load_some<T>(out, columns - j);
        store_some(out, square[i], columns - j);
      }
    }
  }
}

template <class T>
void copy_rows(const ConvRows<T, T>& a) {
  constexpr int lanes = lanes_of<T>;
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t j = 0; j < a.width; j += lanes) {
      store(a.out + r * a.width + j,
            load_some<T>(a.in + r * a.stride + j, a.columns > j ? a.columns - j : 0));
    }
  }
}

template <class T>
void gather(const ConvGather<T>& a) {
  constexpr int lanes = lanes_of<T>;
  T* out = a.out;
  for (int64_t p = 0; p < a.pixels; ++p, out += a.out_stride) {
    const T* in = a.source[p] + a.source_offset;
    int64_t c = 0;
    for (; c + lanes <= a.channels; c += lanes) store(out + c, load(in + c));
    for (; c < a.channels; ++c) out[c] = in[c];
  }
}

template <class S>
void sum_rows(const ConvRows<S, Compute<S>>& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  for (int64_t j = 0; j < a.columns; j += lanes) {
    Vector<T> sum = {};
    for (int64_t r = 0; r < a.rows; ++r) sum += load_some<T>(a.in + r * a.stride + j, a.columns - j);
    if (a.accumulate) sum += load_some<T>(a.out + j, a.columns - j);
    store_some(a.out + j, sum, a.columns - j);
  }
}

template <class S>
void conv_widen(const void* in, float* out, int64_t count) {
  constexpr int lanes = lanes_of<float>;
  const S* from = static_cast<const S*>(in);
  for (int64_t i = 0; i < count; i += lanes) {
    store_some(out + i, load_some<float>(from + i, count - i), count - i);
  }
}

template <class S>
void conv_narrow(const float* in, void* out, int64_t count) {
  constexpr int lanes = lanes_of<float>;
  S* to = static_cast<S*>(out);
  for (int64_t i = 0; i < count; i += lanes)
    store_some(to + i, load_some<float>(in + i, count - i), count - i);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
