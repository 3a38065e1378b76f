// Convolution. With X * W for the convolution, it is bilinear, and its three products are each other's
// gradients:
//   Y = X * W        dX = input(dY, W)     dW = weight(X, dY)     db = sum of dY over N and positions
//   G = input(Y, W)  dY = dG * W           dW = weight(dG, Y)
//   V = weight(X, Y) dX = input(Y, dV)     dY = X * dV (+ d(db) as a bias)
// since <dY, X * W> = <input(dY, W), X> = <weight(X, dY), W>.
#include "conv_kernels.h"

#include <opsin/ops/conv.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, const void*, void*)>
    conv_forward{"conv"};
constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*)>
    conv_backward_input{"conv_backward_input"};
constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*, void*)>
    conv_backward_weight{"conv_backward_weight"};

namespace {

/// One convolution, the parameter of all three ops.
struct ConvParams {
  ConvGeometry geometry;
  Dims x_sizes, weight_sizes, y_sizes;

  /// The same for all three products: every weight meets every position of the output once.
  int64_t flops() const {
    int64_t count = 2 * count_elements(weight_sizes) * y_sizes[0];
    for (size_t i = 2; i < y_sizes.size(); ++i) count *= y_sizes[i];
    return count;
  }
};

const void* pointer(const Tensor& t) { return t.defined() ? t.impl()->physical_data() : nullptr; }

Tensor forward_product(const ConvParams& p, const Tensor& x, const Tensor& weight, const Tensor& bias);
Tensor input_product(const ConvParams& p, const Tensor& grad_y, const Tensor& weight);
std::array<Tensor, 2> weight_product(const ConvParams& p, const Tensor& x, const Tensor& grad_y, bool bias);

struct Conv {
  static constexpr const char* kName = "conv";
  using Params = ConvParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&, const Tensor&) { return p.flops(); }
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const auto kernel = conv_forward.get(x.device(), x.dtype());
    const Tensor y = empty_channels_last(p.y_sizes, x.dtype(), x.device());
    if (y.numel() == 0) return y;
    const Tensor from = to_channels_last(x), w = contiguous(weight),
                 b = bias.defined() ? contiguous(bias) : bias;
    kernel(p.geometry, x.dtype(), pointer(from), w.impl()->data(), b.defined() ? b.impl()->data() : nullptr,
           y.impl()->mutable_physical_data());
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad_y = ctx.grad();
    if (ctx.needs(0)) ctx.set(0, input_product(p, grad_y, ctx.saved(1)));
    if (ctx.needs(1)) {
      auto grads = weight_product(p, ctx.saved(0), grad_y, ctx.needs(2));
      ctx.set(1, std::move(grads[0]));
      if (ctx.needs(2)) ctx.set(2, std::move(grads[1]));
    } else if (ctx.needs(2)) {
      Dims dims;
      for (int64_t i = 0; i < grad_y.dim(); ++i) {
        if (i != 1) dims.push_back(i);
      }
      ctx.set(2, sum(grad_y, dims));
    }
  }
};

struct ConvBackwardInput {
  static constexpr const char* kName = "conv_backward_input";
  using Params = ConvParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&) { return p.flops(); }
  static Tensor forward(const Params& p, const Tensor& grad_y, const Tensor& weight) {
    const auto kernel = conv_backward_input.get(grad_y.device(), grad_y.dtype());
    const Tensor grad_x = empty_channels_last(p.x_sizes, grad_y.dtype(), grad_y.device());
    if (grad_x.numel() == 0) return grad_x;
    if (grad_y.numel() == 0) return zeros(p.x_sizes, grad_y.dtype(), grad_y.device());
    const Tensor from = to_channels_last(grad_y), w = contiguous(weight);
    kernel(p.geometry, grad_y.dtype(), pointer(from), w.impl()->data(),
           grad_x.impl()->mutable_physical_data());
    return grad_x;
  }
  static void save(Saver& saver, const Params&, const Tensor& grad_y, const Tensor& weight, const Tensor&) {
    if (saver.needs(1)) saver.save(0, grad_y);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, forward_product(p, ctx.grad(), ctx.saved(1), {}));
    if (ctx.needs(1)) ctx.set(1, weight_product(p, ctx.grad(), ctx.saved(0), false)[0]);
  }
};

struct ConvBackwardWeight {
  static constexpr const char* kName = "conv_backward_weight";
  struct Params : ConvParams {
    bool bias;
  };
  static int64_t flops(const Params& p, const Tensor&, const Tensor&) { return p.flops(); }
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& x, const Tensor& grad_y) {
    const auto kernel = conv_backward_weight.get(x.device(), x.dtype());
    if (x.numel() == 0 || grad_y.numel() == 0) {
      return {zeros(p.weight_sizes, x.dtype(), x.device()),
              p.bias ? zeros(Dims{p.weight_sizes[0]}, x.dtype(), x.device()) : Tensor()};
    }
    const Tensor grad_weight = empty(p.weight_sizes, x.dtype(), x.device());
    const Tensor grad_bias = p.bias ? empty(Dims{p.weight_sizes[0]}, x.dtype(), x.device()) : Tensor();
    const Tensor from = to_channels_last(x), grad = to_channels_last(grad_y);
    kernel(p.geometry, x.dtype(), pointer(from), pointer(grad), grad_weight.impl()->mutable_data(),
           p.bias ? grad_bias.impl()->mutable_data() : nullptr);
    return {grad_weight, grad_bias};
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& grad_y,
                   const std::array<Tensor, 2>&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, grad_y);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor &to_weight = ctx.grad(0), &to_bias = ctx.grad(1);
    if (ctx.needs(0) && to_weight.defined()) ctx.set(0, input_product(p, ctx.saved(1), to_weight));
    if (ctx.needs(1)) {
      if (to_weight.defined()) {
        ctx.set(1, forward_product(p, ctx.saved(0), to_weight, to_bias));
      } else {
        Dims sizes(p.y_sizes.size(), 1);
        sizes[1] = p.y_sizes[1];
        ctx.set(1, expand(reshape(to_bias, sizes), p.y_sizes));
      }
    }
  }
};

Tensor forward_product(const ConvParams& p, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return call<Conv>(p, x, weight, bias);
}
Tensor input_product(const ConvParams& p, const Tensor& grad_y, const Tensor& weight) {
  return call<ConvBackwardInput>(p, grad_y, weight);
}
std::array<Tensor, 2> weight_product(const ConvParams& p, const Tensor& x, const Tensor& grad_y, bool bias) {
  return call<ConvBackwardWeight>({p, bias}, x, grad_y);
}

struct Settings {
  const char* op;
  size_t axes;
  Dims stride, dilation, pad_begin, pad_end;
  int64_t groups;
};

void check_operands(const Settings& s, const Tensor& input, const Tensor& weight, const Tensor& bias) {
  const auto axes = static_cast<int64_t>(s.axes);
  OPSIN_CHECK(ShapeError, weight.dim() == axes + 2, s.op, ": expected weight of ", axes + 2,
              " dimensions [K, C / groups, kernel...], got ", str(weight.sizes()));
  OPSIN_CHECK(ShapeError, input.dim() == axes + 1 || input.dim() == axes + 2, s.op, ": expected input of ",
              axes + 1, " (unbatched) or ", axes + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(Error, input.dtype() == weight.dtype(), s.op, ": expected input and weight of one dtype, got ",
              name(input.dtype()), " and ", name(weight.dtype()));
  OPSIN_CHECK(ValueError, s.groups > 0, s.op,
              ": non-positive groups is not supported, got groups=", s.groups);
  const int64_t channels = input.size(-axes - 1), out = weight.sizes()[0];
  std::string stars;
  for (size_t i = 0; i < s.axes; ++i) stars += ", *";
  OPSIN_CHECK(
      ShapeError, channels % s.groups == 0 && out % s.groups == 0 && weight.sizes()[1] == channels / s.groups,
      s.op, ": expected weight [",
      out % s.groups == 0 ? std::to_string(out) : "a multiple of " + std::to_string(s.groups), ", ",
      channels % s.groups == 0 ? std::to_string(channels / s.groups)
                               : "channels / " + std::to_string(s.groups),
      stars, "] for groups=", s.groups, ", got ", str(weight.sizes()), " (input ", str(input.sizes()), ")");
  if (bias.defined()) {
    OPSIN_CHECK(ShapeError, bias.dim() == 1 && bias.sizes()[0] == out, s.op, ": expected bias [", out,
                "] for weight ", str(weight.sizes()), ", got ", str(bias.sizes()));
    OPSIN_CHECK(Error, bias.dtype() == input.dtype(), s.op, ": expected input and bias of one dtype, got ",
                name(input.dtype()), " and ", name(bias.dtype()));
  }
}

Tensor run(const Settings& s, const Tensor& input, const Tensor& weight, const Tensor& bias) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(run, s, input, weight, bias);
  check_operands(s, input, weight, bias);
  const bool batched = input.dim() == static_cast<int64_t>(s.axes) + 2;
  const Tensor x = batched ? input : unsqueeze(input, 0);
  ConvParams p;
  p.x_sizes = x.sizes();
  p.weight_sizes = weight.sizes();
  p.y_sizes = Dims{x.sizes()[0], weight.sizes()[0]};
  ConvGeometry& g = p.geometry;
  g.spatial = static_cast<int>(s.axes);
  g.batch = x.sizes()[0];
  g.in_channels = x.sizes()[1];
  g.out_channels = weight.sizes()[0];
  g.groups = s.groups;
  for (size_t i = 0; i < s.axes; ++i) {
    const size_t axis = 3 - s.axes + i;
    g.in[axis] = x.sizes()[2 + i];
    g.kernel[axis] = weight.sizes()[2 + i];
    g.stride[axis] = s.stride[i];
    g.dilation[axis] = s.dilation[i];
    g.pad_begin[axis] = s.pad_begin[i];
    g.pad_end[axis] = s.pad_end[i];
    const int64_t padded = g.in[axis] + g.pad_begin[axis] + g.pad_end[axis];
    const int64_t reach = g.dilation[axis] * (g.kernel[axis] - 1) + 1;
    OPSIN_CHECK(ShapeError, g.kernel[axis] > 0, s.op, ": expected kernel sizes above 0, got weight ",
                str(weight.sizes()));
    OPSIN_CHECK(ShapeError, padded >= reach, s.op, ": Calculated padded input size ", padded, " on axis ", i,
                " is smaller than the kernel's reach ", reach,
                "; Kernel size can't be greater than actual input size (input ", str(input.sizes()),
                ", weight ", str(weight.sizes()), ")");
    g.out[axis] = (padded - reach) / g.stride[axis] + 1;
    p.y_sizes.push_back(g.out[axis]);
  }
  const Tensor y = call<Conv>(p, x, weight, bias);
  return batched ? y : squeeze(y, Dims{0});
}

Settings settings(const char* op, size_t axes, IntSpan stride, IntSpan dilation, int64_t groups) {
  Settings s{op,
             axes,
             per_axis(stride, axes, 1, 1, op, "stride"),
             per_axis(dilation, axes, 1, 1, op, "dilation"),
             {},
             {},
             groups};
  return s;
}

Tensor conv(const char* op, size_t axes, const Tensor& input, const Tensor& weight, const Tensor& bias,
            IntSpan stride, IntSpan padding, IntSpan dilation, int64_t groups) {
  Settings s = settings(op, axes, stride, dilation, groups);
  s.pad_begin = s.pad_end = per_axis(padding, axes, 0, 0, op, "padding");
  return run(s, input, weight, bias);
}

Tensor conv(const char* op, size_t axes, const Tensor& input, const Tensor& weight, const Tensor& bias,
            IntSpan stride, std::string_view padding, IntSpan dilation, int64_t groups) {
  OPSIN_CHECK(ValueError, padding == "valid" || padding == "same", op,
              ": Invalid padding string: expected 'valid' or 'same', got '", padding, "'");
  Settings s = settings(op, axes, stride, dilation, groups);
  s.pad_begin = s.pad_end = Dims(axes);
  if (padding == "same") {
    OPSIN_CHECK(ShapeError, weight.dim() == static_cast<int64_t>(axes) + 2, op, ": expected weight of ",
                axes + 2, " dimensions [K, C / groups, kernel...], got ", str(weight.sizes()));
    for (size_t i = 0; i < axes; ++i) {
      OPSIN_CHECK(ValueError, s.stride[i] == 1, op,
                  ": padding='same' is not supported for strided convolutions, got stride ", str(s.stride));
      const int64_t total = s.dilation[i] * (weight.sizes()[2 + i] - 1);
      s.pad_begin[i] = total / 2;
      s.pad_end[i] = total - total / 2;
    }
  }
  return run(s, input, weight, bias);
}

}  // namespace

#define OPSIN_CONV(function, axes, Padding)                                                      \
  Tensor function(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride, \
                  Padding padding, IntSpan dilation, int64_t groups) {                           \
    return conv(#function, axes, input, weight, bias, stride, padding, dilation, groups);        \
  }
OPSIN_CONV(conv1d, 1, IntSpan)
OPSIN_CONV(conv2d, 2, IntSpan)
OPSIN_CONV(conv3d, 3, IntSpan)
OPSIN_CONV(conv1d, 1, std::string_view)
OPSIN_CONV(conv2d, 2, std::string_view)
OPSIN_CONV(conv3d, 3, std::string_view)
#undef OPSIN_CONV

void register_conv(Registry& registry) {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    conv_forward.set(DeviceType::kCPU, dtype, cpu::conv_forward);
    conv_backward_input.set(DeviceType::kCPU, dtype, cpu::conv_backward_input);
    conv_backward_weight.set(DeviceType::kCPU, dtype, cpu::conv_backward_weight);
  }
  using ByNumber =
      Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, IntSpan, IntSpan, int64_t);
  using ByName =
      Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, std::string_view, IntSpan, int64_t);
#define OPSIN_CONV(function, n, shape)                                                                    \
  registry.add<static_cast<ByNumber>(&function)>(                                                         \
      "nn.functional." #function "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n               \
      "] stride=1, int[" #n "] padding=0, int[" #n "] dilation=1, int groups=1) -> Tensor",               \
      "Convolution of input " shape " with weight [K, C / groups, kernel...].");                          \
  registry.add<static_cast<ByName>(&function)>("nn.functional." #function                                 \
                                               "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n \
                                               "] stride=1, str padding='valid', "                        \
                                               "int[" #n "] dilation=1, int groups=1) -> Tensor",         \
                                               "The same with padding 'valid' or 'same'.");
  OPSIN_CONV(conv1d, 1, "[N, C, L]")
  OPSIN_CONV(conv2d, 2, "[N, C, H, W]")
  OPSIN_CONV(conv3d, 3, "[N, C, D, H, W]")
#undef OPSIN_CONV
}

}  // namespace opsin
