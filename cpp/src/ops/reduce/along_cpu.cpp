// Fills the CPU slots of elements picked along a dimension.
#include "along_kernels.h"

#include <algorithm>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Calls body(offset in the large tensor, offset in the small one) for each index; `outer` slices run in
/// parallel.
template <class Body>
void for_picks(const AlongParams& p, Body&& body) {
  const int64_t work = std::max<int64_t>(1, p.small * p.inner);
  cpu::parallel_for(p.outer, std::max<int64_t>(1, 16384 / work), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      if (p.inner == 1) {
        const int64_t first = o * p.small, base = o * p.large;
        const int64_t* const index = p.index + first;
        for (int64_t i = 0; i < p.small; ++i) body(base + index[i], first + i);
        continue;
      }
      for (int64_t i = 0; i < p.small; ++i) {
        for (int64_t k = 0; k < p.inner; ++k) {
          const int64_t at = (o * p.small + i) * p.inner + k;
          body((o * p.large + p.index[at]) * p.inner + k, at);
        }
      }
    }
  });
}

template <class T>
void take(const AlongParams& p) {
  const auto* from = static_cast<const T*>(p.x);
  auto* to = static_cast<T*>(p.y);
  for_picks(p, [&](int64_t large, int64_t small) { to[small] = from[large]; });
}

template <class T>
void put(const AlongParams& p) {
  const auto* from = static_cast<const T*>(p.x);
  auto* to = static_cast<T*>(p.y);
  for_picks(p, [&](int64_t large, int64_t small) {
    to[large] = static_cast<T>(static_cast<compute_t<T>>(to[large]) + static_cast<compute_t<T>>(from[small]));
  });
}

}  // namespace

void register_along_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    dispatch_all(dtype, "take_along", [&]<class T>() {
      take_along_rows.set(DeviceType::kCPU, dtype, take<T>);
      put_along_rows.set(DeviceType::kCPU, dtype, put<T>);
    });
  }
}

}  // namespace opsin
