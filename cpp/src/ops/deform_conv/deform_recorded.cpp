// The gradients as a composition. With A for the coefficients of corners, the form
//
//     F(A, x, u) = sum of A[r, t, j] x[corner(r, t, j), c] u[r, t, c]
//
// is linear in each, and its three derivatives are ops whose gradients are the other two; A comes from offset
// and mask by products. In between pixels the corners don't move, so they have no gradient.
#include "deform_map.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/channels_last.h"

namespace opsin {

namespace {

DeformPart whole(const DeformParams& p, DType dtype, const Tensor& offset) {
  DeformPart part{};
  part.geometry = p.geometry;
  part.dtype = dtype;
  part.rows = p.rows();
  part.offset = offset.impl()->physical_data();
  return part;
}
Dims column_sizes(const DeformParams& p) { return {p.geometry.groups, p.rows(), p.taps() * p.channels()}; }

Tensor sampled(const DeformParams& p, const Tensor& x, const Tensor& coefficients, const Tensor& offset);
Tensor spread(const DeformParams& p, const Tensor& columns, const Tensor& coefficients, const Tensor& offset);
Tensor products(const DeformParams& p, const Tensor& x, const Tensor& columns, const Tensor& offset);

/// dF/du
struct DeformColumns {
  static constexpr const char* kName = "deform_columns";
  using Params = DeformParams;
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& coefficients, const Tensor& offset) {
    const Tensor y = empty(column_sizes(p), x.dtype(), x.device());
    const Tensor from = to_channels_last(x), moved = to_channels_last(offset), by = contiguous(coefficients);
    DeformPart part = whole(p, x.dtype(), moved);
    part.x = from.impl()->physical_data();
    part.coefficients = by.impl()->data();
    part.columns = y.impl()->mutable_data();
    deform_columns.get(x.device(), x.dtype())(part);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& coefficients,
                   const Tensor& offset, const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, coefficients);
    saver.save(2, offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, spread(p, ctx.grad(), ctx.saved(1), ctx.saved(2)));
    if (ctx.needs(1)) ctx.set(1, products(p, ctx.saved(0), ctx.grad(), ctx.saved(2)));
  }
};

/// dF/dx
struct DeformSpread {
  static constexpr const char* kName = "deform_spread";
  using Params = DeformParams;
  static Tensor forward(const Params& p, const Tensor& columns, const Tensor& coefficients,
                        const Tensor& offset) {
    const DType dtype = columns.dtype();
    const Tensor sums = zeros_channels_last(p.x_sizes, deform_sum_type(dtype), columns.device());
    const Tensor from = contiguous(columns), moved = to_channels_last(offset), by = contiguous(coefficients);
    DeformPart part = whole(p, dtype, moved);
    part.coefficients = by.impl()->data();
    part.columns = const_cast<char*>(from.impl()->data());
    part.sums = sums.impl()->mutable_physical_data();
    deform_spread.get(columns.device(), dtype)(part);
    return to(sums, dtype);
  }
  static void save(Saver& saver, const Params&, const Tensor& columns, const Tensor& coefficients,
                   const Tensor& offset, const Tensor&) {
    if (saver.needs(1)) saver.save(0, columns);
    if (saver.needs(0)) saver.save(1, coefficients);
    saver.save(2, offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, sampled(p, ctx.grad(), ctx.saved(1), ctx.saved(2)));
    if (ctx.needs(1)) ctx.set(1, products(p, ctx.grad(), ctx.saved(0), ctx.saved(2)));
  }
};

/// dF/dA
struct DeformProducts {
  static constexpr const char* kName = "deform_products";
  using Params = DeformParams;
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& columns, const Tensor& offset) {
    const DType dtype = x.dtype();
    const Tensor y = empty({p.rows(), p.geometry.offset_groups * p.taps(), int64_t{1} << p.geometry.spatial},
                           deform_sum_type(dtype), x.device());
    const Tensor left = to_channels_last(x), right = contiguous(columns), moved = to_channels_last(offset);
    DeformPart part = whole(p, dtype, moved);
    part.x = left.impl()->physical_data();
    part.columns = const_cast<char*>(right.impl()->data());
    part.grad_coefficients = y.impl()->mutable_data();
    deform_products.get(x.device(), dtype)(part);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& columns, const Tensor& offset,
                   const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, columns);
    saver.save(2, offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.needs(0)) ctx.set(0, spread(p, ctx.saved(1), ctx.grad(), ctx.saved(2)));
    if (ctx.needs(1)) ctx.set(1, sampled(p, ctx.saved(0), ctx.grad(), ctx.saved(2)));
  }
};

Tensor sampled(const DeformParams& p, const Tensor& x, const Tensor& coefficients, const Tensor& offset) {
  return call<DeformColumns>(p, x, coefficients, offset.detach());
}
Tensor spread(const DeformParams& p, const Tensor& columns, const Tensor& coefficients,
              const Tensor& offset) {
  return call<DeformSpread>(p, columns, coefficients, offset.detach());
}
Tensor products(const DeformParams& p, const Tensor& x, const Tensor& columns, const Tensor& offset) {
  return call<DeformProducts>(p, x, columns, offset.detach());
}

/// [N, C, out...] as rows [N * positions, sizes...], and back.
Tensor as_rows(const Tensor& t, const Dims& sizes) {
  Dims order{0};
  for (int64_t i = 2; i < t.dim(); ++i) order.push_back(i);
  order.push_back(1);
  return reshape(permute(t, order), sizes);
}
Tensor from_rows(const Tensor& rows, const Dims& sizes) {
  Dims last{sizes[0]}, order{0, static_cast<int64_t>(sizes.size()) - 1};
  for (size_t i = 2; i < sizes.size(); ++i) {
    last.push_back(sizes[i]);
    order.push_back(static_cast<int64_t>(i) - 1);
  }
  last.push_back(sizes[1]);
  return permute(reshape(rows, last), order);
}

/// The coefficients of bilinear interpolation [..., corners] for fractions [..., spatial], or their
/// derivative by one of the fractions.
Tensor corner_weights(const Tensor& fractions, int64_t by = -1) {
  Tensor weights;
  for (int64_t axis = 0; axis < fractions.size(-1); ++axis) {
    const Tensor high = select(fractions, -1, axis);
    Tensor low = sub(wrap_number(1.0), high), up = high;
    if (axis == by) {
      up = ones(high.sizes(), high.dtype(), high.device());
      low = neg(up);
    }
    const std::array<Tensor, 2> both{low, up};
    const Tensor sides = stack(both, -1);
    weights = weights.defined() ? flatten(mul(unsqueeze(weights, -1), unsqueeze(sides, -2)), -2) : sides;
  }
  return weights;
}

}  // namespace

DeformOperands deform_gradients_recorded(const DeformParams& p, const DeformOperands& operands,
                                         DeformNeeds needs) {
  const DeformGeometry& g = p.geometry;
  const DType dtype = operands.y.dtype(), exact = deform_sum_type(dtype);
  const int64_t points = g.offset_groups * p.taps();
  const Dims point_sizes{p.rows(), points};
  const Tensor offset = to(as_rows(operands.offset, Dims{p.rows(), points, g.spatial}), exact);
  const Tensor fractions = sub(offset, floor(offset));
  const Tensor mask =
      operands.mask.defined() ? unsqueeze(to(as_rows(operands.mask, point_sizes), exact), -1) : Tensor();
  const auto masked = [&](const Tensor& t) { return mask.defined() ? mul(t, mask) : t; };
  const Tensor weights = corner_weights(fractions), coefficients = masked(weights);
  const auto packed = [&] {
    const Tensor grouped = reshape(operands.weight, Dims{g.groups, p.filters(), p.channels(), p.taps()});
    return reshape(permute(grouped, Dims{0, 1, 3, 2}), Dims{g.groups, p.filters(), p.taps() * p.channels()});
  };
  const Tensor y = permute(as_rows(operands.y, Dims{p.rows(), g.groups, p.filters()}), Dims{1, 0, 2});

  DeformOperands result;
  Tensor columns, grad_columns;
  if (needs.y || needs.weight) columns = sampled(p, operands.x, coefficients, operands.offset);
  if (needs.y) {
    const Tensor rows = permute(bmm(columns, transpose(packed(), 1, 2)), Dims{1, 0, 2});
    result.y = from_rows(rows, p.y_sizes);
  }
  if (needs.weight) {
    const Tensor grad =
        reshape(bmm(transpose(y, 1, 2), columns), Dims{g.groups, p.filters(), p.taps(), p.channels()});
    result.weight = reshape(permute(grad, Dims{0, 1, 3, 2}), p.weight_sizes);
  }
  if (needs.x || needs.offset || needs.mask) grad_columns = bmm(y, packed());
  if (needs.x) result.x = spread(p, grad_columns, coefficients, operands.offset);
  if (!needs.offset && !needs.mask) return result;
  const Tensor grad = products(p, operands.x, grad_columns, operands.offset);
  if (needs.mask) {
    Dims sizes = p.y_sizes;
    sizes[1] = points;
    result.mask = from_rows(to(sum(mul(grad, weights), Dims{-1}), dtype), sizes);
  }
  if (needs.offset) {
    TensorList by_axis;
    for (int64_t axis = 0; axis < g.spatial; ++axis) {
      by_axis.push_back(sum(mul(grad, masked(corner_weights(fractions, axis))), Dims{-1}));
    }
    Dims sizes = p.y_sizes;
    sizes[1] = points * g.spatial;
    result.offset = from_rows(to(stack(by_axis, -1), dtype), sizes);
  }
  return result;
}

}  // namespace opsin
