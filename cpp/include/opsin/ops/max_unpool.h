// The partial inverse of max pooling, for input [N, C, spatial...] or [C, spatial...].
#pragma once

#include <optional>
#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// Zeros [N, C, output spatial...] but for y[indices] = input, where `indices` (int64, shaped like `input`)
/// are flat positions in the output's spatial axes, as max pooling with positions gives them (Zeiler & Fergus
/// 2014, "Visualizing and understanding convolutional networks"). Of values with one position the last one
/// stays; the gradient is grad_y[indices]. Sizes are those that the pooling of these settings had: (size - 1)
/// * stride - before - behind + kernel_size, or with padding by a name other than "valid" size * stride, or
/// `output_size`, whose entries may differ from them by less than the stride. Lists have one entry for each
/// spatial axis or one for all, padding also two for each; an empty stride means the kernel's size.
/// IndexError names an index out of range.
OPSIN_API Tensor max_unpool1d(const Tensor& input, const Tensor& indices, IntSpan kernel_size,
                              IntSpan stride = {}, IntSpan padding = {},
                              std::optional<IntSpan> output_size = std::nullopt);
OPSIN_API Tensor max_unpool1d(const Tensor& input, const Tensor& indices, IntSpan kernel_size, IntSpan stride,
                              std::string_view padding, std::optional<IntSpan> output_size = std::nullopt);
OPSIN_API Tensor max_unpool2d(const Tensor& input, const Tensor& indices, IntSpan kernel_size,
                              IntSpan stride = {}, IntSpan padding = {},
                              std::optional<IntSpan> output_size = std::nullopt);
OPSIN_API Tensor max_unpool2d(const Tensor& input, const Tensor& indices, IntSpan kernel_size, IntSpan stride,
                              std::string_view padding, std::optional<IntSpan> output_size = std::nullopt);
OPSIN_API Tensor max_unpool3d(const Tensor& input, const Tensor& indices, IntSpan kernel_size,
                              IntSpan stride = {}, IntSpan padding = {},
                              std::optional<IntSpan> output_size = std::nullopt);
OPSIN_API Tensor max_unpool3d(const Tensor& input, const Tensor& indices, IntSpan kernel_size, IntSpan stride,
                              std::string_view padding, std::optional<IntSpan> output_size = std::nullopt);

}  // namespace opsin
