// Fills the CPU slots of layer normalization.
#include "norm_kernels.h"

#include <algorithm>

#include <opsin/ops/creation.h>
#include <opsin/ops/reduce.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kWork = 32768;

void forward(const LayerNormParams& p) {
  const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).layer_forward[static_cast<int>(p.dtype)];
  const auto row = p.n * static_cast<int64_t>(item_size(p.dtype));
  cpu::parallel_for(p.rows, std::max<int64_t>(1, kWork / p.n), [&](int64_t begin, int64_t end) {
    cpu::LayerNormPart k{};
    k.rows = end - begin;
    k.n = p.n;
    k.rms = p.rms;
    k.x = static_cast<const char*>(p.x) + begin * row;
    k.y = static_cast<char*>(p.y) + begin * row;
    k.weight = p.weight;
    k.bias = p.bias;
    k.mean = p.mean + begin;
    k.inverse = p.inverse + begin;
    k.eps = p.eps;
    kernel(k);
  });
}

void write(const double* from, int64_t n, DType dtype, void* to) {
  dispatch_floating(dtype, "layer_norm", [&]<class T>() {
    for (int64_t i = 0; i < n; ++i)
      static_cast<T*>(to)[i] = static_cast<T>(static_cast<compute_t<T>>(from[i]));
  });
}

void backward(const LayerNormBackwardParams& p) {
  const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).layer_backward[static_cast<int>(p.dtype)];
  const auto row = p.n * static_cast<int64_t>(item_size(p.dtype));
  // Sums for weight and bias: one partial result per slice of rows.
  const bool sums = p.grad_weight || p.grad_bias;
  const int64_t slices = std::clamp<int64_t>(p.rows * p.n / (2 * kWork), 1, std::min<int64_t>(64, p.rows));
  // Slices of many rows have whole groups of those that the kernels take together.
  const int64_t group = p.rows >= 32 * slices ? 4 : 1;
  const auto bound = [&](int64_t s) { return s == slices ? p.rows : p.rows / group * s / slices * group; };
  const Tensor parts = sums ? zeros(Dims{slices, 2, p.n}, kFloat64) : Tensor();
  const DType compute = compute_type(p.dtype);
  cpu::parallel_for(slices, 1, [&](int64_t first, int64_t last) {
    const Tensor buffer = sums ? zeros(Dims{2, p.n}, compute) : Tensor();
    for (int64_t s = first; s < last; ++s) {
      const int64_t begin = bound(s);
      cpu::LayerNormPart k{};
      k.rows = bound(s + 1) - begin;
      k.n = p.n;
      k.rms = p.rms;
      k.x = static_cast<const char*>(p.x) + begin * row;
      k.g = static_cast<const char*>(p.g) + begin * row;
      k.y = p.grad_x ? static_cast<char*>(p.grad_x) + begin * row : nullptr;
      k.weight = p.weight;
      k.mean = const_cast<double*>(p.mean) + begin;
      k.inverse = const_cast<double*>(p.inverse) + begin;
      if (sums) {
        k.buffer = buffer.impl()->mutable_data();
        double* part = parts.mutable_data<double>() + s * 2 * p.n;
        k.weight_sum = p.grad_weight ? part : nullptr;
        k.bias_sum = p.grad_bias ? part + p.n : nullptr;
      }
      kernel(k);
    }
  });
  if (!sums) return;
  const Tensor total = sum(parts, Dims{0});
  if (p.grad_weight) write(total.data<double>(), p.n, compute, p.grad_weight);
  if (p.grad_bias) write(total.data<double>() + p.n, p.n, compute, p.grad_bias);
}

}  // namespace

void register_layer_norm_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    layer_norm_forward.set(DeviceType::kCPU, dtype, forward);
    layer_norm_backward.set(DeviceType::kCPU, dtype, backward);
  }
}

}  // namespace opsin
