// Transposed convolution: the gradient of the input of a convolution, as a function of its own. With
// X -> Y the convolution of the same weight, it maps Y to X, so its gradients are that convolution and the
// gradient of its weights.
#include "conv_products.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/conv.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

Tensor transposed_product(const ConvSettings& s, const Tensor& x, const Tensor& weight,
                          const ConvSides& padding, const Dims& sizes) {
  Dims out{x.sizes()[0], weight.sizes()[1] * s.groups};
  for (const int64_t size : sizes) out.push_back(size);
  ConvParams p = conv_params(s, out, weight);
  p.y_sizes = x.sizes();
  for (size_t i = 0; i < s.axes; ++i) {
    const size_t axis = 3 - s.axes + i;
    ConvGeometry& g = p.geometry;
    g.out[axis] = x.sizes()[2 + i];
    g.pad_begin[axis] = padding.begin[i];
    // What the size leaves over beyond a stride is no position of `x`: the convolution sees less padding.
    const int64_t over = g.in[axis] + padding.begin[i] + padding.end[i] - conv_reach(s, i, g.kernel[axis]) -
                         (g.out[axis] - 1) * g.stride[axis];
    g.pad_end[axis] = padding.end[i] - over / g.stride[axis] * g.stride[axis];
  }
  check_conv_algorithm(s, p.geometry, x.dtype(), x.device());
  return conv_input_product(p, x, weight);
}

Tensor add_conv_bias(const Tensor& y, const Tensor& bias) {
  if (!bias.defined()) return y;
  Dims sizes(y.sizes().size(), 1);
  sizes[1] = bias.sizes()[0];
  return add_(y, reshape(bias, sizes));
}

namespace {

/// The padding by name of an output of `stride` times the size of the input, and what that size has beyond
/// the kernels' reach.
int64_t add_transposed_padding(const ConvSettings& s, size_t axis, int64_t size, int64_t kernel,
                               ConvSides& to) {
  if (s.padding_name == "valid") {
    to.begin.push_back(0);
    to.end.push_back(0);
    return 0;
  }
  const int64_t reach = conv_reach(s, axis, kernel), step = s.stride[axis];
  if (s.padding_name == "causal" && axis == 0) {
    to.begin.push_back(0);
    to.end.push_back(std::max<int64_t>(reach - step, 0));
  } else {
    add_named_padding(s.padding_name, axis, size * step, reach, step, to);
  }
  return std::max<int64_t>(step - reach, 0);
}

Tensor run(const ConvSettings& s, const Dims& output_padding, const Tensor& input, const Tensor& weight,
           const Tensor& bias) {
  if (autocast::is_active()) {
    return autocast::call<autocast::kLower>(run, s, output_padding, input, weight, bias);
  }
  check_conv_operands(s, true, input, weight, bias);
  const bool batched = input.dim() == static_cast<int64_t>(s.axes) + 2;
  const Tensor x = batched ? input : unsqueeze(input, 0);
  ConvSides padding = s.padding;
  Dims sizes;
  for (size_t i = 0; i < s.axes; ++i) {
    const int64_t in = x.sizes()[2 + i], kernel = weight.sizes()[2 + i];
    OPSIN_CHECK(ShapeError, in > 0, s.op, ": expected input with non-zero spatial sizes, got ",
                str(input.sizes()));
    OPSIN_CHECK(ShapeError, output_padding[i] < std::max(s.stride[i], s.dilation[i]), s.op,
                ": output padding must be smaller than either stride or dilation, got output_padding ",
                str(output_padding), ", stride ", str(s.stride), " and dilation ", str(s.dilation));
    int64_t extra = output_padding[i];
    if (!s.padding_name.empty()) {
      extra += add_transposed_padding(s, i, in, kernel, padding);
      OPSIN_CHECK(ValueError, output_padding[i] == 0 || s.padding_name == "valid", s.op, ": padding='",
                  s.padding_name, "' makes the output ", str(s.stride),
                  " times as large as the input, got output_padding ", str(output_padding),
                  " (leave it out, or give the padding in numbers)");
    }
    sizes.push_back((in - 1) * s.stride[i] + conv_reach(s, i, kernel) - padding.begin[i] - padding.end[i] +
                    extra);
    OPSIN_CHECK(ShapeError, sizes[i] > 0, s.op, ": Calculated output size ", sizes[i], " on axis ", i,
                " is too small (input ", str(input.sizes()), ", weight ", str(weight.sizes()), ", padding ",
                padding.begin[i], " and ", padding.end[i], ")");
  }
  const Tensor y = add_conv_bias(transposed_product(s, x, weight, padding, sizes), bias);
  return batched ? y : squeeze(y, Dims{0});
}

Tensor conv_transpose(const char* op, size_t axes, const Tensor& input, const Tensor& weight,
                      const Tensor& bias, IntSpan stride, IntSpan padding, IntSpan output_padding,
                      int64_t groups, IntSpan dilation, std::string_view algorithm) {
  ConvSettings s = conv_settings(op, axes, stride, dilation, groups, algorithm);
  s.padding = conv_sides(op, axes, padding);
  return run(s, per_axis(output_padding, axes, 0, 0, op, "output_padding"), input, weight, bias);
}

Tensor conv_transpose(const char* op, size_t axes, const Tensor& input, const Tensor& weight,
                      const Tensor& bias, IntSpan stride, std::string_view padding, IntSpan output_padding,
                      int64_t groups, IntSpan dilation, std::string_view algorithm) {
  ConvSettings s = conv_settings(op, axes, stride, dilation, groups, algorithm);
  s.padding_name = padding;
  check_padding_name(op, s.padding_name, s.stride);
  return run(s, per_axis(output_padding, axes, 0, 0, op, "output_padding"), input, weight, bias);
}

}  // namespace

#define OPSIN_CONV(function, axes, Padding)                                                              \
  Tensor function(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,         \
                  Padding padding, IntSpan output_padding, int64_t groups, IntSpan dilation,             \
                  std::string_view algorithm) {                                                          \
    return conv_transpose(#function, axes, input, weight, bias, stride, padding, output_padding, groups, \
                          dilation, algorithm);                                                          \
  }
OPSIN_CONV(conv_transpose1d, 1, IntSpan)
OPSIN_CONV(conv_transpose2d, 2, IntSpan)
OPSIN_CONV(conv_transpose3d, 3, IntSpan)
OPSIN_CONV(conv_transpose1d, 1, std::string_view)
OPSIN_CONV(conv_transpose2d, 2, std::string_view)
OPSIN_CONV(conv_transpose3d, 3, std::string_view)
#undef OPSIN_CONV

void register_conv_transpose(Registry& registry) {
  using ByNumber = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, IntSpan, IntSpan, int64_t,
                              IntSpan, std::string_view);
  using ByName = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, std::string_view, IntSpan,
                            int64_t, IntSpan, std::string_view);
#define OPSIN_CONV(function, n, shape)                                                                    \
  registry.add<static_cast<ByNumber>(&function)>(                                                         \
      "nn.functional." #function "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n               \
      "] stride=1, int[" #n "] padding=0, int[" #n "] output_padding=0, int groups=1, int[" #n            \
      "] dilation=1, *, str algorithm='auto') -> Tensor",                                                 \
      "Transposed convolution of input " shape                                                            \
      " with weight [C, K / groups, kernel...]. padding: what is "                                        \
      "cut off the output, also as (before, behind) for each axis. algorithm: as of convolution.");       \
  registry.add<static_cast<ByName>(&function)>(                                                           \
      "nn.functional." #function "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n               \
      "] stride=1, str padding='valid', int[" #n "] output_padding=0, int groups=1, int[" #n              \
      "] dilation=1, *, str algorithm='auto') -> Tensor",                                                 \
      "The same with padding 'valid', or 'same_upper', 'same_lower' or 'causal' for an output of stride " \
      "times the size; 'same' at stride 1.");
  OPSIN_CONV(conv_transpose1d, 1, "[N, C, L]")
  OPSIN_CONV(conv_transpose2d, 2, "[N, C, H, W]")
  OPSIN_CONV(conv_transpose3d, 3, "[N, C, D, H, W]")
#undef OPSIN_CONV
}

}  // namespace opsin
