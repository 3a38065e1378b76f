// Tiles of attention as operands of VDPBF16PS, see attention_kernels.h.
#include "attention_kernels.h"
#include "attention_rows.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

void round_tile(const AttentionRound& p) {
  constexpr int lanes = lanes_of<float>;
  alignas(64) constexpr auto in_pairs = [] {
    struct Index {
      uint16_t lane[2 * lanes];
    } all{};
    for (uint16_t i = 0; i < 2 * lanes; ++i) all.lane[i] = static_cast<uint16_t>(i / 2 + i % 2 * lanes);
    return all;
  }();
  const __m512i index = _mm512_load_si512(in_pairs.lane);
  const Float scale = broadcast(p.scale);
  auto* by_keys = static_cast<BFloat16*>(p.by_keys);
  auto* by_queries = static_cast<BFloat16*>(p.by_queries);
  const float* first = p.values;
  for (int64_t k = 0; k < p.keys; k += 2, first += 2 * p.row) {
    const bool whole = k + 1 < p.keys;
    for (int64_t j = 0; j < p.queries; j += lanes) {
      const Float x = load(first + j) * scale, y = whole ? load(first + p.row + j) * scale : Float{};
      const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y, x));
      if (by_keys) _mm512_storeu_si512(by_keys + k * p.row + 2 * j, _mm512_permutexvar_epi16(index, both));
      if (!by_queries) continue;
      store_half(by_queries + k * p.row + j, _mm512_castsi512_si256(both), lanes);
      if (whole) store_half(by_queries + (k + 1) * p.row + j, _mm512_extracti64x4_epi64(both, 1), lanes);
    }
  }
}

}  // namespace

const AttentionPairs& attention_pairs() {
  static constexpr AttentionPairs pairs = {round_tile, add_rows<BFloat16>};
  return pairs;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
