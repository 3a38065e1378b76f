// 16-bit floating-point storage types. Values are stored in 16 bits and computed in float32.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace opsin {

namespace detail {

/// IEEE binary16 to binary32, exact.
[[gnu::always_inline]] constexpr inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = h & 0x7fffu;
  // Subnormals come out right through one exact subtraction; the exponent is re-biased by adding 112 << 23.
  const float normal = std::bit_cast<float>((magnitude << 13) + (112u << 23));
  const float subnormal = std::bit_cast<float>(magnitude + 0x3f000000u) - 0.5f;
  const float special = std::bit_cast<float>((magnitude << 13) | 0x7f800000u);
  const float value = magnitude >= 0x7c00u ? special : magnitude < 0x0400u ? subnormal : normal;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

/// binary32 to IEEE binary16, round to nearest even; overflow gives infinity, NaN stays NaN.
[[gnu::always_inline]] constexpr inline uint16_t float_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rounded = (magnitude + 0x0fffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  const uint32_t subnormal =
      std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  uint32_t half = magnitude < (113u << 23) ? subnormal : rounded;
  half = magnitude >= 0x47800000u ? 0x7c00u : half;
  half = magnitude > 0x7f800000u ? 0x7e00u : half;
  return static_cast<uint16_t>(half | sign);
}

[[gnu::always_inline]] constexpr inline float bfloat_to_float(uint16_t b) {
  return std::bit_cast<float>(static_cast<uint32_t>(b) << 16);
}

/// binary32 to bfloat16, round to nearest even; NaN stays NaN.
[[gnu::always_inline]] constexpr inline uint16_t float_to_bfloat(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

}  // namespace detail

/// IEEE binary16.
struct float16 {
  uint16_t bits = 0;
  constexpr float16() = default;
  [[gnu::always_inline]] explicit constexpr float16(float value) : bits(detail::float_to_half(value)) {}
  [[gnu::always_inline]] constexpr operator float() const { return detail::half_to_float(bits); }
};

/// The upper half of a binary32.
struct bfloat16 {
  uint16_t bits = 0;
  constexpr bfloat16() = default;
  [[gnu::always_inline]] explicit constexpr bfloat16(float value) : bits(detail::float_to_bfloat(value)) {}
  [[gnu::always_inline]] constexpr operator float() const { return detail::bfloat_to_float(bits); }
};

}  // namespace opsin
