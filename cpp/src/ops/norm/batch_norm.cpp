// Batch normalization.
#include "norm_kernels.h"
#include "normalised.h"
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/norm.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/same_device.h"

namespace opsin {

constinit KernelSlot<void (*)(const BatchNormParams&)> batch_norm_statistics{"batch_norm"};
constinit KernelSlot<void (*)(const BatchNormBackwardParams&)> batch_norm_backward{"batch_norm_backward"};

namespace {

Tensor empty_as(const Tensor& x) {
  return x.impl()->is_hidden() ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                               : empty(x.sizes(), x.dtype(), x.device());
}

/// `t` laid out as x, and dense.
Tensor aligned(const Tensor& t, const Tensor& x) {
  if (t.is_contiguous() && t.dtype() == x.dtype() && t.impl()->is_hidden() == x.impl()->is_hidden()) return t;
  return copy_(empty_as(x), t);
}

Tensor floating(const Tensor& t) {
  return !t.defined() || is_floating_point(t.dtype()) ? t : to(t, kFloat32);
}
ChannelNumbers numbers_of(const Tensor& t) {
  return t.defined() ? ChannelNumbers{t.impl()->mutable_data(), t.strides()[0], t.dtype()} : ChannelNumbers{};
}

struct BatchNorm {
  static constexpr const char* kName = "batch_norm";
  struct Params {
    bool training;
    double momentum, eps;
  };

  /// Also gives, for the gradient, mean and 1 / sqrt(var + eps) per channel in float64, and the numbers that
  /// y was made with.
  static std::array<Tensor, 3> forward(const Params& p, const Tensor& input, const Tensor& weight,
                                       const Tensor& bias, const Tensor& running_mean,
                                       const Tensor& running_var) {
    const Tensor x = contiguous(input);
    const auto kernel = batch_norm_statistics.get(x.device(), x.dtype());
    const int64_t channels = x.size(1);
    const Dims for_gradient{2, channels}, for_output{3, channels};
    const DType compute = compute_type(x.dtype());
    if (x.numel() == 0) {
      return {empty_as(x), zeros(for_gradient, kFloat64, x.device()), zeros(for_output, compute, x.device())};
    }
    const Tensor statistics = empty(for_gradient, kFloat64, x.device());
    const Tensor numbers = empty(for_output, compute, x.device());
    if (p.training) {
      for (const Tensor& running : {running_mean, running_var}) {
        if (!running.defined()) continue;
        if (!is_floating_point(running.dtype())) detail::raise_unsupported(kName, running.dtype());
        running.bump_version();
      }
    }
    const Tensor w = floating(weight), b = floating(bias), m = floating(running_mean),
                 v = floating(running_var);
    // With fixed numbers the elements may wait.
    const bool fixed = !p.training && x.device().is_cpu();
    if (fixed) Tails::tell_normalised(x);
    kernel({shape_of(x), fixed ? nullptr : x.impl()->physical_data(), numbers_of(w), numbers_of(b),
            numbers_of(m), numbers_of(v), p.training, p.momentum, p.eps, statistics.mutable_data<double>(),
            statistics.mutable_data<double>() + channels, numbers.impl()->mutable_data()});
    return {leave_normalised(x, numbers), statistics, numbers};
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
    const Tensor x = contiguous(input), w = floating(weight), numbers = ctx.saved(3);
    // The gradient of a ReLU is masked on the way: by what made its output from x, or else by the output,
    // when the masked gradient is written for whoever else wants it.
    const bool sums = p.training || ctx.needs(1) || ctx.needs(2);
    std::optional<Tail> relu = masked_gradient(ctx.grad(), x);
    const bool by_numbers = relu && is_mask_of(*relu, x, numbers);
    if (!by_numbers && !sums) relu.reset();
    // A gradient that nobody reads after this gives its memory, which is in the caches, to that of x.
    const bool dies = by_numbers ? Tails::take_base(ctx.grad(), *relu)
                                 : !relu && x.device().is_cpu() && is_sole_owner(ctx.grad());
    if (by_numbers) relu->other = {};
    const Tensor g = relu ? relu->base : aligned(ctx.grad(), x);
    const Tensor masked = relu && !by_numbers ? empty_as(x) : Tensor();
    const DType compute = compute_type(x.dtype());
    const auto gradient = [&](size_t i) {
      if (!ctx.needs(i)) return Tensor();
      const Dims size{x.size(1)};
      return x.numel() == 0 ? zeros(size, compute, x.device()) : empty(size, compute, x.device());
    };
    const Tensor grad_x = !ctx.needs(0) ? Tensor() : dies ? g : empty_as(x);
    const Tensor grad_weight = gradient(1), grad_bias = gradient(2);
    if (x.numel() > 0) {
      const auto data_of = [](const Tensor& t) { return t.defined() ? t.impl()->mutable_data() : nullptr; };
      const Tensor statistics = ctx.saved(2);
      const auto* mean = statistics.data<double>();
      batch_norm_backward.get(x.device(), x.dtype())(
          {shape_of(x), x.impl()->physical_data(), g.impl()->physical_data(), relu ? relu->ceiling : 0,
           by_numbers ? numbers.impl()->data() : nullptr,
           masked.defined() ? relu->other.impl()->physical_data() : nullptr,
           masked.defined() ? masked.impl()->mutable_physical_data() : nullptr, numbers_of(w), mean,
           mean + x.size(1), p.training, grad_x.defined() ? grad_x.impl()->mutable_physical_data() : nullptr,
           data_of(grad_weight), data_of(grad_bias)});
    }
    if (masked.defined()) Tails::fulfil(ctx.grad(), masked);
    ctx.set(0, grad_x);
    ctx.set(1, grad_weight);
    ctx.set(2, grad_bias);
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
      const auto row = [&](int64_t r) {
        return to(reshape(select(ctx.saved(2).detach(), 0, r), shape), dtype);
      };
      centred = x - row(0);
      inverse = row(1);
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
  for (const Tensor& t : {running_mean, running_var, weight, bias}) check_same_device("batch_norm", input, t);
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
  register_batch_norm_cpu();
  registry.add<&batch_norm>(
      "nn.functional.batch_norm(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? "
      "weight=None, "
      "Tensor? bias=None, bool training=False, float momentum=0.1, float eps=1e-05) -> Tensor",
      "Normalizes each channel of [N, C, spatial...] by the statistics of the batch (training) or the "
      "running ones.");
}

}  // namespace opsin
