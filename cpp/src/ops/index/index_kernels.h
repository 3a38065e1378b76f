// The contract of the kernels that move and combine rows, and elements along a dimension.
#pragma once

#include "rows.h"

#include "core/kernel.h"

namespace opsin {

/// One call over dense memory. `from` and `to` never share memory; what is read or written by index is
/// [outer, size, inner], the other side [outer, count, inner].
struct IndexParams {
  RowGeometry geometry;
  DType dtype;
  const void* from;
  void* to;
  const int64_t* at;  ///< A row for each of `count`, or an index for each element of the other side.
  Fold fold = Fold::kSum;
  bool include_self = true;
};
using IndexFn = void (*)(const IndexParams&);

/// to[o, c, i] = from[o, at[c], i]
extern OPSIN_API KernelSlot<IndexFn> rows_select;
/// to[o, at[c], i] = from[o, c, i]; the last of repeated rows wins.
extern OPSIN_API KernelSlot<IndexFn> rows_put;
/// to[o, at[c], i] += from[o, c, i] in the order of c, or another order that depends on the rows alone.
extern OPSIN_API KernelSlot<IndexFn> rows_add;
/// to[o, c, i] = from[o, at[o, c, i], i]
extern OPSIN_API KernelSlot<IndexFn> along_gather;
/// to[o, at[o, c, i], i] = from[o, c, i]; the last of repeated places wins.
extern OPSIN_API KernelSlot<IndexFn> along_scatter;
/// `fold` of to[o, at[o, c, i], i] (left out unless `include_self`) and all from[o, c, i] that name the
/// place.
extern OPSIN_API KernelSlot<IndexFn> along_fold;

/// rows[c] = rows[c] * size + at[c], or at[c] for the first index of several.
struct CombineParams {
  int64_t* rows;
  const int64_t* at;
  int64_t count, size;
  bool first;
  const char* op;
};
extern OPSIN_API KernelSlot<void (*)(const CombineParams&)> rows_combine;

/// The true elements of a mask.
struct NonzeroParams {
  static constexpr int kMaxRank = 64;
  static constexpr int64_t kDeviceTile = 4096;  ///< On a GPU; on the CPU one tile is all.
  const bool* mask;
  int64_t n;
  /// For nonzero_count: how many are true in front of each `tile` elements, [tiles + 1], the sum being the
  /// last.
  int64_t* counts;
  int64_t tile;
  int64_t* positions;  ///< [count], or [count, rank] for nonzero_unravel.
  const int64_t* flat;
  int64_t count;
  int rank;
  int64_t sizes[kMaxRank];
};
using NonzeroFn = void (*)(const NonzeroParams&);
extern OPSIN_API KernelSlot<NonzeroFn> nonzero_count;
/// Row-major positions of the true elements.
extern OPSIN_API KernelSlot<NonzeroFn> nonzero_write;
/// Positions as an index for each dimension.
extern OPSIN_API KernelSlot<NonzeroFn> nonzero_unravel;

void register_index_cpu();

}  // namespace opsin
