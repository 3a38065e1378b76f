// CUDA's device functions that need no other thread: atomics, loads, bits, comparisons, fast mathematics.
// Overloads exist for the types that CUDA has them for and no others, so that what compiles here compiles
// there.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/emulated/vector_types.h"

namespace opsin::cuda::emulated {

template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);

/// What threads exchange by shuffles.
template <class T>
concept WarpValue =
    OneOf<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>;

template <class T>
concept Loadable =
    WarpValue<T> ||
    OneOf<T, char, signed char, unsigned char, short, unsigned short, char2, uchar2, char4, uchar4, short2,
          ushort2, short4, ushort4, int2, uint2, int4, uint4, longlong2, ulonglong2, float2, float4, double2>;

// Atomics order nothing else, as in CUDA, where __threadfence() does. ThreadSanitizer does not know fences.
#if defined(__SANITIZE_THREAD__)
inline constexpr std::memory_order kAtomicOrder = std::memory_order_acq_rel;
inline void fence() {}
#else
inline constexpr std::memory_order kAtomicOrder = std::memory_order_relaxed;
inline void fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
#endif

/// Replaces what `address` holds by `change` of it and returns what it held.
template <class T, class F>
T update(T* address, F change) {
  std::atomic_ref<T> cell(*address);
  T old = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(old, change(old), kAtomicOrder, std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace opsin::cuda::emulated

// The value has the type of the cell: it converts as it does for CUDA's overloads.
template <opsin::cuda::emulated::OneOf<int, unsigned, unsigned long long, float, double> T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return T(old + value); });
}
template <opsin::cuda::emulated::OneOf<int, unsigned> T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return T(old - value); });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return value < old ? value : old; });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return old < value ? value : old; });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return T(old & value); });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return T(old | value); });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, long long, unsigned long long> T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return opsin::cuda::emulated::update(address, [value](T old) { return T(old ^ value); });
}
template <opsin::cuda::emulated::OneOf<int, unsigned, unsigned long long, float> T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*address).exchange(value, opsin::cuda::emulated::kAtomicOrder);
}
template <opsin::cuda::emulated::OneOf<int, unsigned, unsigned long long, unsigned short> T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value, opsin::cuda::emulated::kAtomicOrder,
                                                       std::memory_order_relaxed);
  return expected;
}

inline void __threadfence_block() { opsin::cuda::emulated::fence(); }
inline void __threadfence() { opsin::cuda::emulated::fence(); }
inline void __threadfence_system() { opsin::cuda::emulated::fence(); }

template <opsin::cuda::emulated::Loadable T>
T __ldg(const T* address) {
  return *address;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

/// Rounds to the nearest integer, ties to even; what does not fit becomes the nearest int, NaN becomes 0.
inline int __float2int_rn(float x) {
  if (std::isnan(x)) return 0;
  const float rounded = std::nearbyint(x);
  if (rounded >= 2147483648.0f) return std::numeric_limits<int>::max();
  if (rounded < -2147483648.0f) return std::numeric_limits<int>::min();
  return static_cast<int>(rounded);
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// The C library declares these names as its own: such a body is inlined and never becomes a symbol.
#define OPSIN_FAST_MATH extern inline __attribute__((__gnu_inline__, __always_inline__))
OPSIN_FAST_MATH float __expf(float x) noexcept { return std::exp(x); }
OPSIN_FAST_MATH float __exp10f(float x) noexcept { return std::pow(10.0f, x); }
OPSIN_FAST_MATH float __logf(float x) noexcept { return std::log(x); }
OPSIN_FAST_MATH float __log2f(float x) noexcept { return std::log2(x); }
OPSIN_FAST_MATH float __log10f(float x) noexcept { return std::log10(x); }
OPSIN_FAST_MATH float __powf(float x, float y) noexcept { return std::pow(x, y); }
OPSIN_FAST_MATH float __sinf(float x) noexcept { return std::sin(x); }
OPSIN_FAST_MATH float __cosf(float x) noexcept { return std::cos(x); }
OPSIN_FAST_MATH float __tanf(float x) noexcept { return std::tan(x); }
OPSIN_FAST_MATH void __sincosf(float x, float* sine, float* cosine) noexcept {
  *sine = std::sin(x);
  *cosine = std::cos(x);
}
#undef OPSIN_FAST_MATH

// As in CUDA these are plain functions for each pair of types, not templates; of two floating-point values
// the one that is not NaN wins.
#define OPSIN_MIN_MAX(R, A, B)                                                        \
  constexpr R min(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? a : b; } \
  constexpr R max(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? b : a; }
OPSIN_MIN_MAX(int, int, int)
OPSIN_MIN_MAX(unsigned, unsigned, unsigned)
OPSIN_MIN_MAX(unsigned, int, unsigned)
OPSIN_MIN_MAX(unsigned, unsigned, int)
OPSIN_MIN_MAX(long, long, long)
OPSIN_MIN_MAX(unsigned long, unsigned long, unsigned long)
OPSIN_MIN_MAX(unsigned long, long, unsigned long)
OPSIN_MIN_MAX(unsigned long, unsigned long, long)
OPSIN_MIN_MAX(long long, long long, long long)
OPSIN_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
OPSIN_MIN_MAX(unsigned long long, long long, unsigned long long)
OPSIN_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef OPSIN_MIN_MAX
#define OPSIN_MIN_MAX(R, A, B)                             \
  inline R min(A a, B b) { return std::fmin(R(a), R(b)); } \
  inline R max(A a, B b) { return std::fmax(R(a), R(b)); }
OPSIN_MIN_MAX(float, float, float)
OPSIN_MIN_MAX(double, double, double)
OPSIN_MIN_MAX(double, float, double)
OPSIN_MIN_MAX(double, double, float)
#undef OPSIN_MIN_MAX
