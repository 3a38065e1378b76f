// Panels of bfloat16 whose steps of k lie side by side in pairs.
#pragma once

#include "bf16_pairs.h"
#include "gemm_table.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Lines of pairs, transposed: vector q holds pair q of each of 16 lines. Beyond `count` lines and `depth`
// elements there are zeros.
OPSIN_INLINE void load_square(const BFloat16* in, int64_t stride, int64_t count, int64_t depth,
                              Float* square) {
  constexpr int lanes = lanes_of<float>;
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    square[i] = i < count ? _mm512_castsi512_ps(load_elements(in + i * stride, depth)) : Float{};
  }
  transpose<float>(square);
}

inline void pack_pairs(const GemmPack& g) {
  constexpr int lanes = lanes_of<float>;
  const auto* in = static_cast<const BFloat16*>(g.in);
  auto* out = static_cast<BFloat16*>(g.out);
  if (g.lane_stride == 1) {
    // Rows far apart are not foreseen by the hardware.
    constexpr int64_t ahead = 16;
    for (int64_t p = 0; p < g.depth; p += 2, in += 2 * g.depth_stride, out += 2 * g.step) {
      __builtin_prefetch(in + ahead * g.depth_stride);
      __builtin_prefetch(in + (ahead + 1) * g.depth_stride);
      interleave(in, p + 1 < g.depth ? in + g.depth_stride : nullptr, g.lanes, g.step, out);
    }
    return;
  }
  if (g.depth_stride == 1) {
    for (int64_t p = 0; p < g.depth; p += 2 * lanes) {
      const int64_t pairs = g.depth - p < 2 * lanes ? (g.depth - p + 1) / 2 : lanes;
      for (int64_t i = 0; i < g.step; i += lanes) {
        Float square[lanes];
        load_square(in + i * g.lane_stride + p, g.lane_stride, g.lanes - i, g.depth - p, square);
        for (int q = 0; q < pairs; ++q) {
          store_elements(out + (p / 2 + q) * 2 * g.step + 2 * i, _mm512_castps_si512(square[q]),
                         2 * (g.step - i));
        }
      }
    }
    return;
  }
  for (int64_t p = 0; p < g.depth; p += 2, out += 2 * g.step) {
    for (int64_t i = 0; i < g.step; ++i) {
      for (int64_t q = 0; q < 2; ++q) {
        const bool inside = i < g.lanes && p + q < g.depth;
        out[2 * i + q] = inside ? in[i * g.lane_stride + (p + q) * g.depth_stride] : BFloat16{};
      }
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
