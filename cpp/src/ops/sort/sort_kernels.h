// The contract between sorting and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"

namespace opsin {

enum class Pick : uint8_t {
  kSort,
  kTop,     ///< The `results` first.
  kNth,     ///< Number k, from 0.
  kMedian,  ///< The lower of the two middle ones, or the first NaN.
};

/// Rows of n values one after the other, ordered with NaN as the largest value and, of equals, the earlier
/// one first. Written are `results` values and positions of each row.
struct SortParams {
  const void* x;
  void* values;
  int64_t* positions;
  int64_t rows, n;
  int64_t results;
  int64_t k;
  Pick pick;
  bool descending;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const SortParams&)> sort_forward;

void register_sort_cpu();

}  // namespace opsin
