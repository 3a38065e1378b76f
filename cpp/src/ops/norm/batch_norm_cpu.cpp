// Fills the CPU slots of batch normalization.
#include "channels_cpu.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "core/dispatch.h"

namespace opsin {

namespace {

using cpu::Channels;
using cpu::Numbers;

/// `value` where there are none.
Numbers read(const ChannelNumbers& from, int64_t channels, double value) {
  Numbers numbers(static_cast<size_t>(channels), value);
  if (!from.data) return numbers;
  dispatch_floating(from.dtype, "batch_norm", [&]<class T>() {
    const auto* data = static_cast<const T*>(from.data);
    for (int64_t c = 0; c < channels; ++c) {
      numbers[static_cast<size_t>(c)] = static_cast<double>(static_cast<compute_t<T>>(data[c * from.stride]));
    }
  });
  return numbers;
}

void write(const Numbers& numbers, DType dtype, void* to, int64_t row = 0) {
  if (!to) return;
  dispatch_floating(dtype, "batch_norm", [&]<class T>() {
    auto* data = static_cast<T*>(to) + row * static_cast<int64_t>(numbers.size());
    for (const double value : numbers) *data++ = static_cast<T>(static_cast<compute_t<T>>(value));
  });
}

/// running = (1 - momentum) running + momentum value
void move_running(const ChannelNumbers& running, const Numbers& values, double momentum) {
  if (!running.data) return;
  dispatch_floating(running.dtype, "batch_norm", [&]<class T>() {
    auto* r = static_cast<T*>(running.data);
    for (const double value : values) {
      *r = static_cast<T>(static_cast<compute_t<T>>(
          (1 - momentum) * static_cast<double>(static_cast<compute_t<T>>(*r)) + momentum * value));
      r += running.stride;
    }
  });
}

template <class T>
double number(const ChannelNumbers& of, int64_t c, double otherwise) {
  if (!of.data) return otherwise;
  return static_cast<double>(static_cast<compute_t<T>>(static_cast<const T*>(of.data)[c * of.stride]));
}

/// With fixed statistics and numbers of one dtype T, what statistics() does, in one pass: a network of small
/// images has about as many channels as microseconds.
template <class T, class C>
void fixed_statistics(const BatchNormParams& p) {
  const int64_t channels = p.shape.channels;
  auto* const numbers = static_cast<C*>(p.numbers);
  for (int64_t c = 0; c < channels; ++c) p.inverse[c] = number<T>(p.running_var, c, 1);
  OPSIN_ISA_SELECT(cpu::norm_table).inverse_roots(p.inverse, channels, p.eps);
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = number<T>(p.running_mean, c, 0);
    const double scale = number<T>(p.weight, c, 1) * p.inverse[c];
    const C rounded = static_cast<C>(mean);
    p.mean[c] = mean;
    numbers[c] = rounded;
    numbers[channels + c] = static_cast<C>(scale);
    numbers[2 * channels + c] =
        static_cast<C>(number<T>(p.bias, c, 0) + (static_cast<double>(rounded) - mean) * scale);
  }
}

/// The dtype of all numbers, none where they differ.
std::optional<DType> common_dtype(const BatchNormParams& p) {
  std::optional<DType> common;
  for (const ChannelNumbers* numbers : {&p.weight, &p.bias, &p.running_mean, &p.running_var}) {
    if (!numbers->data) continue;
    if (common && *common != numbers->dtype) return {};
    common = numbers->dtype;
  }
  return common;
}

void statistics(const BatchNormParams& p) {
  const std::optional<DType> common = common_dtype(p);
  if (!p.training && common) {
    return dispatch_floating(*common, "batch_norm", [&]<class T>() {
      p.shape.dtype == kFloat64 ? fixed_statistics<T, double>(p) : fixed_statistics<T, float>(p);
    });
  }
  const Channels channels(p.shape);
  const int64_t count = p.shape.channels;
  Numbers mean, inverse(static_cast<size_t>(count));
  if (p.training) {
    const Numbers shift = channels.first_elements(p.x);
    Numbers sum, square, unbiased(inverse.size());
    cpu::ChannelParams params{};
    params.x = p.x;
    channels.sums(params, nullptr, shift, sum, square);
    mean = shift;
    const auto n = static_cast<double>(channels.per_channel());
    for (size_t c = 0; c < inverse.size(); ++c) {
      const double centre = sum[c] / n;
      const double m2 = square[c] - sum[c] * centre, var = m2 > 0 || m2 != m2 ? m2 / n : 0;
      mean[c] += centre;
      inverse[c] = 1 / std::sqrt(var + p.eps);
      unbiased[c] = var * (n / (n - 1));
    }
    move_running(p.running_mean, mean, p.momentum);
    move_running(p.running_var, unbiased, p.momentum);
  } else {
    mean = read(p.running_mean, count, 0);
    inverse = read(p.running_var, count, 1);
    for (double& v : inverse) v = 1 / std::sqrt(v + p.eps);
  }
  write(mean, kFloat64, p.mean);
  write(inverse, kFloat64, p.inverse);
  // y = (x - m) a + b, with m rounded to the type of x and what that loses put into b.
  Numbers scale = read(p.weight, count, 1), offset = read(p.bias, count, 0), rounded = mean;
  for (size_t c = 0; c < mean.size(); ++c) {
    scale[c] *= inverse[c];
    if (p.shape.dtype != kFloat64) rounded[c] = static_cast<double>(static_cast<float>(mean[c]));
    offset[c] += (rounded[c] - mean[c]) * scale[c];
  }
  const DType compute = compute_type(p.shape.dtype);
  write(rounded, compute, p.numbers);
  write(scale, compute, p.numbers, 1);
  write(offset, compute, p.numbers, 2);
}

void apply(const NormalisedParams& p) {
  cpu::ChannelParams params{};
  params.x = p.x;
  params.residual = p.residual;
  params.y = p.y;
  params.relu = p.ceiling > 0;
  params.ceiling = p.ceiling;
  Channels(p.shape).apply(OPSIN_ISA_SELECT(cpu::norm_table).apply[static_cast<int>(p.shape.dtype)], params,
                          p.numbers, 3);
}

void backward(const BatchNormBackwardParams& p) {
  const Channels channels(p.shape);
  const auto count = static_cast<size_t>(p.shape.channels);
  const Numbers mean(p.mean, p.mean + count), inverse(p.inverse, p.inverse + count);
  const DType compute = compute_type(p.shape.dtype);
  Numbers sum(count), product(count);
  cpu::ChannelParams params{};
  params.x = p.x;
  params.g = p.g;
  params.relu = p.numbers != nullptr;
  params.ceiling = p.ceiling;
  params.relu_output = p.relu_output;
  params.masked = p.masked;
  if (p.training || p.grad_weight || p.grad_bias) {
    Numbers near(count);
    for (size_t c = 0; c < count; ++c) near[c] = cpu::near_mean(mean[c], inverse[c]);
    channels.sums(params, p.numbers, near, sum, product);
    for (size_t c = 0; c < count; ++c) product[c] += (near[c] - mean[c]) * sum[c];
  }
  write(sum, compute, p.grad_bias);
  if (p.grad_weight) {
    Numbers grad_weight = product;
    for (size_t c = 0; c < count; ++c) grad_weight[c] *= inverse[c];
    write(grad_weight, compute, p.grad_weight);
  }
  if (!p.grad_x) return;
  Numbers scale = read(p.weight, p.shape.channels, 1), offset(count), slope(count);
  const auto n = static_cast<double>(channels.per_channel());
  for (size_t c = 0; c < count; ++c) {
    scale[c] *= inverse[c];
    if (!p.training) continue;
    offset[c] = scale[c] * sum[c] / n;
    slope[c] = scale[c] * inverse[c] * inverse[c] * product[c] / n;
  }
  // Three rows that normalise x, of which only the mean is needed without a mask, and three for the gradient.
  const Tensor numbers = empty(Dims{6, p.shape.channels}, compute);
  void* const rows = numbers.impl()->mutable_data();
  write(mean, compute, rows);
  if (p.numbers) std::memcpy(rows, p.numbers, 3 * count * item_size(compute));
  write(scale, compute, rows, 3);
  write(offset, compute, rows, 4);
  write(slope, compute, rows, 5);
  if (p.masked) params.g = p.masked;
  if (!p.training && !p.numbers) params.x = nullptr;
  params.y = p.grad_x;
  channels.apply(OPSIN_ISA_SELECT(cpu::norm_table).apply_backward[static_cast<int>(p.shape.dtype)], params,
                 rows, 6);
}

}  // namespace

void register_batch_norm_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    batch_norm_statistics.set(DeviceType::kCPU, dtype, statistics);
    batch_norm_apply.set(DeviceType::kCPU, dtype, apply);
    batch_norm_backward.set(DeviceType::kCPU, dtype, backward);
  }
}

}  // namespace opsin
