// Group normalization, and instance normalization, whose groups are the channels.
#include "norm_kernels.h"
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

constinit KernelSlot<void (*)(const GroupNormParams&)> group_norm_forward{"group_norm"};
constinit KernelSlot<void (*)(const GroupNormBackwardParams&)> group_norm_backward{"group_norm_backward"};

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

GroupShape shape_of(const Tensor& x, int64_t groups) {
  int64_t inner = 1;
  for (int64_t d = 2; d < x.dim(); ++d) inner *= x.size(d);
  return {x.size(0), x.size(1), groups, inner, x.impl()->is_hidden() || inner == 1, x.dtype()};
}

Tensor flat(const Tensor& t, DType dtype) {
  return t.defined() ? contiguous(to(t.detach(), dtype)) : Tensor();
}
char* data_of(const Tensor& t) { return t.defined() ? t.impl()->mutable_data() : nullptr; }

struct GroupNorm {
  static constexpr const char* kName = "group_norm";
  struct Params {
    int64_t groups;
    double eps;
  };

  /// Also gives [2][N, C] mean and 1 / sqrt(var + eps) of the channel's group in float64 for the gradient.
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& input, const Tensor& weight,
                                       const Tensor& bias) {
    const Tensor x = contiguous(input), y = empty_as(x);
    const auto kernel = group_norm_forward.get(x.device(), x.dtype());
    const Tensor statistics = empty(Dims{2, x.size(0), x.size(1)}, kFloat64, x.device());
    if (x.numel() == 0) return {y, zero_(statistics)};
    const DType compute = compute_type(x.dtype());
    const Tensor w = flat(weight, compute), b = flat(bias, compute);
    auto* mean = statistics.mutable_data<double>();
    kernel({shape_of(x, p.groups), x.impl()->physical_data(), data_of(w), data_of(b), p.eps,
            y.impl()->mutable_physical_data(), mean, mean + statistics.numel() / 2});
    return {y, statistics};
  }

  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const std::array<Tensor, 2>& y) {
    saver.save(0, x);
    if (weight.defined()) saver.save(1, weight);
    saver.save_output(2, y[1]);
  }

  // With h = dy w, r = 1 / sqrt(var + eps), xhat = (x - mean) r and means over a group:
  //   dx = r (h - mean(h) - xhat mean(h xhat)), dw = sum(dy xhat), db = sum(dy) over a channel of all
  //   samples.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor input = ctx.saved(0), weight = ctx.saved(1);
    if (ctx.create_graph()) {
      composed(ctx, p, input, weight);
      return;
    }
    const Tensor x = contiguous(input), g = aligned(ctx.grad(), x);
    const DType compute = compute_type(x.dtype());
    const Tensor w = flat(weight, compute);
    const auto gradient = [&](size_t i) {
      if (!ctx.needs(i)) return Tensor();
      const Dims size{x.size(1)};
      return x.numel() == 0 ? zeros(size, compute, x.device()) : empty(size, compute, x.device());
    };
    const Tensor grad_x = ctx.needs(0) ? empty_as(x) : Tensor();
    const Tensor grad_weight = gradient(1), grad_bias = gradient(2);
    if (x.numel() > 0) {
      const Tensor statistics = ctx.saved(2);
      const auto* mean = statistics.data<double>();
      group_norm_backward.get(x.device(), x.dtype())(
          {shape_of(x, p.groups), x.impl()->physical_data(), g.impl()->physical_data(), data_of(w), mean,
           mean + statistics.numel() / 2, grad_x.defined() ? grad_x.impl()->mutable_physical_data() : nullptr,
           data_of(grad_weight), data_of(grad_bias)});
    }
    ctx.set(0, grad_x);
    ctx.set(1, grad_weight);
    ctx.set(2, grad_bias);
  }

 private:
  static void composed(Backward& ctx, const Params& p, const Tensor& input, const Tensor& weight) {
    const DType dtype = compute_type(input.dtype());
    // [N, groups, channels of a group, values of a channel]
    const int64_t batch = input.size(0), channels = input.size(1), of_group = channels / p.groups;
    int64_t inner = 1;
    for (int64_t d = 2; d < input.dim(); ++d) inner *= input.size(d);
    const Dims grouped{batch, p.groups, of_group, inner}, dims{2, 3}, across{0, 3},
        one{1, p.groups, of_group, 1};
    const Tensor x = reshape(to(input, dtype), grouped), g = reshape(to(ctx.grad(), dtype), grouped);
    const Tensor centred = x - mean(x, dims, true);
    const Tensor inverse = div(wrap_number(1.0), sqrt(mean(centred * centred, dims, true) + Scalar(p.eps)));
    const Tensor xhat = centred * inverse;
    if (ctx.needs(2)) ctx.set(2, reshape(sum(g, across), Dims{channels}));
    if (ctx.needs(1)) ctx.set(1, reshape(sum(g * xhat, across), Dims{channels}));
    if (!ctx.needs(0)) return;
    const Tensor h = weight.defined() ? g * reshape(to(weight, dtype), one) : g;
    ctx.set(0,
            reshape(inverse * (h - mean(h, dims, true) - xhat * mean(h * xhat, dims, true)), input.sizes()));
  }
};

void check_input(const char* op, const Tensor& input) {
  OPSIN_CHECK(ShapeError, input.dim() >= 2, op, ": expected input [N, C] or [N, C, spatial...], got ",
              str(input.sizes()));
  OPSIN_CHECK(Error, is_floating_point(input.dtype()), op, ": expected a floating-point input, got ",
              name(input.dtype()));
}
void check_per_channel(const char* op, const Tensor& t, const Tensor& input, const char* name) {
  OPSIN_CHECK(ShapeError, !t.defined() || t.sizes() == Dims{input.size(1)}, op, ": ", name,
              " should contain ", input.size(1), " elements for input ", str(input.sizes()), ", got ",
              str(t.sizes()));
  check_same_device(op, input, t);
}
int64_t values_per_channel(const Tensor& input) {
  int64_t count = 1;
  for (int64_t d = 2; d < input.dim(); ++d) count *= input.size(d);
  return count;
}

/// running = (1 - momentum) running + momentum (the mean of `values` [N, C] over the samples)
void move_running(const Tensor& running, const Tensor& values, double momentum) {
  if (!running.defined()) return;
  if (!is_floating_point(running.dtype())) detail::raise_unsupported("instance_norm", running.dtype());
  const Tensor moved =
      to(running, kFloat64) * Scalar(1 - momentum) + mean(values, Dims{0}) * Scalar(momentum);
  copy_(running, moved);
}

}  // namespace

Tensor group_norm(const Tensor& input, int64_t num_groups, const Tensor& weight, const Tensor& bias,
                  double eps) {
  if (autocast::is_on(DeviceType::kCUDA, input))
    return autocast::call<autocast::kFull>(group_norm, input, num_groups, weight, bias, eps);
  check_input("group_norm", input);
  OPSIN_CHECK(ShapeError, num_groups > 0 && input.size(1) % num_groups == 0,
              "group_norm: expected num_groups to divide the number of channels, got num_groups=", num_groups,
              " and input ", str(input.sizes()));
  check_per_channel("group_norm", weight, input, "weight");
  check_per_channel("group_norm", bias, input, "bias");
  OPSIN_CHECK(ValueError, input.size(0) * (input.size(1) / num_groups) * values_per_channel(input) != 1,
              "group_norm: Expected more than 1 value per channel when training, got input size ",
              str(input.sizes()));
  return call<GroupNorm>({num_groups, eps}, input, weight, bias)[0];
}

Tensor instance_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                     const Tensor& weight, const Tensor& bias, bool use_input_stats, double momentum,
                     double eps) {
  check_input("instance_norm", input);
  check_per_channel("instance_norm", running_mean, input, "running_mean");
  check_per_channel("instance_norm", running_var, input, "running_var");
  check_per_channel("instance_norm", weight, input, "weight");
  check_per_channel("instance_norm", bias, input, "bias");
  if (!use_input_stats) {
    OPSIN_CHECK(Error, running_mean.defined() && running_var.defined(),
                "instance_norm: Expected running_mean and running_var to be defined when use_input_stats is "
                "false");
    return batch_norm(input, running_mean, running_var, weight, bias, false, momentum, eps);
  }
  const int64_t count = values_per_channel(input);
  OPSIN_CHECK(ValueError, count != 1,
              "instance_norm: Expected more than 1 spatial element when training, got input size ",
              str(input.sizes()));
  const std::array<Tensor, 2> result = call<GroupNorm>({input.size(1), eps}, input, weight, bias);
  if (input.numel() > 0 && (running_mean.defined() || running_var.defined())) {
    NoGradGuard no_grad;
    const Tensor statistics = result[1].detach();
    move_running(running_mean, select(statistics, 0, 0), momentum);
    const Tensor variance = reciprocal(square(select(statistics, 0, 1))) - Scalar(eps);
    const auto n = static_cast<double>(count);
    move_running(running_var, clamp_min(variance, wrap_number(0.0)) * Scalar(n / (n - 1)), momentum);
  }
  return result[0];
}

void register_group_norm(Registry& registry) {
  register_group_norm_cpu();
  registry.add<&group_norm>(
      "nn.functional.group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, float "
      "eps=1e-05) -> Tensor",
      "Normalizes groups of channels of each sample of [N, C, spatial...].");
  registry.add<&instance_norm>(
      "nn.functional.instance_norm(Tensor input, Tensor? running_mean=None, Tensor? running_var=None, "
      "Tensor? "
      "weight=None, Tensor? bias=None, bool use_input_stats=True, float momentum=0.1, float eps=1e-05) -> "
      "Tensor",
      "Normalizes each channel of each sample of [N, C, spatial...], or by running statistics.");
}

}  // namespace opsin
