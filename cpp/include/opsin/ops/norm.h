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

}  // namespace opsin
