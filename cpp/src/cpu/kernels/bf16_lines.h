// Rows of bfloat16 turned into columns, as a tile of A has them.
#pragma once

#include "bf16_pairs.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// out[i][p] = row(p)[i] for 32 rows p, of which `depth` are there, and i < count <= 16; zeros in the others.
// Lines of out are adjacent.
template <class Row>
OPSIN_INLINE void turn_rows(Row row, int64_t depth, int64_t count, BFloat16* out) {
  constexpr int lanes = lanes_of<float>;
  const auto mask = static_cast<__mmask16>(count >= lanes ? 0xffff : (1 << count) - 1);
  const auto elements = [&](int64_t p) {
    return p < depth ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row(p))) : _mm512_setzero_si512();
  };
  Float square[lanes];
#pragma GCC unroll 1
  for (int q = 0; q < lanes; ++q) {
    const __m512i second = _mm512_slli_epi32(elements(2 * q + 1), 16);
    square[q] = _mm512_castsi512_ps(_mm512_or_si512(elements(2 * q), second));
  }
  transpose<float>(square);
  for (int i = 0; i < lanes && i < count; ++i)
    store(reinterpret_cast<float*>(out + i * 2 * lanes), square[i]);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
