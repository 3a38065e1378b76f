// Fills the CPU slots of folds and positions of extrema. The work is split by the shape alone and parts are
// merged in a fixed order, so the bits of a result do not depend on the number of threads.
#include "fold_cpu.h"

#include "arg_kernels.h"

#include <opsin/tensor.h>

namespace opsin {

namespace {

void fold_slice(const cpu::FoldKernel& kernel, const FoldParams& p, void* state, const char* x, int64_t count,
                int64_t begin, int64_t end, const void* shift) {
  if (begin >= end) return;
  const FoldShape& shape = p.shape;
  Dims index(shape.reduced_sizes.size());
  int64_t rest = begin;
  for (size_t d = 0; d < index.size(); ++d) {
    index[d] = rest % shape.reduced_sizes[d];
    rest /= shape.reduced_sizes[d];
    x += index[d] * shape.reduced_strides[d];
  }
  while (begin < end) {
    const int64_t n = std::min(shape.reduced_sizes[0] - index[0], end - begin);
    if (shape.rows) {
      kernel.rows(state, x, count, shape.kept_strides[0], n, shift, p.args);
    } else {
      kernel.columns(state, x, count, shape.reduced_strides[0], n, shift, p.args);
    }
    begin += n;
    index[0] += n;
    x += n * shape.reduced_strides[0];
    for (size_t d = 0; d + 1 < index.size() && index[d] == shape.reduced_sizes[d]; ++d) {
      x += shape.reduced_strides[d + 1] - index[d] * shape.reduced_strides[d];
      index[d] = 0;
      ++index[d + 1];
    }
  }
}

void fold(const FoldParams& p) {
  const FoldShape& shape = p.shape;
  const cpu::FoldKernel& kernel =
      OPSIN_ISA_SELECT(cpu::fold_table).kernel[static_cast<int>(p.fold)][static_cast<int>(shape.dtype)];
  const auto finish =
      is_floating_point(shape.dtype) && p.y_dtype == kFloat64 ? kernel.finish_wide : kernel.finish;
  const auto y_item = static_cast<int64_t>(item_size(p.y_dtype));
  const auto shift_item =
      static_cast<int64_t>(item_size(p.fold == Fold::CenteredSquares ? kFloat64 : shape.dtype));
  const auto shift_of = [&](int64_t first) { return p.shift ? p.shift + first * shift_item : nullptr; };
  constexpr size_t kStateBytes = cpu::kMaxFoldBlock * sizeof(int64_t);

  const int64_t block = cpu::fold_block(shape), width = shape.kept_sizes[0];
  const int64_t per_row = (width + block - 1) / block, blocks = shape.outputs / width * per_row;
  // Few outputs of many elements: slices of the reduction, which no longer fit beside each other in one
  // block.
  constexpr int64_t kSliceWork = 32768, kMostTasks = 64;
  const int64_t slices =
      std::clamp<int64_t>(std::min(kMostTasks / blocks, shape.reduced * block / kSliceWork), 1,
                          std::max<int64_t>(1, shape.reduced));
  if (slices == 1) {
    cpu::for_fold_blocks(shape, [&](int64_t first, int64_t count, const char* x) {
      alignas(64) char state[kStateBytes];
      kernel.init(state, count);
      fold_slice(kernel, p, state, x, count, 0, shape.reduced, shift_of(first));
      finish(state, p.y + first * y_item, count, shift_of(first), p.args);
    });
    return;
  }
  const Tensor parts = empty(Dims{slices, shape.outputs, kernel.state_size}, kUInt8);
  char* states = parts.impl()->mutable_physical_data();
  cpu::parallel_for(blocks * slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / slices, s = task % slices;
      const int64_t from = i % per_row * block, count = std::min(block, width - from);
      const int64_t first = i / per_row * width + from;
      char* state = states + (s * shape.outputs + first) * kernel.state_size;
      kernel.init(state, count);
      fold_slice(kernel, p, state, cpu::fold_start(shape, i / per_row) + from * shape.kept_strides[0], count,
                 shape.reduced * s / slices, shape.reduced * (s + 1) / slices, shift_of(first));
    }
  });
  for (int64_t s = 1; s < slices; ++s)
    kernel.merge(states, states + s * shape.outputs * kernel.state_size, shape.outputs);
  finish(states, p.y, shape.outputs, p.shift, p.args);
}

void find_extremum(const ArgParams& p) {
  const FoldShape& shape = p.shape;
  const cpu::ArgTable& table = OPSIN_ISA_SELECT(cpu::arg_table);
  const cpu::ArgKernel& kernel = (p.max ? table.max : table.min)[static_cast<int>(shape.dtype)];
  const auto item = static_cast<int64_t>(item_size(shape.dtype));
  const auto run = shape.rows ? kernel.rows : kernel.columns;
  const int64_t step = shape.rows ? shape.kept_strides[0] : shape.reduced_strides[0];
  cpu::for_fold_blocks(shape, [&](int64_t first, int64_t count, const char* x) {
    run(p.values + first * item, p.positions + first, x, count, step, shape.reduced);
  });
}

}  // namespace

void register_fold_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    for (int f = 0; f < kFolds; ++f) {
      if (OPSIN_ISA_SELECT(cpu::fold_table).kernel[f][i].init)
        fold_forward[f].set(DeviceType::kCPU, dtype, fold);
    }
    if (OPSIN_ISA_SELECT(cpu::arg_table).max[i].rows) arg_forward.set(DeviceType::kCPU, dtype, find_extremum);
  }
}

}  // namespace opsin
