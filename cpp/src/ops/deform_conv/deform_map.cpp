// In blocks of rows, so that the columns of one block are all the memory that is needed besides the operands.
#include "deform_map.h"

#include "ops/matmul/matmul_kernels.h"

#include <cstring>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/backend.h"
#include "core/channels_last.h"

namespace opsin {

namespace {

/// The columns of a block, in bytes.
constexpr int64_t kBlockBytes = int64_t{2} << 20;
constexpr int64_t kBlockBytesOfGPU = int64_t{64} << 20;
constexpr int64_t kLeastRows = 64;

const void* read(const Tensor& t) { return t.defined() ? t.impl()->physical_data() : nullptr; }
void* written(const Tensor& t) { return t.defined() ? t.impl()->mutable_physical_data() : nullptr; }

Tensor empty_like_channels_last(const Tensor& t) {
  return empty_channels_last(t.sizes(), t.dtype(), t.device());
}

/// The operands of one map as kernels want them, and its products. Where each channel has a filter of its
/// own, a matrix product has nothing to gain: the columns lie as with one group and are multiplied one by
/// one.
struct Steps {
  const DeformParams& p;
  DType dtype, exact;
  Device device;
  bool depthwise;
  int64_t block_rows, width;  ///< The columns of a group have that width.
  Tensor offset, mask, columns;

  Steps(const DeformParams& params, const Tensor& any, const Tensor& offset_, const Tensor& mask_)
      : p(params),
        dtype(any.dtype()),
        exact(deform_sum_type(dtype)),
        device(any.device()),
        depthwise(p.geometry.groups > 1 && p.channels() == 1 && p.filters() == 1),
        width(p.taps() * p.channels()),
        offset(to_channels_last(offset_)),
        mask(mask_.defined() ? to_channels_last(mask_) : Tensor()) {
    const int64_t of_row = p.taps() * p.geometry.channels * static_cast<int64_t>(item_size(dtype));
    const int64_t bytes = device.is_cpu() ? kBlockBytes : kBlockBytesOfGPU;
    block_rows = std::min(std::max(bytes / of_row, kLeastRows), p.rows());
    columns = empty({block_rows * p.taps() * p.geometry.channels}, dtype, device);
  }

  /// weight [K, C / groups, kernel...] as [groups, K / groups, taps, C / groups], the order of columns.
  Tensor packed(const Tensor& weight) const {
    const Tensor own = weight.detach();
    if (depthwise)
      return to(contiguous(permute(reshape(own, Dims{p.geometry.channels, p.taps()}), Dims{1, 0})), exact);
    const Tensor grouped = reshape(own, Dims{p.geometry.groups, p.filters(), p.channels(), p.taps()});
    return contiguous(permute(grouped, Dims{0, 1, 3, 2}));
  }
  Tensor unpacked(const Tensor& weight) const {
    return to(reshape(permute(weight, depthwise ? Dims{1, 0} : Dims{0, 1, 3, 2}), p.weight_sizes), dtype);
  }

  template <class F>
  void for_blocks(F&& body) const {
    for (int64_t first = 0; first < p.rows(); first += block_rows) {
      DeformPart part{};
      part.geometry = p.geometry;
      if (depthwise) part.geometry.groups = 1;
      part.dtype = dtype;
      part.first = first;
      part.rows = std::min(block_rows, p.rows() - first);
      part.offset = read(offset);
      part.mask = read(mask);
      part.columns = written(columns);
      body(part);
    }
  }

  void run(const KernelSlot<void (*)(const DeformPart&)>& slot, const DeformPart& part) const {
    slot.get(device, dtype)(part);
  }

  /// The rows of y that are those of the part.
  char* rows_of(const Tensor& y, const DeformPart& part) const {
    return const_cast<char*>(y.impl()->physical_data()) +
           part.first * p.y_sizes[1] * static_cast<int64_t>(item_size(dtype));
  }
  /// The same as [rows, 1, C], and the columns as [rows, taps, C].
  Tensor row_tensor(char* rows, const DeformPart& part) const {
    return from_blob(rows, Dims{part.rows, 1, p.y_sizes[1]}, Dims{p.y_sizes[1], p.y_sizes[1], 1}, dtype,
                     device);
  }
  Tensor column_tensor(const DeformPart& part) const {
    const int64_t count = part.rows * p.taps() * p.geometry.channels;
    return view(slice(columns, 0, 0, count), Dims{part.rows, p.taps(), p.geometry.channels});
  }

  /// rows = columns x weight + bias or null.
  void multiply(const DeformPart& part, const Tensor& packed_weight, const void* bias, char* rows) const {
    if (depthwise) {
      copy_(row_tensor(rows, part), sum(mul(to(column_tensor(part), exact), packed_weight), Dims{1}, true));
      return;
    }
    MatmulParams q;
    q.m = part.rows;
    q.n = p.filters();
    q.k = width;
    q.a = part.columns;
    q.a_row = q.k;
    q.a_col = 1;
    q.a_batch = q.m * q.k;
    q.b = read(packed_weight);
    q.b_row = 1;
    q.b_col = q.k;
    q.b_batch = q.n * q.k;
    q.c = rows;
    q.c_row = p.y_sizes[1];
    q.c_batch = q.n;
    q.bias = bias;
    run_groups(q);
  }

  /// columns = rows x the transpose of weight
  void find_columns(const DeformPart& part, const Tensor& packed_weight, char* rows) const {
    if (depthwise) {
      copy_(column_tensor(part), mul(to(row_tensor(rows, part), exact), packed_weight));
      return;
    }
    MatmulParams q;
    q.m = part.rows;
    q.n = width;
    q.k = p.filters();
    q.a = rows;
    q.a_row = p.y_sizes[1];
    q.a_col = 1;
    q.a_batch = q.k;
    q.b = read(packed_weight);
    q.b_row = q.n;
    q.b_col = 1;
    q.b_batch = q.k * q.n;
    q.c = part.columns;
    q.c_row = q.n;
    q.c_batch = q.m * q.n;
    run_groups(q);
  }

  /// The transpose of rows x columns, in the order of packed(), in the type of sums.
  Tensor find_weight(const DeformPart& part, char* rows) const {
    if (depthwise) {
      return sum(mul(to(column_tensor(part), exact), to(row_tensor(rows, part), exact)), Dims{0});
    }
    const Tensor y = empty({p.geometry.groups, p.filters(), p.taps(), p.channels()}, dtype, device);
    MatmulParams q;
    q.m = p.filters();
    q.n = width;
    q.k = part.rows;
    q.a = rows;
    q.a_row = 1;
    q.a_col = p.y_sizes[1];
    q.a_batch = q.m;
    q.b = part.columns;
    q.b_row = q.n;
    q.b_col = 1;
    q.b_batch = q.k * q.n;
    q.c = written(y);
    q.c_row = q.n;
    q.c_batch = q.m * q.n;
    run_groups(q);
    return to(y, exact);
  }

 private:
  void run_groups(MatmulParams& q) const {
    q.batch = p.geometry.groups;
    matmul_forward.get(device, dtype)(q);
  }
};

}  // namespace

Tensor zeros_channels_last(IntSpan sizes, DType dtype, Device device) {
  const Tensor y = empty_channels_last(sizes, dtype, device);
  const size_t bytes = static_cast<size_t>(y.numel()) * item_size(dtype);
  if (device.is_cpu()) {
    std::memset(written(y), 0, bytes);
  } else {
    backend(device).fill_zero(written(y), bytes, device);
  }
  return y;
}

Tensor add_bias(const Tensor& y, const Tensor& bias) {
  if (!bias.defined()) return y;
  Dims sizes(y.sizes().size(), 1);
  sizes[1] = bias.sizes()[0];
  return add(y, reshape(bias, sizes));
}

Tensor deform_map(const DeformParams& p, const Tensor& x, const Tensor& offset, const Tensor& weight,
                  const Tensor& bias, const Tensor& mask) {
  const Steps steps(p, x, offset, mask);
  const Tensor from = to_channels_last(x), packed = steps.packed(weight);
  const Tensor y = empty_channels_last(p.y_sizes, x.dtype(), x.device());
  const Tensor b = bias.defined() ? contiguous(bias.detach()) : bias;
  const bool adds_bias = bias.defined() && p.geometry.groups == 1;
  steps.for_blocks([&](DeformPart& part) {
    part.x = read(from);
    steps.run(deform_columns, part);
    steps.multiply(part, packed, adds_bias ? read(b) : nullptr, steps.rows_of(y, part));
  });
  return adds_bias ? y : add_bias(y, b);
}

DeformOperands deform_gradients(const DeformParams& p, const DeformOperands& operands, DeformNeeds needs) {
  DeformOperands result;
  const Tensor& x = operands.x;
  if (needs.y) result.y = deform_map(p, x, operands.offset, operands.weight, {}, operands.mask);
  if (!needs.x && !needs.offset && !needs.mask && !needs.weight) return result;
  const Steps steps(p, operands.y, operands.offset, operands.mask);
  const Tensor from = x.defined() ? to_channels_last(x) : x, y = to_channels_last(operands.y);
  const Tensor packed = needs.x || needs.offset || needs.mask ? steps.packed(operands.weight) : Tensor();
  const Tensor grad_x = needs.x ? zeros_channels_last(p.x_sizes, steps.exact, steps.device) : Tensor();
  if (needs.offset) result.offset = empty_like_channels_last(operands.offset);
  if (needs.mask) result.mask = empty_like_channels_last(operands.mask);
  Tensor grad_weight;
  steps.for_blocks([&](DeformPart& part) {
    part.x = read(from);
    char* const rows = steps.rows_of(y, part);
    if (packed.defined()) steps.find_columns(part, packed, rows);
    if (needs.x) {
      part.sums = written(grad_x);
      steps.run(deform_spread, part);
    }
    if (needs.offset || needs.mask) {
      part.grad_offset = written(result.offset);
      part.grad_mask = written(result.mask);
      steps.run(deform_products, part);
    }
    if (needs.weight) {
      steps.run(deform_columns, part);
      const Tensor of_block = steps.find_weight(part, rows);
      grad_weight = grad_weight.defined() ? add_(grad_weight, of_block) : of_block;
    }
  });
  if (needs.x) result.x = to(grad_x, steps.dtype);
  if (needs.weight) result.weight = steps.unpacked(grad_weight);
  return result;
}

}  // namespace opsin
