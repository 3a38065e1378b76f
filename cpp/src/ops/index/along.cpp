// Functions with an index for each element along one dimension.
#include "rows.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

namespace {

void check_index(const Tensor& x, const Tensor& index, int64_t dim, const char* op) {
  OPSIN_CHECK(Error, index.dtype() == kInt64 || index.dtype() == kInt32, op,
              ": expected dtype int64 for index, got ", name(index.dtype()));
  if (index.numel() == 0) return;
  OPSIN_CHECK(ShapeError, std::max<int64_t>(index.dim(), 1) == std::max<int64_t>(x.dim(), 1), op,
              ": index tensor must have the same number of dimensions as the input tensor, got ",
              str(index.sizes()), " for ", str(x.sizes()));
  for (int64_t d = 0; d < index.dim(); ++d) {
    OPSIN_CHECK(ShapeError, d == dim || size_along(index, d) <= size_along(x, d), op,
                ": size does not match at dimension ", d, ", expected index ", str(index.sizes()),
                " to be no larger than self ", str(x.sizes()), " apart from dimension ", dim);
  }
}

/// `x` cut to the sizes of `index` in all dimensions but `dim`, so that both agree there.
Tensor fitted(const Tensor& x, const Tensor& index, int64_t dim) {
  Tensor result = x;
  for (int64_t d = 0; d < std::min(x.dim(), index.dim()); ++d) {
    if (d != dim && x.size(d) != index.size(d)) result = slice(result, d, 0, index.size(d));
  }
  return result;
}

Tensor scatter_values_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& values,
                       bool accumulate, const char* op) {
  const int64_t d = wrap_dim(dim, self.dim(), op);
  check_index(self, index, d, op);
  const Tensor at = checked_indices(index, d, size_along(self, d), /*allow_negative=*/false, op);
  if (at.numel() == 0) {
    self.bump_version();
    return self;
  }
  const Tensor target = fitted(self, index, d);
  scatter_along_(target, at, values, geometry_along(target, d, size_along(index, d), op), accumulate);
  return self;
}

Tensor fitted_source(const Tensor& self, const Tensor& index, const Tensor& src, const char* op) {
  OPSIN_CHECK(Error, self.dtype() == src.dtype(), op, ": expected self.dtype to be equal to src.dtype, got ",
              name(self.dtype()), " and ", name(src.dtype()));
  if (index.numel() == 0) return src;
  OPSIN_CHECK(ShapeError, std::max<int64_t>(index.dim(), 1) == std::max<int64_t>(src.dim(), 1), op,
              ": index tensor must have the same number of dimensions as the src tensor, got ",
              str(index.sizes()), " for ", str(src.sizes()));
  for (int64_t d = 0; d < index.dim(); ++d) {
    OPSIN_CHECK(ShapeError, size_along(index, d) <= size_along(src, d), op, ": expected index ",
                str(index.sizes()), " to be no larger than src ", str(src.sizes()));
  }
  return fitted(src, index, -1);
}

}  // namespace

Tensor gather(const Tensor& self, int64_t dim, const Tensor& index) {
  const int64_t d = wrap_dim(dim, self.dim(), "gather");
  check_index(self, index, d, "gather");
  const Tensor at =
      checked_indices(index, d, size_along(self, d), /*allow_negative=*/false, "gather", keeps_indices(self));
  const Tensor source = index.numel() == 0 ? self : fitted(self, index, d);
  return gather_along(source, at, geometry_along(source, d, size_along(index, d), "gather"));
}

Tensor scatter_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src) {
  return scatter_values_(self, dim, index, fitted_source(self, index, src, "scatter"), false, "scatter");
}

Tensor scatter(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src) {
  return scatter_(clone(self), dim, index, src);
}

Tensor scatter_(const Tensor& self, int64_t dim, const Tensor& index, const Scalar& value) {
  return scatter_values_(self, dim, index,
                         expand(full(IntSpan{}, value, self.dtype(), self.device()), index.sizes()), false,
                         "scatter");
}

Tensor scatter(const Tensor& self, int64_t dim, const Tensor& index, const Scalar& value) {
  return scatter_(clone(self), dim, index, value);
}

Tensor scatter_add_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src) {
  return scatter_values_(self, dim, index, fitted_source(self, index, src, "scatter_add"), true,
                         "scatter_add");
}

Tensor scatter_add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kWidest>(scatter_add, self, dim, index, src);
  return scatter_add_(clone(self), dim, index, src);
}

Tensor scatter_reduce(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src,
                      std::string_view reduce, bool include_self) {
  const bool sums = reduce == "sum", averages = reduce == "mean";
  OPSIN_CHECK(Error, sums || averages || reduce == "prod" || reduce == "amax" || reduce == "amin",
              "scatter_reduce: reduce argument must be either sum, prod, mean, amax or amin, got ", reduce);
  const int64_t d = wrap_dim(dim, self.dim(), "scatter_reduce");
  check_index(self, index, d, "scatter_reduce");
  const Tensor source = fitted_source(self, index, src, "scatter_reduce");
  const Tensor at =
      checked_indices(index, d, size_along(self, d), /*allow_negative=*/false, "scatter_reduce");
  if (at.numel() == 0) return clone(self);
  if (sums || averages) {
    const char* op = "scatter_reduce";
    const Tensor start = clone(self), zero = full(IntSpan{}, 0, self.dtype(), self.device());
    if (!include_self) scatter_values_(start, d, at, expand(zero, at.sizes()), /*accumulate=*/false, op);
    const Tensor total = scatter_values_(start, d, at, source, /*accumulate=*/true, op);
    if (sums) return total;
    const Tensor counts = full(self.sizes(), include_self ? 1 : 0, self.dtype(), self.device());
    scatter_add_(counts, d, at, ones(at.sizes(), self.dtype(), self.device()));
    masked_fill_(counts, eq(counts, wrap_number(0)), wrap_number(1));
    return is_differentiable(self.dtype()) ? div(total, counts) : floor_divide(total, counts);
  }
  const Fold fold = reduce == "prod" ? Fold::kProduct : reduce == "amax" ? Fold::kLargest : Fold::kSmallest;
  const Tensor result = clone(self);
  const Tensor part = fitted(result, at, d);
  if (part.is_same(result)) return fold_along(self, d, at, source, fold, include_self);
  copy_(part, fold_along(fitted(self, at, d), d, at, source, fold, include_self));
  return result;
}

Tensor scatter_reduce_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& src,
                       std::string_view reduce, bool include_self) {
  // The rule reads what was there before.
  return copy_(self, scatter_reduce(clone(self), dim, index, src, reduce, include_self));
}

Tensor take_along_dim(const Tensor& self, const Tensor& indices, std::optional<int64_t> dim) {
  OPSIN_CHECK(Error, indices.dtype() == kInt64 || indices.dtype() == kInt32,
              "take_along_dim: dtype of indices should be int64, got ", name(indices.dtype()));
  if (!dim) return gather(reshape(self, Dims{-1}), 0, reshape(indices, Dims{-1}));
  OPSIN_CHECK(ShapeError, self.dim() == indices.dim(),
              "take_along_dim: input and indices should have the same number of dimensions, got ",
              str(self.sizes()), " and ", str(indices.sizes()));
  const int64_t d = wrap_dim(*dim, self.dim(), "take_along_dim");
  // Both broadcast everywhere but along `dim`.
  Dims own = self.sizes(), theirs = indices.sizes();
  if (self.dim() > 0) own[static_cast<size_t>(d)] = theirs[static_cast<size_t>(d)] = 1;
  Dims shape = broadcast_shapes(own, theirs, "take_along_dim");
  own = theirs = shape;
  if (self.dim() > 0) {
    own[static_cast<size_t>(d)] = self.size(d);
    theirs[static_cast<size_t>(d)] = indices.size(d);
  }
  return gather(expand(self, own), d, expand(indices, theirs));
}

void register_index_along(Registry& registry) {
  using ByTensor = Tensor (*)(const Tensor&, int64_t, const Tensor&, const Tensor&);
  using ByNumber = Tensor (*)(const Tensor&, int64_t, const Tensor&, const Scalar&);
  registry.add<&gather>(
      "gather(Tensor self, int dim, Tensor index) -> Tensor",
      "y[i, j, k] = self[index[i, j, k], j, k] for dim 0, and so on; the result has the shape of `index`.");
  registry.add<static_cast<ByTensor>(&scatter)>(
      "scatter(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
      "`self` with self[index[i, j, k], j, k] = src[i, j, k] for dim 0, and so on; the last of repeated "
      "indices wins.");
  registry.add<static_cast<ByNumber>(&scatter)>(
      "scatter(Tensor self, int dim, Tensor index, Number value) -> Tensor",
      "`self` with `value` written at the indices.");
  registry.add<static_cast<ByTensor>(&scatter_)>(
      "Tensor.scatter_(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
      "In-place version of scatter.");
  registry.add<static_cast<ByNumber>(&scatter_)>(
      "Tensor.scatter_(Tensor self, int dim, Tensor index, Number value) -> Tensor",
      "In-place version of scatter.");
  registry.add<&scatter_add>("scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
                             "As scatter, but values are added; repeated indices add up in order.");
  registry.add<&scatter_add_>("Tensor.scatter_add_(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
                              "In-place version of scatter_add.");
  registry.add<&scatter_reduce>(
      "scatter_reduce(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) "
      "-> "
      "Tensor",
      "As scatter, but values of one place are combined by 'sum', 'prod', 'mean', 'amax' or 'amin', with "
      "what "
      "was there before if `include_self`.");
  registry.add<&scatter_reduce_>(
      "Tensor.scatter_reduce_(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool "
      "include_self=True) -> Tensor",
      "In-place version of scatter_reduce.");
  registry.add<&take_along_dim>("take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor",
                                "gather() with broadcasting; flat without `dim`.");
}

}  // namespace opsin
