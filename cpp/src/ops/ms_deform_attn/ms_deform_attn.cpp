// Multi-scale deformable attention.
#include "ms_deform_attn_kernels.h"

#include <vector>

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/ms_deform_attn.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "autograd/autocast.h"
#include "core/call.h"
#include "core/registry.h"
#include "ops/roi/corners.h"

namespace opsin {

constinit KernelSlot<void (*)(const MsDeformAttnParams&, const void*, void*)> ms_deform_attn_forward{
    "ms_deform_attn"};
constinit KernelSlot<void (*)(const MsDeformAttnParams&, const void*, void*)> ms_deform_attn_backward_value{
    "ms_deform_attn_backward_value"};
constinit KernelSlot<void (*)(const MsDeformAttnParams&, const void*, const void*, void*, void*)>
    ms_deform_attn_backward_points{"ms_deform_attn_backward_points"};

namespace {

// With w the attention, f the fractions of a point in its cell and v the values at its corners,
// y = sum of w * (products of f and 1 - f) * v. The rule follows from the sum being linear in each of them.
struct MsDeformAttn {
  static constexpr const char* kName = "ms_deform_attn";
  using Params = MsDeformAttnParams;

  static Tensor forward(const Params& p, const Tensor& value, const Tensor& shapes, const Tensor& starts,
                        const Tensor& locations, const Tensor& weights) {
    const auto kernel = ms_deform_attn_forward.get(value.device(), p.dtype);
    const Dims sizes{p.images, p.queries, p.heads * p.channels};
    if (is_empty(p)) return zeros(sizes, p.dtype, value.device());
    const Tensor y = empty(sizes, p.dtype, value.device());
    const Tensor where = contiguous(locations), attention = contiguous(weights), from = contiguous(value);
    kernel(filled(p, shapes, starts, where, attention), from.impl()->data(), y.impl()->mutable_data());
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& value, const Tensor& shapes,
                   const Tensor& starts, const Tensor& locations, const Tensor& weights, const Tensor&) {
    if (saver.needs(3) || saver.needs(4)) saver.save(0, value);
    saver.save(1, shapes);
    saver.save(2, starts);
    saver.save(3, locations);
    saver.save(4, weights);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor value = ctx.saved(0), shapes = ctx.saved(1), starts = ctx.saved(2), locations = ctx.saved(3),
                 weights = ctx.saved(4);
    const bool of_points = ctx.needs(3) || ctx.needs(4);
    const Device device = ctx.grad().device();
    const DType compute = compute_type(p.dtype);
    const Dims value_sizes{p.images, p.length, p.heads, p.channels};
    if (is_empty(p)) {
      if (ctx.needs(0)) ctx.set(0, zeros(value_sizes, p.dtype, device));
      if (ctx.needs(3)) ctx.set(3, zeros(locations.sizes(), compute, device));
      if (ctx.needs(4)) ctx.set(4, zeros(weights.sizes(), compute, device));
      return;
    }
    if (ctx.create_graph()) return composed(ctx, p, value, shapes, starts, locations, weights);
    const Tensor g = contiguous(ctx.grad()), where = contiguous(locations), attention = contiguous(weights);
    const MsDeformAttnParams params = filled(p, shapes, starts, where, attention);
    if (ctx.needs(0)) {
      const Tensor grad_value = empty(value_sizes, compute, device);
      ms_deform_attn_backward_value.get(device, p.dtype)(params, g.impl()->data(),
                                                         grad_value.impl()->mutable_data());
      ctx.set(0, to(grad_value, p.dtype));
    }
    if (!of_points) return;
    const Tensor from = contiguous(value);
    const Tensor grad_locations = empty(locations.sizes(), compute, device);
    const Tensor grad_weights = empty(weights.sizes(), compute, device);
    ms_deform_attn_backward_points.get(device, p.dtype)(params, from.impl()->data(), g.impl()->data(),
                                                        grad_locations.impl()->mutable_data(),
                                                        grad_weights.impl()->mutable_data());
    if (ctx.needs(3)) ctx.set(3, grad_locations);
    if (ctx.needs(4)) ctx.set(4, grad_weights);
  }

 private:
  static bool is_empty(const Params& p) {
    return p.images * p.length * p.heads * p.channels * p.queries * p.samples() == 0;
  }
  static MsDeformAttnParams filled(const Params& p, const Tensor& shapes, const Tensor& starts,
                                   const Tensor& locations, const Tensor& weights) {
    MsDeformAttnParams params = p;
    params.shapes = shapes.data<int64_t>();
    params.starts = starts.data<int64_t>();
    params.locations = locations.impl()->data();
    params.weights = weights.impl()->data();
    return params;
  }

  /// The points of one level as samples between rows of value [N * S * M, D].
  static Corners corners_of(const Params& p, int64_t level, const int64_t* size, int64_t start,
                            const Tensor& locations) {
    const Device device = locations.device();
    const DType dtype = locations.dtype();
    Corners corners;
    // [N, Lq, M, P]: the row of the first pixel of the level.
    const auto along = [&](int64_t n, const Dims& shape) {
      return reshape(arange(0, n, 1, kInt64, device), shape);
    };
    const Tensor first =
        (along(p.images, {p.images, 1, 1, 1}) * Scalar(p.length) + Scalar(start)) * Scalar(p.heads) +
        along(p.heads, {1, 1, p.heads, 1});
    const Tensor here = select(locations, 3, level);
    Tensor valid;
    std::vector<Tensor> at, low;
    for (int64_t i = 0; i < p.axes; ++i) {
      const int64_t n = size[p.axes - 1 - i];
      at.push_back(select(here, 4, i) * Scalar(n) - Scalar(0.5));
      const Tensor seen = at.back().detach();
      const Tensor within = logical_and(gt(seen, wrap_number(-1.0)), lt(seen, wrap_number(n)));
      valid = valid.defined() ? logical_and(valid, within) : within;
    }
    for (Tensor& axis : at) {
      axis = reshape(where(valid, axis, zeros(Dims{}, dtype, device)), Dims{-1});
      low.push_back(floor(axis.detach()));
      corners.fractions.push_back(axis - low.back());
    }
    valid = reshape(valid, Dims{-1});
    const Tensor base = reshape(expand(first, Dims{p.images, p.queries, p.heads, p.points}), Dims{-1});
    for (int64_t corner = 0; corner < 1 << p.axes; ++corner) {
      Tensor inside = valid, pixel;
      int64_t stride = 1;
      for (int64_t i = 0; i < p.axes; ++i) {
        const int64_t n = size[p.axes - 1 - i];
        const Tensor place = to(low[static_cast<size_t>(i)], kInt64) + Scalar(corner >> i & 1);
        inside = logical_and(inside, logical_and(ge(place, wrap_number(0)), lt(place, wrap_number(n))));
        const Tensor part = clamp(place, wrap_number(0), wrap_number(n - 1)) * Scalar(stride);
        pixel = pixel.defined() ? pixel + part : part;
        stride *= n;
      }
      corners.rows.push_back(base + pixel * Scalar(p.heads));
      corners.shares.push_back(to(inside, dtype));
    }
    return corners;
  }

  static void composed(Backward& ctx, const Params& p, const Tensor& value, const Tensor& shapes,
                       const Tensor& starts, const Tensor& locations, const Tensor& weights) {
    const DType compute = compute_type(p.dtype);
    const Tensor sizes = to(shapes, kCPU), begins = to(starts, kCPU);
    const Dims one_point{p.images, p.queries, p.heads, 1, p.channels};
    const Dims all_points{p.images, p.queries, p.heads, p.points, p.channels};
    const Tensor g =
        reshape(expand(reshape(to(ctx.grad(), compute), one_point), all_points), Dims{-1, p.channels});
    const bool of_points = ctx.needs(3) || ctx.needs(4);
    const Tensor rows = of_points ? reshape(to(value, compute), Dims{-1, p.channels}) : Tensor();
    const Dims by_point{p.images, p.queries, p.heads, p.points};
    Tensor grad_value;
    TensorList grad_locations, grad_weights;
    for (int64_t level = 0; level < p.levels; ++level) {
      const int64_t* const size = sizes.data<int64_t>() + level * p.axes;
      const Corners corners = corners_of(p, level, size, begins.data<int64_t>()[level], locations);
      const Tensor weighted = g * reshape(select(weights, 3, level), Dims{-1, 1});
      if (ctx.needs(0)) {
        const Tensor part = corners.spread(weighted, p.images * p.length * p.heads);
        grad_value = grad_value.defined() ? grad_value + part : part;
      }
      if (ctx.needs(4)) grad_weights.push_back(reshape(sum(corners.of(rows) * g, Dims{1}), by_point));
      if (!ctx.needs(3)) continue;
      TensorList axes = corners.slopes(rows, weighted);
      for (size_t i = 0; i < axes.size(); ++i) {
        // A point outside keeps its place whatever the location.
        axes[i] = reshape(axes[i] * Scalar(size[axes.size() - 1 - i]), by_point);
      }
      grad_locations.push_back(stack(axes, 4));
    }
    if (ctx.needs(0)) {
      ctx.set(0, to(reshape(grad_value, Dims{p.images, p.length, p.heads, p.channels}), p.dtype));
    }
    if (ctx.needs(3)) ctx.set(3, stack(grad_locations, 3));
    if (ctx.needs(4)) ctx.set(4, stack(grad_weights, 3));
  }
};

Tensor as_indices(const Tensor& t, const char* what) {
  OPSIN_CHECK(TypeError, t.dtype() == kInt64 || t.dtype() == kInt32, "ms_deform_attn: expected ", what,
              " of int64 or int32, got ", name(t.dtype()));
  return contiguous(to(t.detach(), kInt64));
}

}  // namespace

Tensor ms_deform_attn(const Tensor& value, const Tensor& spatial_shapes, const Tensor& level_start_index,
                      const Tensor& sampling_locations, const Tensor& attention_weights) {
  // As grid_sample().
  if (autocast::is_on(DeviceType::kCPU, value)) {
    return autocast::call<autocast::kFull>(ms_deform_attn, value, spatial_shapes, level_start_index,
                                           sampling_locations, attention_weights);
  }
  if (autocast::is_on(DeviceType::kCUDA, value)) {
    return autocast::call<autocast::kWidest>(ms_deform_attn, value, spatial_shapes, level_start_index,
                                             sampling_locations, attention_weights);
  }
  OPSIN_CHECK(ShapeError, value.dim() == 4, "ms_deform_attn: expected value [N, S, M, D], got ",
              str(value.sizes()));
  OPSIN_CHECK(ShapeError, value.size(1) < 1 << 29,
              "ms_deform_attn: expected value [N, S, M, D] with S below 2^29, "
              "got ",
              str(value.sizes()));
  for (const Tensor& t : {value, sampling_locations, attention_weights}) {
    OPSIN_CHECK(
        TypeError, is_floating_point(t.dtype()),
        "ms_deform_attn: expected floating-point value, sampling_locations and attention_weights, got ",
        name(t.dtype()));
  }
  OPSIN_CHECK(ShapeError,
              spatial_shapes.dim() == 2 && spatial_shapes.size(1) >= 1 && spatial_shapes.size(1) <= 3,
              "ms_deform_attn: expected spatial_shapes [L, 1 to 3], got ", str(spatial_shapes.sizes()));
  const int64_t levels = spatial_shapes.size(0), axes = spatial_shapes.size(1);
  OPSIN_CHECK(ShapeError, level_start_index.sizes() == Dims{levels},
              "ms_deform_attn: expected level_start_index [", levels, "] for spatial_shapes ",
              str(spatial_shapes.sizes()), ", got ", str(level_start_index.sizes()));
  const Dims& where = sampling_locations.sizes();
  OPSIN_CHECK(ShapeError,
              where.size() == 6 && where[0] == value.size(0) && where[2] == value.size(2) &&
                  where[3] == levels && where[5] == axes,
              "ms_deform_attn: expected sampling_locations [", value.size(0), ", Lq, ", value.size(2), ", ",
              levels, ", P, ", axes, "] for value ", str(value.sizes()), " and spatial_shapes ",
              str(spatial_shapes.sizes()), ", got ", str(where));
  const Dims per_point{where[0], where[1], where[2], where[3], where[4]};
  OPSIN_CHECK(ShapeError, attention_weights.sizes() == per_point,
              "ms_deform_attn: expected attention_weights ", str(per_point), " for sampling_locations ",
              str(where), ", got ", str(attention_weights.sizes()));
  MsDeformAttn::Params p{};
  p.images = value.size(0);
  p.length = value.size(1);
  p.heads = value.size(2);
  p.channels = value.size(3);
  p.queries = where[1];
  p.levels = levels;
  p.points = where[4];
  p.axes = static_cast<int>(axes);
  p.dtype = value.dtype();
  const Tensor shapes = as_indices(spatial_shapes, "spatial_shapes");
  const Tensor starts = as_indices(level_start_index, "level_start_index");
  if (shapes.device().is_cpu() && starts.device().is_cpu()) {
    p.shapes = shapes.data<int64_t>();
    p.starts = starts.data<int64_t>();
    for (int64_t level = 0; level < levels; ++level) {
      OPSIN_CHECK(ValueError, is_level(p, level), "ms_deform_attn: expected levels within value ",
                  str(value.sizes()), ", got level ", level, " of spatial shape ",
                  str(IntSpan(p.shapes + level * axes, static_cast<size_t>(axes))), " from ",
                  p.starts[level]);
    }
  }
  const DType compute = compute_type(p.dtype);
  const Device device = value.device();
  return call<MsDeformAttn>(p, value, to(shapes, device), to(starts, device), to(sampling_locations, compute),
                            to(attention_weights, compute));
}

void register_ms_deform_attn(Registry& registry) {
  register_ms_deform_attn_cpu();
  registry.add<&ms_deform_attn>(
      "ops.ms_deform_attn(Tensor value, Tensor spatial_shapes, Tensor level_start_index, "
      "Tensor sampling_locations, Tensor attention_weights) -> Tensor",
      "Multi-scale deformable attention: value [N, S, M, D] sampled at [N, Lq, M, L, P, 2] (x, y from 0 to "
      "1) "
      "and summed with weights [N, Lq, M, L, P] to [N, Lq, M * D].");
}

}  // namespace opsin
