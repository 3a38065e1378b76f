// Division of 32-bit numbers by a divisor that the host knows, without a division instruction, which GPUs
// lack.
#pragma once

#include <cstdint>

#include "core/math_parts.h"

namespace opsin::cuda {

/// Quotients and remainders of unsigned 32-bit numbers, exact for every numerator; made on the host, passed
/// to kernels by value. A divisor of 0 counts as 1: it belongs to an empty tensor, whose elements nobody
/// looks up.
///
/// Method: T. Granlund, P. L. Montgomery, "Division by invariant integers using multiplication" (1994),
/// figure 4.1.
class Divider {
 public:
  struct Result {
    std::uint32_t quotient;
    std::uint32_t remainder;
  };

  constexpr Divider() = default;
  constexpr explicit Divider(std::uint32_t divisor) : divisor_(divisor == 0 ? 1 : divisor) {
    unsigned bits = 0;  // log2 of the divisor, rounded up
    while ((std::uint64_t{1} << bits) < divisor_) ++bits;
    const std::uint64_t excess = (std::uint64_t{1} << bits) - divisor_;
    factor_ = static_cast<std::uint32_t>((excess << 32) / divisor_ + 1);
    first_shift_ = bits == 0 ? 0 : 1;
    second_shift_ = bits == 0 ? 0 : static_cast<std::uint8_t>(bits - 1);
  }

  constexpr std::uint32_t divisor() const { return divisor_; }

  OPSIN_FN constexpr std::uint32_t divide(std::uint32_t n) const {
    const std::uint32_t high = static_cast<std::uint32_t>(std::uint64_t{factor_} * n >> 32);
    return (high + ((n - high) >> first_shift_)) >> second_shift_;
  }
  OPSIN_FN constexpr std::uint32_t modulo(std::uint32_t n) const { return n - divide(n) * divisor_; }
  OPSIN_FN constexpr Result divmod(std::uint32_t n) const {
    const std::uint32_t quotient = divide(n);
    return {quotient, n - quotient * divisor_};
  }

 private:
  std::uint32_t divisor_ = 1;
  std::uint32_t factor_ = 1;
  std::uint8_t first_shift_ = 0;
  std::uint8_t second_shift_ = 0;
};

}  // namespace opsin::cuda
