// 16-bit floats to float32 and back, for files that are compiled once per instruction set.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

#if defined(__AVX512F__)
// The unmasked forms start from an undefined register, which GCC warns about.
constexpr __mmask16 kAllLanes = 0xffff;
#endif

[[maybe_unused]] void widen_half(const uint16_t* from, float* to, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(
                                 kAllLanes, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i))));
  }
#elif defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
#endif
  for (; i < n; ++i) to[i] = opsin::detail::half_to_float(from[i]);
}
[[maybe_unused]] void narrow_half(const float* from, uint16_t* to, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        _mm512_maskz_cvtps_ph(kAllLanes, _mm512_loadu_ps(from + i),
                                              _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#elif defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
  }
#endif
  for (; i < n; ++i) to[i] = opsin::detail::float_to_half(from[i]);
}
[[maybe_unused]] void widen_bfloat(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = opsin::detail::bfloat_to_float(from[i]);
}
[[maybe_unused]] void narrow_bfloat(const float* from, uint16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = opsin::detail::float_to_bfloat(from[i]);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
