// Sampling at the points of a grid. With the image as a sum over pixels, y[c, p] = sum over i of
// w_i(g_p) x[c, i], and w_i a product of functions of one coordinate each, three ops are closed under
// differentiation, each for any order m of derivatives with respect to the coordinates:
//
//   sample_m(x, g)[c, p]     = sum_i w_i^(m)(g_p) x[c, i]
//   scatter_m(u, g)[c, i]    = sum_p w_i^(m)(g_p) u[c, p]                  its transpose
//   slopes_m(u, x, g)[p, d]  = sum_c u[c, p] sample_(m + e_d)(x, g)[c, p]  the gradient of g under u
//
// for the gradient of slopes_m under h[p, d] is, with h_d in place of one more channel, sum_d of
//   h_d sample_(m + e_d)(x, g) for u,  scatter_(m + e_d)(h_d u, g) for x,  slopes_(m + e_d)(h_d u, x, g) for
//   g.
#include "grid_sample_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/grid_sample.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<GridFn> grid_sample_forward("grid_sample");
constinit KernelSlot<GridFn> grid_sample_scatter("grid_sample_backward");
constinit KernelSlot<GridFn> grid_sample_slopes("grid_sample_backward");

namespace {

/// Whether the weights are differentiated to nothing.
bool vanishes(const GridSampling& g) {
  const int most = g.mode == grid::Mode::kNearest ? 0 : g.mode == grid::Mode::kLinear ? 1 : 3;
  return g.order[0] > most || g.order[1] > most || g.order[2] > most;
}
/// Differentiated once more with respect to coordinate d of the grid, which counts from the last axis.
GridSampling raised(GridSampling g, int d) {
  ++g.order[2 - d];
  return g;
}

GridParams params_of(const GridSampling& sampling, const Dims& image, const Tensor& grid) {
  GridParams p{sampling};
  p.dtype = grid.dtype();
  p.batch = image[0];
  p.channels = image[1];
  p.points = 1;
  for (size_t i = 0; i < static_cast<size_t>(p.rank); ++i) {
    p.size[3 - static_cast<size_t>(p.rank) + i] = image[2 + i];
    p.points *= grid.sizes()[1 + i];
  }
  p.grid = grid.impl()->physical_data();
  return p;
}

/// The sizes of values at the points of a grid.
Dims value_sizes(int64_t channels, const Tensor& grid) {
  Dims sizes = grid.sizes();
  sizes.erase(sizes.size() - 1);
  sizes.insert(1, channels);
  return sizes;
}

/// Whether vectors of channels are worth the copy of an image that lies otherwise: not for a few points.
bool prefers_channels_last(const GridParams& p, const Tensor& image) {
  if (image.impl()->is_hidden()) return true;
  return p.channels >= 8 && 2 * p.points >= p.pixels();
}
Tensor laid_out(const Tensor& x, bool channels_last) {
  return channels_last ? to_channels_last(x) : contiguous(x.detach());
}
Tensor empty_laid_out(const Dims& sizes, DType dtype, Device device, bool channels_last) {
  return channels_last ? empty_channels_last(sizes, dtype, device) : empty(sizes, dtype, device);
}

struct GridSample {
  static constexpr const char* kName = "grid_sample";
  using Params = GridSampling;
  static Tensor forward(const Params& sampling, const Tensor& x, const Tensor& grid) {
    const auto kernel = grid_sample_forward.get(x.device(), x.dtype());
    const Dims sizes = value_sizes(x.sizes()[1], grid);
    if (x.numel() == 0 || grid.numel() == 0) return zeros(sizes, x.dtype(), x.device());
    const Tensor points = contiguous(grid.detach());
    GridParams p = params_of(sampling, x.sizes(), points);
    p.channels_last = prefers_channels_last(p, x);
    const Tensor image = laid_out(x, p.channels_last);
    const Tensor y = empty_laid_out(sizes, x.dtype(), x.device(), p.channels_last);
    p.image = image.impl()->physical_data();
    p.out = y.impl()->mutable_physical_data();
    kernel(p);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& grid, const Tensor&) {
    saver.save(0, x);
    saver.save(1, grid);
  }
  static void backward(Backward& ctx, const Params& sampling);
};

struct GridScatter {
  static constexpr const char* kName = "grid_sample_backward";
  struct Params {
    GridSampling sampling;
    Dims sizes;
  };
  static Tensor forward(const Params& params, const Tensor& values, const Tensor& grid) {
    const DType dtype = values.dtype();
    const Device device = values.device();
    const auto kernel = grid_sample_scatter.get(device, dtype);
    if (values.numel() == 0) return zeros(params.sizes, dtype, device);
    const Tensor points = contiguous(grid.detach());
    GridParams p = params_of(params.sampling, params.sizes, points);
    p.channels_last = prefers_channels_last(p, values);
    const Tensor from = laid_out(values, p.channels_last);
    // 16-bit floats are added up in float32.
    const DType sum = item_size(dtype) == 2 ? kFloat32 : dtype;
    const Tensor result = empty_laid_out(params.sizes, sum, device, p.channels_last);
    p.values = from.impl()->physical_data();
    p.out = result.impl()->mutable_physical_data();
    kernel(p);
    return to(result, dtype);
  }
  static void save(Saver& saver, const Params&, const Tensor& values, const Tensor& grid, const Tensor&) {
    saver.save(0, values);
    saver.save(1, grid);
  }
  static void backward(Backward& ctx, const Params& p);
};

struct GridSlopes {
  static constexpr const char* kName = "grid_sample_backward";
  using Params = GridSampling;
  static Tensor forward(const Params& sampling, const Tensor& values, const Tensor& x, const Tensor& grid) {
    const auto kernel = grid_sample_slopes.get(x.device(), x.dtype());
    if (sampling.mode == grid::Mode::kNearest || values.numel() == 0) {
      return zeros(grid.sizes(), grid.dtype(), grid.device());
    }
    const Tensor points = contiguous(grid.detach());
    GridParams p = params_of(sampling, x.sizes(), points);
    p.channels_last = prefers_channels_last(p, x);
    const Tensor image = laid_out(x, p.channels_last), from = laid_out(values, p.channels_last);
    const Tensor result = empty(grid.sizes(), grid.dtype(), grid.device());
    p.image = image.impl()->physical_data();
    p.values = from.impl()->physical_data();
    p.out = result.impl()->mutable_physical_data();
    kernel(p);
    return result;
  }
  static void save(Saver& saver, const Params&, const Tensor& values, const Tensor& x, const Tensor& grid,
                   const Tensor&) {
    saver.save(0, values);
    saver.save(1, x);
    saver.save(2, grid);
  }
  static void backward(Backward& ctx, const Params& sampling) {
    const Tensor values = ctx.saved(0), x = ctx.saved(1), grid = ctx.saved(2);
    Tensor results[3];
    const auto add_to = [&](size_t i, const Tensor& part) {
      results[i] = results[i].defined() ? results[i] + part : part;
    };
    for (int d = 0; d < sampling.rank; ++d) {
      const GridSampling more = raised(sampling, d);
      if (vanishes(more)) continue;
      const Tensor h = unsqueeze(select(ctx.grad(), -1, d), 1);
      if (ctx.needs(0)) add_to(0, h * call<GridSample>(more, x, grid));
      if (!ctx.needs(1) && !ctx.needs(2)) continue;
      const Tensor scaled = h * values;
      if (ctx.needs(1)) add_to(1, call<GridScatter>({more, x.sizes()}, scaled, grid));
      if (ctx.needs(2)) add_to(2, call<GridSlopes>(more, scaled, x, grid));
    }
    const Tensor inputs[] = {values, x, grid};
    for (size_t i = 0; i < 3; ++i) {
      if (!ctx.needs(i)) continue;
      const Tensor& input = inputs[i];
      ctx.set(i, results[i].defined() ? results[i] : zeros(input.sizes(), input.dtype(), input.device()));
    }
  }
};

void GridSample::backward(Backward& ctx, const Params& sampling) {
  const Tensor x = ctx.saved(0), grid = ctx.saved(1);
  if (ctx.needs(0)) ctx.set(0, call<GridScatter>({sampling, x.sizes()}, ctx.grad(), grid));
  if (ctx.needs(1)) ctx.set(1, call<GridSlopes>(sampling, ctx.grad(), x, grid));
}

// <z, scatter_m(u, g)> = <sample_m(z, g), u>
void GridScatter::backward(Backward& ctx, const Params& p) {
  const Tensor values = ctx.saved(0), grid = ctx.saved(1);
  if (ctx.needs(0)) ctx.set(0, call<GridSample>(p.sampling, ctx.grad(), grid));
  if (ctx.needs(1)) ctx.set(1, call<GridSlopes>(p.sampling, values, ctx.grad(), grid));
}

}  // namespace

Tensor grid_sample(const Tensor& input, const Tensor& grid, std::string_view mode,
                   std::string_view padding_mode, bool align_corners) {
  constexpr const char* op = "grid_sample";
  if (autocast::is_on(DeviceType::kCPU, input, grid)) {
    return autocast::call<autocast::kFull>(grid_sample, input, grid, mode, padding_mode, align_corners);
  }
  if (autocast::is_on(DeviceType::kCUDA, input, grid)) {
    return autocast::call<autocast::kWidest>(grid_sample, input, grid, mode, padding_mode, align_corners);
  }
  OPSIN_CHECK(ValueError, mode == "bilinear" || mode == "nearest" || mode == "bicubic", op,
              ": expected mode to be 'bilinear', 'nearest' or 'bicubic', got '", mode, "'");
  OPSIN_CHECK(ValueError, padding_mode == "zeros" || padding_mode == "border" || padding_mode == "reflection",
              op, ": expected padding_mode to be 'zeros', 'border' or 'reflection', got '", padding_mode,
              "'");
  const int64_t rank = input.dim() - 2;
  OPSIN_CHECK(ShapeError, (rank == 2 || rank == 3) && grid.dim() == input.dim(), op,
              ": expected 4-D or 5-D input and grid of the same number of dimensions, got ",
              str(input.sizes()), " and ", str(grid.sizes()));
  OPSIN_CHECK(ShapeError, grid.size(-1) == rank, op, ": expected grid to have size ", rank,
              " in its last dimension, got ", str(grid.sizes()));
  OPSIN_CHECK(ShapeError, grid.size(0) == input.size(0), op,
              ": expected input and grid to have the same batch size, got ", str(input.sizes()), " and ",
              str(grid.sizes()));
  OPSIN_CHECK(ShapeError, mode != "bicubic" || rank == 2, op, ": mode 'bicubic' is for 4-D input, got ",
              str(input.sizes()));
  OPSIN_CHECK(Error, is_floating_point(input.dtype()) && input.dtype() == grid.dtype(), op,
              ": expected input and grid of the same floating-point dtype, got ", name(input.dtype()),
              " and ", name(grid.dtype()), " (convert one with to())");
  int64_t pixels = 1;
  for (int64_t d = 2; d < input.dim(); ++d) {
    OPSIN_CHECK(ShapeError, input.size(d) > 0, op, ": expected input with non-empty spatial dimensions, got ",
                str(input.sizes()));
    pixels *= input.size(d);
  }
  OPSIN_CHECK(ShapeError, pixels <= INT32_MAX, op, ": expected at most 2^31 pixels per image, got ",
              str(input.sizes()));
  GridSampling sampling;
  sampling.mode = mode == "nearest"    ? grid::Mode::kNearest
                  : mode == "bilinear" ? grid::Mode::kLinear
                                       : grid::Mode::kCubic;
  sampling.padding = padding_mode == "zeros"    ? grid::Padding::kZeros
                     : padding_mode == "border" ? grid::Padding::kBorder
                                                : grid::Padding::kReflection;
  sampling.align_corners = align_corners;
  sampling.rank = static_cast<int>(rank);
  return call<GridSample>(sampling, input, grid);
}

namespace {
Tensor grid_sample_schema(const Tensor& input, const Tensor& grid, std::string_view mode,
                          std::string_view padding_mode, std::optional<bool> align_corners) {
  return grid_sample(input, grid, mode, padding_mode, align_corners.value_or(false));
}
}  // namespace

void register_warp(Registry& registry);

void register_grid_sample(Registry& registry) {
  register_grid_sample_cpu();
  register_warp(registry);
  registry.add<&grid_sample_schema>(
      "nn.functional.grid_sample(Tensor input, Tensor grid, str mode='bilinear', str padding_mode='zeros', "
      "bool? "
      "align_corners=None) -> Tensor",
      "`input` at the points of `grid`, whose last dimension is (x, y) or (x, y, z) from -1 to 1. mode: "
      "'bilinear', "
      "'nearest' or 'bicubic'; padding_mode: 'zeros', 'border' or 'reflection'. NaN counts as -1.");
}

}  // namespace opsin
