#include "view_kernels.h"

#include <algorithm>
#include <cstring>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

void keep(const TriangularParams& p) {
  const size_t item = item_size(p.dtype);
  const auto copy = [&](int64_t row, int64_t first, int64_t last) {
    const size_t at = static_cast<size_t>(row * p.columns + first) * item;
    if (last > first && p.from != p.to) {
      std::memcpy(p.to + at, p.from + at, static_cast<size_t>(last - first) * item);
    }
  };
  const auto clear = [&](int64_t row, int64_t first, int64_t last) {
    const size_t at = static_cast<size_t>(row * p.columns + first) * item;
    if (last > first) std::memset(p.to + at, 0, static_cast<size_t>(last - first) * item);
  };
  const int64_t grain = std::max<int64_t>(1, 32768 / p.columns);
  cpu::parallel_for(p.count * p.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      // Where the row meets the diagonal; its element belongs to both triangles.
      const int64_t middle = std::clamp<int64_t>(row % p.rows + p.diagonal + (p.upper ? 0 : 1), 0, p.columns);
      if (p.upper) {
        clear(row, 0, middle);
        copy(row, middle, p.columns);
      } else {
        copy(row, 0, middle);
        clear(row, middle, p.columns);
      }
    }
  });
}

}  // namespace

void register_view_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) triangle_keep.set(DeviceType::kCPU, static_cast<DType>(i), keep);
}

}  // namespace opsin
