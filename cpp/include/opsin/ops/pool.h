// Pooling of input [N, C, spatial...] or [C, spatial...]. Lists have one entry for each spatial axis or one
// for all; an empty stride means the kernel's size. Numeric padding may also have two entries for each axis,
// (before, behind) of the first one first: {top, bottom, left, right}; padding by name is that of convolution
// (conv.h). Everything is deterministic.
#pragma once

#include <array>
#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// The largest value of each window and, second, its flat position in the input's spatial axes (int64).
/// Padding is never the largest. ShapeError for symmetric padding above half of the reach dilation *
/// (kernel_size - 1) + 1 of a window, or a side that is not below it.
OPSIN_API std::array<Tensor, 2> max_pool(const Tensor& input, size_t axes, IntSpan kernel_size,
                                         IntSpan stride = {}, IntSpan padding = {}, IntSpan dilation = {},
                                         bool ceil_mode = false);
OPSIN_API std::array<Tensor, 2> max_pool(const Tensor& input, size_t axes, IntSpan kernel_size,
                                         IntSpan stride, std::string_view padding, IntSpan dilation = {},
                                         bool ceil_mode = false);
OPSIN_API Tensor max_pool1d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, IntSpan dilation = {}, bool ceil_mode = false);
OPSIN_API Tensor max_pool1d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, IntSpan dilation = {}, bool ceil_mode = false);
OPSIN_API Tensor max_pool2d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, IntSpan dilation = {}, bool ceil_mode = false);
OPSIN_API Tensor max_pool2d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, IntSpan dilation = {}, bool ceil_mode = false);
OPSIN_API Tensor max_pool3d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, IntSpan dilation = {}, bool ceil_mode = false);
OPSIN_API Tensor max_pool3d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, IntSpan dilation = {}, bool ceil_mode = false);
/// The mean of each window. Padding counts as zeros where `count_include_pad`; `divisor_override` replaces
/// the number of elements.
OPSIN_API Tensor avg_pool1d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, bool ceil_mode = false, bool count_include_pad = true);
OPSIN_API Tensor avg_pool1d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, bool ceil_mode = false, bool count_include_pad = true);
OPSIN_API Tensor avg_pool2d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, bool ceil_mode = false, bool count_include_pad = true,
                            std::optional<int64_t> divisor_override = std::nullopt);
OPSIN_API Tensor avg_pool2d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, bool ceil_mode = false, bool count_include_pad = true,
                            std::optional<int64_t> divisor_override = std::nullopt);
OPSIN_API Tensor avg_pool3d(const Tensor& input, IntSpan kernel_size, IntSpan stride = {},
                            IntSpan padding = {}, bool ceil_mode = false, bool count_include_pad = true,
                            std::optional<int64_t> divisor_override = std::nullopt);
OPSIN_API Tensor avg_pool3d(const Tensor& input, IntSpan kernel_size, IntSpan stride,
                            std::string_view padding, bool ceil_mode = false, bool count_include_pad = true,
                            std::optional<int64_t> divisor_override = std::nullopt);
/// The mean of windows [floor(o * in / out), ceil((o + 1) * in / out)); an entry of INT64_MIN (None in
/// Python) keeps the input's size.
OPSIN_API Tensor adaptive_avg_pool1d(const Tensor& input, IntSpan output_size);
OPSIN_API Tensor adaptive_avg_pool2d(const Tensor& input, IntSpan output_size);
OPSIN_API Tensor adaptive_avg_pool3d(const Tensor& input, IntSpan output_size);
/// The largest value of the same windows and, second, its flat position in the input's spatial axes (int64).
OPSIN_API std::array<Tensor, 2> adaptive_max_pool(const Tensor& input, size_t axes, IntSpan output_size);
OPSIN_API Tensor adaptive_max_pool1d(const Tensor& input, IntSpan output_size);
OPSIN_API Tensor adaptive_max_pool2d(const Tensor& input, IntSpan output_size);
OPSIN_API Tensor adaptive_max_pool3d(const Tensor& input, IntSpan output_size);

}  // namespace opsin
