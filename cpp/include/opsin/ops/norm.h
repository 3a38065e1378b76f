// Normalizations.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// y = (x - mean) / sqrt(var + eps) * weight + bias per channel of `input` `[N, C, spatial...]`; `weight`,
/// `bias` and the running statistics are `[C]` or absent. With `training`, mean and (biased) variance come
/// from the input, and the running ones move towards them: r = (1 - momentum) r + momentum s, where the
/// variance is the unbiased one. Otherwise the running ones are used. ValueError for one value per channel
/// when training. Source: Ioffe and Szegedy, "Batch Normalization", 2015.
OPSIN_API Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var,
                            const Tensor& weight = {}, const Tensor& bias = {}, bool training = false,
                            double momentum = 0.1, double eps = 1e-5);
/// The same over the last dimensions, whose sizes are `normalized_shape`; `weight` and `bias` have that
/// shape. Source: Ba, Kiros and Hinton, "Layer Normalization", 2016.
OPSIN_API Tensor layer_norm(const Tensor& input, IntSpan normalized_shape, const Tensor& weight = {},
                            const Tensor& bias = {}, double eps = 1e-5);
/// x / sqrt(mean(x^2) + eps) * weight over the last dimensions, whose sizes are `normalized_shape`, also the
/// shape of `weight`. `eps` is by default that of float64 for float64, else that of float32. Source: Zhang
/// and Sennrich, "Root Mean Square Layer Normalization", 2019.
OPSIN_API Tensor rms_norm(const Tensor& input, IntSpan normalized_shape, const Tensor& weight = {},
                          std::optional<double> eps = std::nullopt);
/// y = (x - mean) / sqrt(var + eps) * weight + bias with mean and variance of each sample over the values of
/// C / num_groups neighbouring channels of `input` `[N, C, spatial...]`; `weight` and `bias` are `[C]` or
/// absent. RuntimeError where num_groups does not divide C, ValueError for one value per group in all.
/// Source: Wu and He, "Group Normalization", 2018.
OPSIN_API Tensor group_norm(const Tensor& input, int64_t num_groups, const Tensor& weight = {},
                            const Tensor& bias = {}, double eps = 1e-5);
/// The same for each channel of each sample. With `use_input_stats` the running statistics, `[C]` or absent,
/// move towards the means over the samples, as those of batch_norm do; without, they are used instead.
/// ValueError for one value per channel with `use_input_stats`. Source: Ulyanov, Vedaldi and Lempitsky,
/// "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.
OPSIN_API Tensor instance_norm(const Tensor& input, const Tensor& running_mean = {},
                               const Tensor& running_var = {}, const Tensor& weight = {},
                               const Tensor& bias = {}, bool use_input_stats = true, double momentum = 0.1,
                               double eps = 1e-5);
/// x / (k + alpha mean(x^2))^beta, where the mean is over the `size` channels of `[N, C, spatial...]` (3
/// dimensions at least) around each, of which size / 2 come before it; those beyond the first and last count
/// as 0. Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
/// Networks", 2012.
OPSIN_API Tensor local_response_norm(const Tensor& input, int64_t size, double alpha = 1e-4,
                                     double beta = 0.75, double k = 1);
/// x / max(||x||_p, eps) along `dim`, all dimensions if empty.
OPSIN_API Tensor normalize(const Tensor& input, double p = 2, IntSpan dim = Dims{1}, double eps = 1e-12);

}  // namespace opsin
