// Vectors of one instruction set for the GEMM kernels: load, broadcast, multiply-add, transpose, and the
// conversions of float16 and bfloat16. Everything is forced inline or local to the object, see gemm_isa.cpp.
#pragma once

#include <cstdint>
#include <utility>

#include "cpu/half.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// GCC 11 and 12 report the deliberately undefined operands inside their own AVX-512 intrinsics (GCC bug
// 105593), at the place where these are inlined.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

#define OPSIN_INLINE [[gnu::always_inline]] inline

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
constexpr int lanes_of = vector_bytes / static_cast<int>(sizeof(T));

using Float = float __attribute__((vector_size(vector_bytes)));
using Double = double __attribute__((vector_size(vector_bytes)));
using Int32 = int32_t __attribute__((vector_size(vector_bytes)));
using Int64 = int64_t __attribute__((vector_size(vector_bytes)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using Type = Float;
  using Index = Int32;
  using Lane = int32_t;
};
template <>
struct VectorOf<double> {
  using Type = Double;
  using Index = Int64;
  using Lane = int64_t;
};
template <class T>
using Vector = typename VectorOf<T>::Type;

template <class T>
OPSIN_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
OPSIN_INLINE void store(T* p, Vector<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}

#if defined(__AVX512F__)
OPSIN_INLINE Float broadcast(float x) { return _mm512_set1_ps(x); }
OPSIN_INLINE Double broadcast(double x) { return _mm512_set1_pd(x); }
OPSIN_INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
OPSIN_INLINE Double fma(Double a, Double b, Double c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__AVX2__)
OPSIN_INLINE Float broadcast(float x) { return _mm256_set1_ps(x); }
OPSIN_INLINE Double broadcast(double x) { return _mm256_set1_pd(x); }
OPSIN_INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
OPSIN_INLINE Double fma(Double a, Double b, Double c) { return _mm256_fmadd_pd(a, b, c); }
#else
OPSIN_INLINE Float broadcast(float x) { return Float{x, x, x, x}; }
OPSIN_INLINE Double broadcast(double x) { return Double{x, x}; }
OPSIN_INLINE Float fma(Float a, Float b, Float c) { return a * b + c; }
OPSIN_INLINE Double fma(Double a, Double b, Double c) { return a * b + c; }
#endif

// The scalar paths must round exactly as the vectors do.
#if defined(__FMA__)
OPSIN_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
OPSIN_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
OPSIN_INLINE float fma(float a, float b, float c) { return a * b + c; }
OPSIN_INLINE double fma(double a, double b, double c) { return a * b + c; }
#endif

OPSIN_INLINE float widen(float x) { return x; }
OPSIN_INLINE double widen(double x) { return x; }
OPSIN_INLINE float widen(BFloat16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

OPSIN_INLINE void narrow(float x, float* out) { *out = x; }
OPSIN_INLINE void narrow(double x, double* out) { *out = x; }

// Round to nearest even; a NaN keeps its sign and becomes quiet.
OPSIN_INLINE void narrow(float x, BFloat16* out) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  out->bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

#if defined(__F16C__)
OPSIN_INLINE float widen(Float16 x) { return _cvtsh_ss(x.bits); }
OPSIN_INLINE void narrow(float x, Float16* out) {
  out->bits = static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
}
#else
// Branchless, after F. Giesen, "float->half variants": the exponent is rebiased by one exact multiplication,
// which also normalises subnormal halves; infinities and NaNs get their exponent back by a second step.
OPSIN_INLINE float widen(Float16 x) {
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const float scaled = __builtin_bit_cast(float, magnitude) * 0x1p112f;
  uint32_t bits = __builtin_bit_cast(uint32_t, scaled);
  if (magnitude >= 0x0f800000u) bits |= 0x7f800000u;
  if (magnitude > 0x0f800000u) bits |= 0x00400000u;
  return __builtin_bit_cast(float, bits | (static_cast<uint32_t>(x.bits & 0x8000u) << 16));
}
OPSIN_INLINE void narrow(float x, Float16* out) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Adding 0.5 aligns the mantissa so that the addition itself rounds to the spacing of subnormal halves.
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    half = __builtin_bit_cast(uint32_t, shifted) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  out->bits = static_cast<uint16_t>(sign | half);
}
#endif

// One vector of the type of computation from adjacent elements of the storage type.
OPSIN_INLINE Float load_wide(const float* p) { return load(p); }
OPSIN_INLINE Double load_wide(const double* p) { return load(p); }
#if defined(__AVX512F__)
OPSIN_INLINE Float widened_from_bfloat16(__m256i half) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
OPSIN_INLINE Float load_wide(const BFloat16* p) {
  return widened_from_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
OPSIN_INLINE Float load_wide(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
#elif defined(__AVX2__)
OPSIN_INLINE Float load_wide(const BFloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
OPSIN_INLINE Float load_wide(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#else
template <class S>
OPSIN_INLINE Float load_wide(const S* p) {
  return Float{widen(p[0]), widen(p[1]), widen(p[2]), widen(p[3])};
}
#endif

// The first `count` lanes from memory, zeros after them; reads nothing beyond.
template <class T, class S>
OPSIN_INLINE Vector<T> load_some(const S* p, int64_t count) {
  constexpr int lanes = lanes_of<T>;
  if (count >= lanes) return load_wide(p);
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << count) - 1u);
  if constexpr (__is_same(S, float)) {
    return _mm512_maskz_loadu_ps(mask, p);
  } else if constexpr (__is_same(S, double)) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), p);
  } else {
    const __m256i half = _mm256_maskz_loadu_epi16(mask, p);
    if constexpr (__is_same(S, Float16)) return _mm512_cvtph_ps(half);
    return widened_from_bfloat16(half);
  }
#else
#if defined(__AVX2__)
  if constexpr (__is_same(S, float)) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), lane));
  }
  if constexpr (__is_same(S, double)) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane));
  }
#endif
  S buffer[lanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return load_wide(buffer);
#endif
}

// Writes the first `count` lanes, nothing if it is not positive.
template <class T>
OPSIN_INLINE void store_some(T* p, Vector<T> v, int64_t count) {
  if (count >= lanes_of<T>) {
    store(p, v);
    return;
  }
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1u);
  if constexpr (__is_same(T, float)) {
    _mm512_mask_storeu_ps(p, mask, v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), v);
  }
#else
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

// The same, rounded to a 16-bit type.
#if defined(__AVX512F__)
OPSIN_INLINE void store_half(void* p, __m256i half, int64_t count) {
  if (count >= 16) return _mm256_storeu_si256(static_cast<__m256i*>(p), half);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1u), half);
}
#if defined(__AVX512BF16__)
// A third of the time of the steps below. Denormal numbers become zeros, as they are to VDPBF16PS.
OPSIN_INLINE __m256i rounded_to_bfloat16(Float v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }
#else
OPSIN_INLINE __m256i rounded_to_bfloat16(Float v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  // A NaN keeps its sign and becomes quiet.
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
#endif
OPSIN_INLINE void store_some(BFloat16* p, Float v, int64_t count) {
  store_half(p, rounded_to_bfloat16(v), count);
}
OPSIN_INLINE void store_some(Float16* p, Float v, int64_t count) {
  store_half(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), count);
}
OPSIN_INLINE __m512i rounded_pair(Float low, Float high, const BFloat16*) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
#else
  return _mm512_inserti64x4(_mm512_castsi256_si512(rounded_to_bfloat16(low)), rounded_to_bfloat16(high), 1);
#endif
}
OPSIN_INLINE __m512i rounded_pair(Float low, Float high, const Float16*) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT)),
                            _mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT), 1);
}
#else
#if defined(__AVX2__)
OPSIN_INLINE __m128i rounded(Float v, const BFloat16*) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i even = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  // A NaN keeps its sign and becomes quiet.
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(even, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
OPSIN_INLINE __m128i rounded(Float v, const Float16*) {
  return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}
#endif
template <class S>
  requires(!__is_same(S, Compute<S>))
OPSIN_INLINE void store_some(S* p, Float v, int64_t count) {
#if defined(__AVX2__)
  if (count >= lanes_of<float>) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded(v, p));
#endif
  const int64_t some = count < lanes_of<float> ? count : lanes_of<float>;
  for (int64_t i = 0; i < some; ++i) narrow(v[i], p + i);
}
#endif

// Writes a vector past the caches. Other threads see it after stream_fence().
#if defined(__AVX512F__)
OPSIN_INLINE void stream(float* p, Float v) { _mm512_stream_ps(p, v); }
OPSIN_INLINE void stream(double* p, Double v) { _mm512_stream_pd(p, v); }
OPSIN_INLINE void stream(BFloat16* p, Float v) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), rounded_to_bfloat16(v));
}
#elif defined(__AVX2__)
OPSIN_INLINE void stream(float* p, Float v) { _mm256_stream_ps(p, v); }
OPSIN_INLINE void stream(double* p, Double v) { _mm256_stream_pd(p, v); }
#else
template <class T>
OPSIN_INLINE void stream(T* p, Vector<T> v) {
  store(p, v);
}
#endif
template <class S>
  requires(!__is_same(S, Compute<S>))
OPSIN_INLINE void stream(S* p, Float v) {
  store_some(p, v, lanes_of<float>);
}
#if defined(__SSE2__)
OPSIN_INLINE void stream_fence() { _mm_sfence(); }
#else
OPSIN_INLINE void stream_fence() {}
#endif

// Exchanges the lanes of x whose bit `D` is set with those of y whose bit is not.
template <class T, int D, int... L>
OPSIN_INLINE void exchange(Vector<T>& x, Vector<T>& y, std::integer_sequence<int, L...>) {
  using Index = typename VectorOf<T>::Index;
  using Lane = typename VectorOf<T>::Lane;
  constexpr int lanes = lanes_of<T>;
  const Index low = {static_cast<Lane>((L & D) ? lanes + L - D : L)...};
  const Index high = {static_cast<Lane>((L & D) ? lanes + L : L + D)...};
  const Vector<T> before = x;
  x = __builtin_shuffle(before, y, low);
  y = __builtin_shuffle(before, y, high);
}

template <class T, int D>
OPSIN_INLINE void exchange(Vector<T>& x, Vector<T>& y) {
  exchange<T, D>(x, y, std::make_integer_sequence<int, lanes_of<T>>{});
}

// Transposes a square of vectors: one step exchanges bit `D` of the row with bit `D` of the lane.
template <class T, int D = lanes_of<T> / 2>
OPSIN_INLINE void transpose(Vector<T>* r) {
#pragma GCC unroll 16
  for (int i = 0; i < lanes_of<T>; ++i) {
    if (!(i & D)) exchange<T, D>(r[i], r[i + D]);
  }
  if constexpr (D > 1) transpose<T, D / 2>(r);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
