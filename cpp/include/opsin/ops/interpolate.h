// Resizing of input [N, C, spatial...] with 1 to 3 spatial axes, and what rearranges channels and pixels.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `input` [N, C, spatial...], float16 to float64, resized along its spatial axes. `size` or `scale_factor`,
/// but not both, has one entry for each of them or one for all; with factors the size is floor(in * factor).
/// Axis by axis, output index o lies at x = (o + 0.5) * s - 0.5 of the input, s = in / out or, for factors,
/// 1 / factor unless `recompute_scale_factor`; with `align_corners` at x = o * (in - 1) / (out - 1).
///
/// - "nearest": the pixel at floor(o * s); "nearest-exact": the pixel at floor((o + 0.5) * s). Any dtype.
/// - "linear", "bilinear", "trilinear" (1, 2, 3 axes): between two neighbours of each axis, x >= 0.
/// - "cubic", "bicubic", "tricubic": four neighbours, R. Keys' kernel (1981) with a = -0.75.
/// - "area": adaptive average pooling.
///
/// With `antialias` the linear and the cubic filter (a = -0.5), and "lanczos" (3 lobes), are stretched by s
/// where that is above 1 and normalised, as Pillow does. uint8 is computed in float32 and rounded.
/// ShapeError for sizes and ranks that do not fit, ValueError for arguments that contradict each other.
OPSIN_API Tensor interpolate(const Tensor& input, IntSpan size, std::span<const double> scale_factor = {},
                             std::string_view mode = "nearest",
                             std::optional<bool> align_corners = std::nullopt,
                             bool recompute_scale_factor = false, bool antialias = false);

/// [..., C r^2, H, W] -> [..., C, H r, W r]: W. Shi et al., "Real-time single image and video
/// super-resolution using an efficient sub-pixel convolutional neural network" (2016).
OPSIN_API Tensor pixel_shuffle(const Tensor& input, int64_t upscale_factor);
/// [..., C, H r, W r] -> [..., C r^2, H, W]: the reverse of pixel_shuffle().
OPSIN_API Tensor pixel_unshuffle(const Tensor& input, int64_t downscale_factor);
/// Channel g * (C / groups) + i of [N, C, spatial...] becomes channel i * groups + g: X. Zhang et al.,
/// "ShuffleNet" (2017).
OPSIN_API Tensor channel_shuffle(const Tensor& input, int64_t groups);

}  // namespace opsin
