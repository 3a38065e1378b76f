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

// out[j][0] = first[j] and out[j][1] = second[j], j < columns, zeros up to `width`.
OPSIN_INLINE void interleave(const BFloat16* first, const BFloat16* second, int64_t columns, int64_t width,
                             BFloat16* out) {
  alignas(64) constexpr auto index = [] {
    struct Index {
      uint16_t lane[2][32];
    } all{};
    for (uint16_t i = 0; i < 64; ++i)
      all.lane[i / 32][i % 32] = static_cast<uint16_t>(i / 2 + (i % 2 == 0 ? 0 : 32));
    return all;
  }();
  const __m512i low = _mm512_load_si512(index.lane[0]), high = _mm512_load_si512(index.lane[1]);
  for (int64_t j = 0; j < width; j += 32) {
    const __m512i a = load_elements(first + j, columns - j);
    const __m512i b = second == nullptr ? _mm512_setzero_si512() : load_elements(second + j, columns - j);
    store_elements(out + 2 * j, _mm512_permutex2var_epi16(a, low, b), 2 * (width - j));
    store_elements(out + 2 * j + 32, _mm512_permutex2var_epi16(a, high, b), 2 * (width - j) - 32);
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
