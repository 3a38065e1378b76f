// Tables that are read by row.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// Row input[...] of `weight` [V, D] for each index: [...] -> [..., D]. Rows `padding_idx` get no gradient;
/// with `scale_grad_by_freq` the gradient of a row is divided by how often it was read; with `max_norm` the
/// rows that are read are first shortened, in place, to that norm. IndexError for indices outside [0, V).
OPSIN_API Tensor embedding(const Tensor& input, const Tensor& weight,
                           std::optional<int64_t> padding_idx = std::nullopt,
                           std::optional<double> max_norm = std::nullopt, double norm_type = 2.0,
                           bool scale_grad_by_freq = false);

}  // namespace opsin
