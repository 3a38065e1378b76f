#include "core/elementwise.h"

#include <cstring>

#include "autograd/history.h"
#include "core/dense_rows.h"
#include "core/dispatch.h"
#include "core/relayout.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kGrain = 32768;

/// Loops take pointers of one type.
char* input_data(const TensorImpl& impl) { return const_cast<char*>(impl.physical_data()); }

bool same_geometry(const TensorImpl& a, const TensorImpl& b) {
  return a.offset == b.offset && a.dtype == b.dtype && a.sizes == b.sizes && a.strides == b.strides;
}

}  // namespace

void store_scalar(const Scalar& value, DType dtype, void* data) {
  dispatch_all(dtype, "scalar", [&]<class T>() {
    const T element = value.to<T>();
    std::memcpy(data, &element, sizeof(T));
  });
}

Elementwise::Elementwise(const char* op, Tensor& output, DType output_dtype)
    : op_(op), output_(output), output_dtype_(output_dtype) {
  if (output.defined() && output.dtype() != output_dtype) {
    OPSIN_CHECK(Error, can_cast(output_dtype, output.dtype()), op, ": result type ", name(output_dtype),
                " can't be cast to the desired output type ", name(output.dtype()));
    target_ = std::move(output);
    output = empty(target_.sizes(), output_dtype, target_.device());
  }
}

void Elementwise::input(const Tensor& tensor, DType dtype) {
  Operand& operand = operands_[count_];
  TensorImpl* impl = tensor.impl();
  operand.impl = impl;
  operand.dtype = dtype;
  operand.is_number =
      impl->sizes.empty() && impl->storage->device.is_cpu() && (impl->dtype != dtype || impl->wrapped_number);
  if (operand.is_number) {
    store_scalar(tensor.scalar(), dtype, operand.number);
  } else if (impl->dtype != dtype) {
    own(count_, to(tensor.detach(), dtype));
  }
  ++count_;
}

void Elementwise::input(Tensor&& tensor, DType dtype) {
  owned_[count_] = std::move(tensor);
  const Tensor& kept = owned_[count_];
  input(kept, dtype);
}

void Elementwise::own(int i, Tensor tensor) {
  operands_[i].impl = tensor.impl();
  owned_[i] = std::move(tensor);
}

void Elementwise::settle_device() {
  device_ = output_.defined() ? output_.device() : kCPU;
  for (int i = 1; i < count_; ++i) {
    const Device device = operands_[i].impl->storage->device;
    if (!device.is_cpu() && device_.is_cpu() && !output_.defined()) device_ = device;
  }
  for (int i = 1; i < count_; ++i) {
    Operand& operand = operands_[i];
    const Device device = operand.impl->storage->device;
    if (operand.is_number || device == device_) continue;
    OPSIN_CHECK(Error, device.is_cpu() && operand.impl->sizes.empty(), op_,
                ": Expected all tensors to be on the same device, but found at least two devices, ",
                device_.str(), " and ", device.str(), " (move one with to())");
    store_scalar(Tensor(Ref<TensorImpl>::share(operand.impl)).scalar(), operand.dtype, operand.number);
    operand.is_number = true;
  }
}

void Elementwise::build() {
  settle_device();
  if (output_.defined()) protect_overlapping_inputs();
  if (!build_flat()) build_strided();
}

void Elementwise::protect_overlapping_inputs() {
  const TensorImpl& output = *output_.impl();
  for (int i = 1; i < count_; ++i) {
    TensorImpl* impl = operands_[i].impl;
    if (impl->storage == output.storage && !operands_[i].is_number && !same_geometry(*impl, output)) {
      own(i, clone(alias_without_history(Tensor(Ref<TensorImpl>::share(impl)))));
    }
  }
}

bool Elementwise::build_flat() {
  const TensorImpl* model = output_.impl();
  for (int i = 1; i < count_ && !model; ++i) {
    if (!operands_[i].is_number) model = operands_[i].impl;
  }
  if (!model || !model->contiguous) return false;
  const bool hidden = model->is_hidden();
  for (int i = 1; i < count_; ++i) {
    const TensorImpl* impl = operands_[i].impl;
    if (operands_[i].is_number || impl == model) continue;
    if (!impl->contiguous || impl->is_hidden() != hidden || !(impl->sizes == model->sizes)) return false;
  }
  numel_ = model->numel;
  if (!output_.defined()) {
    output_ = hidden ? empty_channels_last(model->sizes, output_dtype_, device_)
                     : empty(model->sizes, output_dtype_, device_);
  }
  operands_[0].data = output_.impl()->mutable_physical_data();
  strides_[0] = static_cast<int64_t>(item_size(output_dtype_));
  for (int i = 1; i < count_; ++i) {
    Operand& operand = operands_[i];
    operand.data = operand.is_number ? operand.number : input_data(*operand.impl);
    strides_[i] = operand.is_number ? 0 : static_cast<int64_t>(item_size(operand.dtype));
  }
  return true;
}

void Elementwise::allocate_output(const Dims& shape) {
  // A hidden input of the full shape makes the output hidden; otherwise the first dense input gives the order
  // of dimensions, as in PyTorch.
  const TensorImpl* dense = nullptr;
  bool row_major = true;
  for (int i = 1; i < count_; ++i) {
    const TensorImpl* impl = operands_[i].impl;
    if (operands_[i].is_number || !(impl->sizes == shape)) continue;
    row_major &= impl->contiguous;
    if (impl->is_hidden() && row_major) {
      output_ = empty_channels_last(shape, output_dtype_, device_);
      return;
    }
    if (!dense && is_dense(shape, impl->strides)) dense = impl;
  }
  output_ = dense && !dense->contiguous ? empty_strided(shape, dense->strides, output_dtype_, device_)
                                        : empty(shape, output_dtype_, device_);
}

void Elementwise::build_strided() {
  Dims shape = operands_[1].impl->sizes;
  for (int i = 2; i < count_; ++i) {
    const Dims& sizes = operands_[i].impl->sizes;
    if (!(sizes == shape)) shape = broadcast_shapes(shape, sizes, op_);
  }
  if (output_.defined()) {
    OPSIN_CHECK(ShapeError,
                shape == output_.sizes() || broadcast_shapes(shape, output_.sizes(), op_) == output_.sizes(),
                op_, ": output with shape ", str(output_.sizes()), " doesn't match the broadcast shape ",
                str(shape));
    shape = output_.sizes();
  } else {
    allocate_output(shape);
  }
  numel_ = output_.numel();
  const size_t rank = shape.size();

  Dims strides[kMaxOperands];
  for (int i = 0; i < count_; ++i) {
    Operand& operand = operands_[i];
    strides[i] = Dims(rank);
    if (i > 0 && operand.is_number) {
      operand.data = operand.number;
      continue;
    }
    const TensorImpl* impl = i == 0 ? output_.impl() : operand.impl;
    const Dims physical = impl->physical_strides();
    operand.data = i == 0 ? impl->mutable_physical_data() : input_data(*impl);
    const auto bytes = static_cast<int64_t>(item_size(impl->dtype));
    const size_t missing = rank - impl->sizes.size();
    for (size_t d = missing; d < rank; ++d) {
      strides[i][d] = impl->sizes[d - missing] == 1 ? 0 : physical[d - missing] * bytes;
    }
  }

  // Fastest dimension of the output first; the stable sort keeps the logical order among broadcast
  // dimensions.
  Dims order(rank);
  for (size_t d = 0; d < rank; ++d) order[d] = static_cast<int64_t>(rank - 1 - d);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return strides[0][static_cast<size_t>(a)] < strides[0][static_cast<size_t>(b)];
  });
  grid_ = std::make_unique<Grid>();
  Grid& grid = *grid_;
  for (const int64_t ordered : order) {
    const auto d = static_cast<size_t>(ordered);
    if (shape[d] == 1) continue;
    bool merges = !grid.shape.empty();
    for (int i = 0; merges && i < count_; ++i) {
      merges = strides[i][d] == grid.strides[i].back() * grid.shape.back();
    }
    if (merges) {
      grid.shape.back() *= shape[d];
      continue;
    }
    grid.shape.push_back(shape[d]);
    for (int i = 0; i < count_; ++i) grid.strides[i].push_back(strides[i][d]);
  }
  if (grid.shape.size() > 1) {
    // Starting a row costs more than a few elements: pixels rather than their three colours.
    if (device_.is_cpu() && grid.shape[0] < 8 && grid.shape[1] >= 4 * grid.shape[0]) {
      std::swap(grid.shape[0], grid.shape[1]);
      for (int i = 0; i < count_; ++i) std::swap(grid.strides[i][0], grid.strides[i][1]);
    }
    return;
  }
  // One row after all.
  for (int i = 0; i < count_; ++i) strides_[i] = grid.shape.empty() ? 0 : grid.strides[i][0];
  grid_.reset();
}

void Elementwise::run_grid(LoopFn loop, const void* params, int64_t begin, int64_t end) const {
  const Dims& shape = grid_->shape;
  const Dims* strides = grid_->strides;
  char* data[kMaxOperands];
  int64_t inner[kMaxOperands];
  for (int i = 0; i < count_; ++i) inner[i] = strides[i][0];
  Dims index(shape.size());
  int64_t rest = begin;
  for (size_t d = 0; d < shape.size(); ++d) {
    index[d] = rest % shape[d];
    rest /= shape[d];
  }
  const auto carry = [&](size_t d) {
    for (; d + 1 < shape.size() && index[d] == shape[d]; ++d) {
      index[d] = 0;
      ++index[d + 1];
    }
  };
  // Rows whose elements are further apart in an input than those of the next row share its cache lines: some
  // such rows are done together, a piece at a time. Lines a multiple of 2 KB apart fall on few places of the
  // first cache, so fewer of them stay there.
  constexpr int64_t kRows = 16, kLong = 128, kLine = 64;
  bool crosses = false;
  int64_t length = 32;
  for (int i = 1; i < count_; ++i) {
    if (std::abs(inner[i]) < kLine || strides[i][1] == 0 || std::abs(strides[i][1]) >= kLine) continue;
    crosses = shape[0] > kLong;
    for (const int64_t apart : {2048, 4096}) length /= inner[i] % apart == 0 ? 2 : 1;
  }
  while (begin < end) {
    for (int i = 0; i < count_; ++i) {
      data[i] = operands_[i].data;
      for (size_t d = 0; d < shape.size(); ++d) data[i] += index[d] * strides[i][d];
    }
    if (crosses && index[0] == 0) {
      const int64_t rows = std::min({kRows, shape[1] - index[1], (end - begin) / shape[0]});
      if (rows > 1) {
        for (int64_t first = 0; first < shape[0]; first += length) {
          for (int64_t row = 0; row < rows; ++row) {
            char* piece[kMaxOperands];
            for (int i = 0; i < count_; ++i) piece[i] = data[i] + first * inner[i] + row * strides[i][1];
            loop(piece, inner, std::min(length, shape[0] - first), params);
          }
        }
        begin += rows * shape[0];
        index[1] += rows;
        carry(1);
        continue;
      }
    }
    const int64_t n = std::min(shape[0] - index[0], end - begin);
    loop(data, inner, n, params);
    begin += n;
    index[0] += n;
    carry(0);
  }
}

namespace {

/// A part of a plan whose slowest dimension has `size` entries: launched if it is small enough, else in
/// halves.
void launch(DeviceFn kernel, const void* params, DevicePlan& plan, const Dims& shape, const Dims* strides,
            size_t rank, int64_t size) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const size_t slowest = rank - 1;
  int64_t numel = size;
  for (size_t d = 0; d < slowest; ++d) numel *= shape[d];
  if (numel <= kMost && rank <= DevicePlan::kMaxRank) {
    plan.rank = static_cast<int>(rank);
    plan.numel = numel;
    for (size_t d = 0; d < rank; ++d) {
      plan.sizes[d] = d == slowest ? size : shape[d];
      for (int i = 0; i < plan.operands; ++i) plan.strides[i][d] = strides[i][d];
    }
    return kernel(plan, params);
  }
  if (size == 1) return launch(kernel, params, plan, shape, strides, slowest, shape[slowest - 1]);
  const int64_t half = size / 2;
  launch(kernel, params, plan, shape, strides, rank, half);
  DevicePlan rest = plan;
  for (int i = 0; i < plan.operands; ++i) {
    if (rest.data[i]) rest.data[i] += half * strides[i][slowest];
  }
  launch(kernel, params, rest, shape, strides, rank, size - half);
}

}  // namespace

void Elementwise::run_device(DeviceFn kernel, const void* params) {
  operands_[0].dtype = output_dtype_;
  DevicePlan plan;
  plan.operands = count_;
  for (int i = 0; i < count_; ++i) {
    const Operand& operand = operands_[i];
    const bool number = i > 0 && operand.is_number;
    plan.dtype[i] = operand.dtype;
    plan.data[i] = number ? nullptr : operand.data;
    if (number) std::memcpy(plan.number[i], operand.number, sizeof(operand.number));
  }
  if (grid_)
    return launch(kernel, params, plan, grid_->shape, grid_->strides, grid_->shape.size(),
                  grid_->shape.back());
  Dims strides[kMaxOperands];
  for (int i = 0; i < count_; ++i) strides[i] = Dims{strides_[i]};
  launch(kernel, params, plan, Dims{numel_}, strides, 1, numel_);
}

void Elementwise::finish() {
  if (!target_.defined()) return;
  copy_(target_, output_);
  output_ = target_;
}

void Elementwise::run(ElementwiseFn kernel, const void* params) {
  if (numel_ > 0 && !device_.is_cpu()) {
    run_device(kernel.device(), params);
    return finish();
  }
  const LoopFn loop = kernel.rows();
  if (numel_ > 0 && grid_) {
    cpu::parallel_for(numel_, kGrain,
                      [&](int64_t begin, int64_t end) { run_grid(loop, params, begin, end); });
  } else if (numel_ > 0) {
    const auto row = [&](int64_t begin, int64_t end) {
      char* data[kMaxOperands];
      for (int i = 0; i < count_; ++i) data[i] = operands_[i].data + begin * strides_[i];
      loop(data, strides_, end - begin, params);
    };
    if (numel_ <= kGrain) {
      row(0, numel_);
    } else {
      cpu::parallel_for(numel_, kGrain, row);
    }
  }
  finish();
}

void Elementwise::run_dense(ElementwiseFn kernel, const void* params) {
  if (!device_.is_cpu()) return run(kernel, params);
  DenseCall call;
  call.kernel = kernel.dense();
  call.params = params;
  call.operands = count_;
  operands_[0].dtype = output_dtype_;
  bool direct = !grid_ && numel_ <= kGrain && !target_.defined();
  void* data[kMaxOperands];
  for (int i = 0; i < count_; ++i) {
    const DType dtype = operands_[i].dtype;
    call.size[i] = static_cast<uint8_t>(item_size(dtype));
    call.stored[i] = dtype == kFloat16    ? Stored::kHalf
                     : dtype == kBFloat16 ? Stored::kBrainFloat
                                          : Stored::kPlain;
    direct &= call.stored[i] == Stored::kPlain && strides_[i] == call.size[i];
    data[i] = operands_[i].data;
  }
  if (direct) return call.kernel(data, numel_, params);
  run(OPSIN_ISA_SELECT(cpu::dense_table).rows, &call);
}

}  // namespace opsin
