// Elements as unsigned keys that are ordered as the elements are; for kernels.
#pragma once

#include <opsin/dtype.h>

#include "cuda/access.h"
#include "sort_kernels.h"

namespace opsin {

/// Rows of n elements.
struct SortSource {
  const char* x;
  int64_t n;
  DType dtype;
  unsigned size;
  bool descending;
};

/// Whether keys have 64 bits; they have 32 otherwise.
constexpr bool has_wide_keys(DType dtype) { return dtype == kFloat64 || dtype == kInt64; }

/// Equal elements have equal keys, zeros of both signs too; NaN has the largest (the smallest if descending).
template <class Key>
__device__ __forceinline__ Key key_at(const SortSource& s, int64_t row, int64_t position) {
  constexpr Key kSign = Key(1) << (8 * sizeof(Key) - 1);
  const char* from = s.x + (row * s.n + position) * s.size;
  Key key;
  if (is_floating_point(s.dtype)) {
    using Real = std::conditional_t<sizeof(Key) == 8, double, float>;
    const Real value = cuda::load<Real>(from, s.dtype);
    const Key bits = __builtin_bit_cast(Key, value);
    key = (bits & kSign) != 0 ? ~bits : bits | kSign;
    if (value == 0) key = kSign;
    if (value != value) key = ~Key(0);
  } else {
    key = static_cast<Key>(cuda::load<int64_t>(from, s.dtype)) ^ kSign;
  }
  return s.descending ? static_cast<Key>(~key) : key;
}

/// Where the median of n ascending keys is: the first NaN, or the lower of the two middle ones.
template <class Key>
__device__ __forceinline__ int64_t median_place(const Key* keys, int64_t n, const SortSource& s) {
  if (!is_floating_point(s.dtype) || keys[n - 1] != ~Key(0)) return (n - 1) / 2;
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] == ~Key(0)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

/// Element `position` of a row as number `to` of `values`.
__device__ __forceinline__ void copy_value(const SortSource& s, char* values, int64_t to, int64_t row,
                                           int64_t position) {
  const int64_t from = row * s.n + position;
  switch (s.size) {
    case 1:
      reinterpret_cast<uint8_t*>(values)[to] = reinterpret_cast<const uint8_t*>(s.x)[from];
      return;
    case 2:
      reinterpret_cast<uint16_t*>(values)[to] = reinterpret_cast<const uint16_t*>(s.x)[from];
      return;
    case 4:
      reinterpret_cast<uint32_t*>(values)[to] = reinterpret_cast<const uint32_t*>(s.x)[from];
      return;
    default:
      reinterpret_cast<uint64_t*>(values)[to] = reinterpret_cast<const uint64_t*>(s.x)[from];
  }
}

}  // namespace opsin
