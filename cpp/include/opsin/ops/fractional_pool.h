// Fractional max pooling.
#pragma once

#include <array>

#include <opsin/tensor.h>

namespace opsin {

/// The largest value of windows of `kernel_size` pixels that start at pseudo-random places (Graham 2014,
/// "Fractional max-pooling", overlapping windows), and, second, its flat position in the input's spatial axes
/// (int64). `input` [N, C, spatial...] or [C, spatial...]; lists have one entry for each spatial axis or one
/// for all. With u the sample of an axis and a = (in - kernel) / (out - 1), windows o < out - 1 start at
/// floor((o + u) * a) - floor(u * a), the last one at in - kernel. `random_samples` [N, C, axes] (N = 1
/// without a batch) in [0, 1], of the input's dtype, are those of the last axis first for two axes and of the
/// first axis first for three, as in PyTorch; where undefined they are drawn uniformly from [0, 1).
OPSIN_API std::array<Tensor, 2> fractional_max_pool1d(const Tensor& input, IntSpan kernel_size,
                                                      IntSpan output_size, const Tensor& random_samples = {});
OPSIN_API std::array<Tensor, 2> fractional_max_pool2d(const Tensor& input, IntSpan kernel_size,
                                                      IntSpan output_size, const Tensor& random_samples = {});
OPSIN_API std::array<Tensor, 2> fractional_max_pool3d(const Tensor& input, IntSpan kernel_size,
                                                      IntSpan output_size, const Tensor& random_samples = {});

}  // namespace opsin
