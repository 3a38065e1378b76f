// What is made from Philox's words, the same bits on every device.
#pragma once

#include <opsin/dtype.h>

#include "core/philox.h"

namespace opsin::philox {

/// As many bits of a word as a value of `dtype` holds exactly, so that rounding never gives 1.
OPSIN_HOST_DEVICE constexpr int uniform_bits(DType dtype) {
  return dtype == kFloat16 ? 11 : dtype == kBFloat16 ? 8 : 24;
}

/// u * range + from for u in [0, 1), a multiple of 2^-bits.
OPSIN_HOST_DEVICE float uniform_in(uint32_t word, int bits, double from, double range) {
  // At most 24 bits, which vectors convert faster as signed.
  const auto value = static_cast<int32_t>(word >> (32 - bits));
  const double unit = 1.0 / static_cast<double>(1 << bits);
  return static_cast<float>(add(mul(mul(static_cast<double>(value), unit), range), from));
}
OPSIN_HOST_DEVICE double uniform_in(uint32_t low, uint32_t high, double from, double range) {
  return add(mul(uniform_double(join(low, high)), range), from);
}

/// A standard normal with another mean and standard deviation.
OPSIN_HOST_DEVICE float normal_with(float x, double mean, double std) {
  return static_cast<float>(add(mul(static_cast<double>(x), std), mean));
}
OPSIN_HOST_DEVICE double normal_with(double x, double mean, double std) { return add(mul(x, std), mean); }

/// low + an integer in [0, range).
template <class Range>
OPSIN_HOST_DEVICE int64_t integer_in(uint32_t word0, uint32_t word1, int64_t low, Range range) {
  return static_cast<int64_t>(static_cast<uint64_t>(low) + uniform_integer(join(word0, word1), range));
}

/// 1 with a probability of limit / 2^24.
OPSIN_HOST_DEVICE bool is_below(uint32_t word, uint32_t limit) { return (word >> 8) < limit; }

}  // namespace opsin::philox
