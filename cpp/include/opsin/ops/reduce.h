// Functions that fold dimensions away. `dim` may be empty for all dimensions and is in any order; negative
// ones count from the end (IndexError out of range); `keepdim` keeps them with size 1. Sums of floating-point
// values add groups of four in float32 (float64 for float64) and the groups in float64, so that their error
// does not grow with the length.
#pragma once

#include <array>

#include <opsin/tensor.h>

namespace opsin {

/// The sum; integers and bool are summed as int64.
OPSIN_API Tensor sum(const Tensor& self, IntSpan dim = {}, bool keepdim = false,
                     std::optional<DType> dtype = std::nullopt);
/// Sums what broadcasting `size` to the shape of `self` repeated.
OPSIN_API Tensor sum_to_size(const Tensor& self, IntSpan size);
/// The mean; RuntimeError for integers.
OPSIN_API Tensor mean(const Tensor& self, IntSpan dim = {}, bool keepdim = false,
                      std::optional<DType> dtype = std::nullopt);
/// sum() and mean() of what is not NaN.
OPSIN_API Tensor nansum(const Tensor& self, IntSpan dim = {}, bool keepdim = false,
                        std::optional<DType> dtype = std::nullopt);
OPSIN_API Tensor nanmean(const Tensor& self, IntSpan dim = {}, bool keepdim = false,
                         std::optional<DType> dtype = std::nullopt);
/// The product; integers and bool are multiplied as int64.
OPSIN_API Tensor prod(const Tensor& self, IntSpan dim = {}, bool keepdim = false,
                      std::optional<DType> dtype = std::nullopt);
/// Whether all (any) elements are non-zero; bool, but uint8 for uint8.
OPSIN_API Tensor all(const Tensor& self, IntSpan dim = {}, bool keepdim = false);
OPSIN_API Tensor any(const Tensor& self, IntSpan dim = {}, bool keepdim = false);
/// How many elements are non-zero, as int64.
OPSIN_API Tensor count_nonzero(const Tensor& self, IntSpan dim = {});

/// The largest (smallest) elements; NaN where there is one. Ties share the gradient evenly. IndexError if a
/// reduced dimension is empty.
OPSIN_API Tensor amax(const Tensor& self, IntSpan dim = {}, bool keepdim = false);
OPSIN_API Tensor amin(const Tensor& self, IntSpan dim = {}, bool keepdim = false);
OPSIN_API Tensor max(const Tensor& self);
OPSIN_API Tensor min(const Tensor& self);
/// Values and int64 positions along one dimension; the first of ties, which gets the gradient.
OPSIN_API std::array<Tensor, 2> max(const Tensor& self, int64_t dim, bool keepdim = false);
OPSIN_API std::array<Tensor, 2> min(const Tensor& self, int64_t dim, bool keepdim = false);
/// Both: smallest, largest.
OPSIN_API std::array<Tensor, 2> aminmax(const Tensor& self, std::optional<int64_t> dim = std::nullopt,
                                        bool keepdim = false);
/// Positions alone; in the flattened tensor without `dim`.
OPSIN_API Tensor argmax(const Tensor& self, std::optional<int64_t> dim = std::nullopt, bool keepdim = false);
OPSIN_API Tensor argmin(const Tensor& self, std::optional<int64_t> dim = std::nullopt, bool keepdim = false);

/// sum (x - mean)^2 / max(0, n - correction), its root, and either together with the mean. Floating point
/// only.
OPSIN_API Tensor var(const Tensor& self, IntSpan dim = {}, double correction = 1, bool keepdim = false);
OPSIN_API Tensor std(const Tensor& self, IntSpan dim = {}, double correction = 1, bool keepdim = false);
OPSIN_API std::array<Tensor, 2> var_mean(const Tensor& self, IntSpan dim = {}, double correction = 1,
                                         bool keepdim = false);
OPSIN_API std::array<Tensor, 2> std_mean(const Tensor& self, IntSpan dim = {}, double correction = 1,
                                         bool keepdim = false);
/// (sum |x|^p)^(1/p); for p = 0 the count of non-zeros, for +-infinity the largest or smallest |x|.
OPSIN_API Tensor norm(const Tensor& self, double p = 2, IntSpan dim = {}, bool keepdim = false,
                      std::optional<DType> dtype = std::nullopt);
OPSIN_API Tensor vector_norm(const Tensor& x, double ord = 2, IntSpan dim = {}, bool keepdim = false,
                             std::optional<DType> dtype = std::nullopt);
/// log(sum(exp(x))), without overflow.
OPSIN_API Tensor logsumexp(const Tensor& self, IntSpan dim, bool keepdim = false);
/// The sum of the diagonal of a matrix.
OPSIN_API Tensor trace(const Tensor& self);

}  // namespace opsin
