// Dense convolution of bfloat16 by products of pairs (VDPBF16PS): half the bytes and twice the products of
// float32. The sums of an output stay in registers from the first product to the last and are rounded once.
#include "conv_table.h"
#include "conv_tile.h"

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

void gather_pairs(const ConvGather<BFloat16>& a) {
  for (int64_t p = 0; p < a.pixels; p += 2) {
    interleave(a.source[p] + a.source_offset, p + 1 < a.pixels ? a.source[p + 1] + a.source_offset : nullptr,
               a.channels, a.channels, a.out + p * a.channels);
  }
}

void copy_row_pairs(const ConvRows<BFloat16, BFloat16>& a) {
  for (int64_t r = 0; r < a.rows; r += 2) {
    const BFloat16* in = a.in + r * a.stride;
    interleave(in, r + 1 < a.rows ? in + a.stride : nullptr, a.columns, a.width, a.out + r * a.width);
  }
}

void gather_rows(const ConvGather<BFloat16>& a) {
  BFloat16* out = a.out;
  for (int64_t p = 0; p < a.pixels; ++p, out += a.out_stride) {
    const BFloat16* in = a.source[p] + a.source_offset;
    for (int64_t c = 0; c < a.channels; c += 32) {
      store_elements(out + c, load_elements(in + c, a.channels - c), a.channels - c);
    }
  }
}

}  // namespace

const ConvKernels<BFloat16>& conv_kernels() {
  static constexpr ConvKernels<BFloat16> kernels = {
      lanes_of<float>,       tile_rows,   Dot<BFloat16>::step, tiles<BFloat16>, conv_pack<BFloat16>,
      conv_unpack<BFloat16>, gather_rows, gather_pairs,        outer<BFloat16>, copy_row_pairs,
      sum_rows<BFloat16>};
  return kernels;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
