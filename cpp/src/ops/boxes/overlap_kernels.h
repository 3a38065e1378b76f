// The contract between the pairwise overlaps and their kernels.
#pragma once

#include "overlap_pairs.h"

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

/// y[i, j] = the overlap of boxes a[i] and b[j], all of `dtype`: float32 or float64.
struct OverlapParams {
  const void* a;  ///< [n, coordinates_of(kind, rank)]
  const void* b;  ///< [m, the same]
  void* y;
  int64_t n, m;
  Overlap kind;
  int rank;  ///< 1 to 3
  double eps;
  DType dtype;
};
extern OPSIN_API KernelSlot<void (*)(const OverlapParams&)> pair_overlap;

void register_overlap_cpu();

namespace cpu {

/// y[j] = the overlap of box `a` with box j of `columns`, column c of which begins at c * m.
using OverlapRow = void (*)(const void* a, const void* columns, int64_t m, double eps, void* y);

struct OverlapTable {
  OverlapRow float32[5][3];  ///< By kind and rank - 1.
  OverlapRow float64[5][3];
};
OPSIN_ISA_TABLE(OverlapTable, overlap_table)

}  // namespace cpu

}  // namespace opsin
