// Philox-4x32-10, a random number generator by counter, and what is made from its words: uniform numbers,
// integers and normals. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3",
// SC'11.
//
// The same seed and offset give the same bits on every instruction set, for any number of threads and on a
// GPU. For the normals this needs IEEE arithmetic without contraction: host files that include this header
// are compiled with -ffp-contract=off, device code uses the rounding intrinsics below.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define OPSIN_HOST_DEVICE __host__ __device__ __forceinline__
#else
// Always inlined: an object compiled for one instruction set must not offer its version to the linker.
#define OPSIN_HOST_DEVICE [[gnu::always_inline]] inline
#endif

namespace opsin::philox {

/// Four words of one counter.
struct Block {
  uint32_t word[4];
};

/// The two halves of a product.
struct Product {
  uint32_t low, high;
};

OPSIN_HOST_DEVICE constexpr Product multiply(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  // One instruction; left to nvcc it is often two.
  if (!std::is_constant_evaluated()) {
    Product product{};
    asm("{ .reg .b64 wide; mul.wide.u32 wide, %2, %3; mov.b64 {%0, %1}, wide; }"
        : "=r"(product.low), "=r"(product.high)
        : "r"(a), "r"(b));
    return product;
  }
#endif
  const uint64_t product = uint64_t{a} * b;
  return {static_cast<uint32_t>(product), static_cast<uint32_t>(product >> 32)};
}

/// The ten rounds for a 128-bit counter and a 64-bit key.
OPSIN_HOST_DEVICE constexpr Block block(const Block& counter, uint32_t key0, uint32_t key1) {
  Block c = counter;
  for (int round = 0; round < 10; ++round) {
    const Product product0 = multiply(0xD2511F53u, c.word[0]), product1 = multiply(0xCD9E8D57u, c.word[2]);
    c = Block{
        {product1.high ^ c.word[1] ^ key0, product1.low, product0.high ^ c.word[3] ^ key1, product0.low}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

/// The four words at `offset` of the stream of `seed`; `stream` selects one of 2^64 streams that never meet.
/// An op that draws n values of 32 bits reserves ceil(n / 4) offsets; value i is word i % 4 of block i / 4.
OPSIN_HOST_DEVICE constexpr Block block(uint64_t seed, uint64_t offset, uint64_t stream = 0) {
  return block(Block{{static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32),
                      static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}},
               static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

/// Two words as one of 64 bits.
OPSIN_HOST_DEVICE constexpr uint64_t join(uint32_t low, uint32_t high) {
  return (uint64_t{high} << 32) | low;
}

/// Uniform in [0, 1), a multiple of 2^-24.
OPSIN_HOST_DEVICE constexpr float uniform_float(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

/// Uniform in [0, 1), a multiple of 2^-53.
OPSIN_HOST_DEVICE constexpr double uniform_double(uint64_t word) {
  return static_cast<double>(word >> 11) * 0x1p-53;
}

/// Uniform integer in [0, range), range > 0; the bias is below range / 2^64.
OPSIN_HOST_DEVICE constexpr uint64_t uniform_integer(uint64_t word, uint64_t range) {
  // The high half of the product, in 32-bit pieces that every compiler and device has.
  const uint64_t w0 = word & 0xffffffffu;
  const uint64_t w1 = word >> 32;
  const uint64_t r0 = range & 0xffffffffu;
  const uint64_t r1 = range >> 32;
  const uint64_t middle = w1 * r0 + ((w0 * r0) >> 32);
  const uint64_t low = w0 * r1 + (middle & 0xffffffffu);
  return w1 * r1 + (middle >> 32) + (low >> 32);
}

/// One rounding per operation, whatever the compiler's flags for device code are.
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float div(float a, float b) { return __fdiv_rn(a, b); }
__device__ __forceinline__ float root(float a) { return __fsqrt_rn(a); }
__device__ __forceinline__ double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double div(double a, double b) { return __ddiv_rn(a, b); }
__device__ __forceinline__ double root(double a) { return __dsqrt_rn(a); }
__device__ __forceinline__ uint32_t bits_of(float a) { return __float_as_uint(a); }
__device__ __forceinline__ uint64_t bits_of(double a) { return __double_as_longlong(a); }
__device__ __forceinline__ float float_of(uint32_t a) { return __uint_as_float(a); }
__device__ __forceinline__ double double_of(uint64_t a) { return __longlong_as_double(a); }
#else
OPSIN_HOST_DEVICE float mul(float a, float b) { return a * b; }
OPSIN_HOST_DEVICE float add(float a, float b) { return a + b; }
OPSIN_HOST_DEVICE float div(float a, float b) { return a / b; }
OPSIN_HOST_DEVICE float root(float a) { return __builtin_sqrtf(a); }
OPSIN_HOST_DEVICE double mul(double a, double b) { return a * b; }
OPSIN_HOST_DEVICE double add(double a, double b) { return a + b; }
OPSIN_HOST_DEVICE double div(double a, double b) { return a / b; }
OPSIN_HOST_DEVICE double root(double a) { return __builtin_sqrt(a); }
OPSIN_HOST_DEVICE uint32_t bits_of(float a) { return __builtin_bit_cast(uint32_t, a); }
OPSIN_HOST_DEVICE uint64_t bits_of(double a) { return __builtin_bit_cast(uint64_t, a); }
OPSIN_HOST_DEVICE float float_of(uint32_t a) { return __builtin_bit_cast(float, a); }
OPSIN_HOST_DEVICE double double_of(uint64_t a) { return __builtin_bit_cast(double, a); }
#endif

/// The logarithm of a normal number in (0, 1]. x = m * 2^e with m in [sqrt(1/2), sqrt(2)), then
/// log m = 2 artanh(s), s = (m - 1) / (m + 1), by its series; |s| < 0.1716 bounds the rest below half an ulp.
OPSIN_HOST_DEVICE float log_unit(float x) {
  const uint32_t shifted = bits_of(x) - 0x3f3504f3u;
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float m = float_of((shifted & 0x007fffffu) + 0x3f3504f3u);
  const float s = div(add(m, -1.0f), add(m, 1.0f));
  const float z = mul(s, s);
  float p = 1.0f / 9;
  p = add(mul(p, z), 1.0f / 7);
  p = add(mul(p, z), 1.0f / 5);
  p = add(mul(p, z), 1.0f / 3);
  const float twice = add(s, s);
  // log 2 in two parts: the first has trailing zeros, so that its product with the exponent is exact.
  const float tail = add(mul(exponent, 0x1.7f7d1cp-20f), mul(mul(twice, z), p));
  return add(mul(exponent, 0x1.62e4p-1f), add(twice, tail));
}

OPSIN_HOST_DEVICE double log_unit(double x) {
  const uint64_t shifted = bits_of(x) - 0x3fe6a09e667f3bcdull;
  const double exponent = static_cast<double>(static_cast<int64_t>(shifted) >> 52);
  const double m = double_of((shifted & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  const double s = div(add(m, -1.0), add(m, 1.0));
  const double z = mul(s, s);
  double p = 1.0 / 21;
  p = add(mul(p, z), 1.0 / 19);
  p = add(mul(p, z), 1.0 / 17);
  p = add(mul(p, z), 1.0 / 15);
  p = add(mul(p, z), 1.0 / 13);
  p = add(mul(p, z), 1.0 / 11);
  p = add(mul(p, z), 1.0 / 9);
  p = add(mul(p, z), 1.0 / 7);
  p = add(mul(p, z), 1.0 / 5);
  p = add(mul(p, z), 1.0 / 3);
  const double twice = add(s, s);
  const double tail = add(mul(exponent, 0x1.cf79abc9e3b3ap-40), mul(mul(twice, z), p));
  return add(mul(exponent, 0x1.62e42fefap-1), add(twice, tail));
}

template <class T>
struct Pair {
  T first;
  T second;
};

/// Turns (cos r, sin r) by `quarter` right angles.
template <class T>
OPSIN_HOST_DEVICE Pair<T> turn(uint32_t quarter, T cosine, T sine) {
  const T x = (quarter & 1) != 0 ? sine : cosine;
  const T y = (quarter & 1) != 0 ? cosine : sine;
  return {((quarter + 1) & 2) != 0 ? -x : x, (quarter & 2) != 0 ? -y : y};
}

/// (cos, sin) of word / 2^32 turns. The reduction to [-pi/4, pi/4] is exact in integers; then Taylor's
/// series.
OPSIN_HOST_DEVICE Pair<float> cos_sin(uint32_t word) {
  const uint32_t quarter = (word + 0x20000000u) >> 30;
  const float r = mul(static_cast<float>(static_cast<int32_t>(word - (quarter << 30))), 0x1.921fb6p-30f);
  const float z = mul(r, r);
  float s = 1.0f / 362880;
  s = add(mul(s, z), -1.0f / 5040);
  s = add(mul(s, z), 1.0f / 120);
  s = add(mul(s, z), -1.0f / 6);
  float c = -1.0f / 3628800;
  c = add(mul(c, z), 1.0f / 40320);
  c = add(mul(c, z), -1.0f / 720);
  c = add(mul(c, z), 1.0f / 24);
  c = add(mul(c, z), -1.0f / 2);
  return turn(quarter, add(mul(c, z), 1.0f), add(mul(mul(s, z), r), r));
}

/// (cos, sin) of word / 2^64 turns.
OPSIN_HOST_DEVICE Pair<double> cos_sin(uint64_t word) {
  const uint64_t quarter = (word + 0x2000000000000000ull) >> 62;
  const double r =
      mul(static_cast<double>(static_cast<int64_t>(word - (quarter << 62))), 0x1.921fb54442d18p-62);
  const double z = mul(r, r);
  double s = 1.0 / 355687428096000.0;
  s = add(mul(s, z), -1.0 / 1307674368000.0);
  s = add(mul(s, z), 1.0 / 6227020800.0);
  s = add(mul(s, z), -1.0 / 39916800);
  s = add(mul(s, z), 1.0 / 362880);
  s = add(mul(s, z), -1.0 / 5040);
  s = add(mul(s, z), 1.0 / 120);
  s = add(mul(s, z), -1.0 / 6);
  double c = -1.0 / 6402373705728000.0;
  c = add(mul(c, z), 1.0 / 20922789888000.0);
  c = add(mul(c, z), -1.0 / 87178291200.0);
  c = add(mul(c, z), 1.0 / 479001600);
  c = add(mul(c, z), -1.0 / 3628800);
  c = add(mul(c, z), 1.0 / 40320);
  c = add(mul(c, z), -1.0 / 720);
  c = add(mul(c, z), 1.0 / 24);
  c = add(mul(c, z), -1.0 / 2);
  return turn(static_cast<uint32_t>(quarter & 3), add(mul(c, z), 1.0), add(mul(mul(s, z), r), r));
}

/// Two independent standard normals from two words (Box and Muller 1958): radius from the first, angle from
/// the second. At most 6.8 in size.
OPSIN_HOST_DEVICE Pair<float> normal_pair(uint32_t first, uint32_t second) {
  const float u = add(mul(static_cast<float>(first), 0x1p-32f), 0x1p-33f);
  const float radius = root(mul(-2.0f, log_unit(u)));
  const Pair<float> direction = cos_sin(second);
  return {mul(radius, direction.first), mul(radius, direction.second)};
}

/// The same in double precision. At most 8.7 in size.
OPSIN_HOST_DEVICE Pair<double> normal_pair(uint64_t first, uint64_t second) {
  const double u = add(mul(static_cast<double>(first >> 11), 0x1p-53), 0x1p-54);
  const double radius = root(mul(-2.0, log_unit(u)));
  const Pair<double> direction = cos_sin(second);
  return {mul(radius, direction.first), mul(radius, direction.second)};
}

}  // namespace opsin::philox
