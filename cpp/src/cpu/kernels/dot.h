// What the register tiles of GEMM and convolution multiply: steps of one or two adjacent elements of a packed
// type S, a vector of them at a time, summed in Compute<S>.
#pragma once

#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class S>
struct Dot {
  static constexpr int step = 1;
  using Steps = Vector<S>;
  OPSIN_INLINE static Steps broadcast(const S* p) { return cpu::OPSIN_ISA_NS::broadcast(*p); }
  OPSIN_INLINE static Steps load(const S* p) { return cpu::OPSIN_ISA_NS::load(p); }
  OPSIN_INLINE static Vector<S> fma(Steps x, Steps w, Vector<S> sum) {
    return cpu::OPSIN_ISA_NS::fma(x, w, sum);
  }
};

#if defined(__AVX512BF16__)
template <>
struct Dot<BFloat16> {
  static constexpr int step = 2;
  using Steps = __m512bh;
  OPSIN_INLINE static Steps broadcast(const BFloat16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
  OPSIN_INLINE static Steps load(const BFloat16* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  OPSIN_INLINE static Float fma(Steps x, Steps w, Float sum) { return _mm512_dpbf16_ps(sum, x, w); }
};
#endif

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
