// Rows of bfloat16 of a convolution, as they are and in panels of pairs.
#pragma once

#include "bf16_pairs.h"
#include "conv_table.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

inline void panel_pairs(const ConvPanels<BFloat16>& a) {
  constexpr int lanes = lanes_of<float>;
  for (int64_t r = 0; r < a.rows; r += 2) {
    const BFloat16* in = a.in + r * a.stride;
    const BFloat16* second = r + 1 < a.rows ? in + a.stride : nullptr;
    for (int64_t first = 0; first < a.columns; first += a.width) {
      const int64_t columns = a.columns - first, width = columns > lanes ? a.width : lanes;
      interleave(in + first, second == nullptr ? nullptr : second + first, columns, width,
                 a.out + first / a.width * a.panel + r * width);
    }
  }
}

inline void gather_rows(const ConvGather<BFloat16>& a) {
  BFloat16* out = a.out;
  for (int64_t p = 0; p < a.pixels; ++p, out += a.out_stride) {
    const BFloat16* in = a.source[p] + a.source_offset;
    for (int64_t c = 0; c < a.channels; c += 32) {
      store_elements(out + c, load_elements(in + c, a.channels - c), a.channels - c);
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
