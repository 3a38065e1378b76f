#include "fold.h"

#include <algorithm>

#include <opsin/ops/copy.h>

namespace opsin {

constinit KernelSlot<void (*)(const FoldParams&)> fold_forward[kFolds] = {
#define OPSIN_ROW(Name, dtypes) KernelSlot<void (*)(const FoldParams&)>("fold_" #Name),
    OPSIN_FOLDS(OPSIN_ROW)
#undef OPSIN_ROW
};

namespace {

DType part_type(DType dtype) {
  return dtype == kComplex64 ? kFloat32 : dtype == kComplex128 ? kFloat64 : dtype;
}

/// Whether some dimension steps from element to element, so that loops run over neighbours, and none repeats
/// them.
bool has_unit_stride(const Tensor& x) {
  const Dims strides = x.impl()->physical_strides();
  bool single = true, unit = false;
  for (size_t d = 0; d < strides.size(); ++d) {
    if (x.sizes()[d] == 1) continue;
    if (strides[d] == 0) return false;
    unit |= strides[d] == 1;
    single = false;
  }
  return single || unit;
}

/// Sorts dimensions by stride and merges neighbours.
void merge_dims(Dims& sizes, Dims& strides) {
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1) dims.emplace_back(strides[d], sizes[d]);
  }
  std::stable_sort(dims.begin(), dims.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  sizes.clear();
  strides.clear();
  for (const auto& [stride, size] : dims) {
    if (!sizes.empty() && stride == strides.back() * sizes.back()) {
      sizes.back() *= size;
    } else {
      sizes.push_back(size);
      strides.push_back(stride);
    }
  }
  if (sizes.empty()) {
    sizes.push_back(1);
    strides.push_back(0);
  }
}

/// x with the reduced elements of each output side by side, and outputs in row-major order.
Tensor grouped(const Tensor& x, uint64_t mask) {
  Dims strides(x.sizes().size());
  int64_t stride = 1;
  for (const bool reduced : {true, false}) {
    for (size_t d = strides.size(); d-- > 0;) {
      if (static_cast<bool>(mask >> d & 1) != reduced) continue;
      strides[d] = stride;
      stride *= x.sizes()[d];
    }
  }
  const Tensor y = empty_strided(x.sizes(), strides, x.dtype(), x.device());
  return copy_(y, x);
}

}  // namespace

uint64_t reduced_mask(const Tensor& x, IntSpan dims, const char* op) {
  OPSIN_CHECK(ShapeError, x.dim() <= 64, op, ": expected at most 64 dimensions, got ", x.dim());
  if (dims.empty()) return ~uint64_t{0};
  uint64_t mask = 0;
  for (const int64_t dim : dims) {
    const uint64_t bit = uint64_t{1} << wrap_dim(dim, x.dim(), op);
    OPSIN_CHECK(Error, !(mask & bit), op, ": dim ", dim, " appears multiple times in the list of dims");
    mask |= bit;
  }
  return mask;
}

Dims reduced_sizes(const Tensor& x, uint64_t mask, bool keepdim) {
  Dims sizes;
  for (size_t d = 0; d < x.sizes().size(); ++d) {
    if (!(mask >> d & 1))
      sizes.push_back(x.sizes()[d]);
    else if (keepdim)
      sizes.push_back(1);
  }
  return sizes;
}

int64_t reduced_count(const Tensor& x, uint64_t mask) {
  int64_t count = 1;
  for (size_t d = 0; d < x.sizes().size(); ++d) count *= mask >> d & 1 ? x.sizes()[d] : 1;
  return count;
}

FoldPlan::FoldPlan(const Tensor& x, uint64_t mask, bool keepdim) : x_(x) {
  if (x.device().is_cpu() && !has_unit_stride(x)) {
    x_ = empty(x.sizes(), x.dtype(), x.device());
    copy_(x_, x);
  }
  merge(mask);
  if (!x.device().is_cpu() && std::max(kept_sizes_.size(), reduced_sizes_.size()) > kMaxFoldRank) {
    x_ = grouped(x, mask);
    merge(mask);
  }
  std::vector<std::pair<int64_t, size_t>> order;  // Kept dimensions of the output by input stride.
  const Dims strides = x_.impl()->physical_strides();
  for (size_t d = 0; d < strides.size(); ++d) {
    const int64_t size = x_.sizes()[d];
    const bool reduced = mask >> d & 1;
    if (reduced && !keepdim) continue;
    if (!reduced && size != 1) order.emplace_back(strides[d], out_sizes_.size());
    out_sizes_.push_back(reduced ? 1 : size);
  }

  // A kept channels-last order stays hidden; otherwise the output lies in the order of the plan.
  hidden_output_ = x_.impl()->is_hidden() && (keepdim || mask == 0);
  out_strides_ = contiguous_strides(out_sizes_);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  int64_t stride = 1;
  for (const auto& [input_stride, d] : order) {
    out_strides_[d] = stride;
    stride *= out_sizes_[d];
  }
}

void FoldPlan::merge(uint64_t mask) {
  const auto item = static_cast<int64_t>(item_size(x_.dtype()));
  const Dims strides = x_.impl()->physical_strides();
  kept_sizes_.clear();
  kept_strides_.clear();
  reduced_sizes_.clear();
  reduced_strides_.clear();
  outputs_ = reduced_ = 1;
  for (size_t d = 0; d < strides.size(); ++d) {
    const int64_t size = x_.sizes()[d];
    const bool reduced = mask >> d & 1;
    (reduced ? reduced_sizes_ : kept_sizes_).push_back(size);
    (reduced ? reduced_strides_ : kept_strides_).push_back(strides[d] * item);
    (reduced ? reduced_ : outputs_) *= size;
  }
  if (is_complex(x_.dtype())) {
    kept_sizes_.push_back(2);
    kept_strides_.push_back(item / 2);
    outputs_ *= 2;
  }
  merge_dims(kept_sizes_, kept_strides_);
  merge_dims(reduced_sizes_, reduced_strides_);
  const auto part = static_cast<int64_t>(item_size(part_type(x_.dtype())));
  rows_ = reduced_strides_[0] == part ||
          (kept_strides_[0] != part && (kept_strides_[0] == 0 || reduced_strides_[0] <= kept_strides_[0]));
}

Tensor FoldPlan::make_output(DType dtype) const {
  return hidden_output_ ? empty_channels_last(out_sizes_, dtype, x_.device())
                        : empty_strided(out_sizes_, out_strides_, dtype, x_.device());
}

Tensor FoldPlan::settle(const Tensor& y) const { return x_.is_contiguous() ? contiguous(y) : y; }

FoldShape FoldPlan::shape() const {
  return {x_.impl()->physical_data(),
          part_type(x_.dtype()),
          outputs_,
          reduced_,
          rows_,
          kept_sizes_,
          kept_strides_,
          reduced_sizes_,
          reduced_strides_};
}

Tensor FoldPlan::run(Fold fold, DType dtype, const FoldArgs& args, const Tensor& shift) const {
  const auto kernel = fold_forward[static_cast<int>(fold)].get(x_.device(), part_type(x_.dtype()));
  const Tensor y = make_output(dtype);
  if (outputs_ == 0) return y;
  kernel({shape(), fold, args, y.impl()->mutable_physical_data(), part_type(dtype),
          shift.defined() ? shift.impl()->mutable_physical_data() : nullptr});
  return y;
}

}  // namespace opsin
