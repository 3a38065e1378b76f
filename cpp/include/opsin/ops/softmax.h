// Softmax and its logarithm along a dimension. The layout of the input in memory is kept.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// exp(x) / sum(exp(x)) along `dim`, with the maximum taken out first. A vector of only -inf gives NaN. The
/// input is converted to `dtype` first if that is given. IndexError if `dim` is out of range; floating point
/// only.
OPSIN_API Tensor softmax(const Tensor& self, int64_t dim, std::optional<DType> dtype = std::nullopt);
/// x - log(sum(exp(x))) along `dim`, exact where log(softmax(x)) would underflow.
OPSIN_API Tensor log_softmax(const Tensor& self, int64_t dim, std::optional<DType> dtype = std::nullopt);
/// softmax(-x).
OPSIN_API Tensor softmin(const Tensor& input, int64_t dim, std::optional<DType> dtype = std::nullopt);

}  // namespace opsin
