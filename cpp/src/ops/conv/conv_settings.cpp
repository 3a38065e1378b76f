// Settings and sizes of all forms of convolution.
#include "conv_products.h"

#include <algorithm>

#include "core/weight.h"

namespace opsin {

namespace {

/// In the order of ConvAlgorithm.
constexpr std::string_view kAlgorithms[] = {"auto", "direct", "im2col", "fft", "winograd"};

ConvAlgorithm parse_algorithm(const char* op, std::string_view name) {
  const auto* found = std::find(std::begin(kAlgorithms), std::end(kAlgorithms), name);
  OPSIN_CHECK(ValueError, found != std::end(kAlgorithms), op,
              ": expected algorithm 'auto', 'direct', 'im2col', 'fft' or 'winograd', got '", name, "'");
  return static_cast<ConvAlgorithm>(found - std::begin(kAlgorithms));
}

}  // namespace

ConvSettings conv_settings(const char* op, size_t axes, IntSpan stride, IntSpan dilation, int64_t groups,
                           std::string_view algorithm) {
  return {op,
          axes,
          per_axis(stride, axes, 1, 1, op, "stride"),
          per_axis(dilation, axes, 1, 1, op, "dilation"),
          {},
          {},
          groups,
          parse_algorithm(op, algorithm)};
}

void check_conv_operands(const ConvSettings& s, bool transposed, const Tensor& input, const Tensor& weight,
                         const Tensor& bias) {
  const auto axes = static_cast<int64_t>(s.axes);
  OPSIN_CHECK(ShapeError, weight.dim() == axes + 2, s.op, ": expected weight of ", axes + 2, " dimensions ",
              transposed ? "[C, K / groups, kernel...]" : "[K, C / groups, kernel...]", ", got ",
              str(weight.sizes()));
  OPSIN_CHECK(ShapeError, input.dim() == axes + 1 || input.dim() == axes + 2, s.op, ": expected input of ",
              axes + 1, " (unbatched) or ", axes + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(Error, input.dtype() == weight.dtype(), s.op, ": expected input and weight of one dtype, got ",
              name(input.dtype()), " and ", name(weight.dtype()));
  OPSIN_CHECK(ValueError, s.groups > 0, s.op,
              ": non-positive groups is not supported, got groups=", s.groups);
  const int64_t channels = input.size(-axes - 1), rows = weight.sizes()[0], columns = weight.sizes()[1];
  std::string stars;
  for (size_t i = 0; i < s.axes; ++i) stars += ", *";
  if (transposed) {
    OPSIN_CHECK(
        ShapeError, channels % s.groups == 0 && rows == channels, s.op, ": expected weight [",
        channels % s.groups == 0 ? std::to_string(channels) : "a multiple of " + std::to_string(s.groups),
        ", *", stars, "] for groups=", s.groups, ", got ", str(weight.sizes()), " (input ",
        str(input.sizes()), ")");
  } else {
    OPSIN_CHECK(
        ShapeError, channels % s.groups == 0 && rows % s.groups == 0 && columns == channels / s.groups, s.op,
        ": expected weight [",
        rows % s.groups == 0 ? std::to_string(rows) : "a multiple of " + std::to_string(s.groups), ", ",
        channels % s.groups == 0 ? std::to_string(channels / s.groups)
                                 : "channels / " + std::to_string(s.groups),
        stars, "] for groups=", s.groups, ", got ", str(weight.sizes()), " (input ", str(input.sizes()), ")");
  }
  for (size_t i = 0; i < s.axes; ++i) {
    OPSIN_CHECK(ShapeError, weight.sizes()[2 + i] > 0, s.op, ": expected kernel sizes above 0, got weight ",
                str(weight.sizes()));
  }
  if (bias.defined()) {
    const int64_t out = transposed ? columns * s.groups : rows;
    OPSIN_CHECK(ShapeError, bias.dim() == 1 && bias.sizes()[0] == out, s.op, ": expected bias [", out,
                "] for weight ", str(weight.sizes()), ", got ", str(bias.sizes()));
    OPSIN_CHECK(Error, bias.dtype() == input.dtype(), s.op, ": expected input and bias of one dtype, got ",
                name(input.dtype()), " and ", name(bias.dtype()));
  }
}

void check_conv_algorithm(const ConvSettings& s, const ConvGeometry& geometry, DType dtype, Device device) {
  const std::string_view wanted = kAlgorithms[static_cast<size_t>(s.algorithm)];
  if (device.is_cuda()) {
    OPSIN_CHECK(ValueError, s.algorithm == ConvAlgorithm::kAuto || s.algorithm == ConvAlgorithm::kDirect,
                s.op, ": cuda has no algorithm='", wanted, "' (have: 'auto', 'direct')");
    return;
  }
  const std::string obstacle = cpu::conv_obstacle(geometry, dtype);
  OPSIN_CHECK(ValueError, obstacle.empty(), s.op, ": algorithm='", wanted, "' ", obstacle,
              " (pass algorithm='auto')");
}

ConvParams conv_params(const ConvSettings& s, const Dims& x_sizes, const Tensor& weight) {
  const Dims& weight_sizes = weight.sizes();
  ConvParams p;
  p.x_sizes = x_sizes;
  p.weight_sizes = weight_sizes;
  p.y_sizes = Dims{x_sizes[0], weight_sizes[0]};
  p.keeps_weight = is_constant(weight);
  ConvGeometry& g = p.geometry;
  g.spatial = static_cast<int>(s.axes);
  g.batch = x_sizes[0];
  g.in_channels = x_sizes[1];
  g.out_channels = weight_sizes[0];
  g.groups = s.groups;
  g.algorithm = s.algorithm;
  for (size_t i = 0; i < s.axes; ++i) {
    const size_t axis = 3 - s.axes + i;
    g.in[axis] = x_sizes[2 + i];
    g.kernel[axis] = weight_sizes[2 + i];
    g.stride[axis] = s.stride[i];
    g.dilation[axis] = s.dilation[i];
  }
  return p;
}

}  // namespace opsin
