// Values in memory and in registers: 16-bit floats are computed in float32, and which of them lies in memory
// is told at run time, so that one kernel serves all three.
#pragma once

#include <cstdint>
#include <type_traits>

#include <opsin/dtype.h>

#include "cuda/launch.h"

namespace opsin::cuda {

/// Sixteen bytes that are moved, not computed with.
struct alignas(16) Bits128 {
  uint64_t low, high;
};

/// Complex numbers as they lie in memory; std::complex has no device code.
template <class T>
struct alignas(2 * sizeof(T)) Complex {
  T real, imag;
};

__host__ __device__ inline float half_to_float(uint16_t bits) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
#else
  return opsin::detail::half_to_float(bits);
#endif
}
__host__ __device__ inline uint16_t float_to_half(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  return opsin::detail::float_to_half(value);
#endif
}
__host__ __device__ inline float bfloat_to_float(uint16_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
#else
  return opsin::detail::bfloat_to_float(bits);
#endif
}
__host__ __device__ inline uint16_t float_to_bfloat(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  return opsin::detail::float_to_bfloat(value);
#endif
}

/// Two at once, the first in the lower half, as they lie in memory.
__host__ __device__ inline void halves_to_floats(uint32_t bits, float& first, float& second) {
#if defined(__CUDA_ARCH__)
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
      : "=f"(first), "=f"(second)
      : "r"(bits));
#else
  first = half_to_float(static_cast<uint16_t>(bits));
  second = half_to_float(static_cast<uint16_t>(bits >> 16));
#endif
}
__host__ __device__ inline void bfloats_to_floats(uint32_t bits, float& first, float& second) {
#if defined(__CUDA_ARCH__)
  first = __uint_as_float(bits << 16);
  second = __uint_as_float(bits & 0xffff0000u);
#else
  first = bfloat_to_float(static_cast<uint16_t>(bits));
  second = bfloat_to_float(static_cast<uint16_t>(bits >> 16));
#endif
}
__host__ __device__ inline uint32_t floats_to_halves(float first, float second) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#else
  return float_to_half(first) | static_cast<uint32_t>(float_to_half(second)) << 16;
#endif
}
__host__ __device__ inline uint32_t floats_to_bfloats(float first, float second) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
#else
  return float_to_bfloat(first) | static_cast<uint32_t>(float_to_bfloat(second)) << 16;
#endif
}

/// A 16-bit float of dtype `stored` as float and back.
__host__ __device__ inline float widen(uint16_t bits, DType stored) {
  return stored == kFloat16 ? half_to_float(bits) : bfloat_to_float(bits);
}
__host__ __device__ inline uint16_t narrow(float value, DType stored) {
  return stored == kFloat16 ? float_to_half(value) : float_to_bfloat(value);
}

__host__ __device__ inline uint32_t narrow_pair(float first, float second, DType stored) {
  return stored == kFloat16 ? floats_to_halves(first, second) : floats_to_bfloats(first, second);
}

/// N neighbours that are loaded or stored at once.
template <class T, int N>
struct alignas(sizeof(T) * N <= 16 ? sizeof(T) * N : 16) Pack {
  T value[N];
};

/// Reads N neighbours at `from`, which is aligned to all of them (N = 1: to one), as T:
///   float               stored as float32, float16 or bfloat16
///   int64_t             stored as int64 or any narrower integer or bool
///   int32_t             the same, but not int64
///   unsigned and Bits128  bits as they are, or 0 and 1 from bool
///   others              stored as they are
template <class T, int N>
__host__ __device__ inline void load(T (&to)[N], const char* from, DType stored) {
  const auto read = [&]<class S>(auto convert) {
    const auto pack = *reinterpret_cast<const Pack<S, N>*>(from);
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = convert(pack.value[i]);
  };
  const auto same = [](auto x) { return static_cast<T>(x); };
  if constexpr (std::is_same_v<T, float>) {
    if (stored == kFloat32) return read.template operator()<float>(same);
    return read.template operator()<uint16_t>([&](uint16_t bits) { return widen(bits, stored); });
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, int32_t>) {
    if constexpr (std::is_same_v<T, int64_t>) {
      if (stored == kInt64) return read.template operator()<int64_t>(same);
    }
    switch (stored) {
      case kInt32:
        return read.template operator()<int32_t>(same);
      case kInt16:
        return read.template operator()<int16_t>(same);
      case kInt8:
        return read.template operator()<int8_t>(same);
      default:
        return read.template operator()<uint8_t>(same);
    }
  } else if constexpr (std::is_same_v<T, Bits128>) {
    if (stored != kBool) return read.template operator()<Bits128>([](Bits128 x) { return x; });
    return read.template operator()<uint8_t>([](uint8_t x) { return Bits128{x, 0}; });
  } else if constexpr (std::is_unsigned_v<T> && sizeof(T) > 1) {
    if (stored != kBool) return read.template operator()<T>(same);
    return read.template operator()<uint8_t>(same);
  } else {
    (void)stored;
    read.template operator()<T>([](T x) { return x; });
  }
}
template <class T>
__host__ __device__ inline T load(const char* from, DType stored) {
  T value[1];
  load(value, from, stored);
  return value[0];
}

/// Writes N neighbours, an even number, as 16-bit floats.
template <int N>
__host__ __device__ inline void store_words(const float (&from)[N], char* to, DType stored) {
  Pack<uint32_t, N / 2> pack;
  OPSIN_UNROLL
  for (int i = 0; i < N / 2; ++i) pack.value[i] = narrow_pair(from[2 * i], from[2 * i + 1], stored);
  *reinterpret_cast<Pack<uint32_t, N / 2>*>(to) = pack;
}
/// Writes N neighbours, as load() reads them. Integers are cut to the width of their dtype.
template <class T, int N>
__host__ __device__ inline void store(const T (&from)[N], char* to, DType stored) {
  const auto write = [&]<class S>(auto convert) {
    Pack<S, N> pack;
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) pack.value[i] = convert(from[i]);
    *reinterpret_cast<Pack<S, N>*>(to) = pack;
  };
  if constexpr (std::is_same_v<T, float>) {
    if (stored == kFloat32) return write.template operator()<float>([](float x) { return x; });
    if constexpr (N % 2 == 0) {
      store_words(from, to, stored);
    } else {
      write.template operator()<uint16_t>([&](float x) { return narrow(x, stored); });
    }
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, int32_t>) {
    if constexpr (std::is_same_v<T, int64_t>) {
      if (stored == kInt64) return write.template operator()<int64_t>([](T x) { return x; });
    }
    switch (stored) {
      case kInt32:
        return write.template operator()<int32_t>([](T x) { return static_cast<int32_t>(x); });
      case kInt16:
        return write.template operator()<int16_t>([](T x) { return static_cast<int16_t>(x); });
      default:
        return write.template operator()<int8_t>([](T x) { return static_cast<int8_t>(x); });
    }
  } else {
    (void)stored;
    write.template operator()<T>([](T x) { return x; });
  }
}
template <class T>
__host__ __device__ inline void store(T value, char* to, DType stored) {
  const T values[1] = {value};
  store(values, to, stored);
}

/// N neighbours as they lie in memory. They are read first and converted later: what lies in memory is asked
/// at run time, and compilers move no load past a branch, so that a conversion would wait for each load
/// alone.
template <class T, int N>
struct Chunk {
  T values[N];
  __device__ void read(const char* from, DType stored) { load(values, from, stored); }
  __device__ void get(T (&to)[N], DType) const {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = values[i];
  }
  /// A single element that serves all N.
  __device__ void read_one(const char* from, DType stored) { values[0] = load<T>(from, stored); }
  __device__ T get_one(DType) const { return values[0]; }
};
/// Pairs of 16-bit floats, as words, to floats.
template <int N>
__device__ __forceinline__ void widen_words(float (&to)[N], const uint32_t* words, DType stored) {
  OPSIN_UNROLL
  for (int i = 0; i < N; i += 2) {
    if (stored == kFloat16) {
      halves_to_floats(words[i / 2], to[i], to[i + 1]);
    } else {
      bfloats_to_floats(words[i / 2], to[i], to[i + 1]);
    }
  }
}
template <int N>
struct Chunk<float, N> {
  uint32_t words[N];
  __device__ void read(const char* from, DType stored) {
    if (stored == kFloat32) {
      const auto pack = *reinterpret_cast<const Pack<uint32_t, N>*>(from);
      OPSIN_UNROLL
      for (int i = 0; i < N; ++i) words[i] = pack.value[i];
    } else {
      const auto pack = *reinterpret_cast<const Pack<uint32_t, N / 2>*>(from);
      OPSIN_UNROLL
      for (int i = 0; i < N / 2; ++i) words[i] = pack.value[i];
    }
  }
  __device__ void get(float (&to)[N], DType stored) const {
    if (stored == kFloat32) {
      OPSIN_UNROLL
      for (int i = 0; i < N; ++i) to[i] = __builtin_bit_cast(float, words[i]);
    } else {
      widen_words(to, words, stored);
    }
  }
  __device__ void read_one(const char* from, DType stored) {
    words[0] = stored == kFloat32 ? *reinterpret_cast<const uint32_t*>(from)
                                  : *reinterpret_cast<const uint16_t*>(from);
  }
  __device__ float get_one(DType stored) const {
    return stored == kFloat32 ? __builtin_bit_cast(float, words[0])
                              : widen(static_cast<uint16_t>(words[0]), stored);
  }
};

/// The same where only the 16-bit floats come: half the instructions.
template <int N>
struct HalfChunk {
  Pack<uint32_t, N / 2> pack;
  __device__ void read(const char* from, DType) {
    pack = *reinterpret_cast<const Pack<uint32_t, N / 2>*>(from);
  }
  __device__ void get(float (&to)[N], DType stored) const { widen_words(to, pack.value, stored); }
};

}  // namespace opsin::cuda
