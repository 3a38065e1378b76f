// Sizes of the small blocks of the allocator.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace opsin::cpu {

/// Blocks up to here come from slabs through per-thread lists; larger ones are spans of pages.
inline constexpr size_t kSmallBytes = 32768;
inline constexpr size_t kClasses = 56;

/// Classes in steps of 64 bytes up to 512, then 8 per doubling.
constexpr size_t class_of(size_t bytes) {
  if (bytes <= 512) return bytes == 0 ? 0 : (bytes - 1) / 64;
  const int log = 63 - std::countl_zero(bytes - 1);
  return 8 + static_cast<size_t>(log - 9) * 8 + (((bytes - 1) >> (log - 3)) & 7);
}

constexpr size_t class_bytes(size_t index) {
  if (index < 8) return (index + 1) * 64;
  return (9 + index % 8) << (6 + (index - 8) / 8);
}

static_assert(class_bytes(kClasses - 1) == kSmallBytes && class_of(kSmallBytes) == kClasses - 1);
static_assert(class_of(513) == 8 && class_bytes(8) == 576 && class_of(577) == 9);

inline constexpr std::array<uint32_t, kClasses> kClassBytes = [] {
  std::array<uint32_t, kClasses> sizes{};
  for (size_t i = 0; i < kClasses; ++i) sizes[i] = static_cast<uint32_t>(class_bytes(i));
  return sizes;
}();

/// Blocks that move between a thread and the shared pool at once.
constexpr uint32_t batch_of(size_t index) { return std::clamp<uint32_t>(32768 / kClassBytes[index], 4, 32); }

}  // namespace opsin::cpu
