// What the kernels of both devices compute with.
#pragma once

#include "creation_kernels.h"

#include "core/math_parts.h"

namespace opsin {

/// Number i of a range of reals; `product` multiplies and rounds, so that every device gets the same bits.
template <class Product>
OPSIN_FN double real_of(const RangeParams& p, int64_t i, Product product) {
  if (p.kind == RangeParams::Kind::kReals) return p.start + product(static_cast<double>(i), p.by);
  return i < p.count / 2 || p.count == 1 ? p.start + product(p.by, static_cast<double>(i))
                                         : p.end - product(p.by, static_cast<double>(p.count - 1 - i));
}

/// The columns [first, last) of a row that belong to the triangle.
struct ColumnRange {
  int64_t first, last;
};
OPSIN_FN ColumnRange triangle_columns(const TriangleParams& p, int64_t row) {
  // Where the row meets the diagonal; its element belongs to both triangles.
  const int64_t at = row + p.offset + (p.upper ? 0 : 1);
  const int64_t middle = at < 0 ? 0 : at > p.cols ? p.cols : at;
  return p.upper ? ColumnRange{middle, p.cols} : ColumnRange{0, middle};
}

/// How many positions lie in the rows before `row`.
OPSIN_FN int64_t triangle_before(const TriangleParams& p, int64_t row) {
  // The diagonal enters the columns at row `begin` and leaves them at row `end`; in between it moves one
  // column further with each row.
  const int64_t shift = p.offset + (p.upper ? 0 : 1);
  const int64_t begin = -shift < 0 ? 0 : -shift > row ? row : -shift;
  const int64_t leaves = p.cols - shift;
  const int64_t end = leaves < begin ? begin : leaves > row ? row : leaves;
  // Sum of row + shift from begin to end, then whole rows.
  const int64_t lower = (end - begin) * (begin + end - 1) / 2 + (end - begin) * shift + (row - end) * p.cols;
  return p.upper ? row * p.cols - lower : lower;
}

}  // namespace opsin
