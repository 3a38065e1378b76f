// Padding. With a constant, the gradient is the crop by the same numbers, which is padding by their
// negatives; the other modes join parts of the input, so their gradient is that of joining.
#include "pad_kernels.h"

#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/pad.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/elementwise.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const PadParams&)> pad_forward("pad"), pad_backward("pad_backward");

namespace {

/// One launch on a GPU: `sizes` become `padded`, or the other way for gradients; `x` has the shape that is
/// read. Undefined if there are too many dimensions for the kernel. The result is channels-last if `x` is.
Tensor padded_on_device(const KernelSlot<void (*)(const PadParams&)>& slot, const Tensor& x, PadMode mode,
                        const Dims& sizes, const Dims& padded, const Dims& before, const Scalar& value) {
  const bool hidden = x.impl()->is_hidden();
  const Dims& shape = &slot == &pad_backward ? sizes : padded;
  const Dims strides = x.impl()->physical_strides();
  PadParams p{};
  p.mode = mode;
  p.dtype = x.dtype();
  // Complex numbers are added as pairs of real ones.
  const bool pairs = is_complex(x.dtype()) && &slot == &pad_backward;
  const auto add = [&](int64_t size, int64_t size_padded, int64_t offset, int64_t stride) {
    const int last = p.rank - 1;
    // Dimensions that lie and stay behind each other are one.
    if (p.rank > 0 && size == size_padded && p.sizes[last] == p.padded[last] && p.before[last] == 0 &&
        offset == 0 && p.strides[last] == stride * size) {
      p.sizes[last] *= size;
      p.padded[last] *= size;
      p.strides[last] = stride;
      return true;
    }
    if (p.rank == PadParams::kMaxRank) return false;
    p.sizes[p.rank] = size;
    p.padded[p.rank] = size_padded;
    p.before[p.rank] = offset;
    p.strides[p.rank++] = stride;
    return true;
  };
  bool fits = true;
  const auto add_dimension = [&](size_t d) {
    fits &= add(sizes[d], padded[d], before[d], strides[d] * (pairs ? 2 : 1));
  };
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (!hidden || d != 1) add_dimension(d);
  }
  if (hidden) add_dimension(1);
  if (pairs) fits &= add(2, 2, 0, 1);
  if (sizes.empty()) fits &= add(1, 1, 0, 1);
  if (!fits) return {};
  if (pairs) p.dtype = x.dtype() == kComplex64 ? kFloat32 : kFloat64;
  const Tensor y =
      hidden ? empty_channels_last(shape, x.dtype(), x.device()) : empty(shape, x.dtype(), x.device());
  p.from = x.impl()->physical_data();
  p.to = y.impl()->mutable_physical_data();
  store_scalar(value, x.dtype(), p.value);
  if (y.numel() > 0) slot.get(x.device(), p.dtype)(p);
  return y;
}

struct Pad {
  static constexpr const char* kName = "pad";
  struct Params {
    Dims before, after;  // One entry for each dimension.
    Scalar value;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    Dims sizes = x.sizes();
    for (size_t i = 0; i < sizes.size(); ++i) sizes[i] += p.before[i] + p.after[i];
    if (!x.device().is_cpu()) {
      const Tensor y =
          padded_on_device(pad_forward, x, PadMode::kConstant, x.sizes(), sizes, p.before, p.value);
      if (y.defined()) return y;
    }
    const Tensor y = full(sizes, p.value, x.dtype(), x.device());
    Tensor from = x.detach(), to = y;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const auto d = static_cast<int64_t>(i);
      const int64_t crop_before = std::max<int64_t>(-p.before[i], 0),
                    crop_after = std::max<int64_t>(-p.after[i], 0);
      from = slice(from, d, crop_before, std::max(x.sizes()[i] - crop_after, crop_before));
      const int64_t start = std::max<int64_t>(p.before[i], 0);
      to = slice(to, d, start, start + from.sizes()[i]);
    }
    if (from.numel() > 0) copy_(to, from);
    return y;
  }
  static void backward(Backward& ctx, const Params& p) {
    Params crop{p.before, p.after, 0};
    for (size_t i = 0; i < p.before.size(); ++i) {
      crop.before[i] = -p.before[i];
      crop.after[i] = -p.after[i];
    }
    ctx.set(0, call<Pad>(crop, ctx.grad()));
  }
};

/// The modes that repeat the input, on a GPU.
struct PadRepeatParams {
  PadMode mode;
  Dims sizes, padded, before;
};
struct PadRepeatBackward {
  static constexpr const char* kName = "pad_backward";
  using Params = PadRepeatParams;
  static Tensor forward(const Params& p, const Tensor& grad) {
    return padded_on_device(pad_backward, grad, p.mode, p.sizes, p.padded, p.before, 0);
  }
  static void backward(Backward& ctx, const Params& p);
};
struct PadRepeat {
  static constexpr const char* kName = "pad";
  using Params = PadRepeatParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    return padded_on_device(pad_forward, x, p.mode, p.sizes, p.padded, p.before, 0);
  }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, call<PadRepeatBackward>(p, ctx.grad())); }
};
void PadRepeatBackward::backward(Backward& ctx, const Params& p) {
  ctx.set(0, call<PadRepeat>(p, ctx.grad()));
}

void check_repeat(const Tensor& x, int64_t d, int64_t before, int64_t after, std::string_view mode) {
  const int64_t size = x.size(d);
  if (mode == "reflect") {
    OPSIN_CHECK(ShapeError, before < size && after < size,
                "pad: Padding size should be less than the corresponding input dimension, but got: padding (",
                before, ", ", after, ") at dimension ", d, " of input ", str(x.sizes()));
  } else if (mode == "replicate") {
    OPSIN_CHECK(ShapeError, size > 0, "pad: expected a non-empty dimension ", d, ", got input ",
                str(x.sizes()));
  } else {
    OPSIN_CHECK(ShapeError, before <= size && after <= size,
                "pad: Padding value causes wrapping around more than once, got (", before, ", ", after,
                ") at dimension ", d, " of input ", str(x.sizes()));
  }
}

/// One dimension in a mode that repeats the input; `before` and `after` are not negative.
Tensor pad_dimension(const Tensor& x, int64_t d, int64_t before, int64_t after, std::string_view mode) {
  const int64_t size = x.size(d);
  TensorList parts;
  const auto add_part = [&](int64_t start, int64_t count) {
    if (count > 0) parts.push_back(slice(x, d, start, start + count));
  };
  if (mode == "reflect") {
    if (before > 0) parts.push_back(flip(slice(x, d, 1, before + 1), Dims{d}));
    parts.push_back(x);
    if (after > 0) parts.push_back(flip(slice(x, d, size - 1 - after, size - 1), Dims{d}));
  } else if (mode == "replicate") {
    Dims sizes = x.sizes();
    const auto edge = [&](int64_t position, int64_t count) {
      sizes[static_cast<size_t>(d)] = count;
      if (count > 0) parts.push_back(expand(slice(x, d, position, position + 1), sizes));
    };
    edge(0, before);
    parts.push_back(x);
    edge(size - 1, after);
  } else {
    add_part(size - before, before);
    parts.push_back(x);
    add_part(0, after);
  }
  return parts.size() == 1 ? x : cat(parts, d);
}

}  // namespace

Tensor pad(const Tensor& input, IntSpan pad, std::string_view mode, std::optional<double> value) {
  OPSIN_CHECK(ValueError,
              mode == "constant" || mode == "reflect" || mode == "replicate" || mode == "circular",
              "pad: expected mode 'constant', 'reflect', 'replicate' or 'circular', got '", mode, "'");
  OPSIN_CHECK(ShapeError, pad.size() % 2 == 0 && static_cast<int64_t>(pad.size()) <= 2 * input.dim(),
              "pad: expected pairs for at most ", input.dim(), " dimensions, got ", str(pad), " for input ",
              str(input.sizes()));
  const size_t rank = input.sizes().size();
  Pad::Params p{Dims(rank), Dims(rank), 0};
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    const size_t d = rank - 1 - i;
    p.before[d] = pad[2 * i];
    p.after[d] = pad[2 * i + 1];
    OPSIN_CHECK(ShapeError, input.sizes()[d] + p.before[d] + p.after[d] >= 0, "pad: The input size ",
                input.sizes()[d], ", plus negative padding ", p.before[d], " and ", p.after[d],
                ", resulted in a negative output size at dimension ", d);
  }
  if (mode == "constant") {
    p.value = value.value_or(0.0);
    return call<Pad>(p, input);
  }
  OPSIN_CHECK(ValueError, !value || *value == 0, "pad: Padding mode \"", mode,
              "\" doesn't take in value argument");
  // PyTorch casts what it has kernels for, and has none for reflection of three axes.
  if (autocast::is_on(DeviceType::kCPU, input) &&
      (mode == "replicate" || (mode == "reflect" && pad.size() <= 4))) {
    return autocast::call<autocast::kFull>(opsin::pad, input, pad, mode, value);
  }
  // Crops first, then repeats.
  Pad::Params crop{Dims(rank), Dims(rank), 0};
  bool crops = false;
  for (size_t d = 0; d < rank; ++d) {
    crop.before[d] = std::min<int64_t>(p.before[d], 0);
    crop.after[d] = std::min<int64_t>(p.after[d], 0);
    crops |= crop.before[d] < 0 || crop.after[d] < 0;
  }
  Tensor y = crops ? call<Pad>(crop, input) : input;
  Dims padded = y.sizes(), starts(rank);
  for (size_t d = 0; d < rank; ++d) {
    const int64_t before = std::max<int64_t>(p.before[d], 0), after = std::max<int64_t>(p.after[d], 0);
    if (before > 0 || after > 0) check_repeat(y, static_cast<int64_t>(d), before, after, mode);
    padded[d] += before + after;
    starts[d] = before;
  }
  if (!y.device().is_cpu() && rank < PadParams::kMaxRank && !(padded == y.sizes())) {
    const PadMode repeat = mode == "reflect"     ? PadMode::kReflect
                           : mode == "replicate" ? PadMode::kReplicate
                                                 : PadMode::kCircular;
    return call<PadRepeat>({repeat, y.sizes(), padded, starts}, y);
  }
  for (size_t d = 0; d < rank; ++d) {
    const int64_t before = std::max<int64_t>(p.before[d], 0), after = std::max<int64_t>(p.after[d], 0);
    if (before > 0 || after > 0) y = pad_dimension(y, static_cast<int64_t>(d), before, after, mode);
  }
  return y.is_same(input) ? clone(input) : y;
}

void register_pad(Registry& registry) {
  registry.add<&pad>(
      "nn.functional.pad(Tensor input, int[] pad, str mode='constant', float? value=None) -> Tensor",
      "Pads with (before, after) pairs from the last dimension backwards; negative numbers crop. mode: "
      "'constant', "
      "'reflect', 'replicate' or 'circular'.");
}

}  // namespace opsin
