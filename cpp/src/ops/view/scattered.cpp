// Copies with one part replaced.
#include "parts.h"

#include <opsin/ops/rearrange.h>

#include "core/registry.h"

namespace opsin {

namespace {

/// A copy of `self` with `src` written to `part(copy)`.
template <class F>
Tensor with_part(const Tensor& self, const Tensor& src, const char* op, F part) {
  const Tensor result = clone(self);
  const Tensor target = part(result);
  OPSIN_CHECK(ShapeError, target.sizes() == src.sizes(), op,
              ": expected src to have a size equal to the slice of self. src size = ", str(src.sizes()),
              ", slice size = ", str(target.sizes()));
  copy_(target, src);
  return result;
}

Tensor slice_scatter_schema(const Tensor& self, const Tensor& src, int64_t dim, std::optional<int64_t> start,
                            std::optional<int64_t> end, int64_t step) {
  return slice_scatter(self, src, dim, start.value_or(0), end.value_or(INT64_MAX), step);
}

}  // namespace

Tensor select_scatter(const Tensor& self, const Tensor& src, int64_t dim, int64_t index) {
  return with_part(self, src, "select_scatter", [&](const Tensor& x) { return select(x, dim, index); });
}

Tensor slice_scatter(const Tensor& self, const Tensor& src, int64_t dim, int64_t start, int64_t end,
                     int64_t step) {
  return with_part(self, src, "slice_scatter",
                   [&](const Tensor& x) { return slice(x, dim, start, end, step); });
}

Tensor diagonal_scatter(const Tensor& self, const Tensor& src, int64_t offset, int64_t dim1, int64_t dim2) {
  return with_part(self, src, "diagonal_scatter",
                   [&](const Tensor& x) { return diagonal(x, offset, dim1, dim2); });
}

void register_view_scattered(Registry& registry) {
  registry.add<&select_scatter>("select_scatter(Tensor self, Tensor src, int dim, int index) -> Tensor",
                                "`self` with `src` in place of index `index` of dimension `dim`.");
  registry.add<&slice_scatter_schema>(
      "slice_scatter(Tensor self, Tensor src, int dim=0, int? start=None, int? end=None, int step=1) -> "
      "Tensor",
      "`self` with `src` in place of self[start:end:step] of dimension `dim`.");
  registry.add<&diagonal_scatter>(
      "diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor",
      "`self` with `src` in place of its diagonals.");
}

}  // namespace opsin
