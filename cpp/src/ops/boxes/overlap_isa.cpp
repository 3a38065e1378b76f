// Rows of overlaps, compiled once per instruction set.
#include "overlap_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class T, Overlap kind, int rank>
void row(const void* box, const void* columns, int64_t m, double eps, void* out) {
  T a[kBoxColumns];
  const T* column[kBoxColumns];
  for (int c = 0; c < kBoxColumns; ++c) {
    a[c] = static_cast<const T*>(box)[c];
    column[c] = static_cast<const T*>(columns) + c * m;
  }
  auto* y = static_cast<T*>(out);
  const T small = static_cast<T>(eps);
#pragma GCC ivdep
  for (int64_t j = 0; j < m; ++j) {
    const T b[kBoxColumns] = {column[0][j], column[1][j], column[2][j], column[3][j],
                              column[4][j], column[5][j], column[6][j], column[7][j]};
    y[j] = boxes::overlap(kind, rank, a, b, small);
  }
}

template <class T, Overlap kind>
constexpr void fill(OverlapRow (&rows)[3]) {
  rows[0] = row<T, kind, 1>;
  rows[1] = row<T, kind, 2>;
  rows[2] = row<T, kind, 3>;
}

template <class T>
constexpr void fill(OverlapRow (&rows)[5][3]) {
  fill<T, Overlap::kIou>(rows[0]);
  fill<T, Overlap::kGeneralized>(rows[1]);
  fill<T, Overlap::kDistance>(rows[2]);
  rows[3][1] = row<T, Overlap::kComplete, 2>;
  rows[4][1] = row<T, Overlap::kRotated, 2>;
}

constexpr OverlapTable make_table() {
  OverlapTable table{};
  fill<float>(table.float32);
  fill<double>(table.float64);
  return table;
}

constexpr OverlapTable kTable = make_table();

}  // namespace

const OverlapTable& overlap_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
