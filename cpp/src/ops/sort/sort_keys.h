// Elements as unsigned keys that are ordered as the elements are; for kernels.
#pragma once

#include "sort_kernels.h"

#include <opsin/dtype.h>

#include "core/math_parts.h"
#include "cuda/launch.h"

namespace opsin {

/// Rows of n elements.
struct SortSource {
  const char* x;
  int64_t n;
  unsigned size;      ///< Bytes of an element.
  uint64_t infinity;  ///< The bits of the infinite value; 0 for integers.
  bool is_signed;
  bool descending;
};

inline SortSource source_of(const SortParams& p) {
  uint64_t infinity = 0;
  if (p.dtype == kFloat16) infinity = 0x7c00;
  if (p.dtype == kBFloat16) infinity = 0x7f80;
  if (p.dtype == kFloat32) infinity = 0x7f800000;
  if (p.dtype == kFloat64) infinity = 0x7ff0000000000000;
  return {
      static_cast<const char*>(p.x),         p.n,         static_cast<unsigned>(item_size(p.dtype)), infinity,
      p.dtype != kBool && p.dtype != kUInt8, p.descending};
}

/// All bits that a key of elements of `size` bytes can have.
template <class Key>
OPSIN_FN Key key_mask(unsigned size) {
  return static_cast<Key>(~Key(0)) >> (8 * (sizeof(Key) - size));
}

/// Equal elements have equal keys, zeros of both signs too; NaN has the largest (0 if descending).
template <class Key>
__device__ __forceinline__ Key key_at(const SortSource& s, int64_t row, int64_t position) {
  const int64_t at = row * s.n + position;
  Key bits;
  if (sizeof(Key) == 8) {
    bits = static_cast<Key>(reinterpret_cast<const uint64_t*>(s.x)[at]);
  } else if (s.size == 4) {
    bits = reinterpret_cast<const uint32_t*>(s.x)[at];
  } else if (s.size == 2) {
    bits = reinterpret_cast<const uint16_t*>(s.x)[at];
  } else {
    bits = reinterpret_cast<const uint8_t*>(s.x)[at];
  }
  const Key mask = key_mask<Key>(s.size), sign = mask ^ (mask >> 1);
  Key key = s.is_signed ? bits ^ sign : bits;
  if (s.infinity != 0) {
    const Key magnitude = bits & ~sign;
    if (magnitude == 0) {
      key = sign;
    } else if (magnitude > static_cast<Key>(s.infinity)) {
      key = mask;
    } else if ((bits & sign) != 0) {
      key = ~bits & mask;
    }
  }
  return s.descending ? key ^ mask : key;
}

/// Where the median of n ascending keys is: the first NaN, or the lower of the two middle ones.
template <class Key>
__device__ __forceinline__ int64_t median_place(const Key* keys, int64_t n, const SortSource& s) {
  const Key nan = key_mask<Key>(s.size);
  if (s.infinity == 0 || keys[n - 1] != nan) return (n - 1) / 2;
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] == nan) {
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
