// Rows of bfloat16 as rows of pairs, the layout in which VDPBF16PS multiplies.
#pragma once

#include "dot.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// The first `count` of 32 elements.
OPSIN_INLINE __m512i load_elements(const BFloat16* p, int64_t count) {
  if (count >= 32) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi16((1u << (count > 0 ? count : 0)) - 1u, p);
}

OPSIN_INLINE void store_elements(BFloat16* p, __m512i v, int64_t count) {
  if (count >= 32) return _mm512_storeu_si512(p, v);
  _mm512_mask_storeu_epi16(p, (1u << (count > 0 ? count : 0)) - 1u, v);
}

// pairs[0][j] = (first[j], second[j]), j < 16, and pairs[1] those of the other 16.
OPSIN_INLINE void interleave(__m512i first, __m512i second, __m512bh* pairs) {
  alignas(64) constexpr auto index = [] {
    struct Index {
      uint16_t lane[2][32];
    } all{};
    for (uint16_t i = 0; i < 64; ++i)
      all.lane[i / 32][i % 32] = static_cast<uint16_t>(i / 2 + (i % 2 == 0 ? 0 : 32));
    return all;
  }();
  // Not to be loaded from memory for each half.
  asm("" : "+v"(first));
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    pairs[half] = reinterpret_cast<__m512bh>(
        _mm512_permutex2var_epi16(first, _mm512_load_si512(index.lane[half]), second));
  }
}

// out[j][0] = first[j] and out[j][1] = second[j], j < columns, zeros up to `width`.
OPSIN_INLINE void interleave(const BFloat16* first, const BFloat16* second, int64_t columns, int64_t width,
                             BFloat16* out) {
  for (int64_t j = 0; j < width; j += 32) {
    const __m512i a = load_elements(first + j, columns - j);
    const __m512i b = second == nullptr ? _mm512_setzero_si512() : load_elements(second + j, columns - j);
    __m512bh pairs[2];
    interleave(a, b, pairs);
    store_elements(out + 2 * j, reinterpret_cast<__m512i>(pairs[0]), 2 * (width - j));
    store_elements(out + 2 * j + 32, reinterpret_cast<__m512i>(pairs[1]), 2 * (width - j) - 32);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
