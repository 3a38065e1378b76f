// The contract of the kernel that renormalises rows.
#pragma once

#include "core/kernel.h"

namespace opsin {

/// Scales those rows of `weight` [table, width] that `rows` [count] names and whose p-norm is above
/// `max_norm` down to it.
struct ShortenParams {
  void* weight;
  DType dtype;
  const int64_t* rows;
  int64_t count, table, width;
  double max_norm, p;
};
extern OPSIN_API KernelSlot<void (*)(const ShortenParams&)> embedding_shorten;

void register_embedding_cpu();

}  // namespace opsin
