// The contract of the kernel that looks values up.
#pragma once

#include "core/kernel.h"

namespace opsin {

/// found[i] = whether any of `wanted` is values[i], or with `invert` that none is.
struct IsinParams {
  const void* values;
  const void* wanted;
  DType dtype;
  int64_t count, wanted_count;
  bool invert;
  bool* found;
};
extern OPSIN_API KernelSlot<void (*)(const IsinParams&)> isin_forward;

void register_compare_cpu();

}  // namespace opsin
