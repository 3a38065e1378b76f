// Windows as columns. Both directions are linear and each other's transposes, so each other's gradients.
#include "unfold_kernels.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/unfold.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "ops/conv/conv_products.h"

namespace opsin {

constinit KernelSlot<void (*)(const UnfoldGeometry&, DType, const void*, void*)> unfold_forward{"unfold"};
constinit KernelSlot<void (*)(const UnfoldGeometry&, DType, const void*, void*)> fold_columns{"fold"};

namespace {

/// The parameter of both ops.
struct Params {
  UnfoldGeometry geometry;
  Dims images, columns;  ///< Sizes, batched.
};

Tensor run(const KernelSlot<void (*)(const UnfoldGeometry&, DType, const void*, void*)>& slot,
           const Params& p, const Tensor& x, const Dims& sizes) {
  const auto kernel = slot.get(x.device(), x.dtype());
  if (x.numel() == 0) return zeros(sizes, x.dtype(), x.device());
  const Tensor y = empty(sizes, x.dtype(), x.device());
  const Tensor from = contiguous(x.detach());
  kernel(p.geometry, x.dtype(), from.impl()->data(), y.impl()->mutable_data());
  return y;
}

Tensor folded(const Params& p, const Tensor& columns);

struct Unfold {
  static constexpr const char* kName = "unfold";
  using Params = opsin::Params;
  static Tensor forward(const Params& p, const Tensor& x) { return run(unfold_forward, p, x, p.columns); }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, folded(p, ctx.grad())); }
};

struct Fold {
  static constexpr const char* kName = "fold";
  using Params = opsin::Params;
  static Tensor forward(const Params& p, const Tensor& x) { return run(fold_columns, p, x, p.images); }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, call<Unfold>(p, ctx.grad())); }
};

Tensor folded(const Params& p, const Tensor& columns) { return call<Fold>(p, columns); }

/// What both directions are told.
struct Windows {
  const char* op;
  Dims kernel, dilation, stride;
  ConvSides padding;

  Windows(const char* name, size_t axes, IntSpan kernel_size, IntSpan dilation_, IntSpan padding_,
          IntSpan stride_)
      : op(name),
        kernel(per_axis(kernel_size, axes, 1, 1, name, "kernel_size")),
        dilation(per_axis(dilation_, axes, 1, 1, name, "dilation")),
        stride(per_axis(stride_, axes, 1, 1, name, "stride")),
        padding(conv_sides(name, axes, padding_)) {}

  /// For `channels` of images; the sizes of columns are those of the windows.
  Params params(int64_t batch, int64_t channels, const Dims& sizes) const {
    Params p;
    UnfoldGeometry& g = p.geometry;
    const size_t axes = sizes.size();
    g.planes = batch * channels;
    p.images = Dims{batch, channels};
    int64_t taps = 1, count = 1;
    for (size_t i = 0; i < axes; ++i) {
      const size_t axis = 3 - axes + i;
      const int64_t reach = dilation[i] * (kernel[i] - 1) + 1;
      const int64_t room = sizes[i] + padding.begin[i] + padding.end[i] - reach;
      OPSIN_CHECK(ShapeError, sizes[i] > 0 && room >= 0, op, ": the windows of size ", sizes[i], " on axis ",
                  i, " with padding ", padding.begin[i], " and ", padding.end[i], " and kernel reach ", reach,
                  " are none, expected at least one (sizes ", str(sizes), ", kernel_size ", str(kernel),
                  ", dilation ", str(dilation), ")");
      g.in[axis] = sizes[i];
      g.kernel[axis] = kernel[i];
      g.stride[axis] = stride[i];
      g.dilation[axis] = dilation[i];
      g.pad[axis] = padding.begin[i];
      g.out[axis] = room / stride[i] + 1;
      p.images.push_back(sizes[i]);
      taps *= kernel[i];
      count *= g.out[axis];
    }
    p.columns = Dims{batch, channels * taps, count};
    return p;
  }
};

constexpr size_t kMostAxes = 3;

Tensor unfold_int(const Tensor& input, int64_t kernel_size, IntSpan dilation, IntSpan padding,
                  IntSpan stride) {
  // As in PyTorch, three dimensions are an image without a batch.
  const Dims kernel(input.dim() == 5 ? 3 : 2, kernel_size);
  return unfold(input, kernel, dilation, padding, stride);
}

}  // namespace

Tensor unfold(const Tensor& input, IntSpan kernel_size, IntSpan dilation, IntSpan padding, IntSpan stride) {
  const size_t axes = kernel_size.size();
  OPSIN_CHECK(ShapeError, axes >= 1 && axes <= kMostAxes,
              "unfold: expected kernel_size of 1 to 3 entries, got ", str(kernel_size));
  const Windows windows("unfold", axes, kernel_size, dilation, padding, stride);
  const auto rank = static_cast<int64_t>(axes);
  OPSIN_CHECK(ShapeError, input.dim() == rank + 1 || input.dim() == rank + 2, "unfold: expected input of ",
              rank + 1, " (unbatched) or ", rank + 2, " dimensions for kernel_size ", str(windows.kernel),
              ", got ", str(input.sizes()));
  const bool batched = input.dim() == rank + 2;
  const Dims& all = input.sizes();
  Dims sizes;
  for (size_t i = all.size() - axes; i < all.size(); ++i) sizes.push_back(all[i]);
  const int64_t channels = input.size(-rank - 1);
  OPSIN_CHECK(ShapeError, channels > 0, "unfold: expected input with channels, got ", str(all));
  const Params p = windows.params(batched ? all[0] : 1, channels, sizes);
  const Tensor y = call<Unfold>(p, batched ? input : unsqueeze(input, 0));
  return batched ? y : squeeze(y, Dims{0});
}

Tensor fold(const Tensor& input, IntSpan output_size, IntSpan kernel_size, IntSpan dilation, IntSpan padding,
            IntSpan stride) {
  const size_t axes = output_size.size();
  OPSIN_CHECK(ShapeError, axes >= 1 && axes <= kMostAxes,
              "fold: expected output_size of 1 to 3 entries, got ", str(output_size));
  OPSIN_CHECK(ShapeError, !kernel_size.empty(), "fold: expected a kernel_size");
  const Windows windows("fold", axes, kernel_size, dilation, padding, stride);
  OPSIN_CHECK(ShapeError, input.dim() == 2 || input.dim() == 3,
              "fold: expected input of 2 (unbatched) or 3 dimensions, got ", str(input.sizes()));
  const bool batched = input.dim() == 3;
  int64_t taps = 1;
  for (const int64_t size : windows.kernel) taps *= size;
  const int64_t rows = input.size(-2);
  OPSIN_CHECK(ShapeError, rows > 0 && rows % taps == 0, "fold: expected dimension ", input.dim() - 2,
              " of input to be a multiple of the product of kernel_size, got ", rows, " and kernel_size ",
              str(windows.kernel), " (input ", str(input.sizes()), ")");
  const Params p = windows.params(batched ? input.sizes()[0] : 1, rows / taps, output_size);
  OPSIN_CHECK(ShapeError, input.size(-1) == p.columns[2], "fold: expected ", p.columns[2],
              " windows for output_size ", str(output_size), ", kernel_size ", str(windows.kernel),
              ", dilation ", str(windows.dilation), " and stride ", str(windows.stride), ", got input ",
              str(input.sizes()));
  const Tensor y = call<Fold>(p, batched ? input : unsqueeze(input, 0));
  return batched ? y : squeeze(y, Dims{0});
}

void register_unfold(Registry& registry) {
  register_unfold_cpu();
  registry.add<&unfold_int>(
      "nn.functional.unfold(Tensor input, int kernel_size, int[1] dilation=1, int[1] padding=0, int[1] "
      "stride=1) -> Tensor",
      "The windows of images [N, C, H, W] or volumes [N, C, D, H, W] as columns [N, C * kernel, L].");
  using Lists = Tensor (*)(const Tensor&, IntSpan, IntSpan, IntSpan, IntSpan);
  registry.add<static_cast<Lists>(&unfold)>(
      "nn.functional.unfold(Tensor input, int[] kernel_size, int[1] dilation=1, int[1] padding=0, int[1] "
      "stride=1) -> Tensor",
      "The same with one to three sizes for as many spatial axes; padding: also as (before, behind) for "
      "each.");
  registry.add<&fold>(
      "nn.functional.fold(Tensor input, int[2] output_size, int[1] kernel_size, int[1] dilation=1, int[1] "
      "padding=0, int[1] stride=1) -> Tensor",
      "The sum of columns [N, C * kernel, L] where their windows lie in an output [N, C, output_size...] of "
      "one "
      "to three spatial axes; a single number stands for two.");
}

}  // namespace opsin
