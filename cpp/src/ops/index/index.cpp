// NumPy's advanced indexing and the functions that pick along one dimension with a list of indices.
#include "index_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "ops/view/overlap.h"

namespace opsin {

constinit KernelSlot<void (*)(const CombineParams&)> rows_combine("index");

namespace {

/// An advanced index as rows of `x`, which is the tensor itself or a view with the indexed dimensions in
/// front.
struct Selection {
  Tensor x;
  Tensor rows;
  RowGeometry geometry;
  Dims sizes;  ///< Of the result.
};

bool is_mask(const Tensor& index) {
  return index.defined() && (index.dtype() == kBool || index.dtype() == kUInt8);
}

void check_mask_shape(const Tensor& x, const Tensor& mask, int64_t first, const char* op) {
  for (int64_t i = 0; i < mask.dim(); ++i) {
    OPSIN_CHECK(IndexError, first + i < x.dim() && mask.size(i) == x.size(first + i), op,
                ": the shape of the mask ", str(mask.sizes()), " at index ", i,
                " does not match the shape of the indexed tensor ", str(x.sizes()), " at index ", first + i);
  }
}

/// Replaces masks by the positions of their true elements; one entry for each dimension that is used up.
TensorList expand_masks(Tensor& x, TensorSpan indices, const char* op) {
  TensorList result;
  for (const Tensor& index : indices) {
    if (!index.defined()) {
      result.emplace_back();
      continue;
    }
    if (!is_mask(index)) {
      OPSIN_CHECK(IndexError, is_integral(index.dtype()), op,
                  ": tensors used as indices must be long, int, byte or bool tensors, got ",
                  name(index.dtype()));
      result.push_back(index);
      continue;
    }
    const auto first = static_cast<int64_t>(result.size());
    Tensor mask = index;
    if (mask.dim() == 0) {
      x = unsqueeze(x, first);
      mask = unsqueeze(mask, 0);
    }
    check_mask_shape(x, mask, first, op);
    const Tensor positions = nonzero(mask);
    for (int64_t i = 0; i < mask.dim(); ++i) result.push_back(select(positions, 1, i));
  }
  OPSIN_CHECK(IndexError, static_cast<int64_t>(result.size()) <= x.dim(), op,
              ": too many indices for tensor of dimension ", x.dim(), ", got ", result.size());
  result.resize(static_cast<size_t>(x.dim()));
  return result;
}

Dims common_shape(TensorSpan indices, const char* op) {
  Dims shape;
  bool agree = true;
  for (const Tensor& index : indices) {
    if (!index.defined()) continue;
    const Dims& sizes = index.sizes();
    const size_t rank = std::max(shape.size(), sizes.size());
    while (shape.size() < rank) shape.insert(0, 1);
    for (size_t i = rank - sizes.size(); i < rank; ++i) {
      const int64_t size = sizes[i - (rank - sizes.size())];
      agree &= shape[i] == size || shape[i] == 1 || size == 1;
      if (shape[i] == 1) shape[i] = size;
    }
  }
  if (!agree) {
    std::string shapes;
    for (const Tensor& index : indices) {
      if (index.defined()) shapes += (shapes.empty() ? "" : ", ") + str(index.sizes());
    }
    detail::raise<IndexError>(
        op, ": shape mismatch: indexing tensors could not be broadcast together with shapes ", shapes);
  }
  return shape;
}

/// Indices of one dimension; those on the CPU go with every device, and are checked before they travel.
Tensor indices_for(const Tensor& x, const Tensor& index, int64_t dim, int64_t size, const char* op,
                   bool own) {
  const Device device = x.device();
  OPSIN_CHECK(Error, index.device() == device || index.device().is_cpu(), op,
              ": indices should be either on cpu or on the same device as the indexed tensor (", device.str(),
              "), got ", index.device().str());
  return to(checked_indices(index, dim, size, /*allow_negative=*/true, op, own && index.device() == device),
            device);
}

/// One mask and whole dimensions around it: its row-major positions are the rows.
Selection resolve_mask(const Tensor& x, const Tensor& mask, int64_t first, const char* op) {
  check_mask_shape(x, mask, first, op);
  const Tensor rows = to(flat_nonzero(mask), x.device());
  Selection result{x, rows, {1, mask.numel(), rows.numel(), 1, nullptr, false, /*ascends=*/true}, {}};
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d == first) result.sizes.push_back(rows.numel());
    if (d >= first && d < first + mask.dim()) continue;
    (d < first ? result.geometry.outer : result.geometry.inner) *= x.size(d);
    result.sizes.push_back(x.size(d));
  }
  return result;
}

/// With `own` the rows are not the memory of an index.
Selection resolve(const Tensor& self, TensorSpan given, const char* op, bool own) {
  const auto only =
      std::find_if(given.begin(), given.end(), [](const Tensor& index) { return index.defined(); });
  if (only != given.end() && is_mask(*only) && only->dim() > 0 &&
      static_cast<int64_t>(given.size()) + only->dim() <= self.dim() + 1 &&
      std::none_of(only + 1, given.end(), [](const Tensor& index) { return index.defined(); })) {
    return resolve_mask(self, *only, only - given.begin(), op);
  }
  Selection result{self, {}, {1, 1, 1, 1, op, /*wraps=*/true}, {}};
  TensorList indices = expand_masks(result.x, given, op);
  const auto is_index = [](const Tensor& index) { return index.defined(); };
  auto first = std::find_if(indices.begin(), indices.end(), is_index);
  OPSIN_CHECK(IndexError, first != indices.end(), op, ": expected at least one index tensor, got none");
  const Dims shape = common_shape(indices, op);

  // Index tensors with whole dimensions between them: the indexed dimensions go to the front.
  const auto last = std::find_if(indices.rbegin(), indices.rend(), is_index).base();
  Dims order;
  for (size_t d = 0; d < indices.size(); ++d) order.push_back(static_cast<int64_t>(d));
  if (!std::all_of(first, last, is_index)) {
    std::stable_partition(order.begin(), order.end(),
                          [&](int64_t d) { return indices[static_cast<size_t>(d)].defined(); });
    result.x = permute(result.x, order);
    std::stable_partition(indices.begin(), indices.end(), is_index);
    first = indices.begin();
  }

  const Dims& sizes = result.x.sizes();
  RowGeometry& geometry = result.geometry;
  geometry.count = count_elements(shape);
  const auto begin = static_cast<size_t>(first - indices.begin());
  size_t end = begin;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (indices[d].defined()) {
      if (d == begin) {
        for (const int64_t size : shape) result.sizes.push_back(size);
      }
      geometry.size *= sizes[d];
      end = d + 1;
    } else {
      (d < begin ? geometry.outer : geometry.inner) *= sizes[d];
      result.sizes.push_back(sizes[d]);
    }
  }

  if (end - begin == 1) {
    result.rows = indices_for(self, indices[begin], order[begin], sizes[begin], op, own);
    return result;
  }
  result.rows = empty(shape, kInt64, self.device());
  geometry.op = nullptr;
  const auto combine = rows_combine.get(self.device(), kInt64);
  for (size_t d = begin; d < end; ++d) {
    const Tensor at = contiguous(expand(indices_for(self, indices[d], order[d], sizes[d], op, false), shape));
    combine(
        {result.rows.mutable_data<int64_t>(), at.data<int64_t>(), geometry.count, sizes[d], d == begin, op});
  }
  return result;
}

Tensor one_dimensional(const Tensor& index, const char* op) {
  OPSIN_CHECK(IndexError, index.dim() <= 1, op, ": index is supposed to be a vector, got shape ",
              str(index.sizes()));
  OPSIN_CHECK(Error, index.dtype() == kInt32 || index.dtype() == kInt64, op,
              ": expected dtype int32 or int64 for index, got ", name(index.dtype()));
  return index;
}

/// Rows of dimension `dim` of `self` for index_add, index_copy and index_fill.
struct Target {
  Tensor rows;
  RowGeometry geometry;
  Dims sizes;  ///< Of the values.
};

Target target_of(const Tensor& self, int64_t dim, const Tensor& index, const char* op) {
  const int64_t d = wrap_dim(dim, self.dim(), op);
  Target target{
      checked_indices(one_dimensional(index, op), d, size_along(self, d), /*allow_negative=*/false, op),
      geometry_along(self, d, index.numel(), op), self.sizes()};
  if (self.dim() > 0) target.sizes[static_cast<size_t>(d)] = index.numel();
  return target;
}

void check_source(const Tensor& self, const Target& target, const Tensor& source, const char* op) {
  OPSIN_CHECK(Error, self.dtype() == source.dtype(), op, ": self (", name(self.dtype()), ") and source (",
              name(source.dtype()), ") must have the same scalar type");
  OPSIN_CHECK(ShapeError,
              source.sizes() == target.sizes ||
                  (self.dim() <= 1 && source.numel() == target.geometry.count && source.dim() <= 1),
              op, ": expected a source of shape ", str(target.sizes), " for ", target.geometry.count,
              " indices into a tensor of shape ", str(self.sizes()), ", got ", str(source.sizes()));
}

}  // namespace

Tensor index(const Tensor& self, TensorSpan indices) {
  const Selection s = resolve(self, indices, "index", keeps_indices(self));
  return select_rows(s.x, s.rows, s.geometry, s.sizes);
}

Tensor index_put_(const Tensor& self, TensorSpan indices, const Tensor& values, bool accumulate) {
  OPSIN_CHECK(Error, self.dtype() == values.dtype(),
              "index_put_: Index put requires the source and destination dtypes match, got ",
              name(self.dtype()), " for the destination and ", name(values.dtype()), " for the source.");
  if (indices.size() == 1 && indices[0].defined() && indices[0].dtype() == kBool && values.dim() == 0 &&
      !accumulate && indices[0].sizes() == self.sizes()) {
    return masked_fill_(self, to(indices[0], self.device()), values);
  }
  if (const Tensor places = without_repeats(self); !places.is_same(self)) {
    // Through the number of the place in memory that each element names.
    const Tensor numbers = reshape(arange(0, places.numel(), 1, kInt64, self.device()), places.sizes());
    const Tensor written = index(expand(numbers, self.sizes()), indices);
    const Tensor flat = index_put(reshape(places, Dims{-1}), {&written, 1}, values, accumulate);
    copy_(places, reshape(flat, places.sizes()));
    return self;
  }
  const Selection s = resolve(self, indices, "index_put_", /*own=*/true);
  Tensor source = number_on(values, values.dtype(), self.device());
  while (source.dim() > static_cast<int64_t>(s.sizes.size()) && source.sizes()[0] == 1)
    source = select(source, 0, 0);
  bool fits = source.sizes().size() <= s.sizes.size();
  for (size_t i = 0; fits && i < source.sizes().size(); ++i) {
    const int64_t size = source.sizes()[i];
    fits = size == 1 || size == s.sizes[s.sizes.size() - source.sizes().size() + i];
  }
  OPSIN_CHECK(ShapeError, fits, "index_put_: shape mismatch: value tensor of shape ", str(values.sizes()),
              " cannot be broadcast to indexing result of shape ", str(s.sizes));
  put_rows_(s.x, s.rows, expand(source, s.sizes), s.geometry, accumulate);
  return self;
}

Tensor index_put(const Tensor& self, TensorSpan indices, const Tensor& values, bool accumulate) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kWidest>(index_put, self, indices, values, accumulate);
  return index_put_(clone(self), indices, values, accumulate);
}

Tensor index_select(const Tensor& self, int64_t dim, const Tensor& index) {
  const int64_t d = wrap_dim(dim, self.dim(), "index_select");
  const Tensor rows = checked_indices(one_dimensional(index, "index_select"), d, size_along(self, d),
                                      /*allow_negative=*/false, "index_select", keeps_indices(self));
  Dims sizes = self.sizes();
  if (self.dim() > 0) sizes[static_cast<size_t>(d)] = index.numel();
  OPSIN_CHECK(IndexError, self.dim() > 0 || index.numel() == 1,
              "index_select: index to a 0-d tensor must have 1 element, got ", index.numel());
  return select_rows(self, rows, geometry_along(self, d, index.numel(), "index_select"), sizes);
}

Tensor index_add_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                  const Scalar& alpha) {
  const Target target = target_of(self, dim, index, "index_add_");
  check_source(self, target, source, "index_add_");
  const bool scaled = !(alpha.is_integral() && alpha.to_int() == 1);
  put_rows_(self, target.rows, scaled ? mul(source, wrap_number(alpha)) : source, target.geometry,
            /*accumulate=*/true);
  return self;
}

Tensor index_add(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source,
                 const Scalar& alpha) {
  return index_add_(clone(self), dim, index, source, alpha);
}

Tensor index_copy_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source) {
  const Target target = target_of(self, dim, index, "index_copy_");
  check_source(self, target, source, "index_copy_");
  return put_rows_(self, target.rows, source, target.geometry, /*accumulate=*/false);
}

Tensor index_copy(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& source) {
  if (autocast::is_on(DeviceType::kCPU, self))
    return autocast::call<autocast::kWidest>(index_copy, self, dim, index, source);
  return index_copy_(clone(self), dim, index, source);
}

Tensor index_fill_(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& value) {
  OPSIN_CHECK(Error, value.dim() == 0, "index_fill_: only supports a 0-dimensional value tensor, got shape ",
              str(value.sizes()));
  const int64_t d = wrap_dim(dim, self.dim(), "index_fill_");
  Tensor rows = checked_indices(one_dimensional(index, "index_fill_"), d, size_along(self, d),
                                /*allow_negative=*/true, "index_fill_");
  const Tensor places = without_repeats(self);
  if (self.dim() > 0 && repeats(self, static_cast<size_t>(d)))
    rows = zeros(rows.sizes(), kInt64, rows.device());
  const RowGeometry geometry = geometry_along(places, d, index.numel(), "index_fill_", /*wraps=*/true);
  const Dims sizes{geometry.outer, geometry.count, geometry.inner};
  put_rows_(places, rows, expand(number_on(value, self.dtype(), self.device()), sizes), geometry,
            /*accumulate=*/false);
  return self;
}

Tensor index_fill(const Tensor& self, int64_t dim, const Tensor& index, const Tensor& value) {
  return index_fill_(clone(self), dim, index, value);
}

Tensor take(const Tensor& self, const Tensor& index) {
  OPSIN_CHECK(Error, index.dtype() == kInt64 || index.dtype() == kInt32,
              "take: expected a long tensor for index, got ", name(index.dtype()));
  const Tensor rows =
      checked_indices(index, 0, self.numel(), /*allow_negative=*/true, "take", keeps_indices(self));
  return select_rows(self, rows, {1, self.numel(), index.numel(), 1, "take", /*wraps=*/true}, index.sizes());
}

void register_index(Registry& registry) {
  register_index_cpu();
  registry.add<&index_put_>(
      "Tensor.index_put_(Tensor self, Tensor[] indices, Tensor values, bool accumulate=False) -> Tensor",
      "self[indices] = values, or += values with `accumulate`; the index tensors broadcast together.");
  registry.add<&index_put>(
      "index_put(Tensor self, Tensor[] indices, Tensor values, bool accumulate=False) -> Tensor",
      "A copy of `self` after index_put_.");
  registry.add<&index_select>("index_select(Tensor self, int dim, Tensor index) -> Tensor",
                              "The entries `index` [n] of dimension `dim`, which becomes n long.");
  registry.add<&index_add>(
      "index_add(Tensor self, int dim, Tensor index, Tensor source, *, Number alpha=1) -> Tensor",
      "`self` with alpha * source added to the entries `index` of dimension `dim`; repeated ones add up in "
      "order.");
  registry.add<&index_add_>(
      "Tensor.index_add_(Tensor self, int dim, Tensor index, Tensor source, *, Number alpha=1) -> Tensor",
      "In-place version of index_add.");
  registry.add<&index_copy>("index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor",
                            "`self` with `source` written over the entries `index` of dimension `dim`.");
  registry.add<&index_copy_>(
      "Tensor.index_copy_(Tensor self, int dim, Tensor index, Tensor source) -> Tensor",
      "In-place version of index_copy.");
  registry.add<&index_fill>("index_fill(Tensor self, int dim, Tensor index, Operand value) -> Tensor",
                            "`self` with `value` (0-d) written over the entries `index` of dimension `dim`.");
  registry.add<&index_fill_>(
      "Tensor.index_fill_(Tensor self, int dim, Tensor index, Operand value) -> Tensor",
      "In-place version of index_fill.");
  registry.add<&take>("take(Tensor self, Tensor index) -> Tensor",
                      "The elements at the row-major positions `index`, in its shape.");
  register_index_along(registry);
  register_index_masked(registry);
  register_index_nonzero(registry);
}

}  // namespace opsin
