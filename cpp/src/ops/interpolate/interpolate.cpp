// Resizing. It is linear and works axis by axis, y = A3 A2 A1 x, so its gradient is the transposed step, and
// the gradient of that is the step itself.
#include "interpolate_kernels.h"

#include <cmath>
#include <vector>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/index.h>
#include <opsin/ops/interpolate.h>
#include <opsin/ops/unary.h>

#include "autograd/autocast.h"
#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const ResampleParams&)> resample("interpolate");

namespace {

/// Whether `x` lies channels last, or can be taken for it.
bool is_channels_last(const Tensor& x) { return x.impl()->is_hidden() || to_channels_last(x).is_same(x); }

/// Whether vectors of channels are worth the copy of an image that lies otherwise: where it grows, and where
/// they are full.
bool is_worth_moving(const Tensor& x, const Dims& sizes) {
  int64_t elements = 1;
  for (const int64_t size : sizes) elements *= size;
  return x.device().type == DeviceType::kCPU && (sizes[1] % 8 == 0 || sizes[1] >= 32) &&
         x.numel() <= elements;
}

struct Resample {
  static constexpr const char* kName = "interpolate";
  struct Params {
    AxisRule axis[3];
    bool transposed;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    ResampleParams call;
    std::copy(std::begin(p.axis), std::end(p.axis), std::begin(call.axis));
    call.transposed = p.transposed;
    call.dtype = x.dtype();
    Dims sizes{x.sizes()[0], x.sizes()[1]};
    const auto axes = x.sizes().size() - 2;
    for (size_t i = 0; i < axes; ++i) sizes.push_back(call.y_size(static_cast<int>(3 - axes + i)));
    const auto kernel = resample.get(x.device(), x.dtype());
    const bool lies_last = !x.is_contiguous() || x.impl()->is_hidden() ? is_channels_last(x) : false;
    const bool last = lies_last || is_worth_moving(x, sizes);
    const Tensor from = lies_last ? x : last ? to_channels_last(x) : contiguous(x.detach());
    const Tensor y =
        last ? empty_channels_last(sizes, x.dtype(), x.device()) : empty(sizes, x.dtype(), x.device());
    if (y.numel() == 0) return y;
    call.outer = last ? sizes[0] : sizes[0] * sizes[1];
    call.inner = last ? sizes[1] : 1;
    call.x = from.impl()->physical_data();
    call.y = y.impl()->mutable_physical_data();
    kernel(call);
    return y;
  }
  static void backward(Backward& ctx, const Params& p) {
    Params reverse = p;
    reverse.transposed = !p.transposed;
    ctx.set(0, call<Resample>(reverse, ctx.grad()));
  }
};

struct Mode {
  const char* name;
  Filter filter, smooth;  ///< kArea: cannot be anti-aliased.
  size_t axes;            ///< 0: any number.
};
constexpr Mode kModes[] = {
    {"nearest", Filter::kNearest, Filter::kArea, 0},
    {"nearest-exact", Filter::kNearestExact, Filter::kArea, 0},
    {"area", Filter::kArea, Filter::kArea, 0},
    {"linear", Filter::kLinear, Filter::kLinearSmooth, 1},
    {"bilinear", Filter::kLinear, Filter::kLinearSmooth, 2},
    {"trilinear", Filter::kLinear, Filter::kLinearSmooth, 3},
    {"cubic", Filter::kCubic, Filter::kCubicSmooth, 1},
    {"bicubic", Filter::kCubic, Filter::kCubicSmooth, 2},
    {"tricubic", Filter::kCubic, Filter::kCubicSmooth, 3},
    {"lanczos", Filter::kLanczosSmooth, Filter::kLanczosSmooth, 0},
};

const Mode& find_mode(std::string_view name) {
  for (const Mode& mode : kModes) {
    if (name == mode.name) return mode;
  }
  std::string names;
  for (const Mode& mode : kModes) names += std::string(names.empty() ? "" : ", ") + mode.name;
  opsin::detail::raise<ValueError>("interpolate: expected mode to be one of ", names, ", got '", name, "'");
}

/// Moves elements of any dtype to where the nearest rules want them.
Tensor moved(const Tensor& input, const AxisRule (&rules)[3], size_t axes) {
  Tensor y = input;
  for (size_t i = 0; i < axes; ++i) {
    const AxisRule& rule = rules[3 - axes + i];
    if (rule.filter == Filter::kNearest && rule.in == rule.out && rule.scale == 1) continue;
    const Tensor places = empty({rule.out}, kInt64);
    auto* to = places.mutable_data<int64_t>();
    for (int64_t o = 0; o < rule.out; ++o) to[o] = axis::window_of(rule, o).first;
    y = index_select(y, static_cast<int64_t>(2 + i), opsin::to(places, input.device()));
  }
  return y.is_same(input) ? clone(input) : y;
}

/// The Python function has the factors in its own arguments.
Tensor interpolate_schema(const Tensor& input, std::optional<IntSpan> size, std::optional<double> first,
                          std::optional<double> second, std::optional<double> third, std::string_view mode,
                          std::optional<bool> align_corners, bool recompute_scale_factor, bool antialias) {
  std::vector<double> factors;
  for (const auto& factor : {first, second, third}) {
    if (factor) factors.push_back(*factor);
  }
  return interpolate(input, size.value_or(IntSpan()), factors, mode, align_corners, recompute_scale_factor,
                     antialias);
}

}  // namespace

Tensor interpolate(const Tensor& input, IntSpan size, std::span<const double> scale_factor,
                   std::string_view mode_name, std::optional<bool> align_corners, bool recompute_scale_factor,
                   bool antialias) {
  constexpr const char* op = "interpolate";
  const Mode& mode = find_mode(mode_name);
  if (mode.filter != Filter::kArea && autocast::is_on(DeviceType::kCUDA, input)) {
    return autocast::call<autocast::kFull>(interpolate, input, size, scale_factor, mode_name, align_corners,
                                           recompute_scale_factor, antialias);
  }
  OPSIN_CHECK(ShapeError, input.dim() >= 3 && input.dim() <= 5, op,
              ": expected input [N, C, ...] with 1 to 3 spatial axes, got ", str(input.sizes()));
  const size_t axes = input.sizes().size() - 2;
  OPSIN_CHECK(ShapeError, mode.axes == 0 || mode.axes == axes, op, ": mode '", mode_name, "' needs ",
              mode.axes + 2, "-D input, got ", axes + 2, "-D ", str(input.sizes()));
  OPSIN_CHECK(ValueError, !align_corners || mode.smooth != Filter::kArea, op,
              ": align_corners can only be set with the linear and cubic modes, got mode '", mode_name, "'");
  OPSIN_CHECK(ValueError,
              mode.filter != Filter::kLanczosSmooth || (antialias && !align_corners.value_or(false)), op,
              ": mode 'lanczos' needs antialias=True and align_corners=False");
  OPSIN_CHECK(ValueError, !antialias || mode.smooth != Filter::kArea, op,
              ": antialias can only be set with the linear, cubic and lanczos modes, got mode '", mode_name,
              "'");
  OPSIN_CHECK(ValueError, size.empty() != scale_factor.empty(), op,
              ": expected either size or scale_factor, got ", size.empty() ? "neither" : "both");
  OPSIN_CHECK(ValueError, !recompute_scale_factor || size.empty(), op,
              ": recompute_scale_factor is not meaningful with an explicit size");
  const size_t given = size.empty() ? scale_factor.size() : size.size();
  OPSIN_CHECK(ShapeError, given == 1 || given == axes, op, ": expected ",
              size.empty() ? "scale_factor" : "size", " with 1 or ", axes, " entries for input ",
              str(input.sizes()), ", got ", given);
  OPSIN_CHECK(ShapeError, input.size(1) > 0, op, ": expected input with channels, got ", str(input.sizes()));

  Resample::Params p{{}, false};
  const bool align = align_corners.value_or(false);
  bool identity = true;
  for (size_t i = 0; i < axes; ++i) {
    AxisRule& rule = p.axis[3 - axes + i];
    const size_t entry = given == 1 ? 0 : i;
    rule.in = input.sizes()[2 + i];
    double factor = 0;
    if (size.empty()) {
      factor = scale_factor[entry];
      const double wanted = static_cast<double>(rule.in) * factor;
      OPSIN_CHECK(ValueError, wanted >= 0 && wanted < 0x1p31, op, ": expected a positive scale_factor, got ",
                  factor);
      rule.out = static_cast<int64_t>(wanted);
    } else {
      rule.out = size[entry];
    }
    OPSIN_CHECK(ShapeError, rule.in > 0 && rule.out > 0, op,
                ": Input and output sizes should be greater than 0, got ", rule.in, " and ", rule.out,
                " on axis ", i, " of input ", str(input.sizes()));
    const auto in = static_cast<double>(rule.in), out = static_cast<double>(rule.out);
    rule.align_corners = align;
    rule.in_double = input.dtype() == kFloat64;
    if (align) {
      rule.scale = rule.out > 1 ? (in - 1) / (out - 1) : 0;
    } else if (factor > 0 && !recompute_scale_factor && mode.filter != Filter::kArea) {
      rule.scale = 1 / factor;
    } else {
      rule.scale = in / out;
    }
    rule.filter = antialias ? mode.smooth : mode.filter;
    // Every filter leaves an axis as it is that keeps its size and its corners.
    if (rule.in == rule.out && (rule.scale == 1 || rule.in == 1)) {
      rule = {.in = rule.in, .out = rule.out};
    } else {
      identity = false;
    }
  }
  if (identity) return clone(input);
  if (is_floating_point(input.dtype())) return call<Resample>(p, input);
  if (mode.filter <= Filter::kNearestExact) return moved(input, p.axis, axes);
  OPSIN_CHECK(Error, input.dtype() == kUInt8, op, ": mode '", mode_name,
              "' is for floating-point and uint8 input, got ", name(input.dtype()), " (convert with to())");
  const Tensor y = call<Resample>(p, to(input, kFloat32));
  return to(clamp(round(y), wrap_number(0.0), wrap_number(255.0)), kUInt8);
}

void register_shuffle(Registry& registry);

void register_interpolate(Registry& registry) {
  register_interpolate_cpu();
  register_shuffle(registry);
  registry.add<&interpolate_schema>(
      "nn.functional._interpolate(Tensor input, int[]? size, float? first, float? second, float? third, str "
      "mode, "
      "bool? align_corners, bool recompute_scale_factor, bool antialias) -> Tensor",
      "What interpolate() calls, with one scale factor for all spatial axes or one for each.");
}

}  // namespace opsin
