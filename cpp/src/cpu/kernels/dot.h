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

// Sums of half a vector: processors that compute 512 bits as two times 256 take half the time for them.
template <class S>
constexpr bool has_halves = false;
#if defined(__AVX512F__)
template <>
constexpr bool has_halves<float> = true;

template <class S>
struct HalfDot {
  using Steps = __m256;
  OPSIN_INLINE static Steps load(const float* p) { return _mm256_loadu_ps(p); }
  OPSIN_INLINE static Steps broadcast(const float* p) { return _mm256_set1_ps(*p); }
  OPSIN_INLINE static Steps half(Float x) { return _mm512_castps512_ps256(x); }
  OPSIN_INLINE static __m256 fma(Steps x, Steps w, __m256 sum) { return _mm256_fmadd_ps(x, w, sum); }
  OPSIN_INLINE static Float whole(__m256 sum) { return _mm512_zextps256_ps512(sum); }
};
#if defined(__AVX512BF16__)
template <>
constexpr bool has_halves<BFloat16> = true;

template <>
struct HalfDot<BFloat16> {
  using Steps = __m256bh;
  OPSIN_INLINE static Steps load(const BFloat16* p) {
    return reinterpret_cast<__m256bh>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  OPSIN_INLINE static Steps broadcast(const BFloat16* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return reinterpret_cast<__m256bh>(_mm256_set1_epi32(pair));
  }
  OPSIN_INLINE static Steps half(__m512bh x) {
    return reinterpret_cast<__m256bh>(_mm512_castsi512_si256(reinterpret_cast<__m512i>(x)));
  }
  OPSIN_INLINE static __m256 fma(Steps x, Steps w, __m256 sum) { return _mm256_dpbf16_ps(sum, x, w); }
  OPSIN_INLINE static Float whole(__m256 sum) { return _mm512_zextps256_ps512(sum); }
};
#endif

// Those of P pixels.
template <class S, int P>
struct HalfSums {
  using D = HalfDot<S>;
  __m256 sum[P] = {};
  typename D::Steps weight;

  OPSIN_INLINE void load(const S* p) { weight = D::load(p); }
  OPSIN_INLINE void add(int p, typename Dot<S>::Steps x) { sum[p] = D::fma(D::half(x), weight, sum[p]); }
  OPSIN_INLINE void add(int p, const S* x) { sum[p] = D::fma(D::broadcast(x), weight, sum[p]); }
  OPSIN_INLINE Float whole(int p) const { return D::whole(sum[p]); }
};
#else
template <class S, int P>
struct HalfSums {};
#endif

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
