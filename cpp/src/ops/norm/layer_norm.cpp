// Layer normalization, and root mean square normalization, which is the same without the mean.
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

constinit KernelSlot<void (*)(const LayerNormParams&)> layer_norm_forward{"layer_norm"};
constinit KernelSlot<void (*)(const LayerNormBackwardParams&)> layer_norm_backward{"layer_norm_backward"};

namespace {

template <bool kRms>
struct RowNorm {
  static constexpr const char* kName = kRms ? "rms_norm" : "layer_norm";
  struct Params {
    Dims shape;
    int64_t n;
    double eps;
    DType weights;  ///< Of weight, bias and their gradients, for the kernels.
  };

  static Tensor flat(const Tensor& t, DType dtype) {
    return t.defined() ? contiguous(to(t.detach(), dtype)) : Tensor();
  }
  static char* data_of(const Tensor& t) { return t.defined() ? t.impl()->mutable_data() : nullptr; }

  /// Also gives mean and 1 / sqrt(var + eps) per row in float64 for the gradient.
  static std::array<Tensor, 3> forward(const Params& p, const Tensor& input, const Tensor& weight,
                                       const Tensor& bias) {
    const Tensor x = contiguous(input);
    const Tensor y = empty(x.sizes(), x.dtype(), x.device());
    const int64_t rows = p.n == 0 ? 0 : x.numel() / p.n;
    const Tensor mean = empty(Dims{rows}, kFloat64, x.device()),
                 inverse = empty(Dims{rows}, kFloat64, x.device());
    const Tensor w = flat(weight, p.weights), b = flat(bias, p.weights);
    const auto kernel = layer_norm_forward.get(x.device(), x.dtype());
    if (rows == 0) return {y, mean, inverse};
    kernel({rows, p.n, kRms, x.dtype(), p.weights, x.impl()->data(), data_of(w), data_of(b), p.eps,
            data_of(y), mean.mutable_data<double>(), inverse.mutable_data<double>()});
    return {y, mean, inverse};
  }

  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const std::array<Tensor, 3>& y) {
    saver.save(0, x);
    if (weight.defined()) saver.save(1, weight);
    saver.save_output(2, y[1]);
    saver.save_output(3, y[2]);
  }

  // With h = dy w, r = 1 / sqrt(var + eps), xhat = (x - mean) r and means over a row:
  //   dx = r (h - mean(h) - xhat mean(h xhat)), dw = sum(dy xhat), db = sum(dy) over rows;
  // with r = 1 / sqrt(mean(x^2) + eps) and xhat = x r, dx = r (h - xhat mean(h xhat)).
  static void backward(Backward& ctx, const Params& p) {
    const Tensor input = ctx.saved(0), weight = ctx.saved(1);
    if (ctx.create_graph()) {
      composed(ctx, p, input, weight);
      return;
    }
    const Tensor x = contiguous(input), g = contiguous(to(ctx.grad(), input.dtype()));
    const int64_t rows = p.n == 0 ? 0 : x.numel() / p.n;
    const Tensor w = flat(weight, p.weights);
    const auto gradient = [&](size_t i) {
      if (!ctx.needs(i)) return Tensor();
      return rows == 0 ? zeros(p.shape, p.weights, x.device()) : empty(p.shape, p.weights, x.device());
    };
    const Tensor grad_x = ctx.needs(0) ? empty(x.sizes(), x.dtype(), x.device()) : Tensor();
    const Tensor grad_weight = gradient(1), grad_bias = gradient(2);
    if (rows > 0) {
      layer_norm_backward.get(
          x.device(), x.dtype())({rows, p.n, kRms, x.dtype(), p.weights, x.impl()->data(), g.impl()->data(),
                                  data_of(w), ctx.saved(2).data<double>(), ctx.saved(3).data<double>(),
                                  data_of(grad_x), data_of(grad_weight), data_of(grad_bias)});
    }
    ctx.set(0, grad_x);
    ctx.set(1, grad_weight);
    ctx.set(2, grad_bias);
  }

 private:
  static void composed(Backward& ctx, const Params& p, const Tensor& input, const Tensor& weight) {
    const DType dtype = compute_type(input.dtype());
    const Tensor x = to(input, dtype), g = to(ctx.grad(), dtype);
    Dims last, first;
    const int64_t split = x.dim() - static_cast<int64_t>(p.shape.size());
    for (int64_t d = 0; d < x.dim(); ++d) (d < split ? first : last).push_back(d);
    const Tensor centred = kRms ? x : x - mean(x, last, true);
    const Tensor inverse = div(wrap_number(1.0), sqrt(mean(centred * centred, last, true) + Scalar(p.eps)));
    const Tensor xhat = centred * inverse;
    const auto over_rows = [&](const Tensor& t) { return first.empty() ? t : sum(t, first); };
    if (ctx.needs(2)) ctx.set(2, over_rows(g));
    if (ctx.needs(1)) ctx.set(1, over_rows(g * xhat));
    if (!ctx.needs(0)) return;
    const Tensor h = weight.defined() ? g * to(weight, dtype) : g;
    const Tensor rest = h - xhat * mean(h * xhat, last, true);
    ctx.set(0, inverse * (kRms ? rest : rest - mean(h, last, true)));
  }
};

DType weights_dtype(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  const auto fits = [&](const Tensor& t) { return !t.defined() || t.dtype() == input.dtype(); };
  const bool as_input = input.device().is_cuda() && fits(weight) && fits(bias);
  return as_input ? input.dtype() : compute_type(input.dtype());
}

void check_rows(const char* op, const Tensor& input, const Dims& shape, const Tensor& weight,
                const Tensor& bias) {
  OPSIN_CHECK(ShapeError, !shape.empty(), op,
              ": expected normalized_shape to have at least one dimension, got []");
  OPSIN_CHECK(Error, is_floating_point(input.dtype()), op, ": expected a floating-point input, got ",
              name(input.dtype()));
  const size_t rank = input.sizes().size();
  OPSIN_CHECK(
      ShapeError,
      rank >= shape.size() && std::equal(shape.begin(), shape.end(), input.sizes().end() - shape.size()), op,
      ": expected the last dimensions of input to be normalized_shape ", str(shape), ", got input ",
      str(input.sizes()));
  for (const Tensor& t : {weight, bias}) {
    OPSIN_CHECK(ShapeError, !t.defined() || t.sizes() == shape, op, ": expected ",
                t.is_same(weight) ? "weight" : "bias", " of shape ", str(shape), ", got ", str(t.sizes()));
    check_same_device(op, input, t);
  }
}

}  // namespace

Tensor layer_norm(const Tensor& input, IntSpan normalized_shape, const Tensor& weight, const Tensor& bias,
                  double eps) {
  if (autocast::is_on(DeviceType::kCUDA, input))
    return autocast::call<autocast::kFull>(layer_norm, input, normalized_shape, weight, bias, eps);
  const Dims shape(normalized_shape);
  check_rows("layer_norm", input, shape, weight, bias);
  return call<RowNorm<false>>({shape, count_elements(shape), eps, weights_dtype(input, weight, bias)}, input,
                              weight, bias)[0];
}

Tensor rms_norm(const Tensor& input, IntSpan normalized_shape, const Tensor& weight,
                std::optional<double> eps) {
  if (autocast::is_on(DeviceType::kCUDA, input))
    return autocast::call<autocast::kFull>(rms_norm, input, normalized_shape, weight, eps);
  const Dims shape(normalized_shape);
  check_rows("rms_norm", input, shape, weight, {});
  const double epsilon = compute_type(input.dtype()) == kFloat64 ? std::numeric_limits<double>::epsilon()
                                                                 : std::numeric_limits<float>::epsilon();
  return call<RowNorm<true>>(
      {shape, count_elements(shape), eps.value_or(epsilon), weights_dtype(input, weight, {})}, input, weight,
      Tensor())[0];
}

void register_layer_norm(Registry& registry) {
  register_layer_norm_cpu();
  registry.add<&layer_norm>(
      "nn.functional.layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? "
      "bias=None, "
      "float eps=1e-05) -> Tensor",
      "Normalizes over the last dimensions, whose sizes are normalized_shape.");
  registry.add<&rms_norm>(
      "nn.functional.rms_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, float? eps=None) "
      "-> Tensor",
      "Divides by the root mean square over the last dimensions, whose sizes are normalized_shape.");
}

}  // namespace opsin
