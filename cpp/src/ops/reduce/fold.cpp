#include "fold.h"

#include <algorithm>
#include <cstring>

#include <opsin/ops/copy.h>

#include "core/dispatch.h"

namespace opsin {

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
  if (!has_unit_stride(x)) {
    x_ = empty(x.sizes(), x.dtype(), x.device());
    copy_(x_, x);
  }
  const auto item = static_cast<int64_t>(item_size(x.dtype()));
  const Dims strides = x_.impl()->physical_strides();
  data_ = x_.impl()->physical_data();
  std::vector<std::pair<int64_t, size_t>> order;  // Kept dimensions of the output by input stride.
  for (size_t d = 0; d < strides.size(); ++d) {
    const int64_t size = x_.sizes()[d];
    const bool reduced = mask >> d & 1;
    (reduced ? reduced_sizes_ : kept_sizes_).push_back(size);
    (reduced ? reduced_strides_ : kept_strides_).push_back(strides[d] * item);
    (reduced ? reduced_ : outputs_) *= size;
    if (reduced && !keepdim) continue;
    if (!reduced && size != 1) order.emplace_back(strides[d], out_sizes_.size());
    out_sizes_.push_back(reduced ? 1 : size);
  }
  if (is_complex(x.dtype())) {
    kept_sizes_.push_back(2);
    kept_strides_.push_back(item / 2);
  }
  merge_dims(kept_sizes_, kept_strides_);
  merge_dims(reduced_sizes_, reduced_strides_);
  const auto part = static_cast<int64_t>(item_size(part_type(x.dtype())));
  rows_ = reduced_strides_[0] == part || (kept_strides_[0] != part && reduced_strides_[0] == 0);

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
  if (is_complex(x.dtype())) outputs_ *= 2;
}

Tensor FoldPlan::make_output(DType dtype) const {
  return hidden_output_ ? empty_channels_last(out_sizes_, dtype, x_.device())
                        : empty_strided(out_sizes_, out_strides_, dtype, x_.device());
}

Tensor FoldPlan::settle(const Tensor& y) const { return x_.is_contiguous() ? contiguous(y) : y; }

int64_t FoldPlan::block_size() const {
  // Several outputs when the elements of one come in short runs, which for neighbouring outputs are
  // neighbours in memory.
  const int64_t most =
      rows_ ? std::clamp<int64_t>(16384 / std::max<int64_t>(1, reduced_sizes_[0]), 1, kMaxBlock) : kMaxBlock;
  return std::max<int64_t>(1, std::min(most, kept_sizes_[0]));
}

const char* FoldPlan::start_of(int64_t row) const {
  const char* x = data_;
  for (size_t d = 1; d < kept_sizes_.size(); ++d) {
    x += row % kept_sizes_[d] * kept_strides_[d];
    row /= kept_sizes_[d];
  }
  return x;
}

void FoldPlan::fold_slice(const cpu::FoldKernel& kernel, void* state, const char* x, int64_t count,
                          int64_t begin, int64_t end, const void* shift, const FoldArgs& args) const {
  if (begin >= end) return;
  Dims index(reduced_sizes_.size());
  int64_t rest = begin;
  for (size_t d = 0; d < index.size(); ++d) {
    index[d] = rest % reduced_sizes_[d];
    rest /= reduced_sizes_[d];
    x += index[d] * reduced_strides_[d];
  }
  while (begin < end) {
    const int64_t n = std::min(reduced_sizes_[0] - index[0], end - begin);
    if (rows_) {
      kernel.rows(state, x, count, kept_strides_[0], n, shift, args);
    } else {
      kernel.columns(state, x, count, reduced_strides_[0], n, shift, args);
    }
    begin += n;
    index[0] += n;
    x += n * reduced_strides_[0];
    for (size_t d = 0; d + 1 < index.size() && index[d] == reduced_sizes_[d]; ++d) {
      x += reduced_strides_[d + 1] - index[d] * reduced_strides_[d];
      index[d] = 0;
      ++index[d + 1];
    }
  }
}

Tensor FoldPlan::run(Fold fold, const char* op, DType dtype, const FoldArgs& args, const Tensor& shift,
                     bool wide) const {
  const cpu::FoldKernel& kernel =
      OPSIN_ISA_SELECT(cpu::fold_table)
          .kernel[static_cast<int>(fold)][static_cast<int>(part_type(x_.dtype()))];
  if (!kernel.init) detail::raise_unsupported(op, x_.dtype());
  const Tensor y = make_output(dtype);
  if (outputs_ == 0) return y;
  const auto finish = wide ? kernel.finish_wide : kernel.finish;
  const auto y_item = static_cast<int64_t>(item_size(part_type(dtype)));
  const auto shift_item = shift.defined() ? static_cast<int64_t>(item_size(shift.dtype())) : 0;
  char* to = y.impl()->physical_data();
  const char* shifts = shift.defined() ? shift.impl()->physical_data() : nullptr;
  constexpr size_t kStateBytes = kMaxBlock * sizeof(int64_t);

  const int64_t block = block_size();
  const int64_t blocks = outputs_ / kept_sizes_[0] * ((kept_sizes_[0] + block - 1) / block);
  // Few outputs of many elements: slices of the reduction, which no longer fit beside each other in one
  // block.
  constexpr int64_t kSliceWork = 32768, kMostTasks = 64;
  const int64_t slices = std::clamp<int64_t>(std::min(kMostTasks / blocks, reduced_ * block / kSliceWork), 1,
                                             std::max<int64_t>(1, reduced_));
  if (slices == 1) {
    for_blocks([&](int64_t first, int64_t count, const char* x) {
      alignas(64) char state[kStateBytes];
      const char* from = shifts + first * shift_item;
      kernel.init(state, count);
      fold_slice(kernel, state, x, count, 0, reduced_, from, args);
      finish(state, to + first * y_item, count, from, args);
    });
    return y;
  }
  const Tensor parts = empty(Dims{slices, outputs_, kernel.state_size}, kUInt8);
  char* states = parts.impl()->physical_data();
  const int64_t per_row = (kept_sizes_[0] + block - 1) / block;
  cpu::parallel_for(blocks * slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / slices, s = task % slices;
      const int64_t from = i % per_row * block, count = std::min(block, kept_sizes_[0] - from);
      const int64_t first = i / per_row * kept_sizes_[0] + from;
      char* state = states + (s * outputs_ + first) * kernel.state_size;
      kernel.init(state, count);
      fold_slice(kernel, state, start_of(i / per_row) + from * kept_strides_[0], count, reduced_ * s / slices,
                 reduced_ * (s + 1) / slices, shifts + first * shift_item, args);
    }
  });
  for (int64_t s = 1; s < slices; ++s)
    kernel.merge(states, states + s * outputs_ * kernel.state_size, outputs_);
  finish(states, to, outputs_, shifts, args);
  return y;
}

}  // namespace opsin
