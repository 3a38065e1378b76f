// What pooling kernels share: pixels of windows, and channels in the type of computation.
#pragma once

#include "gemm_vector.h"
#include "pool_table.h"

#include <cstdint>

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int block = 32;

// For lambdas: a block must be compiled for its constant length.
#define OPSIN_INLINED __attribute__((always_inline))

template <class S>
constexpr bool is_half = __is_same(S, Float16) || __is_same(S, BFloat16);

// `count` values in the type of computation, in `buffer` if they need conversion.
template <class S>
OPSIN_INLINE const Compute<S>* read(const S* in, int64_t count, Compute<S>* buffer) {
  if constexpr (is_half<S>) {
    constexpr int lanes = lanes_of<float>;
    for (int64_t i = 0; i < count; i += lanes) store(buffer + i, load_some<float>(in + i, count - i));
    return buffer;
  } else {
    return in;
  }
}

template <class S>
OPSIN_INLINE void write(S* out, const Compute<S>* values, int64_t count) {
  if constexpr (is_half<S>) {
    for (int64_t i = 0; i < count; ++i) narrow(values[i], out + i);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = values[i];
  }
}

struct Position {
  int64_t index[3];
};

// Calls body(position) for the pixels of a row.
template <class F>
OPSIN_INLINE void for_pixels(int64_t row, int64_t size1, int64_t size2, F&& body) {
  Position at{{row / size1, row % size1, 0}};
  for (; at.index[2] < size2; ++at.index[2]) body(at);
}

// The first pixel of window o of an axis; inside the input even if the window is not.
OPSIN_INLINE int64_t first_of(const PoolAxis& axis, int64_t o) {
  return axis.begin[o] < axis.in ? axis.begin[o] : axis.in - 1;
}
OPSIN_INLINE int64_t first_pixel(const PoolWindows& w, int64_t o0, int64_t o1, int64_t o2) {
  return (first_of(w.axis[0], o0) * w.axis[1].in + first_of(w.axis[1], o1)) * w.axis[2].in +
         first_of(w.axis[2], o2);
}

OPSIN_INLINE int64_t divisor_of(const PoolWindows& w, int64_t o0, int64_t o1, int64_t o2) {
  return w.divisor != 0 ? w.divisor : w.axis[0].length[o0] * w.axis[1].length[o1] * w.axis[2].length[o2];
}

// As many taps as a vector has lanes.
template <class T>
OPSIN_INLINE typename VectorOf<T>::Index load_taps(const uint8_t* from) {
#if defined(__AVX2__)
  // GCC widens bytes one by one.
  __m128i bytes = {};
  __builtin_memcpy(&bytes, from, lanes_of<T>);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Int32)_mm512_cvtepu8_epi32(bytes);
  if constexpr (sizeof(T) == 8) return (Int64)_mm512_cvtepu8_epi64(bytes);
#else
  if constexpr (sizeof(T) == 4) return (Int32)_mm256_cvtepu8_epi32(bytes);
  if constexpr (sizeof(T) == 8) return (Int64)_mm256_cvtepu8_epi64(bytes);
#endif
#else
  typename VectorOf<T>::Index taps{};
  for (int i = 0; i < lanes_of<T>; ++i) taps[i] = from[i];
  return taps;
#endif
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
