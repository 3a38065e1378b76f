// Convolution. With X * W for the convolution, it is bilinear, and its three products are each other's
// gradients:
//   Y = X * W        dX = input(dY, W)     dW = weight(X, dY)     db = sum of dY over N and positions
//   G = input(Y, W)  dY = dG * W           dW = weight(dG, Y)
//   V = weight(X, Y) dX = input(Y, dV)     dY = X * dV (+ d(db) as a bias)
// since <dY, X * W> = <input(dY, W), X> = <weight(X, dY), W>.
#include "conv_products.h"

#include <cstdlib>

#include <opsin/ops/conv.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/pad.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"
#include "core/relayout.h"
#include "core/tail.h"
#include "core/weight.h"

namespace opsin {

constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, const void*, void*)>
    conv_forward{"conv"};
constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*)>
    conv_backward_input{"conv_backward_input"};
constinit KernelSlot<void (*)(const ConvGeometry&, DType, const void*, const void*, void*, void*)>
    conv_backward_weight{"conv_backward_weight"};

int64_t ConvParams::flops() const {
  int64_t count = 2 * count_elements(weight_sizes) * y_sizes[0];
  for (size_t i = 2; i < y_sizes.size(); ++i) count *= y_sizes[i];
  return count;
}

namespace {

const void* pointer(const Tensor& t) { return t.defined() ? t.impl()->physical_data() : nullptr; }

std::array<Tensor, 2> weight_product(const ConvParams& p, const Tensor& x, const Tensor& grad_y, bool bias);

/// The gradient of a bias.
Tensor sum_of_channels(const Tensor& grad_y) {
  Dims dims;
  for (int64_t i = 0; i < grad_y.dim(); ++i) {
    if (i != 1) dims.push_back(i);
  }
  return sum(grad_y, dims);
}

/// y of a channels-last `x`.
Tensor convolved(const ConvParams& p, const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const cpu::KeptWeight* kept, const cpu::ConvAfter* after) {
  const Tensor y = empty_channels_last(p.y_sizes, x.dtype(), x.device());
  ConvGeometry geometry = p.geometry;
  geometry.weight = kept;
  geometry.after = after;
  conv_forward.get(x.device(), x.dtype())(geometry, x.dtype(), pointer(x), pointer(weight), pointer(bias),
                                          y.impl()->mutable_physical_data());
  return y;
}

/// See Tail::compute.
Tensor compute(const Tail& tail, bool, const Tail* after) {
  const auto& p = *static_cast<const ConvParams*>(tail.params.get());
  const WeightScope kept(tail.other, p.keeps_weight);
  // A residual whose pixels share the sets of the first-level cache with those of y comes faster in a pass of
  // its own: measured with AVX2, that of 1024 channels takes 2 to 5 % of the convolution less.
  constexpr int64_t kWay = 4096;
  const bool apart = after && after->other.defined() &&
                     (p.geometry.groups > 1 ||
                      p.y_sizes[1] * static_cast<int64_t>(item_size(tail.base.dtype())) % kWay == 0);
  if (!after || apart) {
    const Tensor y = convolved(p, tail.base, tail.other, tail.numbers, kept.get(), nullptr);
    if (!after) return y;
    Tail rest = *after;
    rest.base = y;
    return rest.compute(rest, true, nullptr);
  }
  const cpu::ConvAfter joined{pointer(after->numbers), pointer(after->other), after->ceiling};
  return convolved(p, tail.base, tail.other, tail.numbers, kept.get(), &joined);
}

/// The convolution as a tail that a batch norm may join; undefined where it cannot wait.
Tensor leave_convolved(const ConvParams& p, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Tail tail{Tail::Kind::kConvolved,
                  0,
                  alias_without_history(x),
                  alias_without_history(weight),
                  bias.defined() ? alias_without_history(bias) : bias,
                  &compute,
                  std::make_shared<const ConvParams>(p)};
  return Tails::leave(tail, p.y_sizes, !is_same_order(p.y_sizes));
}

struct Conv {
  static constexpr const char* kName = "conv";
  using Params = ConvParams;
  static int64_t flops(const Params& p, const Tensor&, const Tensor&, const Tensor&) { return p.flops(); }
  /// In eager code a convolution cannot know what follows, but what followed the last time: if that was a
  /// batch norm with fixed numbers, the convolution waits for it, to do its work in registers.
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    (void)conv_forward.get(x.device(), x.dtype());
    if (count_elements(p.y_sizes) == 0) return empty_channels_last(p.y_sizes, x.dtype(), x.device());
    if (x.numel() == 0) return add_conv_bias(zeros(p.y_sizes, x.dtype(), x.device()), bias);
    const Tensor from = to_channels_last(x), w = contiguous(weight),
                 b = bias.defined() ? contiguous(bias) : bias;
    w.impl()->expose();
    if (b.defined()) b.impl()->expose();
    const WeightScope kept(w, p.keeps_weight);
    const bool waits = p.may_wait && kept.get() && cpu::conv_applies(p.geometry, x.dtype());
    if (waits && kept.is_normalised()) {
      const Tensor y = leave_convolved(p, from, w, b);
      if (y.defined()) return y;
    }
    const Tensor y = convolved(p, from, w, b, kept.get(), nullptr);
    if (waits) Tails::set_origin(y, w, y.version());
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad_y = ctx.grad();
    // The weight's first: x may die before the gradient of x, which is as large, is there.
    if (ctx.needs(1)) {
      auto grads = weight_product(p, ctx.take_saved(0), grad_y, ctx.needs(2));
      ctx.set(1, std::move(grads[0]));
      if (ctx.needs(2)) ctx.set(2, std::move(grads[1]));
    } else if (ctx.needs(2)) {
      ctx.set(2, sum_of_channels(grad_y));
    }
    if (ctx.needs(0)) ctx.set(0, conv_input_product(p, grad_y, ctx.saved(1)));
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
    const WeightScope kept(w, p.keeps_weight);
    ConvGeometry geometry = p.geometry;
    geometry.weight = kept.get();
    kernel(geometry, grad_y.dtype(), pointer(from), w.impl()->data(), grad_x.impl()->mutable_physical_data());
    return grad_x;
  }
  static void save(Saver& saver, const Params&, const Tensor& grad_y, const Tensor& weight, const Tensor&) {
    if (saver.needs(1)) saver.save(0, grad_y);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, conv_product(p, ctx.grad(), ctx.saved(1), {}));
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
      return {zeros(p.weight_sizes, x.dtype(), x.device()), p.bias ? sum_of_channels(grad_y) : Tensor()};
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
    if (ctx.needs(0) && to_weight.defined()) ctx.set(0, conv_input_product(p, ctx.saved(1), to_weight));
    if (ctx.needs(1)) {
      if (to_weight.defined()) {
        ctx.set(1, conv_product(p, ctx.saved(0), to_weight, to_bias));
      } else {
        Dims sizes(p.y_sizes.size(), 1);
        sizes[1] = p.y_sizes[1];
        ctx.set(1, expand(reshape(to_bias, sizes), p.y_sizes));
      }
    }
  }
};

std::array<Tensor, 2> weight_product(const ConvParams& p, const Tensor& x, const Tensor& grad_y, bool bias) {
  return call<ConvBackwardWeight>({p, bias}, x, grad_y);
}

/// What a convolution has beyond the arguments of all forms.
struct Settings : ConvSettings {
  Dims input_dilation;
  bool strict;
};

int64_t dilated(int64_t size, int64_t step) { return size > 0 ? (size - 1) * step + 1 : 0; }

/// Raises unless the last window ends where the padded input does, and tells sizes for which it would.
void check_strict(const Settings& s, size_t axis, const ConvSides& padding, int64_t size, int64_t kernel) {
  const int64_t step = s.stride[axis], spread = s.input_dilation[axis];
  const int64_t reach = conv_reach(s, axis, kernel), more = padding.begin[axis] + padding.end[axis];
  const auto left = [&](int64_t of) { return dilated(of, spread) + more - reach; };
  const int64_t over = left(size) % step;
  if (over == 0) return;
  std::string fitting;
  for (const int64_t direction : {-1, 1}) {
    for (int64_t other = size + direction; std::abs(other - size) < step && other > 0; other += direction) {
      if (left(other) < 0 || left(other) % step != 0) continue;
      fitting += (fitting.empty() ? "" : " or ") + std::to_string(other);
      break;
    }
  }
  detail::raise<ShapeError>(
      s.op, ": strict: size ", size, " on axis ", axis, " with padding ", padding.begin[axis], " and ",
      padding.end[axis], ", kernel reach ", reach, " and stride ", step, " leaves ", over,
      " over; sizes that would fit: ", fitting.empty() ? "none" : fitting, " (or change the padding)");
}

/// A convolution of stride 1 with zeros between the elements of its input is a transposed one of the mirrored
/// weight, which meets no zeros.
Tensor convolve_dilated(const Settings& s, const ConvSides& padding, const Tensor& x, const Tensor& weight) {
  const int64_t rows = weight.sizes()[0] / s.groups, columns = weight.sizes()[1];
  Dims apart{s.groups, rows, columns}, turned{s.groups * columns, rows}, axes;
  Dims sizes, cut;
  ConvSides trim;
  ConvSettings mirrored = s;
  mirrored.stride = s.input_dilation;
  bool wider = false;
  for (size_t i = 0; i < s.axes; ++i) {
    const int64_t kernel = weight.sizes()[2 + i], beyond = s.dilation[i] * (kernel - 1);
    apart.push_back(kernel);
    turned.push_back(kernel);
    axes.push_back(static_cast<int64_t>(2 + i));
    // Where the kernel sees nothing but padding, the output is padding too.
    trim.begin.push_back(std::max<int64_t>(beyond - padding.begin[i], 0));
    trim.end.push_back(std::max<int64_t>(beyond - padding.end[i], 0));
    sizes.push_back(dilated(x.sizes()[2 + i], s.input_dilation[i]) + beyond - trim.begin[i] - trim.end[i]);
    const int64_t before = std::max<int64_t>(padding.begin[i] - beyond, 0),
                  behind = std::max<int64_t>(padding.end[i] - beyond, 0);
    cut.insert(0, behind);
    cut.insert(0, before);
    wider |= before > 0 || behind > 0;
  }
  const Tensor flipped = flip(reshape(transpose(reshape(weight, apart), 1, 2), turned), axes);
  const Tensor y = transposed_product(mirrored, x, flipped, trim, sizes);
  return wider ? pad(y, cut) : y;
}

/// `x` with zeros between its elements.
Tensor dilate_input(const Settings& s, const Tensor& x) {
  const int64_t channels = x.sizes()[1];
  ConvSettings spread{s.op, s.axes, s.input_dilation, Dims(s.axes, 1), {}, {}, channels};
  Dims kernel{channels, 1}, sizes;
  for (size_t i = 0; i < s.axes; ++i) {
    kernel.push_back(1);
    sizes.push_back(dilated(x.sizes()[2 + i], s.input_dilation[i]));
  }
  const ConvSides none{Dims(s.axes), Dims(s.axes)};
  return transposed_product(spread, x, ones(kernel, x.dtype(), x.device()), none, sizes);
}

Tensor run(const Settings& s, const Tensor& input, const Tensor& weight, const Tensor& bias) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(run, s, input, weight, bias);
  check_conv_operands(s, false, input, weight, bias);
  const bool batched = input.dim() == static_cast<int64_t>(s.axes) + 2;
  const Tensor x = batched ? input : unsqueeze(input, 0);
  ConvParams p = conv_params(s, x.sizes(), weight);
  ConvGeometry& g = p.geometry;
  ConvSides padding = s.padding;
  bool spread = false, strided = false;
  for (size_t i = 0; i < s.axes; ++i) {
    const size_t axis = 3 - s.axes + i;
    spread |= s.input_dilation[i] > 1;
    strided |= s.stride[i] > 1;
    g.in[axis] = p.x_sizes[2 + i] = dilated(x.sizes()[2 + i], s.input_dilation[i]);
    if (!s.padding_name.empty()) {
      add_named_padding(s.padding_name, i, g.in[axis], conv_reach(s, i, g.kernel[axis]), s.stride[i],
                        padding);
    }
    g.pad_begin[axis] = padding.begin[i];
    g.pad_end[axis] = padding.end[i];
    const int64_t padded = g.in[axis] + padding.begin[i] + padding.end[i];
    const int64_t reach = conv_reach(s, i, g.kernel[axis]);
    OPSIN_CHECK(ShapeError, padded >= reach, s.op, ": Calculated padded input size ", padded, " on axis ", i,
                " is smaller than the kernel's reach ", reach,
                "; Kernel size can't be greater than actual input size (input ", str(input.sizes()),
                ", weight ", str(weight.sizes()), ")");
    if (s.strict) check_strict(s, i, padding, x.sizes()[2 + i], g.kernel[axis]);
    g.out[axis] = (padded - reach) / g.stride[axis] + 1;
    p.y_sizes.push_back(g.out[axis]);
  }
  if (!spread || strided) check_conv_algorithm(s, g, x.dtype(), x.device());
  const Tensor y = !spread   ? conv_product(p, x, weight, bias)
                   : strided ? conv_product(p, dilate_input(s, x), weight, bias)
                             : add_conv_bias(convolve_dilated(s, padding, x, weight), bias);
  return batched ? y : squeeze(y, Dims{0});
}

Settings settings(const char* op, size_t axes, IntSpan stride, IntSpan dilation, int64_t groups, bool strict,
                  IntSpan input_dilation, std::string_view algorithm) {
  return {conv_settings(op, axes, stride, dilation, groups, algorithm),
          per_axis(input_dilation, axes, 1, 1, op, "input_dilation"), strict};
}

Tensor conv(const char* op, size_t axes, const Tensor& input, const Tensor& weight, const Tensor& bias,
            IntSpan stride, IntSpan padding, IntSpan dilation, int64_t groups, bool strict,
            IntSpan input_dilation, std::string_view algorithm) {
  Settings s = settings(op, axes, stride, dilation, groups, strict, input_dilation, algorithm);
  s.padding = conv_sides(op, axes, padding);
  return run(s, input, weight, bias);
}

Tensor conv(const char* op, size_t axes, const Tensor& input, const Tensor& weight, const Tensor& bias,
            IntSpan stride, std::string_view padding, IntSpan dilation, int64_t groups, bool strict,
            IntSpan input_dilation, std::string_view algorithm) {
  Settings s = settings(op, axes, stride, dilation, groups, strict, input_dilation, algorithm);
  s.padding_name = padding;
  check_padding_name(op, s.padding_name, s.stride);
  return run(s, input, weight, bias);
}

}  // namespace

Tensor conv_product(const ConvParams& params, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  ConvParams p = params;
  p.may_wait = p.keeps_weight && is_constant(x) && (!bias.defined() || is_constant(bias));
  return call<Conv>(p, x, weight, bias);
}
Tensor conv_input_product(const ConvParams& p, const Tensor& grad_y, const Tensor& weight) {
  return call<ConvBackwardInput>(p, grad_y, weight);
}

#define OPSIN_CONV(function, axes, Padding)                                                               \
  Tensor function(const Tensor& input, const Tensor& weight, const Tensor& bias, IntSpan stride,          \
                  Padding padding, IntSpan dilation, int64_t groups, bool strict, IntSpan input_dilation, \
                  std::string_view algorithm) {                                                           \
    return conv(#function, axes, input, weight, bias, stride, padding, dilation, groups, strict,          \
                input_dilation, algorithm);                                                               \
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
  using ByNumber = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, IntSpan, IntSpan, int64_t,
                              bool, IntSpan, std::string_view);
  using ByName = Tensor (*)(const Tensor&, const Tensor&, const Tensor&, IntSpan, std::string_view, IntSpan,
                            int64_t, bool, IntSpan, std::string_view);
#define OPSIN_CONV(function, n, shape)                                                                      \
  registry.add<static_cast<ByNumber>(&function)>(                                                           \
      "nn.functional." #function "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n                 \
      "] stride=1, int[" #n "] padding=0, int[" #n                                                          \
      "] dilation=1, int groups=1, *, bool strict=False, int[" #n                                           \
      "] input_dilation=1, "                                                                                \
      "str algorithm='auto') -> Tensor",                                                                    \
      "Convolution of input " shape                                                                         \
      " with weight [K, C / groups, kernel...]. padding: also as (before, behind) for each axis. strict: "  \
      "raise where a stride leaves a rest. input_dilation: zeros are put between the elements of the "      \
      "input. algorithm: 'auto', 'direct', 'im2col', 'fft' or 'winograd', for the gradients too; CUDA has " \
      "'auto' and 'direct', its own choice.");                                                              \
  registry.add<static_cast<ByName>(&function)>(                                                             \
      "nn.functional." #function "(Tensor input, Tensor weight, Tensor? bias=None, int[" #n                 \
      "] stride=1, str padding='valid', "                                                                   \
      "int[" #n "] dilation=1, int groups=1, *, bool strict=False, int[" #n                                 \
      "] input_dilation=1, "                                                                                \
      "str algorithm='auto') -> Tensor",                                                                    \
      "The same with padding 'valid'; 'same' at stride 1; 'same_upper' or 'same_lower' for ceil(size / "    \
      "stride) outputs, where an odd rest goes behind or before; or 'causal', which pads the first axis "   \
      "before alone.");
  OPSIN_CONV(conv1d, 1, "[N, C, L]")
  OPSIN_CONV(conv2d, 2, "[N, C, H, W]")
  OPSIN_CONV(conv3d, 3, "[N, C, D, H, W]")
#undef OPSIN_CONV
  register_conv_transpose(registry);
}

}  // namespace opsin
