// Copies with the elements in other places. Shapes are those of `self` unless said otherwise.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `self` repeats[i] times along dimension i; extra leading entries add dimensions.
OPSIN_API Tensor repeat(const Tensor& self, IntSpan repeats);
/// As repeat(), where missing leading entries are 1.
OPSIN_API Tensor tile(const Tensor& self, IntSpan dims);
/// Each element `repeats` times in place, along `dim` or flat.
OPSIN_API Tensor repeat_interleave(const Tensor& self, int64_t repeats,
                                   std::optional<int64_t> dim = std::nullopt);
/// Element i repeats[i] times, along `dim` or flat; `repeats` is an integer tensor [n] or of one element.
OPSIN_API Tensor repeat_interleave(const Tensor& self, const Tensor& repeats,
                                   std::optional<int64_t> dim = std::nullopt);
/// The order of the given dimensions reversed.
OPSIN_API Tensor flip(const Tensor& self, IntSpan dims);
/// Moved by `shifts` along `dims` with what falls off put back at the start; flat if `dims` is empty.
OPSIN_API Tensor roll(const Tensor& self, IntSpan shifts, IntSpan dims = {});
/// Turned by 90 degrees k times from dims[0] to dims[1].
OPSIN_API Tensor rot90(const Tensor& self, int64_t k, IntSpan dims);

/// The elements on and below diagonal `diagonal` of matrices [..., m, n], zeros elsewhere.
OPSIN_API Tensor tril(const Tensor& self, int64_t diagonal = 0);
OPSIN_API Tensor tril_(const Tensor& self, int64_t diagonal = 0);
/// The elements on and above diagonal `diagonal` of matrices [..., m, n], zeros elsewhere.
OPSIN_API Tensor triu(const Tensor& self, int64_t diagonal = 0);
OPSIN_API Tensor triu_(const Tensor& self, int64_t diagonal = 0);
/// The diagonal of a matrix, or the matrix with a vector as its diagonal.
OPSIN_API Tensor diag(const Tensor& self, int64_t diagonal = 0);
/// Matrices with the last dimension of `self` as diagonal, in dimensions dim1 and dim2.
OPSIN_API Tensor diag_embed(const Tensor& self, int64_t offset = 0, int64_t dim1 = -2, int64_t dim2 = -1);

/// `self` with `src` in place of one part: select(), slice() or diagonal() of it.
OPSIN_API Tensor select_scatter(const Tensor& self, const Tensor& src, int64_t dim, int64_t index);
OPSIN_API Tensor slice_scatter(const Tensor& self, const Tensor& src, int64_t dim, int64_t start, int64_t end,
                               int64_t step = 1);
OPSIN_API Tensor diagonal_scatter(const Tensor& self, const Tensor& src, int64_t offset = 0, int64_t dim1 = 0,
                                  int64_t dim2 = 1);

}  // namespace opsin
