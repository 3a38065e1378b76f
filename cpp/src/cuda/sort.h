// Stable radix sort of the rows of a matrix.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <opsin/half.h>

#include "core/math_parts.h"
#include "cuda/scratch.h"

namespace opsin::cuda {

/// Unsigned numbers in the order of the values: 32 bits for types of up to 4 bytes, else 64. NaN comes last,
/// as in PyTorch, and -0 is equal to 0. `~key` gives the reverse order.
template <class T>
using RadixKey = std::conditional_t<sizeof(T) <= 4, std::uint32_t, std::uint64_t>;

template <class T>
OPSIN_FN RadixKey<T> radix_key(T value) {
  if constexpr (std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>) {
    constexpr std::uint32_t kInfinity = std::is_same_v<T, float16> ? 0x7c00 : 0x7f80;
    const std::uint32_t bits = value.bits, size = bits & 0x7fff;
    if (size > kInfinity) return 0xffff;
    return size == 0 ? 0x8000 : bits & 0x8000 ? bits ^ 0xffff : bits | 0x8000;
  } else if constexpr (std::is_floating_point_v<T>) {
    using Key = RadixKey<T>;
    constexpr Key kSign = Key{1} << (8 * sizeof(Key) - 1);
    if (value != value) return static_cast<Key>(~Key{0});
    const Key bits = value == T(0) ? Key{0} : __builtin_bit_cast(Key, value);
    return bits & kSign ? static_cast<Key>(~bits) : bits | kSign;
  } else if constexpr (std::is_signed_v<T>) {
    using Unsigned = std::make_unsigned_t<T>;
    return static_cast<Unsigned>(static_cast<Unsigned>(value) ^ (Unsigned{1} << (8 * sizeof(T) - 1)));
  } else {
    return static_cast<RadixKey<T>>(value);
  }
}
/// How many of the lowest bits of a key can differ.
template <class T>
inline constexpr int kRadixBits = std::is_same_v<T, bool> ? 1 : 8 * static_cast<int>(sizeof(T));

/// What sort_rows() gives; lies on the device. `keys` is the memory of the caller or of this.
template <class Key>
struct SortedRows {
  Key* keys;
  std::uint32_t* positions;  ///< Where in its row each key was.
  Scratch<Key> key_memory;
  Scratch<std::uint32_t> position_memory[2];
};

/// Sorts each of `rows` rows of `n` < 2^32 keys, the smallest first, equal ones in the order they had. All
/// keys are below 2^bits, or all have the same bits above them. Overwrites `keys`. Key is uint32_t or
/// uint64_t.
template <class Key>
SortedRows<Key> sort_rows(Key* keys, std::int64_t rows, std::int64_t n, int bits);

extern template SortedRows<std::uint32_t> sort_rows(std::uint32_t*, std::int64_t, std::int64_t, int);
extern template SortedRows<std::uint64_t> sort_rows(std::uint64_t*, std::int64_t, std::int64_t, int);

}  // namespace opsin::cuda
