#include "compare_kernels.h"

#include "core/dispatch.h"
#include "cuda/block.h"
#include "cuda/sort.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) make_keys(const T* values, RadixKey<T>* keys, int64_t n) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) keys[i] = radix_key(values[i]);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    find_keys(const T* values, int64_t count, const RadixKey<T>* keys, int64_t n, bool invert, bool* found) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < count; i += thread_count()) {
    const T value = values[i];
    const RadixKey<T> key = radix_key(value);
    int64_t low = 0, high = n;  // The first key that is not smaller is in [low, high].
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (keys[middle] < key) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    // NaN equals nothing.
    found[i] = (low < n && keys[low] == key && value == value) != invert;
  }
}

template <class T>
void isin(const IsinParams& p) {
  using Key = RadixKey<T>;
  if (p.count == 0) return;
  const Scratch<Key> keys(std::max<int64_t>(p.wanted_count, 1));
  OPSIN_LAUNCH(make_keys<T>, grid_for(p.wanted_count, kThreads), kThreads, 0, static_cast<const T*>(p.wanted),
               keys.data(), p.wanted_count);
  const SortedRows<Key> sorted = sort_rows(keys.data(), 1, p.wanted_count, kRadixBits<T>);
  OPSIN_LAUNCH(find_keys<T>, grid_for(p.count, kThreads), kThreads, 0, static_cast<const T*>(p.values),
               p.count, sorted.keys, p.wanted_count, p.invert, p.found);
}

}  // namespace

void register_compare_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (is_complex(dtype)) continue;
    dispatch_real(dtype, "isin", [&]<class T>() { isin_forward.set(DeviceType::kCUDA, dtype, isin<T>); });
  }
}

}  // namespace opsin
