// Sorting along a dimension. NaN counts as the largest value; positions are int64.
#pragma once

#include <array>

#include <opsin/tensor.h>

namespace opsin {

/// Sorted values and where they were; equal values keep their order.
OPSIN_API std::array<Tensor, 2> sort(const Tensor& self, int64_t dim = -1, bool descending = false);
OPSIN_API Tensor argsort(const Tensor& self, int64_t dim = -1, bool descending = false);
/// The k largest (smallest) values, in order, and where they are. RuntimeError if k is out of range.
OPSIN_API std::array<Tensor, 2> topk(const Tensor& self, int64_t k, int64_t dim = -1, bool largest = true);
/// The k-th smallest value (k counts from 1) and where it is.
OPSIN_API std::array<Tensor, 2> kthvalue(const Tensor& self, int64_t k, int64_t dim = -1,
                                         bool keepdim = false);
/// The lower of the two middle values; NaN if there is one.
OPSIN_API Tensor median(const Tensor& self);
OPSIN_API std::array<Tensor, 2> median(const Tensor& self, int64_t dim, bool keepdim = false);

}  // namespace opsin
