// Layer normalization.
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
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kWork = 32768;

struct LayerNorm {
  static constexpr const char* kName = "layer_norm";
  struct Params {
    Dims shape;
    int64_t n;
    double eps;
  };

  static Tensor flat(const Tensor& t, DType dtype) {
    return t.defined() ? contiguous(to(t.detach(), dtype)) : Tensor();
  }
  static const void* data_of(const Tensor& t) { return t.defined() ? t.impl()->data() : nullptr; }

  /// Also gives mean and 1 / sqrt(var + eps) per row in float64 for the gradient.
  static std::array<Tensor, 3> forward(const Params& p, const Tensor& input, const Tensor& weight,
                                       const Tensor& bias) {
    const Tensor x = contiguous(input);
    const Tensor y = empty(x.sizes(), x.dtype(), x.device());
    const int64_t rows = p.n == 0 ? 0 : x.numel() / p.n;
    const Tensor mean = empty(Dims{rows}, kFloat64), inverse = empty(Dims{rows}, kFloat64);
    const DType compute = compute_type(x.dtype());
    const Tensor w = flat(weight, compute), b = flat(bias, compute);
    const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).layer_forward[static_cast<int>(x.dtype())];
    const auto row = p.n * static_cast<int64_t>(item_size(x.dtype()));
    const char* xs = x.impl()->data();
    char* ys = y.impl()->mutable_data();
    cpu::parallel_for(rows, std::max<int64_t>(1, kWork / std::max<int64_t>(1, p.n)),
                      [&](int64_t begin, int64_t end) {
                        cpu::LayerNormParams k{};
                        k.rows = end - begin;
                        k.n = p.n;
                        k.x = xs + begin * row;
                        k.y = ys + begin * row;
                        k.weight = data_of(w);
                        k.bias = data_of(b);
                        k.mean = mean.mutable_data<double>() + begin;
                        k.inverse = inverse.mutable_data<double>() + begin;
                        k.eps = p.eps;
                        kernel(k);
                      });
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
  //   dx = r (h - mean(h) - xhat mean(h xhat)), dw = sum(dy xhat), db = sum(dy) over rows.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor input = ctx.saved(0), weight = ctx.saved(1);
    if (ctx.create_graph()) {
      composed(ctx, p, input, weight);
      return;
    }
    const Tensor x = contiguous(input), g = contiguous(to(ctx.grad(), input.dtype()));
    const int64_t rows = p.n == 0 ? 0 : x.numel() / p.n;
    const DType compute = compute_type(x.dtype());
    const Tensor w = flat(weight, compute), mean = ctx.saved(2), inverse = ctx.saved(3);
    const Tensor grad_x = ctx.needs(0) ? empty(x.sizes(), x.dtype(), x.device()) : Tensor();
    const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).layer_backward[static_cast<int>(x.dtype())];
    const auto row = p.n * static_cast<int64_t>(item_size(x.dtype()));
    // Sums for weight and bias: one partial result per slice of rows.
    const bool sums = ctx.needs(1) || ctx.needs(2);
    const int64_t slices =
        std::clamp<int64_t>(x.numel() / kWork, 1, std::min<int64_t>(64, std::max<int64_t>(rows, 1)));
    const Tensor parts = sums ? zeros(Dims{slices, 2, p.n}, kFloat64) : Tensor();
    cpu::parallel_for(slices, 1, [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s) {
        const int64_t begin = rows * s / slices;
        cpu::LayerNormParams k{};
        k.rows = rows * (s + 1) / slices - begin;
        k.n = p.n;
        k.x = x.impl()->data() + begin * row;
        k.g = g.impl()->data() + begin * row;
        k.y = grad_x.defined() ? grad_x.impl()->mutable_data() + begin * row : nullptr;
        k.weight = data_of(w);
        k.mean = mean.mutable_data<double>() + begin;
        k.inverse = inverse.mutable_data<double>() + begin;
        if (sums) {
          double* part = parts.mutable_data<double>() + s * 2 * p.n;
          k.weight_sum = ctx.needs(1) ? part : nullptr;
          k.bias_sum = ctx.needs(2) ? part + p.n : nullptr;
        }
        kernel(k);
      }
    });
    ctx.set(0, grad_x);
    if (!sums) return;
    const Tensor total = sum(parts, Dims{0});
    if (ctx.needs(1)) ctx.set(1, to(reshape(opsin::select(total, 0, 0), p.shape), compute));
    if (ctx.needs(2)) ctx.set(2, to(reshape(opsin::select(total, 0, 1), p.shape), compute));
  }

 private:
  static void composed(Backward& ctx, const Params& p, const Tensor& input, const Tensor& weight) {
    const DType dtype = compute_type(input.dtype());
    const Tensor x = to(input, dtype), g = to(ctx.grad(), dtype);
    Dims last, first;
    const int64_t split = x.dim() - static_cast<int64_t>(p.shape.size());
    for (int64_t d = 0; d < x.dim(); ++d) (d < split ? first : last).push_back(d);
    const Tensor centred = x - mean(x, last, true);
    const Tensor inverse = div(wrap_number(1.0), sqrt(mean(centred * centred, last, true) + Scalar(p.eps)));
    const Tensor xhat = centred * inverse;
    const auto over_rows = [&](const Tensor& t) { return first.empty() ? t : sum(t, first); };
    if (ctx.needs(2)) ctx.set(2, over_rows(g));
    if (ctx.needs(1)) ctx.set(1, over_rows(g * xhat));
    if (!ctx.needs(0)) return;
    const Tensor h = weight.defined() ? g * to(weight, dtype) : g;
    ctx.set(0, inverse * (h - mean(h, last, true) - xhat * mean(h * xhat, last, true)));
  }
};

}  // namespace

Tensor layer_norm(const Tensor& input, IntSpan normalized_shape, const Tensor& weight, const Tensor& bias,
                  double eps) {
  if (autocast::is_on(DeviceType::kCUDA, input))
    return autocast::call<autocast::kFull>(layer_norm, input, normalized_shape, weight, bias, eps);
  const Dims shape(normalized_shape);
  OPSIN_CHECK(ShapeError, !shape.empty(),
              "layer_norm: expected normalized_shape to have at least one dimension, got []");
  OPSIN_CHECK(Error, is_floating_point(input.dtype()), "layer_norm: expected a floating-point input, got ",
              name(input.dtype()));
  const size_t rank = input.sizes().size();
  OPSIN_CHECK(
      ShapeError,
      rank >= shape.size() && std::equal(shape.begin(), shape.end(), input.sizes().end() - shape.size()),
      "layer_norm: expected the last dimensions of input to be normalized_shape ", str(shape), ", got input ",
      str(input.sizes()));
  OPSIN_CHECK(ShapeError, !weight.defined() || weight.sizes() == shape,
              "layer_norm: expected weight of shape ", str(shape), ", got ",
              weight.defined() ? str(weight.sizes()) : "");
  OPSIN_CHECK(ShapeError, !bias.defined() || bias.sizes() == shape, "layer_norm: expected bias of shape ",
              str(shape), ", got ", bias.defined() ? str(bias.sizes()) : "");
  return call<LayerNorm>({shape, count_elements(shape), eps}, input, weight, bias)[0];
}

void register_layer_norm(Registry& registry) {
  registry.add<&layer_norm>(
      "nn.functional.layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? "
      "bias=None, "
      "float eps=1e-05) -> Tensor",
      "Normalizes over the last dimensions, whose sizes are normalized_shape.");
}

}  // namespace opsin
