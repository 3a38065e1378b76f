// Deformable convolution and its transpose. The gradients of both are parts of those of <y, map(x)>, where
// the map is linear in x: see deform_map.h.
#include "deform_map.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/deform_conv.h>
#include <opsin/ops/reduce.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const DeformPart&)> deform_columns{"deform_conv"},
    deform_spread{"deform_spread"}, deform_products{"deform_products"};

namespace {

DeformOperands gradients(Backward& ctx, const DeformParams& p, const DeformOperands& operands,
                         DeformNeeds needs) {
  if (p.is_empty()) {
    DeformOperands result;
    const auto nothing = [](bool needed, const Tensor& like) {
      return needed ? zeros(like.sizes(), like.dtype(), like.device()) : Tensor();
    };
    const DType dtype = operands.y.dtype();
    const Device device = operands.y.device();
    if (needs.x) result.x = zeros(p.x_sizes, dtype, device);
    if (needs.y) result.y = zeros(p.y_sizes, dtype, device);
    if (needs.weight) result.weight = zeros(p.weight_sizes, dtype, device);
    result.offset = nothing(needs.offset, operands.offset);
    result.mask = nothing(needs.mask, operands.mask);
    return result;
  }
  return ctx.create_graph() ? deform_gradients_recorded(p, operands, needs)
                            : deform_gradients(p, operands, needs);
}

Tensor sum_but_channels(const Tensor& t) {
  Dims dims;
  for (int64_t i = 0; i < t.dim(); ++i) {
    if (i != 1) dims.push_back(i);
  }
  return sum(t, dims);
}

struct DeformConv {
  static constexpr const char* kName = "deform_conv";
  using Params = DeformParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                       const Tensor&) {
    return 2 * p.rows() * count_elements(p.weight_sizes);
  }
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& offset, const Tensor& weight,
                        const Tensor& bias, const Tensor& mask) {
    if (!p.is_empty()) return deform_map(p, x, offset, weight, bias, mask);
    return add_bias(zeros(p.y_sizes, x.dtype(), x.device()), bias);
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& offset, const Tensor& weight,
                   const Tensor&, const Tensor& mask, const Tensor&) {
    const bool moves = saver.needs(1) || saver.needs(4);
    if (moves || saver.needs(2)) saver.save(0, x);
    if (moves || saver.needs(0) || saver.needs(2)) saver.save(1, offset);
    if (moves || saver.needs(0)) saver.save(2, weight);
    if (mask.defined()) saver.save(3, mask);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const DeformNeeds needs{ctx.needs(0), false, ctx.needs(1), ctx.needs(2), ctx.needs(4)};
    if (needs.x || needs.offset || needs.weight || needs.mask) {
      DeformOperands found =
          gradients(ctx, p, {ctx.saved(0), grad, ctx.saved(1), ctx.saved(2), ctx.saved(3)}, needs);
      ctx.set(0, std::move(found.x));
      ctx.set(1, std::move(found.offset));
      ctx.set(2, std::move(found.weight));
      ctx.set(4, std::move(found.mask));
    }
    if (ctx.needs(3)) ctx.set(3, sum_but_channels(grad));
  }
};

/// The gradient of <y, map(x)> by x.
struct DeformConvTranspose {
  static constexpr const char* kName = "deform_conv_transpose";
  using Params = DeformParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
    return 2 * p.rows() * count_elements(p.weight_sizes);
  }
  static Tensor forward(const Params& p, const Tensor& y, const Tensor& offset, const Tensor& weight,
                        const Tensor& mask) {
    if (p.is_empty()) return zeros(p.x_sizes, y.dtype(), y.device());
    return deform_gradients(p, {{}, y, offset, weight, mask}, {.x = true}).x;
  }
  static void save(Saver& saver, const Params&, const Tensor& y, const Tensor& offset, const Tensor& weight,
                   const Tensor& mask, const Tensor&) {
    saver.save(0, y);
    saver.save(1, offset);
    saver.save(2, weight);
    if (mask.defined()) saver.save(3, mask);
  }
  static void backward(Backward& ctx, const Params& p) {
    DeformOperands found =
        gradients(ctx, p, {ctx.grad(), ctx.saved(0), ctx.saved(1), ctx.saved(2), ctx.saved(3)},
                  {false, ctx.needs(0), ctx.needs(1), ctx.needs(2), ctx.needs(3)});
    ctx.set(0, std::move(found.y));
    ctx.set(1, std::move(found.offset));
    ctx.set(2, std::move(found.weight));
    ctx.set(3, std::move(found.mask));
  }
};

struct Axes {
  Dims stride, padding, dilation;

  Axes(const char* op, size_t axes, IntSpan stride_, IntSpan padding_, IntSpan dilation_)
      : stride(per_axis(stride_, axes, 1, 1, op, "stride")),
        padding(per_axis(padding_, axes, 0, 0, op, "padding")),
        dilation(per_axis(dilation_, axes, 1, 1, op, "dilation")) {}
};

void check_dtypes(const char* op, const Tensor& input, std::initializer_list<const Tensor*> others) {
  for (const Tensor* other : others) {
    OPSIN_CHECK(Error, !other->defined() || other->dtype() == input.dtype(), op,
                ": expected all tensors to have one dtype, got ", name(input.dtype()), " and ",
                name(other->dtype()), " (cast one with to())");
  }
}

/// Sizes but for what depends on the direction: both sides' positions and channels.
DeformParams base_params(const char* op, size_t axes, const Tensor& input, const Tensor& weight,
                         const Axes& settings) {
  const auto rank = static_cast<int64_t>(axes) + 2;
  OPSIN_CHECK(ShapeError, input.dim() == rank, op, ": expected input of ", rank,
              " dimensions [N, C, spatial...], got ", str(input.sizes()));
  OPSIN_CHECK(ShapeError, weight.dim() == rank, op, ": expected weight of ", rank,
              " dimensions [K, C / groups, kernel...], got ", str(weight.sizes()));
  DeformParams p;
  p.weight_sizes = weight.sizes();
  DeformGeometry& g = p.geometry;
  g.spatial = static_cast<int>(axes);
  g.batch = input.sizes()[0];
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    g.kernel[axis] = weight.sizes()[2 + i];
    g.stride[axis] = settings.stride[i];
    g.dilation[axis] = settings.dilation[i];
    g.pad[axis] = settings.padding[i];
    OPSIN_CHECK(ShapeError, g.kernel[axis] > 0, op, ": expected kernel sizes above 0, got weight ",
                str(weight.sizes()));
  }
  return p;
}

/// Checks offset and mask, whose positions are those of y, and finds the number of offset groups.
void add_offset(const char* op, DeformParams& p, const Tensor& offset, const Tensor& mask) {
  DeformGeometry& g = p.geometry;
  const int64_t each = p.taps() * g.spatial;
  Dims expected = p.y_sizes;
  OPSIN_CHECK(ShapeError, offset.dim() == static_cast<int64_t>(expected.size()), op, ": expected offset of ",
              expected.size(), " dimensions [N, offset groups * taps * axes, out...], got ",
              str(offset.sizes()));
  OPSIN_CHECK(ShapeError, offset.sizes()[1] > 0 && offset.sizes()[1] % each == 0, op,
              ": the shape of the offset tensor at dimension 1 is not valid. It should be a multiple of ",
              g.spatial, " * the size of the kernel = ", each, ". Got offset.shape[1]=", offset.sizes()[1]);
  g.offset_groups = offset.sizes()[1] / each;
  expected[1] = offset.sizes()[1];
  OPSIN_CHECK(ShapeError, offset.sizes() == expected, op, ": expected offset ", str(expected), ", got ",
              str(offset.sizes()));
  OPSIN_CHECK(ShapeError, g.channels % g.offset_groups == 0, op, ": expected channels that ", g.offset_groups,
              " offset groups divide, got ", g.channels, " (offset ", str(offset.sizes()), ")");
  if (!mask.defined()) return;
  expected[1] = g.offset_groups * p.taps();
  OPSIN_CHECK(ShapeError, mask.sizes() == expected, op, ": expected mask ", str(expected), ", got ",
              str(mask.sizes()), " (offset ", str(offset.sizes()), ")");
}

void check_bias(const char* op, const Tensor& bias, int64_t channels) {
  OPSIN_CHECK(ShapeError, !bias.defined() || (bias.dim() == 1 && bias.sizes()[0] == channels), op,
              ": expected bias [", channels, "], got ", str(bias.sizes()));
}

Tensor deform_conv(const char* op, size_t axes, const Tensor& input, const Tensor& offset,
                   const Tensor& weight, const Tensor& bias, IntSpan stride, IntSpan padding,
                   IntSpan dilation, const Tensor& mask) {
  if (autocast::is_active()) {
    // As torchvision's: positions need more digits than 16-bit floats have.
    return to(autocast::call<autocast::kFull>(deform_conv, op, axes, input, offset, weight, bias, stride,
                                              padding, dilation, mask),
              input.dtype());
  }
  const Axes settings(op, axes, stride, padding, dilation);
  check_dtypes(op, input, {&offset, &weight, &bias, &mask});
  DeformParams p = base_params(op, axes, input, weight, settings);
  DeformGeometry& g = p.geometry;
  p.x_sizes = input.sizes();
  p.y_sizes = Dims{g.batch, weight.sizes()[0]};
  g.channels = input.sizes()[1];
  OPSIN_CHECK(ShapeError, weight.sizes()[1] > 0 && g.channels % weight.sizes()[1] == 0, op,
              ": expected weight [K, ", g.channels, " / groups, kernel...], got ", str(weight.sizes()),
              " (input ", str(input.sizes()), ")");
  g.groups = std::max<int64_t>(g.channels / weight.sizes()[1], 1);
  OPSIN_CHECK(ShapeError, weight.sizes()[0] % g.groups == 0, op, ": expected filters that ", g.groups,
              " groups divide, got weight ", str(weight.sizes()));
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    g.in[axis] = input.sizes()[2 + i];
    const int64_t room = g.in[axis] + 2 * g.pad[axis] - g.dilation[axis] * (g.kernel[axis] - 1) - 1;
    OPSIN_CHECK(ShapeError, room >= 0, op, ": Calculated padded input size on axis ", i,
                " is smaller than the kernel's reach (input ", str(input.sizes()), ", weight ",
                str(weight.sizes()), ")");
    g.out[axis] = room / g.stride[axis] + 1;
    p.y_sizes.push_back(g.out[axis]);
  }
  check_bias(op, bias, p.y_sizes[1]);
  add_offset(op, p, offset, mask);
  return call<DeformConv>(p, input, offset, weight, bias, mask);
}

Tensor deform_conv_transpose(const char* op, size_t axes, const Tensor& input, const Tensor& offset,
                             const Tensor& weight, const Tensor& bias, IntSpan stride, IntSpan padding,
                             IntSpan output_padding, int64_t groups, IntSpan dilation, const Tensor& mask) {
  if (autocast::is_active()) {
    return to(autocast::call<autocast::kFull>(deform_conv_transpose, op, axes, input, offset, weight, bias,
                                              stride, padding, output_padding, groups, dilation, mask),
              input.dtype());
  }
  const Axes settings(op, axes, stride, padding, dilation);
  const Dims extra = per_axis(output_padding, axes, 0, 0, op, "output_padding");
  check_dtypes(op, input, {&offset, &weight, &bias, &mask});
  DeformParams p = base_params(op, axes, input, weight, settings);
  DeformGeometry& g = p.geometry;
  OPSIN_CHECK(ValueError, groups > 0, op, ": non-positive groups is not supported, got groups=", groups);
  OPSIN_CHECK(ShapeError, input.sizes()[1] == weight.sizes()[0] && weight.sizes()[0] % groups == 0, op,
              ": expected weight [", input.sizes()[1], ", C / groups, kernel...] for groups=", groups,
              ", got ", str(weight.sizes()), " (input ", str(input.sizes()), ")");
  g.groups = groups;
  g.channels = weight.sizes()[1] * groups;
  p.y_sizes = input.sizes();
  p.x_sizes = Dims{g.batch, g.channels};
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    OPSIN_CHECK(ShapeError, extra[i] < std::max(settings.stride[i], settings.dilation[i]), op,
                ": output padding must be smaller than either stride or dilation, got output_padding=",
                extra[i], " on axis ", i);
    g.out[axis] = input.sizes()[2 + i];
    g.in[axis] = (g.out[axis] - 1) * g.stride[axis] - 2 * g.pad[axis] +
                 g.dilation[axis] * (g.kernel[axis] - 1) + extra[i] + 1;
    OPSIN_CHECK(ShapeError, g.in[axis] > 0, op, ": the calculated output size ", g.in[axis], " on axis ", i,
                " is too small (input ", str(input.sizes()), ", weight ", str(weight.sizes()), ")");
    p.x_sizes.push_back(g.in[axis]);
  }
  check_bias(op, bias, g.channels);
  add_offset(op, p, offset, mask);
  return add_bias(call<DeformConvTranspose>(p, input, offset, weight, mask), bias);
}

}  // namespace

#define OPSIN_DEFORM(n)                                                                                    \
  Tensor deform_conv##n##d(const Tensor& input, const Tensor& offset, const Tensor& weight,                \
                           const Tensor& bias, IntSpan stride, IntSpan padding, IntSpan dilation,          \
                           const Tensor& mask) {                                                           \
    return deform_conv("deform_conv" #n "d", n, input, offset, weight, bias, stride, padding, dilation,    \
                       mask);                                                                              \
  }                                                                                                        \
  Tensor deform_conv_transpose##n##d(                                                                      \
      const Tensor& input, const Tensor& offset, const Tensor& weight, const Tensor& bias, IntSpan stride, \
      IntSpan padding, IntSpan output_padding, int64_t groups, IntSpan dilation, const Tensor& mask) {     \
    return deform_conv_transpose("deform_conv_transpose" #n "d", n, input, offset, weight, bias, stride,   \
                                 padding, output_padding, groups, dilation, mask);                         \
  }
OPSIN_DEFORM(1)
OPSIN_DEFORM(2)
OPSIN_DEFORM(3)
#undef OPSIN_DEFORM

void register_deform_conv(Registry& registry) {
  register_deform_conv_cpu();
#define OPSIN_DEFORM(n, shape)                                                                         \
  registry.add<&deform_conv##n##d>(                                                                    \
      "ops.deform_conv" #n "d(Tensor input, Tensor offset, Tensor weight, Tensor? bias=None, int[" #n  \
      "] stride=1, int[" #n "] padding=0, int[" #n "] dilation=1, Tensor? mask=None) -> Tensor",       \
      "Convolution of input " shape                                                                    \
      " with weight [K, C / groups, kernel...] whose taps are moved by offset "                        \
      "[N, offset groups * taps * " #n                                                                 \
      ", out...] and, with a mask [N, offset groups * taps, out...], "                                 \
      "weighted. Pixels outside of the input are zero.");                                              \
  registry.add<&deform_conv_transpose##n##d>(                                                          \
      "ops.deform_conv_transpose" #n                                                                   \
      "d(Tensor input, Tensor offset, Tensor weight, Tensor? bias=None, int[" #n "] stride=1, int[" #n \
      "] padding=0, int[" #n "] output_padding=0, int groups=1, int[" #n                               \
      "] dilation=1, Tensor? mask=None) -> Tensor",                                                    \
      "The transpose of deform_conv" #n                                                                \
      "d in its input: spreads input [N, K, ...] over the pixels around "                              \
      "the moved taps.");
  OPSIN_DEFORM(1, "[N, C, L]")
  OPSIN_DEFORM(2, "[N, C, H, W]")
  OPSIN_DEFORM(3, "[N, C, D, H, W]")
#undef OPSIN_DEFORM
}

}  // namespace opsin
