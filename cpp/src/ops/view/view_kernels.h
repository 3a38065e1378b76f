// The contract of the kernels that keep triangles and repeat indices.
#pragma once

#include "core/kernel.h"

namespace opsin {

/// Matrices [rows, columns], `count` of them in dense memory; `from` may be `to`. Keeps the columns up to row
/// + diagonal, or with `upper` those from there on, and clears the others.
struct TriangularParams {
  const char* from;
  char* to;
  int64_t count, rows, columns, diagonal;
  bool upper;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const TriangularParams&)> triangle_keep;

/// Index i `counts[i]` times, on a GPU.
struct RepeatParams {
  const int64_t* counts;
  int64_t n;
  int64_t* starts;  ///< [n + 1]: the sum of the counts in front of each index, and of all.
  int64_t* out;
  int64_t total;
};
/// Fills `starts`; negative counts are reported.
extern OPSIN_API KernelSlot<void (*)(const RepeatParams&)> repeat_count;
/// Fills `out` [total].
extern OPSIN_API KernelSlot<void (*)(const RepeatParams&)> repeat_write;

void register_view_cpu();

}  // namespace opsin
