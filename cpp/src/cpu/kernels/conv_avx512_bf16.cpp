// Dense convolution of bfloat16 by products of pairs (VDPBF16PS): half the bytes and twice the products of
// float32. The sums of an output stay in registers from the first product to the last and are rounded once.
// Depthwise rows have pairs of their own, or gain from the instruction that rounds.
#include "conv_depthwise.h"
#include "conv_depthwise_pairs.h"
#include "conv_pairs.h"
#include "conv_thin.h"
#include "conv_tile.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

void gather_pairs(const ConvGather<BFloat16>& a) {
  for (int64_t p = 0; p < a.pixels; p += 2) {
    interleave(a.source[p] + a.source_offset, p + 1 < a.pixels ? a.source[p + 1] + a.source_offset : nullptr,
               a.channels, a.channels, a.out + p * a.channels);
  }
}

}  // namespace

const ConvKernels<BFloat16>& conv_kernels() {
  static constexpr ConvKernels<BFloat16> kernels = {lanes_of<float>,
                                                    tile_rows,
                                                    Dot<BFloat16>::step,
                                                    Dot<BFloat16>::step,
                                                    fetch_steps * Dot<BFloat16>::step,
                                                    tiles<BFloat16>,
                                                    thin<BFloat16>,
                                                    conv_pack<BFloat16>,
                                                    conv_unpack<BFloat16>,
                                                    gather_rows,
                                                    gather_pairs,
                                                    outer<BFloat16>,
                                                    panel_pairs,
                                                    sum_rows<BFloat16>};
  return kernels;
}

void conv_depthwise_row(const ConvDepthwise<BFloat16>& a) {
  has_depthwise_pairs(a) ? depthwise_pairs(a) : conv_depthwise(a);
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
