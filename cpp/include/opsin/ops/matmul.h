// Matrix products. float16 and bfloat16 are summed in float32. Both operands must have one dtype.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// NumPy's matmul: vectors are rows or columns, leading dimensions broadcast.
OPSIN_API Tensor matmul(const Tensor& self, const Tensor& other);
/// [m, k] x [k, n] -> [m, n]
OPSIN_API Tensor mm(const Tensor& self, const Tensor& mat2);
/// [b, m, k] x [b, k, n] -> [b, m, n]
OPSIN_API Tensor bmm(const Tensor& self, const Tensor& mat2);
/// [m, k] x [k] -> [m]
OPSIN_API Tensor mv(const Tensor& self, const Tensor& vec);
/// [k] x [k] -> []
OPSIN_API Tensor dot(const Tensor& self, const Tensor& tensor);
/// [m] x [n] -> [m, n]
OPSIN_API Tensor outer(const Tensor& self, const Tensor& vec2);
/// beta * self + alpha * mat1 x mat2, `self` broadcast.
OPSIN_API Tensor addmm(const Tensor& self, const Tensor& mat1, const Tensor& mat2, const Scalar& beta = 1,
                       const Scalar& alpha = 1);
/// As addmm for batches.
OPSIN_API Tensor baddbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2,
                         const Scalar& beta = 1, const Scalar& alpha = 1);
/// beta * self + alpha * mat x vec.
OPSIN_API Tensor addmv(const Tensor& self, const Tensor& mat, const Tensor& vec, const Scalar& beta = 1,
                       const Scalar& alpha = 1);
/// Scalar products of the last dimension of both: [..., k] and [*, k] -> [..., *].
OPSIN_API Tensor inner(const Tensor& self, const Tensor& other);
/// beta * self + alpha * (vec1 outer vec2).
OPSIN_API Tensor addr(const Tensor& self, const Tensor& vec1, const Tensor& vec2, const Scalar& beta = 1,
                      const Scalar& alpha = 1);
/// beta * self + alpha * the sum over batches of batch1 x batch2.
OPSIN_API Tensor addbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2,
                        const Scalar& beta = 1, const Scalar& alpha = 1);
/// y[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o].
OPSIN_API Tensor bilinear(const Tensor& input1, const Tensor& input2, const Tensor& weight,
                          const Tensor& bias = {});
/// x W^T + b for input [..., in], weight [out, in] and bias [out]; a weight [in] gives a dot product.
OPSIN_API Tensor linear(const Tensor& input, const Tensor& weight, const Tensor& bias = {});

}  // namespace opsin
