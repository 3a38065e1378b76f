// Running results along a dimension. Results have the shape of `self`; integers are summed and multiplied as
// int64.
#pragma once

#include <array>

#include <opsin/tensor.h>

namespace opsin {

OPSIN_API Tensor cumsum(const Tensor& self, int64_t dim, std::optional<DType> dtype = std::nullopt);
OPSIN_API Tensor cumprod(const Tensor& self, int64_t dim, std::optional<DType> dtype = std::nullopt);
/// log(cumsum(exp(x))), without overflow.
OPSIN_API Tensor logcumsumexp(const Tensor& self, int64_t dim);
/// The largest (smallest) element so far and where it is; the last of ties.
OPSIN_API std::array<Tensor, 2> cummax(const Tensor& self, int64_t dim);
OPSIN_API std::array<Tensor, 2> cummin(const Tensor& self, int64_t dim);

}  // namespace opsin
