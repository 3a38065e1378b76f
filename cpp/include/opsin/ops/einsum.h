// Sums of products over named dimensions.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// The sum of products that `equation` describes ("bij,bjk->bik"): one letter for each dimension of each
/// operand, "..." for any number of leading ones, which broadcast. Letters that the part after "->" leaves
/// out are summed over; without it, those that occur once stay, in alphabetical order. A letter that is
/// repeated within an operand takes its diagonal. Operands are contracted from left to right. Error that
/// names the subscript and the operand otherwise.
OPSIN_API Tensor einsum(std::string_view equation, TensorSpan operands);
/// The sum of products over dimensions dims_self[i] of `self` and dims_other[i] of `other`; the other
/// dimensions of both follow one another.
OPSIN_API Tensor tensordot(const Tensor& self, const Tensor& other, IntSpan dims_self, IntSpan dims_other);
/// The Kronecker product: blocks self[i] * other. The lower rank gets leading dimensions of size 1.
OPSIN_API Tensor kron(const Tensor& self, const Tensor& other);

}  // namespace opsin
