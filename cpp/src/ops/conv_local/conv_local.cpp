// Unshared convolution. As a convolution it is bilinear, and its three products are each other's gradients:
//   Y = X * W        dX = input(dY, W)     dW = weight(X, dY)
//   G = input(Y, W)  dY = dG * W           dW = weight(dG, Y)
//   V = weight(X, Y) dX = input(Y, dV)     dY = X * dV
#include "conv_local_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/conv_local.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const LocalConv&)> conv_local_forward{"conv_local"},
    conv_local_backward_input{"conv_local_backward_input"},
    conv_local_backward_weight{"conv_local_backward_weight"};

namespace {

struct LocalParams {
  cpu::ConvGeometry geometry;
  Dims x_sizes, weight_sizes, y_sizes;

  int64_t flops() const { return 2 * geometry.batch * count_elements(weight_sizes); }
  bool is_empty() const {
    return count_elements(x_sizes) == 0 || count_elements(weight_sizes) == 0 || count_elements(y_sizes) == 0;
  }
};

const void* read(const Tensor& t) { return t.impl()->physical_data(); }

Tensor forward_product(const LocalParams& p, const Tensor& x, const Tensor& weight);
Tensor input_product(const LocalParams& p, const Tensor& y, const Tensor& weight);
Tensor weight_product(const LocalParams& p, const Tensor& x, const Tensor& y);

struct ConvLocal {
  static constexpr const char* kName = "conv_local";
  using Params = LocalParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&) { return p.flops(); }
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& weight) {
    if (p.is_empty()) return zeros(p.y_sizes, x.dtype(), x.device());
    const Tensor y = empty_channels_last(p.y_sizes, x.dtype(), x.device());
    const Tensor from = to_channels_last(x), w = contiguous(weight);
    conv_local_forward.get(x.device(), x.dtype())(
        {p.geometry, x.dtype(), read(from), w.impl()->data(), nullptr, y.impl()->mutable_physical_data()});
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, input_product(p, ctx.grad(), ctx.saved(1)));
    if (ctx.needs(1)) ctx.set(1, weight_product(p, ctx.saved(0), ctx.grad()));
  }
};

struct ConvLocalBackwardInput {
  static constexpr const char* kName = "conv_local_backward_input";
  using Params = LocalParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&) { return p.flops(); }
  static Tensor forward(const Params& p, const Tensor& y, const Tensor& weight) {
    if (p.is_empty()) return zeros(p.x_sizes, y.dtype(), y.device());
    const Tensor x = empty_channels_last(p.x_sizes, y.dtype(), y.device());
    const Tensor from = to_channels_last(y), w = contiguous(weight);
    conv_local_backward_input.get(y.device(), y.dtype())(
        {p.geometry, y.dtype(), nullptr, w.impl()->data(), read(from), x.impl()->mutable_physical_data()});
    return x;
  }
  static void save(Saver& saver, const Params&, const Tensor& y, const Tensor& weight, const Tensor&) {
    if (saver.needs(1)) saver.save(0, y);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, forward_product(p, ctx.grad(), ctx.saved(1)));
    if (ctx.needs(1)) ctx.set(1, weight_product(p, ctx.grad(), ctx.saved(0)));
  }
};

struct ConvLocalBackwardWeight {
  static constexpr const char* kName = "conv_local_backward_weight";
  using Params = LocalParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&) { return p.flops(); }
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& y) {
    if (p.is_empty()) return zeros(p.weight_sizes, x.dtype(), x.device());
    const Tensor weight = empty(p.weight_sizes, x.dtype(), x.device());
    const Tensor left = to_channels_last(x), right = to_channels_last(y);
    conv_local_backward_weight.get(x.device(), x.dtype())(
        {p.geometry, x.dtype(), read(left), nullptr, read(right), weight.impl()->mutable_data()});
    return weight;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& y, const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, y);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, input_product(p, ctx.saved(1), ctx.grad()));
    if (ctx.needs(1)) ctx.set(1, forward_product(p, ctx.saved(0), ctx.grad()));
  }
};

Tensor forward_product(const LocalParams& p, const Tensor& x, const Tensor& weight) {
  return call<ConvLocal>(p, x, weight);
}
Tensor input_product(const LocalParams& p, const Tensor& y, const Tensor& weight) {
  return call<ConvLocalBackwardInput>(p, y, weight);
}
Tensor weight_product(const LocalParams& p, const Tensor& x, const Tensor& y) {
  return call<ConvLocalBackwardWeight>(p, x, y);
}

/// Checks what both directions share. The result knows the kernel and the settings.
LocalParams base_params(const char* op, size_t axes, const Tensor& input, const Tensor& weight,
                        IntSpan stride, IntSpan padding, IntSpan dilation, int64_t groups) {
  const auto rank = static_cast<int64_t>(axes);
  OPSIN_CHECK(ShapeError, weight.dim() == 2 * rank + 2, op, ": expected weight of ", 2 * rank + 2,
              " dimensions [out..., K, C / groups, kernel...], got ", str(weight.sizes()));
  OPSIN_CHECK(ShapeError, input.dim() == rank + 1 || input.dim() == rank + 2, op, ": expected input of ",
              rank + 1, " (unbatched) or ", rank + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(Error, input.dtype() == weight.dtype(), op, ": expected input and weight of one dtype, got ",
              name(input.dtype()), " and ", name(weight.dtype()));
  OPSIN_CHECK(ValueError, groups > 0, op, ": non-positive groups is not supported, got groups=", groups);
  const Dims steps = per_axis(stride, axes, 1, 1, op, "stride"),
             pads = per_axis(padding, axes, 0, 0, op, "padding"),
             spread = per_axis(dilation, axes, 1, 1, op, "dilation");
  LocalParams p;
  p.weight_sizes = weight.sizes();
  cpu::ConvGeometry& g = p.geometry;
  g.spatial = static_cast<int>(axes);
  g.batch = input.dim() == rank + 2 ? input.sizes()[0] : 1;
  g.groups = groups;
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    g.kernel[axis] = weight.sizes()[axes + 2 + i];
    g.stride[axis] = steps[i];
    g.dilation[axis] = spread[i];
    g.pad_begin[axis] = g.pad_end[axis] = pads[i];
    OPSIN_CHECK(ShapeError, g.kernel[axis] > 0, op, ": expected kernel sizes above 0, got weight ",
                str(weight.sizes()));
  }
  return p;
}

/// The weight that the sizes of x and y ask for.
Dims expected_weight(const LocalParams& p) {
  const cpu::ConvGeometry& g = p.geometry;
  const auto axes = static_cast<size_t>(g.spatial);
  Dims sizes;
  for (size_t i = 3 - axes; i < 3; ++i) sizes.push_back(g.out[i]);
  sizes.push_back(g.out_channels);
  sizes.push_back(g.in_channels / g.groups);
  for (size_t i = 3 - axes; i < 3; ++i) sizes.push_back(g.kernel[i]);
  return sizes;
}

void check_weight(const char* op, const LocalParams& p, const Tensor& input) {
  const cpu::ConvGeometry& g = p.geometry;
  OPSIN_CHECK(ShapeError, g.in_channels % g.groups == 0 && g.out_channels % g.groups == 0, op,
              ": expected channels that groups=", g.groups, " divides, got ", g.in_channels, " and ",
              g.out_channels, " (input ", str(input.sizes()), ", weight ", str(p.weight_sizes), ")");
  const Dims expected = expected_weight(p);
  OPSIN_CHECK(ShapeError, p.weight_sizes == expected, op, ": expected weight ", str(expected), " for input ",
              str(input.sizes()), ", got ", str(p.weight_sizes));
}

/// y [N, channels, positions...] plus bias, without the batch that `input` has not.
Tensor finish(const char* op, const Tensor& y, const Tensor& bias, bool batched) {
  Tensor sum = y;
  if (bias.defined()) {
    const Dims own(y.sizes().span().subspan(1));
    OPSIN_CHECK(Error, bias.dtype() == y.dtype(), op, ": expected input and bias of one dtype, got ",
                name(y.dtype()), " and ", name(bias.dtype()));
    OPSIN_CHECK(ShapeError, bias.sizes() == own || bias.sizes() == Dims{own[0]}, op, ": expected bias ",
                str(own), " or [", own[0], "], got ", str(bias.sizes()));
    Dims sizes(own.size(), 1);
    sizes[0] = own[0];
    sum = add(y, bias.dim() == 1 ? reshape(bias, sizes) : bias);
  }
  return batched ? sum : squeeze(sum, Dims{0});
}

Tensor conv_local(const char* op, size_t axes, const Tensor& input, const Tensor& weight, const Tensor& bias,
                  IntSpan stride, IntSpan padding, IntSpan dilation, int64_t groups) {
  if (autocast::is_active()) {
    return autocast::call<autocast::kLower>(conv_local, op, axes, input, weight, bias, stride, padding,
                                            dilation, groups);
  }
  LocalParams p = base_params(op, axes, input, weight, stride, padding, dilation, groups);
  cpu::ConvGeometry& g = p.geometry;
  const bool batched = input.dim() == static_cast<int64_t>(axes) + 2;
  const Tensor x = batched ? input : unsqueeze(input, 0);
  p.x_sizes = x.sizes();
  g.in_channels = x.sizes()[1];
  g.out_channels = weight.sizes()[axes];
  p.y_sizes = Dims{g.batch, g.out_channels};
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    g.in[axis] = x.sizes()[2 + i];
    const int64_t padded = g.in[axis] + 2 * g.pad_begin[axis];
    const int64_t reach = g.dilation[axis] * (g.kernel[axis] - 1) + 1;
    OPSIN_CHECK(ShapeError, padded >= reach, op, ": Calculated padded input size ", padded, " on axis ", i,
                " is smaller than the kernel's reach ", reach, " (input ", str(input.sizes()), ", weight ",
                str(weight.sizes()), ")");
    g.out[axis] = (padded - reach) / g.stride[axis] + 1;
    p.y_sizes.push_back(g.out[axis]);
  }
  check_weight(op, p, input);
  return finish(op, call<ConvLocal>(p, x, weight), bias, batched);
}

Tensor conv_local_transpose(const char* op, size_t axes, const Tensor& input, const Tensor& weight,
                            const Tensor& bias, IntSpan stride, IntSpan padding, IntSpan output_padding,
                            int64_t groups, IntSpan dilation) {
  if (autocast::is_active()) {
    return autocast::call<autocast::kLower>(conv_local_transpose, op, axes, input, weight, bias, stride,
                                            padding, output_padding, groups, dilation);
  }
  LocalParams p = base_params(op, axes, input, weight, stride, padding, dilation, groups);
  const Dims extra = per_axis(output_padding, axes, 0, 0, op, "output_padding");
  cpu::ConvGeometry& g = p.geometry;
  const bool batched = input.dim() == static_cast<int64_t>(axes) + 2;
  const Tensor y = batched ? input : unsqueeze(input, 0);
  p.y_sizes = y.sizes();
  g.in_channels = weight.sizes()[axes + 1] * groups;
  g.out_channels = y.sizes()[1];
  p.x_sizes = Dims{g.batch, g.in_channels};
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    g.out[axis] = y.sizes()[2 + i];
    OPSIN_CHECK(ShapeError, extra[i] < std::max(g.stride[axis], g.dilation[axis]), op,
                ": output padding must be smaller than either stride or dilation, got output_padding=",
                extra[i], " on axis ", i);
    g.in[axis] = (g.out[axis] - 1) * g.stride[axis] - 2 * g.pad_begin[axis] +
                 g.dilation[axis] * (g.kernel[axis] - 1) + extra[i] + 1;
    OPSIN_CHECK(ShapeError, g.in[axis] > 0, op, ": the calculated output size ", g.in[axis], " on axis ", i,
                " is too small (input ", str(input.sizes()), ", weight ", str(weight.sizes()), ")");
    p.x_sizes.push_back(g.in[axis]);
  }
  check_weight(op, p, input);
  return finish(op, call<ConvLocalBackwardInput>(p, y, weight), bias, batched);
}

}  // namespace

#define OPSIN_LOCAL(n)                                                                                       \
  Tensor conv_local##n##d(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,     \
                          IntSpan padding, IntSpan dilation, int64_t groups) {                               \
    return conv_local("conv_local" #n "d", n, input, weight, bias, stride, padding, dilation, groups);       \
  }                                                                                                          \
  Tensor conv_local_transpose##n##d(const Tensor& input, const Tensor& weight, const Tensor& bias,           \
                                    IntSpan stride, IntSpan padding, IntSpan output_padding, int64_t groups, \
                                    IntSpan dilation) {                                                      \
    return conv_local_transpose("conv_local_transpose" #n "d", n, input, weight, bias, stride, padding,      \
                                output_padding, groups, dilation);                                           \
  }
OPSIN_LOCAL(1)
OPSIN_LOCAL(2)
OPSIN_LOCAL(3)
#undef OPSIN_LOCAL

void register_conv_local(Registry& registry) {
  register_conv_local_cpu();
#define OPSIN_LOCAL(n, shape)                                                                             \
  registry.add<&conv_local##n##d>(                                                                        \
      "nn.functional.conv_local" #n "d(Tensor input, Tensor weight, Tensor? bias=None, int[" #n           \
      "] stride=1, int[" #n "] padding=0, int[" #n "] dilation=1, int groups=1) -> Tensor",               \
      "Unshared convolution of input " shape                                                              \
      " with weight [out..., K, C / groups, kernel...], filters of their "                                \
      "own for each position, and bias [K, out...] or [K].");                                             \
  registry.add<&conv_local_transpose##n##d>(                                                              \
      "nn.functional.conv_local_transpose" #n "d(Tensor input, Tensor weight, Tensor? bias=None, int[" #n \
      "] stride=1, int[" #n "] padding=0, int[" #n "] output_padding=0, int groups=1, int[" #n            \
      "] dilation=1) -> Tensor",                                                                          \
      "The transpose of conv_local" #n                                                                    \
      "d in its input: weight [in..., K, C / groups, kernel...] for input "                               \
      "[N, K, in...], bias [C, out...] or [C].");
  OPSIN_LOCAL(1, "[N, C, L]")
  OPSIN_LOCAL(2, "[N, C, H, W]")
  OPSIN_LOCAL(3, "[N, C, D, H, W]")
#undef OPSIN_LOCAL
}

}  // namespace opsin
