// The contract between along.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"

namespace opsin {

/// Blocks of `large` and of `small` rows of `inner` neighbours each, `outer` of them. Element (o, i, k) of
/// the small blocks belongs to row index[o][i][k], which is in range, of the large one. No size is 0.
struct AlongParams {
  const void* x;
  void* y;
  const int64_t* index;
  int64_t outer, large, small, inner;
  DType dtype;
};

/// y, small, is what x, large, has there.
extern OPSIN_API KernelSlot<void (*)(const AlongParams&)> take_along_rows;
/// Adds x, small, to y, large; repeated positions add up in the order of i.
extern OPSIN_API KernelSlot<void (*)(const AlongParams&)> put_along_rows;

void register_along_cpu();

}  // namespace opsin
