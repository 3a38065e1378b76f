// The loops over rows and along dimensions, and those over masks.
#include "index_kernels.h"
#include "row_loops.h"

#include <limits>
#include <type_traits>

namespace opsin {

namespace {

template <class T>
T neutral(Fold fold) {
  using Limits = std::numeric_limits<T>;
  if (fold == Fold::kProduct) return T(1);
  if constexpr (Limits::has_infinity) {
    return fold == Fold::kLargest ? -Limits::infinity() : Limits::infinity();
  } else {
    return fold == Fold::kLargest ? Limits::lowest() : Limits::max();
  }
}

template <class T>
T combined(Fold fold, T a, T b) {
  if (fold == Fold::kProduct) {
    if constexpr (std::is_same_v<T, bool>) {
      return a && b;
    } else {
      return static_cast<T>(a * b);
    }
  }
  if (b != b) return b;
  return (fold == Fold::kLargest ? b > a : b < a) ? b : a;
}

template <class T>
const T* source(const IndexParams& p) {
  return static_cast<const T*>(p.from);
}
template <class T>
T* target(const IndexParams& p) {
  return static_cast<T*>(p.to);
}

void select(const IndexParams& p) {
  row_loops::dispatch_item(item_size(p.dtype), [&]<class T>() {
    row_loops::select(source<T>(p), p.at, target<T>(p), p.geometry);
  });
}
void put(const IndexParams& p) {
  row_loops::dispatch_item(item_size(p.dtype),
                           [&]<class T>() { row_loops::put(target<T>(p), p.at, source<T>(p), p.geometry); });
}
void add(const IndexParams& p) {
  dispatch_all(p.dtype, "index_add_",
               [&]<class T>() { row_loops::add(target<T>(p), p.at, source<T>(p), p.geometry); });
}
void gather(const IndexParams& p) {
  row_loops::dispatch_item(item_size(p.dtype), [&]<class T>() {
    row_loops::gather(source<T>(p), p.at, target<T>(p), p.geometry);
  });
}
void scatter(const IndexParams& p) {
  row_loops::dispatch_item(item_size(p.dtype), [&]<class T>() {
    row_loops::scatter(target<T>(p), p.at, source<T>(p), p.geometry,
                       [](const T&, const T& value) { return value; });
  });
}
void fold_sum(const IndexParams& p) {
  dispatch_all(p.dtype, "scatter_add", [&]<class T>() {
    row_loops::scatter(target<T>(p), p.at, source<T>(p), p.geometry,
                       [](const T& old, const T& value) { return static_cast<T>(old + value); });
  });
}
void fold(const IndexParams& p) {
  if (p.fold == Fold::kSum) return fold_sum(p);
  dispatch_real(p.dtype, "scatter_reduce", [&]<class T>() {
    if (!p.include_self) {
      const T start = neutral<T>(p.fold);
      row_loops::scatter(target<T>(p), p.at, source<T>(p), p.geometry,
                         [start](const T&, const T&) { return start; });
    }
    row_loops::scatter(target<T>(p), p.at, source<T>(p), p.geometry,
                       [fold = p.fold](const T& a, const T& b) { return combined(fold, a, b); });
  });
}

void combine(const CombineParams& p) {
  for (int64_t i = 0; i < p.count; ++i) p.rows[i] = (p.first ? 0 : p.rows[i] * p.size) + p.at[i];
}

void count_true(const NonzeroParams& p) {
  int64_t count = 0;
  for (int64_t i = 0; i < p.n; ++i) count += p.mask[i];
  p.counts[0] = 0;
  p.counts[1] = count;
}
void write_true(const NonzeroParams& p) {
  int64_t* out = p.positions;
  for (int64_t i = 0; i < p.n; ++i) {
    if (p.mask[i]) *out++ = i;
  }
}
void unravel(const NonzeroParams& p) {
  for (int64_t i = 0; i < p.count; ++i) {
    int64_t rest = p.flat[i];
    for (int d = p.rank; d-- > 0;) {
      p.positions[i * p.rank + d] = rest % p.sizes[d];
      rest /= p.sizes[d];
    }
  }
}

}  // namespace

void register_index_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    rows_select.set(DeviceType::kCPU, dtype, select);
    rows_put.set(DeviceType::kCPU, dtype, put);
    along_gather.set(DeviceType::kCPU, dtype, gather);
    along_scatter.set(DeviceType::kCPU, dtype, scatter);
    // Sums of 16-bit floats are formed in wider memory.
    if (compute_type(dtype) != dtype) continue;
    rows_add.set(DeviceType::kCPU, dtype, add);
    along_fold.set(DeviceType::kCPU, dtype, fold);
  }
  rows_combine.set(DeviceType::kCPU, kInt64, combine);
  nonzero_count.set(DeviceType::kCPU, kBool, count_true);
  nonzero_write.set(DeviceType::kCPU, kBool, write_true);
  nonzero_unravel.set(DeviceType::kCPU, kInt64, unravel);
}

}  // namespace opsin
