// Grids, and what is made of sampling at them.
#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/grid_sample.h>
#include <opsin/ops/view.h>

#include "autograd/autocast.h"
#include "core/registry.h"

namespace opsin {

namespace {

/// What coordinates of `dtype` are computed in.
DType coordinate_type(DType dtype) { return dtype == kFloat64 ? kFloat64 : kFloat32; }

/// 0, 1, ... n - 1.
Tensor counted(int64_t n, const Tensor& like) { return arange(0, n, 1, like.dtype(), like.device()); }

/// -1 to 1 at the centres of n pixels, of which the outer ones are centred there or end there.
Tensor base_line(int64_t n, const Tensor& like, bool align_corners) {
  if (n == 1) return zeros(Dims{1}, like.dtype(), like.device());
  const auto count = static_cast<double>(n);
  return align_corners ? counted(n, like) * Scalar(2 / (count - 1)) - Scalar(1.0)
                       : (counted(n, like) * Scalar(2.0) - Scalar(count - 1)) / Scalar(count);
}

/// The positions of pixel centres 0, 1, ... along an axis of n pixels as a grid has them.
Tensor normalised(const Tensor& x, int64_t n, bool align_corners) {
  const auto count = static_cast<double>(n);
  if (align_corners) return x * Scalar(2 / std::max(count - 1, 1.0)) - Scalar(1.0);
  return x * Scalar(2 / count) + Scalar(1 / count - 1);
}

/// Element (i, j) of matrices [N, rows, columns], as [N, 1, 1].
Tensor entry(const Tensor& matrix, int64_t i, int64_t j) {
  return unsqueeze(unsqueeze(select(select(matrix, 1, i), 1, j), 1), 1);
}

void check_images(const char* op, const Tensor& input, IntSpan size) {
  OPSIN_CHECK(ShapeError, input.dim() == 4, op, ": expected input [N, C, H, W], got ", str(input.sizes()));
  OPSIN_CHECK(ShapeError, size.size() == 2 && size[0] > 0 && size[1] > 0, op,
              ": expected size (h, w) of positive numbers, got ", str(size));
}

void check_matrices(const char* op, const Tensor& input, const Tensor& matrix, int64_t rows) {
  OPSIN_CHECK(
      ShapeError,
      matrix.dim() == 3 && matrix.size(0) == input.size(0) && matrix.size(1) == rows && matrix.size(2) == 3,
      op, ": expected matrix [", input.size(0), ", ", rows, ", 3] for input ", str(input.sizes()), ", got ",
      str(matrix.sizes()));
  OPSIN_CHECK(Error, is_floating_point(matrix.dtype()), op, ": expected a floating-point matrix, got ",
              name(matrix.dtype()));
}

/// `input` at positions x and y [N, h, w] of its pixels.
Tensor sampled(const Tensor& input, const Tensor& x, const Tensor& y, std::string_view mode,
               std::string_view padding_mode, bool align_corners) {
  const Tensor grid = stack(
      TensorList{normalised(x, input.size(3), align_corners), normalised(y, input.size(2), align_corners)},
      -1);
  return grid_sample(input, to(grid, input.dtype()), mode, padding_mode, align_corners);
}

}  // namespace

Tensor affine_grid(const Tensor& theta, IntSpan size, bool align_corners) {
  if (autocast::is_on(DeviceType::kCPU, theta))
    return autocast::call<autocast::kLower>(affine_grid, theta, size, align_corners);
  constexpr const char* op = "affine_grid";
  OPSIN_CHECK(ValueError, is_floating_point(theta.dtype()), op,
              ": expected theta of a floating-point dtype, got ", name(theta.dtype()));
  OPSIN_CHECK(ShapeError, size.size() == 4 || size.size() == 5, op,
              ": expected size (N, C, H, W) or (N, C, D, H, W), got ", str(size));
  const auto rank = static_cast<int64_t>(size.size()) - 2;
  OPSIN_CHECK(
      ShapeError,
      theta.dim() == 3 && theta.size(0) == size[0] && theta.size(1) == rank && theta.size(2) == rank + 1, op,
      ": expected theta [", size[0], ", ", rank, ", ", rank + 1, "] for size ", str(size), ", got ",
      str(theta.sizes()));
  for (const int64_t n : size) {
    OPSIN_CHECK(ShapeError, n > 0, op, ": expected a non-zero, positive output size, got ", str(size));
  }
  const Tensor maps = to(theta, coordinate_type(theta.dtype()));
  // One coordinate varies along one axis: sums of lines that broadcast.
  TensorList coordinates;
  for (int64_t d = 0; d < rank; ++d) {
    const auto coefficient = [&](int64_t j) {
      Dims shape(static_cast<size_t>(rank) + 1, 1);
      shape[0] = size[0];
      return reshape(select(select(maps, 1, d), 1, j), shape);
    };
    Tensor sum = coefficient(rank);
    for (int64_t j = 0; j < rank; ++j) {
      const int64_t axis = rank - j, n = size[static_cast<size_t>(axis) + 1];
      Dims shape(static_cast<size_t>(rank) + 1, 1);
      shape[static_cast<size_t>(axis)] = n;
      sum = sum + coefficient(j) * reshape(base_line(n, maps, align_corners), shape);
    }
    coordinates.push_back(sum);
  }
  return to(stack(coordinates, -1), theta.dtype());
}

Tensor vertex_align(const Tensor& features, const Tensor& points, std::string_view mode,
                    std::string_view padding_mode, bool align_corners) {
  constexpr const char* op = "vertex_align";
  const int64_t rank = features.dim() - 2;
  OPSIN_CHECK(ShapeError, rank == 2 || rank == 3, op,
              ": expected features [N, C, H, W] or [N, C, D, H, W], got ", str(features.sizes()));
  OPSIN_CHECK(ShapeError, points.dim() == 3 && points.size(0) == features.size(0) && points.size(2) >= rank,
              op, ": expected points [", features.size(0), ", P, ", rank, " or more] for features ",
              str(features.sizes()), ", got ", str(points.sizes()));
  Dims shape{points.size(0), points.size(1)};
  for (int64_t i = 1; i < rank; ++i) shape.push_back(1);
  shape.push_back(rank);
  const Tensor grid = reshape(slice(points, 2, 0, rank), shape);
  const Tensor y = grid_sample(features, grid, mode, padding_mode, align_corners);
  return transpose(reshape(y, Dims{y.size(0), y.size(1), y.size(2)}), 1, 2);
}

Tensor crop_and_resize(const Tensor& input, TensorSpan boxes, IntSpan size, std::string_view mode,
                       std::string_view padding_mode, bool align_corners) {
  constexpr const char* op = "crop_and_resize";
  check_images(op, input, size);
  OPSIN_CHECK(ShapeError, static_cast<int64_t>(boxes.size()) == input.size(0), op,
              ": expected boxes for each of the ", input.size(0), " images, got a list of ", boxes.size());
  const int64_t channels = input.size(1), h = size[0], w = size[1];
  TensorList crops;
  for (size_t n = 0; n < boxes.size(); ++n) {
    const Tensor& given = boxes[n];
    OPSIN_CHECK(ShapeError, given.dim() == 2 && given.size(1) == 4, op,
                ": expected boxes [K, 4] (x1, y1, x2, y2), got ", str(given.sizes()), " for image ", n);
    OPSIN_CHECK(Error, is_floating_point(given.dtype()), op, ": expected floating-point boxes, got ",
                name(given.dtype()), " for image ", n);
    const Tensor box = to(given, coordinate_type(given.dtype()));
    const int64_t count = box.size(0);
    // Along an axis: [K, 1] + [K, 1] * [1, length].
    const auto line = [&](int64_t from, int64_t length) {
      const Tensor begin = slice(box, 1, from, from + 1), end = slice(box, 1, from + 2, from + 3);
      const auto steps = static_cast<double>(length);
      const Tensor places = counted(length, box);
      if (!align_corners) {
        return begin + (end - begin) * unsqueeze((places + Scalar(0.5)) / Scalar(steps), 0) - Scalar(0.5);
      }
      const Tensor share = length > 1 ? places / Scalar(steps - 1) : places + Scalar(0.5);
      return begin + (end - begin) * unsqueeze(share, 0);
    };
    const Dims shape{1, count * h, w};
    const Tensor x = reshape(expand(unsqueeze(line(0, w), 1), Dims{count, h, w}), shape);
    const Tensor y = reshape(expand(unsqueeze(line(1, h), 2), Dims{count, h, w}), shape);
    const auto image = static_cast<int64_t>(n);
    const Tensor crop = sampled(slice(input, 0, image, image + 1), x, y, mode, padding_mode, align_corners);
    crops.push_back(transpose(reshape(crop, Dims{channels, count, h, w}), 0, 1));
  }
  if (crops.empty()) return zeros(Dims{0, channels, h, w}, input.dtype(), input.device());
  return cat(crops, 0);
}

Tensor warp_affine(const Tensor& input, const Tensor& matrix, IntSpan size, std::string_view mode,
                   std::string_view padding_mode, bool align_corners) {
  constexpr const char* op = "warp_affine";
  check_images(op, input, size);
  check_matrices(op, input, matrix, 2);
  const Tensor m = to(matrix, coordinate_type(matrix.dtype()));
  const Tensor a = entry(m, 0, 0), b = entry(m, 0, 1), c = entry(m, 1, 0), d = entry(m, 1, 1);
  const Tensor determinant = a * d - b * c;
  const Tensor x = unsqueeze(counted(size[1], m), 0) - entry(m, 0, 2);
  const Tensor y = unsqueeze(counted(size[0], m), 1) - entry(m, 1, 2);
  return sampled(input, (d * x - b * y) / determinant, (a * y - c * x) / determinant, mode, padding_mode,
                 align_corners);
}

Tensor warp_perspective(const Tensor& input, const Tensor& matrix, IntSpan size, std::string_view mode,
                        std::string_view padding_mode, bool align_corners) {
  constexpr const char* op = "warp_perspective";
  check_images(op, input, size);
  check_matrices(op, input, matrix, 3);
  const Tensor m = to(matrix, coordinate_type(matrix.dtype()));
  const Tensor x = unsqueeze(counted(size[1], m), 0), y = unsqueeze(counted(size[0], m), 1);
  // A multiple of the inverse is as good as the inverse: the adjugate, whose row i has the cross product of
  // columns i + 1 and i + 2.
  const auto row = [&](int64_t i) {
    const int64_t p = (i + 1) % 3, q = (i + 2) % 3;
    const auto cofactor = [&](int64_t j) {
      const int64_t r = (j + 1) % 3, s = (j + 2) % 3;
      return entry(m, r, p) * entry(m, s, q) - entry(m, s, p) * entry(m, r, q);
    };
    return cofactor(0) * x + cofactor(1) * y + cofactor(2);
  };
  const Tensor scale = row(2);
  return sampled(input, row(0) / scale, row(1) / scale, mode, padding_mode, align_corners);
}

namespace {
Tensor affine_grid_schema(const Tensor& theta, IntSpan size, std::optional<bool> align_corners) {
  return affine_grid(theta, size, align_corners.value_or(false));
}
}  // namespace

void register_warp(Registry& registry);

void register_warp(Registry& registry) {
  registry.add<&affine_grid_schema>(
      "nn.functional.affine_grid(Tensor theta, int[] size, bool? align_corners=None) -> Tensor",
      "The grid for grid_sample() of affine maps [N, 2, 3] or [N, 3, 4] and an output of `size`.");
  registry.add<&vertex_align>(
      "ops.vertex_align(Tensor features, Tensor points, str mode='bilinear', str padding_mode='zeros', bool "
      "align_corners=True) -> Tensor",
      "Features [N, C, H, W] or [N, C, D, H, W] at points [N, P, 2 or 3] from -1 to 1 -> [N, P, C].");
  registry.add<&crop_and_resize>(
      "ops.crop_and_resize(Tensor input, Tensor[] boxes, int[2] size, str mode='bilinear', str "
      "padding_mode='zeros', bool align_corners=False) -> Tensor",
      "Boxes (x1, y1, x2, y2), [K, 4] for each image of [N, C, H, W], resized to `size` -> [sum of K, C, h, "
      "w].");
  registry.add<&warp_affine>(
      "ops.warp_affine(Tensor input, Tensor matrix, int[2] size, str mode='bilinear', str "
      "padding_mode='zeros', "
      "bool align_corners=True) -> Tensor",
      "Images [N, C, H, W] moved by matrices [N, 2, 3] from input pixels to those of an output of `size` (h, "
      "w).");
  registry.add<&warp_perspective>(
      "ops.warp_perspective(Tensor input, Tensor matrix, int[2] size, str mode='bilinear', str "
      "padding_mode='zeros', bool align_corners=True) -> Tensor",
      "Images [N, C, H, W] moved by homographies [N, 3, 3] from input pixels to those of an output of "
      "`size`.");
}

}  // namespace opsin
