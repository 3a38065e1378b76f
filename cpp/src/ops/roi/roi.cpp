// Pooling of regions of interest.
#include "composed.h"
#include "roi_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/roi.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const RoiParams&, const void*, const void*, void*, int32_t*)> roi_forward{
    "roi_pooling"};
constinit KernelSlot<void (*)(const RoiParams&, const void*, const void*, const int32_t*, void*)>
    roi_backward_input{"roi_pooling_backward_input"};
constinit KernelSlot<void (*)(const RoiParams&, const void*, const void*, const void*, const int32_t*, void*)>
    roi_backward_boxes{"roi_pooling_backward_boxes"};

namespace {

/// Channels last, or back.
Dims moved_channels(int64_t rank, bool last) {
  Dims order{0};
  if (!last) order.push_back(rank - 1);
  for (int64_t d = 1; d < rank; ++d) {
    if (d != (last ? 1 : rank - 1)) order.push_back(d);
  }
  if (last) order.push_back(1);
  return order;
}

/// Of regions by bin: channel c * bins + b of image n becomes channel c of plane n * bins + b.
Tensor planes_of(const RoiGeometry& g, const Tensor& x) {
  if (!g.by_bin) return x;
  Dims apart{g.images, g.channels, g.bins()}, together{g.planes(), g.channels};
  for (int64_t d = 2; d < x.dim(); ++d) {
    apart.push_back(x.size(d));
    together.push_back(x.size(d));
  }
  return reshape(transpose(reshape(x, apart), 1, 2), together);
}
/// The way back.
Tensor images_of(const RoiGeometry& g, const Tensor& planes, const Dims& sizes) {
  if (!g.by_bin) return planes;
  Dims apart{g.images, g.bins(), g.channels};
  for (size_t d = 2; d < sizes.size(); ++d) apart.push_back(sizes[d]);
  return reshape(transpose(reshape(planes, apart), 1, 2), sizes);
}

const int32_t* data_of(const Tensor& taken) {
  return taken.defined() ? reinterpret_cast<const int32_t*>(taken.impl()->physical_data()) : nullptr;
}

// y = A(boxes) x, where the entries of A are products of the linear weights of samples. So dx = A^T dy, and
// d boxes = dy^T (dA / d boxes) x. A maximum has one sample for each element.
struct RoiPooling {
  static constexpr const char* kName = "roi_pooling";
  struct Params : RoiParams {
    Dims x_sizes, y_sizes;
  };
  static const char* name(const Params& p) { return p.op; }

  /// y, and for the gradient of a maximum which sample it was.
  static std::array<Tensor, 2> forward(const Params& p, const Tensor& x, const Tensor& boxes) {
    const auto kernel = roi_forward.get(x.device(), p.dtype);
    const Tensor where = contiguous(boxes);
    if (p.planar) {
      const Tensor y = empty(p.y_sizes, p.dtype, x.device()), from = contiguous(x.detach());
      if (y.numel() > 0) {
        kernel(p, from.impl()->data(), where.impl()->data(), y.impl()->mutable_physical_data(), nullptr);
      }
      return {y, Tensor()};
    }
    const Tensor y = empty_channels_last(p.y_sizes, p.dtype, x.device());
    const Tensor taken = p.geometry.maximum ? empty_channels_last(p.y_sizes, kInt32, x.device()) : Tensor();
    if (y.numel() == 0) return {y, taken};
    const Tensor from = to_channels_last(planes_of(p.geometry, x.detach()));
    kernel(p, from.impl()->physical_data(), where.impl()->data(), y.impl()->mutable_physical_data(),
           taken.defined() ? reinterpret_cast<int32_t*>(taken.impl()->mutable_physical_data()) : nullptr);
    return {y, taken};
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& boxes,
                   const std::array<Tensor, 2>& outputs) {
    if (saver.needs(1)) saver.save(0, x);
    saver.save(1, boxes);
    if (outputs[1].defined()) saver.save_output(2, outputs[1]);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const Tensor x = ctx.saved(0), boxes = ctx.saved(1), taken = ctx.saved(2);
    const DType compute = compute_type(p.dtype);
    if (grad.numel() == 0) {
      if (ctx.needs(0)) ctx.set(0, zeros(p.x_sizes, p.dtype, grad.device()));
      if (ctx.needs(1)) ctx.set(1, zeros(boxes.sizes(), compute, grad.device()));
    } else if (ctx.create_graph()) {
      const auto rows = [&](const Tensor& t) {
        return permute(to(t, compute), moved_channels(t.dim(), /*last=*/true));
      };
      const RoiGradients gradients =
          composed_roi_gradients(p, ctx.needs(1) ? rows(planes_of(p.geometry, x)) : Tensor(), boxes, taken,
                                 rows(grad), ctx.needs(0), ctx.needs(1));
      if (ctx.needs(0)) {
        const Tensor& input = gradients.input;
        const Tensor planes = permute(input, moved_channels(input.dim(), /*last=*/false));
        ctx.set(0, to(images_of(p.geometry, planes, p.x_sizes), p.dtype));
      }
      if (ctx.needs(1)) ctx.set(1, gradients.boxes);
    } else {
      const Tensor where = contiguous(boxes);
      if (ctx.needs(0)) ctx.set(0, to(input_gradient(p, where, grad, taken), p.dtype));
      if (ctx.needs(1)) {
        const Tensor grad_boxes = zeros(boxes.sizes(), compute, grad.device()), g = to_channels_last(grad);
        const Tensor from = to_channels_last(planes_of(p.geometry, x));
        roi_backward_boxes.get(grad.device(), p.dtype)(p, from.impl()->physical_data(), where.impl()->data(),
                                                       g.impl()->physical_data(), data_of(taken),
                                                       grad_boxes.impl()->mutable_data());
        ctx.set(1, grad_boxes);
      }
    }
  }
  static Tensor input_gradient(const Params& p, const Tensor& boxes, const Tensor& grad,
                               const Tensor& taken) {
    const auto kernel = roi_backward_input.get(grad.device(), p.dtype);
    const DType compute = compute_type(p.dtype);
    if (p.planar) {
      const Tensor g = contiguous(grad), grad_x = empty(p.x_sizes, compute, grad.device());
      kernel(p, boxes.impl()->data(), g.impl()->data(), nullptr, grad_x.impl()->mutable_physical_data());
      return grad_x;
    }
    const RoiGeometry& geometry = p.geometry;
    Dims sizes = p.x_sizes;
    sizes[0] = geometry.planes();
    sizes[1] = geometry.channels;
    const Tensor g = to_channels_last(grad), grad_x = empty_channels_last(sizes, compute, grad.device());
    kernel(p, boxes.impl()->data(), g.impl()->physical_data(), data_of(taken),
           grad_x.impl()->mutable_physical_data());
    return images_of(geometry, grad_x, p.x_sizes);
  }
};

struct Options {
  double scale;
  int64_t ratio = 1;
  bool maximum = false, pixels = false, half_open = false, aligned = false, by_bin = false;
};

/// Checks everything and pools.
Tensor pool(const char* op, const Tensor& input, const Tensor& boxes, IntSpan output_size,
            const Options& options) {
  OPSIN_CHECK(ShapeError, input.dim() >= 3 && input.dim() <= 5, op,
              ": expected input [N, C, spatial...] with 1 to 3 spatial axes, got ", str(input.sizes()));
  OPSIN_CHECK(TypeError, is_floating_point(input.dtype()) && is_floating_point(boxes.dtype()), op,
              ": expected floating-point input and boxes, got ", name(input.dtype()), " and ",
              name(boxes.dtype()));
  const auto axes = static_cast<size_t>(input.dim()) - 2;
  RoiPooling::Params p;
  p.op = op;
  p.dtype = input.dtype();
  RoiGeometry& g = p.geometry;
  g.axes = static_cast<int>(axes);
  OPSIN_CHECK(ShapeError, boxes.dim() == 2 && boxes.size(1) == g.columns(), op, ": expected boxes [K, ",
              g.columns(), "] or a list of [L, ", g.columns() - 1, "] for input ", str(input.sizes()),
              ", got ", str(boxes.sizes()));
  OPSIN_CHECK(ShapeError, !output_size.empty(), op, ": expected an output_size");
  const Dims pooled = per_axis(output_size, axes, 1, 1, op, "output_size");
  int64_t samples = 1;
  for (size_t i = 0; i < 3; ++i) g.size[i] = g.pooled[i] = 1;
  for (size_t i = 0; i < axes; ++i) {
    const int64_t size = input.sizes()[2 + i];
    OPSIN_CHECK(ShapeError, size > 0 && size < INT32_MAX / 2, op,
                ": expected spatial sizes from 1 to 2^30, got input ", str(input.sizes()));
    OPSIN_CHECK(ShapeError, pooled[i] < 1 << 15, op, ": expected an output_size below 2^15, got ",
                str(pooled));
    g.size[3 - axes + i] = static_cast<int>(size);
    g.pooled[3 - axes + i] = static_cast<int>(pooled[i]);
    samples *= options.ratio > 0 ? options.ratio : 2 * size + 8;
    OPSIN_CHECK(
        ValueError, options.ratio <= roi::kMostSamples && (!options.maximum || samples <= INT32_MAX), op,
        ": expected at most 2^20 samples per axis and, for a maximum, 2^31 per bin, got sampling_ratio=",
        options.ratio, " and input ", str(input.sizes()));
  }
  g.images = input.size(0);
  g.channels = input.size(1);
  g.rois = boxes.size(0);
  g.maximum = options.maximum;
  g.pixels = options.pixels;
  g.half_open = options.half_open;
  g.by_bin = options.by_bin;
  g.least_one = !options.aligned;
  g.ratio = static_cast<int>(std::max<int64_t>(options.ratio, 0));
  g.scale = options.scale;
  g.offset = options.aligned ? 0.5 : 0;
  if (g.by_bin) {
    OPSIN_CHECK(ShapeError, g.channels % g.bins() == 0, op, ": expected a multiple of ", g.bins(),
                " channels for output_size ", str(pooled), ", got input ", str(input.sizes()));
    g.channels /= g.bins();
    // Vectors of fewer channels than this are not worth moving the planes.
    constexpr int64_t kFew = 32;
    p.planar = input.device().is_cpu() && g.channels < kFew;
  }
  p.x_sizes = input.sizes();
  p.y_sizes = Dims{g.rois, g.channels};
  for (const int64_t size : pooled) p.y_sizes.push_back(size);
  const Tensor where = to(g.pixels ? boxes.detach() : boxes, compute_type(p.dtype));
  return call<RoiPooling>(p, input, where)[0];
}

/// The boxes of each image as rows that begin with its number.
Tensor joined(const char* op, const Tensor& input, TensorSpan boxes) {
  const int64_t columns = 2 * (input.dim() - 2);
  OPSIN_CHECK(ShapeError, !boxes.empty(), op, ": expected boxes of at least one image, got an empty list");
  TensorList parts;
  for (const Tensor& t : boxes) {
    OPSIN_CHECK(ShapeError, t.dim() == 2 && t.size(1) == columns, op, ": expected a list of boxes [L, ",
                columns, "] for input ", str(input.sizes()), ", got ", str(t.sizes()));
    OPSIN_CHECK(TypeError, is_floating_point(t.dtype()), op, ": expected floating-point boxes, got ",
                name(t.dtype()));
    // Numbers above 2048 do not fit into 16 bits.
    const DType dtype = compute_type(t.dtype());
    const Tensor image = full(Dims{t.size(0), 1}, static_cast<int64_t>(parts.size()), dtype, t.device());
    parts.push_back(cat(TensorList{image, to(t, dtype)}, 1));
  }
  return cat(parts, 0);
}

bool is_maximum(std::string_view mode) {
  OPSIN_CHECK(ValueError, mode == "avg" || mode == "max", "roi_align: expected mode 'avg' or 'max', got '",
              mode, "'");
  return mode == "max";
}

}  // namespace

Tensor roi_pool(const Tensor& input, const Tensor& boxes, IntSpan output_size, double spatial_scale) {
  return pool("roi_pool", input, boxes, output_size,
              {.scale = spatial_scale, .maximum = true, .pixels = true});
}
Tensor roi_pool(const Tensor& input, TensorSpan boxes, IntSpan output_size, double spatial_scale) {
  return roi_pool(input, joined("roi_pool", input, boxes), output_size, spatial_scale);
}

Tensor roi_align(const Tensor& input, const Tensor& boxes, IntSpan output_size, double spatial_scale,
                 int64_t sampling_ratio, bool aligned, std::string_view mode) {
  return pool(
      "roi_align", input, boxes, output_size,
      {.scale = spatial_scale, .ratio = sampling_ratio, .maximum = is_maximum(mode), .aligned = aligned});
}
Tensor roi_align(const Tensor& input, TensorSpan boxes, IntSpan output_size, double spatial_scale,
                 int64_t sampling_ratio, bool aligned, std::string_view mode) {
  return roi_align(input, joined("roi_align", input, boxes), output_size, spatial_scale, sampling_ratio,
                   aligned, mode);
}

Tensor ps_roi_pool(const Tensor& input, const Tensor& boxes, IntSpan output_size, double spatial_scale) {
  return pool("ps_roi_pool", input, boxes, output_size,
              {.scale = spatial_scale, .pixels = true, .half_open = true, .by_bin = true});
}
Tensor ps_roi_pool(const Tensor& input, TensorSpan boxes, IntSpan output_size, double spatial_scale) {
  return ps_roi_pool(input, joined("ps_roi_pool", input, boxes), output_size, spatial_scale);
}

Tensor ps_roi_align(const Tensor& input, const Tensor& boxes, IntSpan output_size, double spatial_scale,
                    int64_t sampling_ratio) {
  return pool("ps_roi_align", input, boxes, output_size,
              {.scale = spatial_scale, .ratio = sampling_ratio, .aligned = true, .by_bin = true});
}
Tensor ps_roi_align(const Tensor& input, TensorSpan boxes, IntSpan output_size, double spatial_scale,
                    int64_t sampling_ratio) {
  return ps_roi_align(input, joined("ps_roi_align", input, boxes), output_size, spatial_scale,
                      sampling_ratio);
}

namespace {

/// Both overloads of a function: boxes as one tensor or as a list.
template <auto kSingle, auto kList>
void add_both(Registry& registry, const char* name, const char* rest, const char* doc) {
  const auto text = [&](const char* type) {
    return std::string(name) + "(Tensor input, " + type +
           " boxes, int[1] output_size, float spatial_scale=1.0" + rest + ") -> Tensor";
  };
  registry.add<kSingle>(text("Tensor").c_str(), doc);
  registry.add<kList>(text("Tensor[]").c_str(), doc);
}

template <class Boxes>
using PoolFn = Tensor (*)(const Tensor&, Boxes, IntSpan, double);
template <class Boxes>
using PositionFn = Tensor (*)(const Tensor&, Boxes, IntSpan, double, int64_t);
template <class Boxes>
using AlignFn = Tensor (*)(const Tensor&, Boxes, IntSpan, double, int64_t, bool, std::string_view);

}  // namespace

void register_roi(Registry& registry) {
  register_roi_cpu();
  add_both<static_cast<PoolFn<const Tensor&>>(&roi_pool), static_cast<PoolFn<TensorSpan>>(&roi_pool)>(
      registry, "ops.roi_pool", "",
      "The largest value of each bin of boxes [K, 1 + 2 axes] (image, x1, y1, x2, y2) that are rounded to "
      "pixels; or a list of [L, 2 axes], one for each image.");
  add_both<static_cast<AlignFn<const Tensor&>>(&roi_align), static_cast<AlignFn<TensorSpan>>(&roi_align)>(
      registry, "ops.roi_align", ", int sampling_ratio=-1, bool aligned=False, *, str mode='avg'",
      "The mean (or with mode='max' the largest) of points sampled between pixels in each bin of boxes "
      "[K, 1 + 2 axes] (image, x1, y1, x2, y2); or a list of [L, 2 axes], one for each image. Gradients also "
      "for the boxes.");
  add_both<static_cast<PoolFn<const Tensor&>>(&ps_roi_pool), static_cast<PoolFn<TensorSpan>>(&ps_roi_pool)>(
      registry, "ops.ps_roi_pool", "",
      "The mean of each bin of boxes that are rounded to pixels, each bin from channels of its own.");
  add_both<static_cast<PositionFn<const Tensor&>>(&ps_roi_align),
           static_cast<PositionFn<TensorSpan>>(&ps_roi_align)>(
      registry, "ops.ps_roi_align", ", int sampling_ratio=-1",
      "The mean of points sampled between pixels in each bin of boxes, each bin from channels of its own.");
}

}  // namespace opsin
