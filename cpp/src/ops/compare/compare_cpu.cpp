#include "compare_kernels.h"

#include <algorithm>
#include <vector>

#include "core/dispatch.h"

namespace opsin {

namespace {

void isin(const IsinParams& p) {
  dispatch_real(p.dtype, "isin", [&]<class T>() {
    using C = compute_t<T>;
    const T* from = static_cast<const T*>(p.wanted);
    std::vector<C> sorted;
    for (int64_t i = 0; i < p.wanted_count; ++i) {
      const C value = static_cast<C>(from[i]);
      // NaN equals nothing, and would break the order.
      if (value == value) sorted.push_back(value);
    }
    std::sort(sorted.begin(), sorted.end());
    const T* x = static_cast<const T*>(p.values);
    for (int64_t i = 0; i < p.count; ++i) {
      p.found[i] = std::binary_search(sorted.begin(), sorted.end(), static_cast<C>(x[i])) != p.invert;
    }
  });
}

}  // namespace

void register_compare_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_complex(dtype)) isin_forward.set(DeviceType::kCPU, dtype, isin);
  }
}

}  // namespace opsin
