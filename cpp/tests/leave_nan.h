// NaN in the memory that the allocator hands out next, so that a kernel which multiplies what nobody wrote,
// if only by zero, shows.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/allocator.h"

namespace opsin::cpu {

inline void leave_nan() {
  constexpr size_t most = size_t{256} << 10;
  std::vector<std::pair<void*, size_t>> blocks;
  for (size_t bytes = 64; bytes <= most; bytes += std::max<size_t>(64, bytes / 8)) {
    for (int i = 0; i < 4; ++i) {
      blocks.emplace_back(allocate(bytes), bytes);
      std::memset(blocks.back().first, 0xff, bytes);
    }
  }
  for (const auto& [block, bytes] : blocks) deallocate(block, bytes);
}

}  // namespace opsin::cpu
