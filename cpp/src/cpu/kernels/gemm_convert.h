// Rows between the storage type and the type of computation.
#pragma once

#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class S, class T>
void widen_all(const void* in, void* out, int64_t count) {
  constexpr int lanes = lanes_of<T>;
  const S* from = static_cast<const S*>(in);
  T* to = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load_wide(from + i));
  for (; i < count; ++i) to[i] = widen(from[i]);
}

template <class S, class T>
void narrow_all(const void* in, void* out, int64_t count) {
  const T* from = static_cast<const T*>(in);
  S* to = static_cast<S*>(out);
  int64_t i = 0;
#if defined(__AVX512F__)
  if constexpr (__is_same(S, Float16)) {
    for (; i + 16 <= count; i += 16) {
      const __m256i half = _mm512_cvtps_ph(load(from + i), _MM_FROUND_TO_NEAREST_INT);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), half);
    }
  }
#elif defined(__F16C__)
  if constexpr (__is_same(S, Float16)) {
    for (; i + 8 <= count; i += 8) {
      const __m128i half = _mm256_cvtps_ph(load(from + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
    }
  }
#endif
  for (; i < count; ++i) narrow(from[i], to + i);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
