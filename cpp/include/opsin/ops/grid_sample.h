// Sampling of images and volumes at given points, and the warps built on it. All of it is differentiable any
// number of times, with respect to values and coordinates.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `input` [N, C, H, W] at `grid` [N, h, w, 2], or [N, C, D, H, W] at [N, d, h, w, 3] -> [N, C, (d,) h, w].
/// The last dimension of the grid is (x, y) or (x, y, z); -1 and 1 are the centres of the first and last
/// pixel with `align_corners`, else their outer edges. NaN counts as -1. float16 to float64, both of one
/// dtype.
///
/// mode: "bilinear" (trilinear for volumes), "nearest" (ties to even), or "bicubic" (images only, a = -0.75).
/// padding_mode, for pixels outside: "zeros", "border" (the nearest one), "reflection" (mirrored at the
/// centres, or edges, that -1 and 1 are).
/// M. Jaderberg et al., "Spatial transformer networks" (2015).
OPSIN_API Tensor grid_sample(const Tensor& input, const Tensor& grid, std::string_view mode = "bilinear",
                             std::string_view padding_mode = "zeros", bool align_corners = false);

/// The grid of affine maps `theta` [N, 2, 3] for `size` (N, C, H, W) -> [N, H, W, 2], or [N, 3, 4] for
/// (N, C, D, H, W) -> [N, D, H, W, 3]: theta (x, y, 1) at every output pixel.
OPSIN_API Tensor affine_grid(const Tensor& theta, IntSpan size, bool align_corners = false);

/// The features [N, C, (D,) H, W] at points [N, P, 2 or 3], which are as in a grid -> [N, P, C]. Of points
/// with more coordinates than axes, such as vertices over images, the first ones are taken. N. Wang et al.,
/// "Pixel2Mesh" (2018).
OPSIN_API Tensor vertex_align(const Tensor& features, const Tensor& points,
                              std::string_view mode = "bilinear", std::string_view padding_mode = "zeros",
                              bool align_corners = true);

/// Parts of images [N, C, H, W], resized to `size` (h, w): `boxes` has for each image [K, 4] boxes (x1, y1,
/// x2, y2) -> [sum of K, C, h, w]. Output column j lies at x1 + (j + 0.5) (x2 - x1) / w with pixels that are
/// one unit wide and begin at 0; with `align_corners` at x1 + j (x2 - x1) / (w - 1), or in the middle for w =
/// 1, with pixel centres at 0, 1, ...
OPSIN_API Tensor crop_and_resize(const Tensor& input, TensorSpan boxes, IntSpan size,
                                 std::string_view mode = "bilinear", std::string_view padding_mode = "zeros",
                                 bool align_corners = false);

/// Images [N, C, H, W] moved by `matrix` [N, 2, 3], from a pixel (x, y, 1) of the input to one of the output,
/// whose size is `size` (h, w); pixel centres are at 0, 1, ... Outputs from outside are 0 or as
/// `padding_mode` says. A singular matrix gives NaN coordinates.
OPSIN_API Tensor warp_affine(const Tensor& input, const Tensor& matrix, IntSpan size,
                             std::string_view mode = "bilinear", std::string_view padding_mode = "zeros",
                             bool align_corners = true);
/// As warp_affine() with homographies [N, 3, 3], of any scale.
OPSIN_API Tensor warp_perspective(const Tensor& input, const Tensor& matrix, IntSpan size,
                                  std::string_view mode = "bilinear", std::string_view padding_mode = "zeros",
                                  bool align_corners = true);

}  // namespace opsin
