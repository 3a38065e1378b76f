// Batch normalization.
#include "channels.h"
#include "parts.h"

#include <cmath>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/norm.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"

namespace opsin {

namespace {

using Numbers = std::vector<double>;

/// A `[C]` tensor as numbers; `value` if it is absent.
Numbers numbers_of(const Tensor& t, int64_t channels, double value) {
  Numbers numbers(static_cast<size_t>(channels), value);
  if (!t.defined()) return numbers;
  const Tensor wide = contiguous(to(t.detach(), kFloat64));
  std::copy_n(wide.data<double>(), channels, numbers.begin());
  return numbers;
}

Tensor tensor_of(const Numbers& numbers, DType dtype) {
  const Tensor wide = empty(Dims{static_cast<int64_t>(numbers.size())}, kFloat64);
  std::copy(numbers.begin(), numbers.end(), wide.mutable_data<double>());
  return to(wide, dtype);
}

/// running = (1 - momentum) running + momentum value
void move_running(const Tensor& running, const Numbers& values, double momentum) {
  if (!running.defined()) return;
  dispatch_floating(running.dtype(), "batch_norm", [&]<class T>() {
    T* data = running.mutable_data<T>();
    const int64_t stride = running.strides()[0];
    for (size_t c = 0; c < values.size(); ++c) {
      T& r = data[static_cast<int64_t>(c) * stride];
      r = static_cast<T>(static_cast<compute_t<T>>(
          (1 - momentum) * static_cast<double>(static_cast<compute_t<T>>(r)) + momentum * values[c]));
    }
  });
  running.bump_version();
}

struct BatchNorm {
  static constexpr const char* kName = "batch_norm";
  struct Params {
    bool training;
    double momentum, eps;
  };

  /// Also gives mean and 1 / sqrt(var + eps) per channel in float64 for the gradient.
  static std::array<Tensor, 3> forward(const Params& p, const Tensor& input, const Tensor& weight,
                                       const Tensor& bias, const Tensor& running_mean,
                                       const Tensor& running_var) {
    const Tensor x = contiguous(input);
    const Channels channels(x);
    const int64_t count = channels.channels();
    Numbers mean, inverse(static_cast<size_t>(count));
    if (p.training) {
      const Numbers shift = channels.first_elements(x);
      Numbers sum, square, unbiased(inverse.size());
      channels.sums(x, {}, shift, sum, square);
      mean = shift;
      const auto n = static_cast<double>(channels.per_channel());
      for (size_t c = 0; c < inverse.size(); ++c) {
        const double centre = sum[c] / n;
        const double m2 = square[c] - sum[c] * centre, var = m2 > 0 || m2 != m2 ? m2 / n : 0;
        mean[c] += centre;
        inverse[c] = 1 / std::sqrt(var + p.eps);
        unbiased[c] = var * (n / (n - 1));
      }
      move_running(running_mean, mean, p.momentum);
      move_running(running_var, unbiased, p.momentum);
    } else {
      mean = numbers_of(running_mean, count, 0);
      inverse = numbers_of(running_var, count, 1);
      for (double& v : inverse) v = 1 / std::sqrt(v + p.eps);
    }
    // y = (x - m) a + b, with m rounded to the type of x and what that loses put into b.
    Numbers scale = numbers_of(weight, count, 1), offset = numbers_of(bias, count, 0), rounded = mean;
    for (size_t c = 0; c < mean.size(); ++c) {
      scale[c] *= inverse[c];
      if (x.dtype() != kFloat64) rounded[c] = static_cast<double>(static_cast<float>(mean[c]));
      offset[c] += (rounded[c] - mean[c]) * scale[c];
    }
    const Tensor y = channels.empty_like_x();
    channels.apply(OPSIN_ISA_SELECT(cpu::norm_table).apply[static_cast<int>(x.dtype())], x, {}, y,
                   {rounded, scale, offset, scale});
    return {y, tensor_of(mean, kFloat64), tensor_of(inverse, kFloat64)};
  }

  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const Tensor&, const Tensor&, const std::array<Tensor, 3>& y) {
    saver.save(0, x);
    if (weight.defined()) saver.save(1, weight);
    saver.save_output(2, y[1]);
    saver.save_output(3, y[2]);
  }

  // With r = 1 / sqrt(var + eps), xhat = (x - mean) r and means over a channel:
  //   db = sum(dy), dw = sum(dy xhat), dx = w r (dy - mean(dy) - xhat mean(dy xhat));
  // with fixed statistics dx = w r dy.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor input = ctx.saved(0), weight = ctx.saved(1);
    if (ctx.create_graph()) {
      composed(ctx, p, input, weight);
      return;
    }
    const Tensor x = contiguous(input);
    const Channels channels(x);
    const Tensor g = channels.aligned(ctx.grad());
    const Numbers mean = numbers_of(ctx.saved(2), channels.channels(), 0);
    const Numbers inverse = numbers_of(ctx.saved(3), channels.channels(), 0);
    const size_t count = mean.size();
    Numbers sum(count), product(count);
    if (p.training || ctx.needs(1) || ctx.needs(2)) channels.sums(x, g, mean, sum, product);
    if (ctx.needs(2)) ctx.set(2, tensor_of(sum, compute_type(x.dtype())));
    if (ctx.needs(1)) {
      Numbers grad_weight = product;
      for (size_t c = 0; c < count; ++c) grad_weight[c] *= inverse[c];
      ctx.set(1, tensor_of(grad_weight, compute_type(x.dtype())));
    }
    if (!ctx.needs(0)) return;
    Numbers scale = numbers_of(weight, channels.channels(), 1), offset(count), slope(count);
    const auto n = static_cast<double>(std::max<int64_t>(1, channels.per_channel()));
    for (size_t c = 0; c < count; ++c) {
      scale[c] *= inverse[c];
      if (!p.training) continue;
      offset[c] = scale[c] * sum[c] / n;
      slope[c] = scale[c] * inverse[c] * inverse[c] * product[c] / n;
    }
    const Tensor grad_x = channels.empty_like_x();
    channels.apply(OPSIN_ISA_SELECT(cpu::norm_table).apply_backward[static_cast<int>(x.dtype())], x, g,
                   grad_x, {mean, scale, offset, slope});
    ctx.set(0, grad_x);
  }

 private:
  static void composed(Backward& ctx, const Params& p, const Tensor& input, const Tensor& weight) {
    const DType dtype = compute_type(input.dtype());
    const Tensor x = to(input, dtype), g = to(ctx.grad(), dtype);
    Dims dims{0}, shape(x.sizes().size(), 1);
    for (int64_t d = 2; d < x.dim(); ++d) dims.push_back(d);
    shape[1] = x.size(1);
    Tensor centred, inverse;
    if (p.training) {
      centred = x - mean(x, dims, true);
      inverse = div(wrap_number(1.0), sqrt(mean(centred * centred, dims, true) + Scalar(p.eps)));
    } else {
      centred = x - to(reshape(ctx.saved(2).detach(), shape), dtype);
      inverse = to(reshape(ctx.saved(3).detach(), shape), dtype);
    }
    const Tensor xhat = centred * inverse;
    if (ctx.needs(2)) ctx.set(2, sum(g, dims));
    if (ctx.needs(1)) ctx.set(1, sum(g * xhat, dims));
    if (!ctx.needs(0)) return;
    const Tensor scale = weight.defined() ? to(reshape(weight, shape), dtype) * inverse : inverse;
    const Tensor rest = p.training ? g - mean(g, dims, true) - xhat * mean(g * xhat, dims, true) : g;
    ctx.set(0, scale * rest);
  }
};

void check_per_channel(const Tensor& t, const Tensor& input, const char* name) {
  OPSIN_CHECK(ShapeError, !t.defined() || t.sizes() == Dims{input.size(1)}, "batch_norm: ", name,
              " should contain ", input.size(1), " elements for input ", str(input.sizes()), ", got ",
              t.defined() ? str(t.sizes()) : "");
}

}  // namespace

Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, bool training, double momentum, double eps) {
  OPSIN_CHECK(ShapeError, input.dim() >= 2, "batch_norm: expected input [N, C] or [N, C, spatial...], got ",
              str(input.sizes()));
  OPSIN_CHECK(Error, is_floating_point(input.dtype()), "batch_norm: expected a floating-point input, got ",
              name(input.dtype()));
  check_per_channel(running_mean, input, "running_mean");
  check_per_channel(running_var, input, "running_var");
  check_per_channel(weight, input, "weight");
  check_per_channel(bias, input, "bias");
  OPSIN_CHECK(ValueError, training || (running_mean.defined() && running_var.defined()),
              "batch_norm: expected running_mean and running_var to be defined when training=False");
  if (training) {
    int64_t count = input.size(0);
    for (int64_t d = 2; d < input.dim(); ++d) count *= input.size(d);
    OPSIN_CHECK(ValueError, count != 1,
                "batch_norm: Expected more than 1 value per channel when training, got input size ",
                str(input.sizes()));
  }
  return call<BatchNorm>({training, momentum, eps}, input, weight, bias, running_mean, running_var)[0];
}

void register_batch_norm(Registry& registry) {
  registry.add<&batch_norm>(
      "nn.functional.batch_norm(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? "
      "weight=None, "
      "Tensor? bias=None, bool training=False, float momentum=0.1, float eps=1e-05) -> Tensor",
      "Normalizes each channel of [N, C, spatial...] by the statistics of the batch (training) or the "
      "running ones.");
}

}  // namespace opsin
