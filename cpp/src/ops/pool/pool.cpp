// Pooling. Average pooling is linear, so it and its transpose are each other's gradients. Max pooling, with
// its positions fixed, is a gather, whose gradient is a scatter, whose gradient is that gather.
#include "pool_kernels.h"
#include "pool_named.h"

#include <opsin/ops/creation.h>
#include <opsin/ops/pool.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "../conv/conv_padding.h"
#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const PoolParams&, DType, const void*, void*, PoolPositions)> max_pool_forward{
    "max_pool"};
constinit KernelSlot<void (*)(const PoolParams&, DType, const void*, PoolPositions, void*)> max_pool_backward{
    "max_pool_backward"};
constinit KernelSlot<void (*)(const PoolParams&, DType, const void*, PoolPositions, void*)> max_pool_gather{
    "max_pool_gather"};
constinit KernelSlot<void (*)(const PoolParams&, DType, const void*, void*)> avg_pool_forward{"avg_pool"};
constinit KernelSlot<void (*)(const PoolParams&, DType, const void*, void*)> avg_pool_backward{
    "avg_pool_backward"};

namespace {

/// `x` in the layout of the pooling, and a new tensor in it.
Tensor laid(const PoolParams& p, const Tensor& x) {
  return p.row_major ? contiguous(x) : to_channels_last(x);
}
Tensor make(const PoolParams& p, IntSpan sizes, DType dtype, Device device) {
  return p.row_major ? empty(sizes, dtype, device) : empty_channels_last(sizes, dtype, device);
}
const void* data_of(const PoolParams& p, const Tensor& x) {
  return p.row_major ? x.impl()->data() : x.impl()->physical_data();
}

/// int64 holds indices, uint8 holds taps.
PoolPositions positions(const PoolParams& p, const Tensor& where) {
  auto* data = p.row_major ? where.impl()->mutable_data() : where.impl()->mutable_physical_data();
  if (where.dtype() == kInt64) return {.indices = reinterpret_cast<int64_t*>(data)};
  return {.taps = reinterpret_cast<uint8_t*>(data)};
}

/// grad_x[position] = the sum of grad_y there.
struct MaxPoolBackward {
  static constexpr const char* kName = "max_pool_backward";
  using Params = PoolParams;
  static Tensor forward(const Params& p, const Tensor& grad_y, const Tensor& indices) {
    if (grad_y.numel() == 0) return zeros(p.x_sizes, grad_y.dtype(), grad_y.device());
    const Tensor grad_x = make(p, p.x_sizes, grad_y.dtype(), grad_y.device());
    const Tensor from = laid(p, grad_y), where = laid(p, indices);
    max_pool_backward.get(grad_y.device(), grad_y.dtype())(
        p, grad_y.dtype(), data_of(p, from), positions(p, where), grad_x.impl()->mutable_physical_data());
    return grad_x;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& indices, const Tensor&) {
    saver.save(0, indices);
  }
  static void backward(Backward& ctx, const Params& p);
};

/// y = x[position].
struct MaxPoolGather {
  static constexpr const char* kName = "max_pool_gather";
  using Params = PoolParams;
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& indices) {
    const Tensor y = make(p, p.y_sizes, x.dtype(), x.device());
    if (y.numel() == 0) return y;
    const Tensor from = laid(p, x), where = laid(p, indices);
    max_pool_gather.get(x.device(), x.dtype())(p, x.dtype(), data_of(p, from), positions(p, where),
                                               y.impl()->mutable_physical_data());
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& indices, const Tensor&) {
    saver.save(0, indices);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, call<MaxPoolBackward>(p, ctx.grad(), ctx.saved(0)));
  }
};

void MaxPoolBackward::backward(Backward& ctx, const Params& p) {
  if (ctx.needs(0)) ctx.set(0, call<MaxPoolGather>(p, ctx.grad(), ctx.saved(0)));
}

struct MaxPool {
  static constexpr const char* kName = "max_pool";
  struct Params : PoolParams {
    std::optional<DType> positions;
  };
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& x) {
    const Tensor y = make(p, p.y_sizes, x.dtype(), x.device());
    const Tensor where = p.positions ? make(p, p.y_sizes, *p.positions, x.device()) : Tensor();
    const auto kernel = max_pool_forward.get(x.device(), x.dtype());
    if (y.numel() == 0) return {y, where};
    const Tensor from = laid(p, x);
    kernel(p, x.dtype(), data_of(p, from), y.impl()->mutable_physical_data(),
           p.positions ? positions(p, where) : PoolPositions{});
    return {y, where};
  }
  static void save(Saver& saver, const Params&, const Tensor&, const std::array<Tensor, 2>& outputs) {
    saver.save(0, outputs[1]);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, call<MaxPoolBackward>(p, ctx.grad(0), ctx.saved(0)));
  }
};

Tensor average_backward(const PoolParams& p, const Tensor& grad_y);

struct AvgPool {
  static constexpr const char* kName = "avg_pool";
  using Params = PoolParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    const Tensor y = make(p, p.y_sizes, x.dtype(), x.device());
    const auto kernel = avg_pool_forward.get(x.device(), x.dtype());
    if (y.numel() == 0) return y;
    if (p.geometry.adaptive && y.numel() == p.geometry.batch * p.geometry.channels &&
        !x.impl()->is_hidden()) {
      // One mean per channel needs no other layout.
      Dims axes;
      for (int64_t d = 2; d < x.dim(); ++d) axes.push_back(d);
      return mean(x.detach(), axes, true);
    }
    const Tensor from = laid(p, x);
    kernel(p, x.dtype(), data_of(p, from), y.impl()->mutable_physical_data());
    return y;
  }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, average_backward(p, ctx.grad())); }
};

struct AvgPoolBackward {
  static constexpr const char* kName = "avg_pool_backward";
  using Params = PoolParams;
  static Tensor forward(const Params& p, const Tensor& grad_y) {
    if (grad_y.numel() == 0) return zeros(p.x_sizes, grad_y.dtype(), grad_y.device());
    const Tensor grad_x = make(p, p.x_sizes, grad_y.dtype(), grad_y.device());
    const Tensor from = laid(p, grad_y);
    avg_pool_backward.get(grad_y.device(), grad_y.dtype())(p, grad_y.dtype(), data_of(p, from),
                                                           grad_x.impl()->mutable_physical_data());
    return grad_x;
  }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, call<AvgPool>(p, ctx.grad())); }
};

Tensor average_backward(const PoolParams& p, const Tensor& grad_y) {
  return call<AvgPoolBackward>(p, grad_y);
}

/// Sizes without windows; `x` is batched.
PoolParams base_params(const char* op, size_t axes, const Tensor& input) {
  const auto rank = static_cast<int64_t>(axes);
  OPSIN_CHECK(ShapeError, input.dim() == rank + 1 || input.dim() == rank + 2, op, ": expected input of ",
              rank + 1, " (unbatched) or ", rank + 2, " dimensions, got ", str(input.sizes()));
  PoolParams p;
  p.x_sizes = input.sizes();
  if (input.dim() == rank + 1) p.x_sizes.insert(0, 1);
  p.y_sizes = Dims{p.x_sizes[0], p.x_sizes[1]};
  p.geometry.batch = p.x_sizes[0];
  p.geometry.channels = p.x_sizes[1];
  for (size_t i = 0; i < axes; ++i) p.geometry.in[3 - axes + i] = p.x_sizes[2 + i];
  for (size_t i = 1; i < p.x_sizes.size(); ++i) {
    OPSIN_CHECK(ShapeError, p.x_sizes[i] > 0, op,
                ": expected input with non-zero channels and spatial sizes, got ", str(input.sizes()));
  }
  return p;
}

PoolParams window_params(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size,
                         IntSpan stride, PoolPadding padding, IntSpan dilation, bool ceil_mode) {
  PoolParams p = base_params(op, axes, input);
  OPSIN_CHECK(ShapeError, !kernel_size.empty(), op, ": expected a kernel_size");
  const Dims kernel = per_axis(kernel_size, axes, 1, 1, op, "kernel_size");
  const Dims step = stride.empty() ? kernel : per_axis(stride, axes, 1, 1, op, "stride");
  const Dims spread = per_axis(dilation, axes, 1, 1, op, "dilation");
  const bool per_side = !padding.name.empty() || padding.numbers.size() == 2 * axes;
  ConvSides sides;
  if (padding.name.empty()) {
    sides = conv_sides(op, axes, padding.numbers);
  } else {
    check_padding_name(op, padding.name, step);
  }
  for (size_t i = 0; i < axes; ++i) {
    const size_t axis = 3 - axes + i;
    const int64_t reach = spread[i] * (kernel[i] - 1) + 1;
    const int64_t in = p.geometry.in[axis];
    if (!padding.name.empty()) add_named_padding(padding.name, i, in, reach, step[i], sides);
    const int64_t before = sides.begin[i], behind = sides.end[i];
    // Per side it may be anything that leaves no window without a pixel.
    OPSIN_CHECK(ShapeError, per_side || before <= reach / 2, op,
                ": padding should be at most half of effective kernel size, got padding=", before,
                ", kernel_size=", kernel[i], " and dilation=", spread[i]);
    OPSIN_CHECK(ShapeError, std::max(before, behind) < reach, op,
                ": padding of a side should be smaller than effective kernel size, got padding=(", before,
                ", ", behind, ") on axis ", i, ", kernel_size=", kernel[i], " and dilation=", spread[i]);
    const int64_t room = in + before + behind - reach;
    // Rounds towards minus infinity, so that a window larger than the input gives a size below 1.
    const int64_t slack = room + (ceil_mode ? step[i] - 1 : 0);
    int64_t out = (slack >= 0 ? slack / step[i] : -((-slack + step[i] - 1) / step[i])) + 1;
    // The last window must start inside the input or its padding at the front.
    if (ceil_mode && (out - 1) * step[i] >= in + before) --out;
    OPSIN_CHECK(ShapeError, out >= 1, op, ": Given input size ", str(input.sizes()), " and kernel_size ",
                str(kernel), ", the calculated output size ", out, " on axis ", i,
                " is too small. Output size is too small");
    p.geometry.kernel[axis] = kernel[i];
    p.geometry.stride[axis] = step[i];
    p.geometry.dilation[axis] = spread[i];
    p.geometry.pad_begin[axis] = before;
    p.geometry.pad_end[axis] = behind;
    p.geometry.out[axis] = out;
    p.y_sizes.push_back(out);
  }
  return p;
}

PoolParams adaptive_params(const char* op, size_t axes, const Tensor& input, IntSpan output_size) {
  PoolParams p = base_params(op, axes, input);
  p.geometry.adaptive = true;
  OPSIN_CHECK(ShapeError, output_size.size() == 1 || output_size.size() == axes, op,
              ": expected output_size to have 1 or ", axes, " entries, got ", str(output_size));
  for (size_t i = 0; i < axes; ++i) {
    const int64_t wanted = output_size[output_size.size() == 1 ? 0 : i];
    const int64_t out = wanted == kNoneEntry ? p.x_sizes[2 + i] : wanted;
    OPSIN_CHECK(ShapeError, out >= 0, op,
                ": elements of output_size must be greater than or equal to 0, got ", str(output_size));
    p.geometry.out[3 - axes + i] = out;
    p.y_sizes.push_back(out);
    const int64_t in = p.x_sizes[2 + i];
    // The longest window: with a remainder it may begin and end within a step.
    if (out > 0) p.geometry.kernel[3 - axes + i] = (in - 1) / out + 1 + (in % out != 0 ? 1 : 0);
  }
  return p;
}

/// `p` with the layout that `x` is best pooled in: its own, unless a pixel has fewer channels than a vector.
template <class P>
P with_layout(P p, const Tensor& x) {
  const TensorImpl* impl = x.impl();
  p.row_major = x.device().is_cpu() && cpu::pools_planes(p.geometry, x.dtype()) &&
                (p.geometry.channels <= 4 || (impl->contiguous && !impl->is_hidden()));
  return p;
}

Tensor run_avg(const PoolParams& p, size_t axes, const Tensor& input) {
  if (axes == 3 && autocast::is_on(DeviceType::kCPU, input)) {
    return autocast::call<autocast::kFull>(run_avg, p, axes, input);
  }
  if (input.dim() == static_cast<int64_t>(axes) + 2) return call<AvgPool>(with_layout(p, input), input);
  return squeeze(call<AvgPool>(with_layout(p, input), unsqueeze(input, 0)), Dims{0});
}

std::array<Tensor, 2> run_max(const PoolParams& p, size_t axes, const Tensor& input, bool wants_indices) {
  if (axes == 3 && autocast::is_on(DeviceType::kCPU, input)) {
    return autocast::call<autocast::kFull>(run_max, p, axes, input, wants_indices);
  }
  const bool unbatched = input.dim() == static_cast<int64_t>(axes) + 1;
  MaxPool::Params params{with_layout(p, input), std::nullopt};
  if (wants_indices) {
    params.positions = kInt64;
  } else if (GradMode::is_enabled() && input.requires_grad()) {
    const int64_t(&kernel)[3] = p.geometry.kernel;
    params.positions = kernel[0] * kernel[1] * kernel[2] <= cpu::kMostPoolTaps ? kUInt8 : kInt64;
  }
  std::array<Tensor, 2> result = call<MaxPool>(params, unbatched ? unsqueeze(input, 0) : input);
  if (!wants_indices) result[1] = Tensor();
  if (unbatched) {
    for (Tensor& tensor : result) {
      if (tensor.defined()) tensor = squeeze(tensor, Dims{0});
    }
  }
  return result;
}

/// What Python gets: the values, or values and positions.
TensorList as_list(std::array<Tensor, 2> result, bool return_indices) {
  TensorList list{std::move(result[0])};
  if (return_indices) list.push_back(std::move(result[1]));
  return list;
}

template <size_t kAxes, class Padding>
TensorList max_pool_schema(const Tensor& input, IntSpan kernel_size, std::optional<IntSpan> stride,
                           Padding padding, IntSpan dilation, bool ceil_mode, bool return_indices) {
  constexpr const char* kNames[] = {"", "max_pool1d", "max_pool2d", "max_pool3d"};
  const PoolParams p = window_params(kNames[kAxes], kAxes, input, kernel_size, stride.value_or(IntSpan()),
                                     padding, dilation, ceil_mode);
  return as_list(run_max(p, kAxes, input, return_indices), return_indices);
}

template <size_t kAxes>
TensorList adaptive_max_pool_schema(const Tensor& input, IntSpan output_size, bool return_indices) {
  constexpr const char* kNames[] = {"", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"};
  return as_list(
      run_max(adaptive_params(kNames[kAxes], kAxes, input, output_size), kAxes, input, return_indices),
      return_indices);
}

template <class Padding>
Tensor avg_pool1d_schema(const Tensor& input, IntSpan kernel_size, std::optional<IntSpan> stride,
                         Padding padding, bool ceil_mode, bool count_include_pad) {
  return avg_pool_named("avg_pool1d", 1, input, kernel_size, stride.value_or(IntSpan()), padding, ceil_mode,
                        count_include_pad, std::nullopt);
}
template <size_t kAxes, class Padding>
Tensor avg_pool_schema(const Tensor& input, IntSpan kernel_size, std::optional<IntSpan> stride,
                       Padding padding, bool ceil_mode, bool count_include_pad,
                       std::optional<int64_t> divisor_override) {
  return avg_pool_named(kAxes == 2 ? "avg_pool2d" : "avg_pool3d", kAxes, input, kernel_size,
                        stride.value_or(IntSpan()), padding, ceil_mode, count_include_pad, divisor_override);
}

}  // namespace

Tensor avg_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      PoolPadding padding, bool ceil_mode, bool count_include_pad,
                      std::optional<int64_t> divisor_override) {
  OPSIN_CHECK(ShapeError, !divisor_override || *divisor_override != 0, op, ": divisor must be not zero");
  PoolParams p = window_params(op, axes, input, kernel_size, stride, padding, {}, ceil_mode);
  p.count_include_pad = count_include_pad;
  p.divisor_override = divisor_override.value_or(0);
  return run_avg(p, axes, input);
}

Tensor max_pool_named(const char* op, size_t axes, const Tensor& input, IntSpan kernel_size, IntSpan stride,
                      PoolPadding padding, bool ceil_mode) {
  return run_max(window_params(op, axes, input, kernel_size, stride, padding, {}, ceil_mode), axes, input,
                 false)[0];
}

#define OPSIN_POOL(Padding)                                                                                \
  std::array<Tensor, 2> max_pool(const Tensor& input, size_t axes, IntSpan kernel_size, IntSpan stride,    \
                                 Padding padding, IntSpan dilation, bool ceil_mode) {                      \
    OPSIN_CHECK(ValueError, axes >= 1 && axes <= 3, "max_pool: expected 1 to 3 spatial axes, got ", axes); \
    const PoolParams p =                                                                                   \
        window_params("max_pool", axes, input, kernel_size, stride, padding, dilation, ceil_mode);         \
    return run_max(p, axes, input, true);                                                                  \
  }                                                                                                        \
  Tensor avg_pool1d(const Tensor& input, IntSpan kernel_size, IntSpan stride, Padding padding,             \
                    bool ceil_mode, bool count_include_pad) {                                              \
    return avg_pool_named("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode,                 \
                          count_include_pad, std::nullopt);                                                \
  }                                                                                                        \
  OPSIN_AVG_POOL(2, Padding)                                                                               \
  OPSIN_AVG_POOL(3, Padding)                                                                               \
  OPSIN_MAX_POOL(1, Padding)                                                                               \
  OPSIN_MAX_POOL(2, Padding)                                                                               \
  OPSIN_MAX_POOL(3, Padding)
#define OPSIN_AVG_POOL(n, Padding)                                                                         \
  Tensor avg_pool##n##d(const Tensor& input, IntSpan kernel_size, IntSpan stride, Padding padding,         \
                        bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override) { \
    return avg_pool_named("avg_pool" #n "d", n, input, kernel_size, stride, padding, ceil_mode,            \
                          count_include_pad, divisor_override);                                            \
  }
#define OPSIN_MAX_POOL(n, Padding)                                                                     \
  Tensor max_pool##n##d(const Tensor& input, IntSpan kernel_size, IntSpan stride, Padding padding,     \
                        IntSpan dilation, bool ceil_mode) {                                            \
    const PoolParams p =                                                                               \
        window_params("max_pool" #n "d", n, input, kernel_size, stride, padding, dilation, ceil_mode); \
    return run_max(p, n, input, false)[0];                                                             \
  }
OPSIN_POOL(IntSpan)
OPSIN_POOL(std::string_view)
#undef OPSIN_POOL
#undef OPSIN_AVG_POOL
#undef OPSIN_MAX_POOL

std::array<Tensor, 2> adaptive_max_pool(const Tensor& input, size_t axes, IntSpan output_size) {
  OPSIN_CHECK(ValueError, axes >= 1 && axes <= 3, "adaptive_max_pool: expected 1 to 3 spatial axes, got ",
              axes);
  return run_max(adaptive_params("adaptive_max_pool", axes, input, output_size), axes, input, true);
}

#define OPSIN_POOL(n)                                                                                       \
  Tensor adaptive_max_pool##n##d(const Tensor& input, IntSpan output_size) {                                \
    return run_max(adaptive_params("adaptive_max_pool" #n "d", n, input, output_size), n, input, false)[0]; \
  }                                                                                                         \
  Tensor adaptive_avg_pool##n##d(const Tensor& input, IntSpan output_size) {                                \
    return run_avg(adaptive_params("adaptive_avg_pool" #n "d", n, input, output_size), n, input);           \
  }
OPSIN_POOL(1)
OPSIN_POOL(2)
OPSIN_POOL(3)
#undef OPSIN_POOL

void register_pool(Registry& registry) {
  register_pool_cpu();
#define OPSIN_MAX_POOL(n, Padding, padding)                                                                  \
  registry.add<&max_pool_schema<n, Padding>>(                                                                \
      "nn.functional.max_pool" #n "d(Tensor input, int[" #n "] kernel_size, int[" #n                         \
      "]? stride=None, " padding ", int[" #n                                                                 \
      "] dilation=1, bool ceil_mode=False, bool return_indices=False) -> Tensor|Tensor[]",                   \
      "The largest value of each window; with return_indices also its flat position in the input's spatial " \
      "axes. padding: also as (before, behind) for each axis, or a name as convolution takes it.")
#define OPSIN_AVG_POOL(n, Padding, padding)                                                                 \
  registry.add<&avg_pool_schema<n, Padding>>(                                                               \
      "nn.functional.avg_pool" #n "d(Tensor input, int[" #n "] kernel_size, int[" #n                        \
      "]? stride=None, " padding                                                                            \
      ", bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor",         \
      "The mean of each window. padding: also as (before, behind) for each axis, or a name as convolution " \
      "takes it.")
#define OPSIN_POOL(n)                                                                                   \
  OPSIN_MAX_POOL(n, IntSpan, "int[" #n "] padding=0");                                                  \
  OPSIN_MAX_POOL(n, std::string_view, "str padding='valid'");                                           \
  registry.add<&adaptive_max_pool_schema<n>>(                                                           \
      "nn.functional.adaptive_max_pool" #n "d(Tensor input, int?[" #n                                   \
      "] output_size, bool return_indices=False) -> Tensor|Tensor[]",                                   \
      "The largest value of windows chosen so that the output has the given size; None keeps a size."); \
  registry.add<&adaptive_avg_pool##n##d>(                                                               \
      "nn.functional.adaptive_avg_pool" #n "d(Tensor input, int?[" #n "] output_size) -> Tensor",       \
      "The mean of windows chosen so that the output has the given size; None keeps a size.");
  OPSIN_POOL(1)
  OPSIN_POOL(2)
  OPSIN_POOL(3)
  OPSIN_AVG_POOL(2, IntSpan, "int[2] padding=0");
  OPSIN_AVG_POOL(2, std::string_view, "str padding='valid'");
  OPSIN_AVG_POOL(3, IntSpan, "int[3] padding=0");
  OPSIN_AVG_POOL(3, std::string_view, "str padding='valid'");
#undef OPSIN_POOL
#undef OPSIN_AVG_POOL
#undef OPSIN_MAX_POOL
  constexpr const char* kDoc =
      "The mean of each window. padding: also as (before, behind), or a name as convolution takes it.";
  registry.add<&avg_pool1d_schema<IntSpan>>(
      "nn.functional.avg_pool1d(Tensor input, int[1] kernel_size, int[1]? stride=None, int[1] padding=0, "
      "bool ceil_mode=False, bool count_include_pad=True) -> Tensor",
      kDoc);
  registry.add<&avg_pool1d_schema<std::string_view>>(
      "nn.functional.avg_pool1d(Tensor input, int[1] kernel_size, int[1]? stride=None, str padding='valid', "
      "bool ceil_mode=False, bool count_include_pad=True) -> Tensor",
      kDoc);
}

}  // namespace opsin
