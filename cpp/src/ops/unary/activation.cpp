// The activations of nn.functional and their schemas.
#include "unary_call.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"

namespace opsin {

using unary::apply;

Tensor leaky_relu(const Tensor& input, double negative_slope, bool inplace) {
  return apply(UnaryOp::LeakyRelu, input, {negative_slope}, inplace);
}
Tensor elu(const Tensor& input, double alpha, bool inplace) {
  return apply(UnaryOp::Elu, input, {alpha, 1, 1}, inplace);
}
// Constants: Klambauer et al., "Self-Normalizing Neural Networks" (2017).
Tensor selu(const Tensor& input, bool inplace) {
  constexpr double kAlpha = 1.6732632423543772, kScale = 1.0507009873554805;
  return apply(UnaryOp::Elu, input, {kAlpha * kScale, kScale, 1}, inplace);
}
Tensor celu(const Tensor& input, double alpha, bool inplace) {
  OPSIN_CHECK(Error, alpha != 0, "celu: expected alpha != 0, got 0 (ZeroDivisionError)");
  return apply(UnaryOp::Elu, input, {alpha, 1, 1 / alpha}, inplace);
}
Tensor gelu(const Tensor& input, std::string_view approximate) {
  OPSIN_CHECK(Error, approximate == "none" || approximate == "tanh",
              "gelu: approximate argument must be either none or tanh., got ", approximate);
  return apply(approximate == "tanh" ? UnaryOp::GeluTanh : UnaryOp::Gelu, input);
}
Tensor silu(const Tensor& input, bool inplace) { return apply(UnaryOp::Silu, input, {}, inplace); }
Tensor mish(const Tensor& input, bool inplace) { return apply(UnaryOp::Mish, input, {}, inplace); }
Tensor softplus(const Tensor& input, double beta, double threshold) {
  return apply(UnaryOp::Softplus, input, {beta, threshold});
}
Tensor softsign(const Tensor& input) { return apply(UnaryOp::Softsign, input); }
Tensor softshrink(const Tensor& input, double lambd) {
  OPSIN_CHECK(Error, lambd >= 0, "softshrink: lambda must be greater or equal to 0, but found to be ", lambd,
              ".");
  return apply(UnaryOp::Softshrink, input, {lambd});
}
Tensor hardshrink(const Tensor& input, double lambd) { return apply(UnaryOp::Hardshrink, input, {lambd}); }
Tensor hardtanh(const Tensor& input, double min_val, double max_val, bool inplace) {
  OPSIN_CHECK(ValueError, min_val <= max_val, "hardtanh: min_val cannot be greater than max_val, got ",
              min_val, " and ", max_val);
  if (min_val == 0 && max_val == 6) return relu6(input, inplace);
  return apply(UnaryOp::Hardtanh, input, {min_val, max_val}, inplace);
}
Tensor relu6(const Tensor& input, bool inplace) { return apply(UnaryOp::Relu6, input, {}, inplace); }
Tensor hardsigmoid(const Tensor& input, bool inplace) {
  return apply(UnaryOp::Hardsigmoid, input, {}, inplace);
}
Tensor hardswish(const Tensor& input, bool inplace) { return apply(UnaryOp::Hardswish, input, {}, inplace); }
Tensor logsigmoid(const Tensor& input) { return apply(UnaryOp::Logsigmoid, input); }
Tensor tanhshrink(const Tensor& input) { return apply(UnaryOp::Tanhshrink, input); }
Tensor threshold(const Tensor& input, double threshold_, double value, bool inplace) {
  return apply(UnaryOp::Threshold, input, {threshold_, value}, inplace);
}
Tensor prelu(const Tensor& input, const Tensor& weight) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(prelu, input, weight);
  const int64_t count = weight.numel();
  OPSIN_CHECK(ShapeError, weight.dim() <= 1,
              "prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = ", weight.dim());
  if (count == 1) return parametric_relu(input, reshape(weight, Dims{}));
  OPSIN_CHECK(ShapeError, input.dim() > 0, "prelu: Not allow zero-dim input tensor.");
  const int64_t channels = input.dim() > 1 ? input.size(1) : 1;
  OPSIN_CHECK(ShapeError, channels == count,
              "prelu: Mismatch of parameter numbers and input channel size. Found parameter numbers = ",
              count, " and channel size = ", channels, ".");
  Dims shape(static_cast<size_t>(input.dim()), 1);
  shape[1] = count;
  return parametric_relu(input, reshape(weight, shape));
}
Tensor glu(const Tensor& input, int64_t dim) {
  OPSIN_CHECK(Error, input.dim() > 0, "glu: does not support 0-dimensional tensors");
  const int64_t d = wrap_dim(dim, input.dim(), "glu"), size = input.size(d);
  OPSIN_CHECK(ShapeError, size % 2 == 0, "glu: Halving dimension must be even, but dimension ", d,
              " is size ", size);
  return mul(slice(input, d, 0, size / 2), sigmoid(slice(input, d, size / 2, size)));
}

namespace {
Tensor relu_function(const Tensor& input, bool inplace) { return inplace ? relu_(input) : relu(input); }
}  // namespace

void register_activations(Registry& registry);

void register_activations(Registry& registry) {
#define OPSIN_ADD(name, arguments, doc) \
  registry.add<&name>("nn.functional." #name "(Tensor input" arguments ") -> Tensor", doc);
  registry.add<&relu_function>("nn.functional.relu(Tensor input, bool inplace=False) -> Tensor",
                               "max(0, x).");
  registry.add<&sigmoid>("nn.functional.sigmoid(Tensor input) -> Tensor", "1 / (1 + e^-x).");
  registry.add<&tanh>("nn.functional.tanh(Tensor input) -> Tensor", "The hyperbolic tangent.");
  OPSIN_ADD(leaky_relu, ", float negative_slope=0.01, bool inplace=False",
            "x for x > 0, else negative_slope * x.")
  OPSIN_ADD(elu, ", float alpha=1.0, bool inplace=False", "x for x > 0, else alpha * (e^x - 1).")
  OPSIN_ADD(selu, ", bool inplace=False", "elu scaled so that mean 0 and variance 1 are a fixed point.")
  OPSIN_ADD(celu, ", float alpha=1.0, bool inplace=False", "x for x > 0, else alpha * (e^(x / alpha) - 1).")
  OPSIN_ADD(gelu, ", *, str approximate='none'", "x * Phi(x), or its tanh form.")
  OPSIN_ADD(silu, ", bool inplace=False", "x * sigmoid(x).")
  OPSIN_ADD(mish, ", bool inplace=False", "x * tanh(softplus(x)).")
  OPSIN_ADD(softplus, ", float beta=1.0, float threshold=20.0",
            "ln(1 + e^(beta * x)) / beta; x itself where beta * x > threshold.")
  OPSIN_ADD(softsign, "", "x / (1 + |x|).")
  OPSIN_ADD(softshrink, ", float lambd=0.5", "x moved towards 0 by lambd, 0 within.")
  OPSIN_ADD(hardshrink, ", float lambd=0.5", "x, but 0 within [-lambd, lambd].")
  OPSIN_ADD(hardtanh, ", float min_val=-1.0, float max_val=1.0, bool inplace=False",
            "x kept in [min_val, max_val].")
  OPSIN_ADD(relu6, ", bool inplace=False", "x kept in [0, 6].")
  OPSIN_ADD(hardsigmoid, ", bool inplace=False", "relu6(x + 3) / 6.")
  OPSIN_ADD(hardswish, ", bool inplace=False", "x * relu6(x + 3) / 6.")
  OPSIN_ADD(logsigmoid, "", "ln(sigmoid(x)), without overflow.")
  OPSIN_ADD(tanhshrink, "", "x - tanh(x).")
  OPSIN_ADD(threshold, ", float threshold, float value, bool inplace=False",
            "x above the threshold, else value.")
  OPSIN_ADD(prelu, ", Tensor weight",
            "x for x > 0, else weight * x; weight [] or [1] or [C] for input [N, C, ...].")
  OPSIN_ADD(glu, ", int dim=-1", "The first half along dim times the sigmoid of the second.")
#undef OPSIN_ADD
  registry.add<&relu_>("nn.functional.relu_(Tensor input) -> Tensor", "In-place version of relu.");
  registry.add<&prelu>("prelu(Tensor self, Tensor weight) -> Tensor", "The same as nn.functional.prelu.");
}

}  // namespace opsin
