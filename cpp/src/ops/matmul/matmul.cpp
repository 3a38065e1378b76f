// Matrix products. All of them come down to one op over [batch, m, k] x [batch, k, n], and linear.
#include "matmul_kernels.h"

#include <optional>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "core/weight.h"

namespace opsin {

constinit KernelSlot<void (*)(const MatmulParams&)> matmul_forward{"matmul"};

namespace {

void check_dtypes(const Tensor& a, const Tensor& b, const char* op) {
  OPSIN_CHECK(Error, a.dtype() == b.dtype(), op,
              ": expected both operands to have the same dtype, but got: ", name(a.dtype()),
              " != ", name(b.dtype()));
}

/// y = a b for each batch; an operand with one batch is used for all. dA = dY B^T, dB = A^T dY; the engine
/// sums the gradient of a repeated operand.
struct Matmul {
  static constexpr const char* kName = "matmul";
  struct Params {
    bool keeps = false;  ///< what is packed of b, if it is one matrix
  };
  static int64_t flops(const Params&, const Tensor& a, const Tensor& b) {
    return 2 * a.numel() * b.sizes()[2] * (a.sizes()[0] == 1 ? b.sizes()[0] : 1);
  }
  static Tensor forward(const Params& params, const Tensor& a, const Tensor& b) {
    const int64_t batch = std::max(a.sizes()[0], b.sizes()[0]);
    const bool empty_batch = a.sizes()[0] == 0 || b.sizes()[0] == 0;
    const Tensor y = empty({empty_batch ? 0 : batch, a.sizes()[1], b.sizes()[2]}, a.dtype(), a.device());
    const auto kernel = matmul_forward.get(a.device(), a.dtype());
    if (y.numel() == 0) return y;
    MatmulParams p;
    p.m = a.sizes()[1];
    p.n = b.sizes()[2];
    p.k = a.sizes()[2];
    p.a = a.impl()->data();
    p.a_row = a.strides()[1];
    p.a_col = a.strides()[2];
    p.b = b.impl()->data();
    p.b_row = b.strides()[1];
    p.b_col = b.strides()[2];
    p.c = y.impl()->mutable_data();
    p.c_row = p.n;
    p.batch = batch;
    p.a_batch = a.sizes()[0] == 1 ? 0 : a.strides()[0];
    p.b_batch = b.sizes()[0] == 1 ? 0 : b.strides()[0];
    p.c_batch = p.m * p.n;
    const WeightScope weight(b, params.keeps && p.b_batch == 0);
    p.weight = weight.get();
    kernel(p);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& a, const Tensor& b, const Tensor&) {
    if (saver.needs(1)) saver.save(0, a);
    if (saver.needs(0)) saver.save(1, b);
  }
  static void backward(Backward& ctx, const Params&) {
    if (ctx.needs(0)) ctx.set(0, call<Matmul>({}, ctx.grad(), transpose(ctx.saved(1), 1, 2)));
    if (ctx.needs(1)) ctx.set(1, call<Matmul>({}, transpose(ctx.saved(0), 1, 2), ctx.grad()));
  }
};

/// The step between the rows of x, whose leading dimensions are taken as one; none if they step unevenly. The
/// strides of dimensions of size 1, which say nothing, are not looked at.
std::optional<int64_t> row_step(const Tensor& x) {
  std::optional<int64_t> step;
  int64_t rows = 1;
  for (size_t d = x.sizes().size() - 1; d-- > 0;) {
    if (x.sizes()[d] == 1) continue;
    if (!step) step = x.strides()[d];
    if (x.strides()[d] != *step * rows) return {};
    rows *= x.sizes()[d];
  }
  return step ? step : x.sizes().back();
}

/// y = x W^T + b over rows [rows, in]. dX = dY W, dW = dY^T X, db = the sum of the rows of dY.
struct Linear {
  static constexpr const char* kName = "linear";
  using Params = Matmul::Params;
  static int64_t flops(const Params&, const Tensor& x, const Tensor& weight, const Tensor&) {
    return 2 * x.numel() * weight.sizes()[0];
  }
  static Tensor forward(const Params& params, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    Dims sizes = x.sizes();
    sizes.back() = weight.sizes()[0];
    const Tensor y = empty(sizes, x.dtype(), x.device());
    const auto kernel = matmul_forward.get(x.device(), x.dtype());
    if (y.numel() == 0) return y;
    MatmulParams p;
    p.k = x.sizes().back();
    p.n = weight.sizes()[0];
    p.m = y.numel() / p.n;
    p.a = x.impl()->data();
    p.a_row = row_step(x).value_or(0);  // none only of no elements: k is 0
    p.a_col = x.strides().back();
    p.b = weight.impl()->data();
    p.b_row = weight.strides()[1];
    p.b_col = weight.strides()[0];
    p.c = y.impl()->mutable_data();
    p.c_row = p.n;
    Tensor dense_bias = bias;
    if (bias.defined() && !bias.is_contiguous()) dense_bias = contiguous(bias);
    p.bias = bias.defined() ? dense_bias.impl()->data() : nullptr;
    const WeightScope kept(weight, params.keeps);
    p.weight = kept.get();
    kernel(p);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& weight, const Tensor&,
                   const Tensor&) {
    if (saver.needs(1)) saver.save(0, x);
    if (saver.needs(0)) saver.save(1, weight);
  }
  static void backward(Backward& ctx, const Params& params) {
    const Tensor& grad = ctx.grad();
    const int64_t out = grad.sizes().back();
    const Tensor rows = grad.dim() == 2 ? grad : reshape(grad, Dims{out == 0 ? 0 : grad.numel() / out, out});
    if (ctx.needs(0)) {
      const Tensor weight = ctx.saved(1);
      Dims sizes = grad.sizes();
      sizes.back() = weight.sizes()[1];
      ctx.set(0, reshape(call<Matmul>(params, unsqueeze(rows, 0), unsqueeze(weight, 0)), sizes));
    }
    if (ctx.needs(1)) {
      const Tensor x = ctx.saved(0);
      const int64_t in = x.sizes().back();
      ctx.set(1, mm(transpose(rows, 0, 1), x.dim() == 2 ? x : reshape(x, Dims{rows.sizes()[0], in})));
    }
    if (ctx.needs(2)) ctx.set(2, sum(rows, Dims{0}));
  }
};

Tensor contract(const Tensor& a, const Tensor& b) { return call<Matmul>({}, a, b); }

bool can_broadcast(IntSpan a, IntSpan b) {
  for (size_t i = 1; i <= std::min(a.size(), b.size()); ++i) {
    const int64_t size_a = a[a.size() - i], size_b = b[b.size() - i];
    if (size_a != size_b && size_a != 1 && size_b != 1) return false;
  }
  return true;
}

void check_rank(const Tensor& x, int64_t rank, const char* op, const char* which) {
  OPSIN_CHECK(ShapeError, x.dim() == rank, op, ": expected ", which, " to have ", rank, " dimensions, got ",
              str(x.sizes()));
}

void check_inner(const Tensor& a, const Tensor& b, int64_t k_a, int64_t k_b, const char* op) {
  OPSIN_CHECK(ShapeError, k_a == k_b, op, ": mat1 and mat2 shapes cannot be multiplied (", str(a.sizes()),
              " and ", str(b.sizes()), ": ", k_a, " != ", k_b, ")");
}

/// beta * self + alpha * product, where a beta of 0 ignores even NaN in self.
Tensor blend(const Tensor& self, const Tensor& product, const Scalar& beta, const Scalar& alpha,
             const char* op) {
  OPSIN_CHECK(Error, self.dtype() == product.dtype(), op, ": expected self of dtype ", name(product.dtype()),
              ", got ", name(self.dtype()));
  const bool unit_alpha = alpha.to_double() == 1, unit_beta = beta.to_double() == 1;
  const Tensor scaled = unit_alpha ? product : mul(product, wrap_number(alpha));
  OPSIN_CHECK(ShapeError, broadcast_shapes(self.sizes(), scaled.sizes(), op) == scaled.sizes(), op,
              ": expected self to broadcast to ", str(scaled.sizes()), ", got ", str(self.sizes()));
  if (beta.to_double() == 0) return scaled;
  return add(unit_beta ? self : mul(self, wrap_number(beta)), scaled);
}

}  // namespace

Tensor mm(const Tensor& self, const Tensor& mat2) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(mm, self, mat2);
  check_dtypes(self, mat2, "mm");
  check_rank(self, 2, "mm", "self");
  check_rank(mat2, 2, "mm", "mat2");
  check_inner(self, mat2, self.sizes()[1], mat2.sizes()[0], "mm");
  return squeeze(call<Matmul>({is_constant(mat2)}, unsqueeze(self, 0), unsqueeze(mat2, 0)), Dims{0});
}

Tensor bmm(const Tensor& self, const Tensor& mat2) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(bmm, self, mat2);
  check_dtypes(self, mat2, "bmm");
  check_rank(self, 3, "bmm", "self");
  check_rank(mat2, 3, "bmm", "mat2");
  OPSIN_CHECK(ShapeError, self.sizes()[0] == mat2.sizes()[0], "bmm: expected equal batch sizes, got ",
              str(self.sizes()), " and ", str(mat2.sizes()));
  check_inner(self, mat2, self.sizes()[2], mat2.sizes()[1], "bmm");
  return contract(self, mat2);
}

Tensor mv(const Tensor& self, const Tensor& vec) {
  if (autocast::is_on(DeviceType::kCUDA, self)) return autocast::call<autocast::kLower>(mv, self, vec);
  if (autocast::is_active()) return autocast::call<autocast::kAsIs>(mv, self, vec);
  check_rank(self, 2, "mv", "self");
  check_rank(vec, 1, "mv", "vec");
  check_inner(self, vec, self.sizes()[1], vec.sizes()[0], "mv");
  return matmul(self, vec);
}

Tensor dot(const Tensor& self, const Tensor& tensor) {
  if (autocast::is_on(DeviceType::kCUDA, self)) return autocast::call<autocast::kWidest>(dot, self, tensor);
  if (autocast::is_active()) return autocast::call<autocast::kAsIs>(dot, self, tensor);
  check_dtypes(self, tensor, "dot");
  check_rank(self, 1, "dot", "self");
  check_rank(tensor, 1, "dot", "tensor");
  OPSIN_CHECK(ShapeError, self.numel() == tensor.numel(),
              "dot: inconsistent tensor size, expected tensors of the same number of elements, got ",
              self.numel(), " and ", tensor.numel());
  return matmul(self, tensor);
}

Tensor outer(const Tensor& self, const Tensor& vec2) {
  check_rank(self, 1, "outer", "self");
  check_rank(vec2, 1, "outer", "vec2");
  return mul(unsqueeze(self, 1), vec2);
}

Tensor matmul(const Tensor& self, const Tensor& other) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(matmul, self, other);
  check_dtypes(self, other, "matmul");
  OPSIN_CHECK(Error, self.dim() > 0 && other.dim() > 0,
              "matmul: both arguments to matmul need to be at least 1D, but they are ", self.dim(), "D and ",
              other.dim(), "D (", str(self.sizes()), " and ", str(other.sizes()), ")");
  check_inner(self, other, self.size(-1), other.size(other.dim() == 1 ? 0 : -2), "matmul");
  if (self.dim() == 2 && other.dim() == 2) return mm(self, other);
  if (self.dim() == 1) {
    const Tensor y = matmul(unsqueeze(self, 0), other.dim() == 1 ? unsqueeze(other, 1) : other);
    return other.dim() == 1 ? reshape(y, IntSpan{}) : squeeze(y, Dims{-2});
  }
  if (other.dim() == 1) return squeeze(matmul(self, unsqueeze(other, 1)), Dims{-1});

  const int64_t m = self.size(-2), k = self.size(-1), n = other.size(-1);
  if (other.dim() == 2) {
    // One product with many rows beats many products.
    Dims sizes = self.sizes();
    sizes.back() = n;
    return reshape(mm(reshape(self, Dims{k == 0 ? self.numel() : self.numel() / k, k}), other), sizes);
  }
  const Dims batch_a(self.sizes().span().first(self.sizes().size() - 2));
  const Dims batch_b(other.sizes().span().first(other.sizes().size() - 2));
  OPSIN_CHECK(ShapeError, can_broadcast(batch_a, batch_b),
              "matmul: expected leading dimensions that broadcast, got ", str(self.sizes()), " and ",
              str(other.sizes()));
  const Dims batch = broadcast_shapes(batch_a, batch_b, "matmul");
  const int64_t count = count_elements(batch);
  const auto flat = [&](const Tensor& x, const Dims& own, int64_t rows, int64_t cols) {
    if (count_elements(own) == 1) return reshape(x, Dims{1, rows, cols});
    Dims sizes = batch;
    sizes.push_back(rows);
    sizes.push_back(cols);
    return reshape(expand(x, sizes), Dims{count, rows, cols});
  };
  Dims sizes = batch;
  sizes.push_back(m);
  sizes.push_back(n);
  return reshape(contract(flat(self, batch_a, m, k), flat(other, batch_b, k, n)), sizes);
}

Tensor inner(const Tensor& self, const Tensor& other) {
  if (self.dim() == 0 || other.dim() == 0) return mul(self, other);
  OPSIN_CHECK(ShapeError, self.size(-1) == other.size(-1),
              "inner: the last dimensions of both must match, got ", str(self.sizes()), " and ",
              str(other.sizes()));
  if (self.dim() == 1 && other.dim() == 1) return dot(self, other);
  // Every row of one with every row of the other.
  const int64_t k = self.size(-1);
  const Tensor a = reshape(self, Dims{k == 0 ? 0 : self.numel() / k, k});
  const Tensor b = reshape(other, Dims{k == 0 ? 0 : other.numel() / k, k});
  Dims sizes(self.sizes().span().first(self.sizes().size() - 1));
  for (int64_t i = 0; i + 1 < other.dim(); ++i) sizes.push_back(other.size(i));
  return reshape(mm(a, transpose(b, 0, 1)), sizes);
}

Tensor addr(const Tensor& self, const Tensor& vec1, const Tensor& vec2, const Scalar& beta,
            const Scalar& alpha) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kLower>(addr, self, vec1, vec2, beta, alpha);
  return blend(self, outer(vec1, vec2), beta, alpha, "addr");
}
Tensor addbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2, const Scalar& beta,
              const Scalar& alpha) {
  if (autocast::is_active())
    return autocast::call<autocast::kLower>(addbmm, self, batch1, batch2, beta, alpha);
  return blend(self, sum(bmm(batch1, batch2), Dims{0}), beta, alpha, "addbmm");
}
Tensor addmm(const Tensor& self, const Tensor& mat1, const Tensor& mat2, const Scalar& beta,
             const Scalar& alpha) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(addmm, self, mat1, mat2, beta, alpha);
  return blend(self, mm(mat1, mat2), beta, alpha, "addmm");
}
Tensor baddbmm(const Tensor& self, const Tensor& batch1, const Tensor& batch2, const Scalar& beta,
               const Scalar& alpha) {
  if (autocast::is_active())
    return autocast::call<autocast::kLower>(baddbmm, self, batch1, batch2, beta, alpha);
  return blend(self, bmm(batch1, batch2), beta, alpha, "baddbmm");
}
Tensor addmv(const Tensor& self, const Tensor& mat, const Tensor& vec, const Scalar& beta,
             const Scalar& alpha) {
  if (autocast::is_on(DeviceType::kCUDA, self))
    return autocast::call<autocast::kLower>(addmv, self, mat, vec, beta, alpha);
  if (autocast::is_active()) return autocast::call<autocast::kAsIs>(addmv, self, mat, vec, beta, alpha);
  return blend(self, mv(mat, vec), beta, alpha, "addmv");
}

Tensor linear(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  if (autocast::is_active()) return autocast::call<autocast::kLower>(linear, input, weight, bias);
  check_dtypes(input, weight, "linear");
  OPSIN_CHECK(ShapeError, input.dim() > 0,
              "linear: expected input of at least one dimension, got a 0-d tensor");
  OPSIN_CHECK(ShapeError, weight.dim() == 1 || weight.dim() == 2,
              "linear: expected weight [out, in] or [in], got ", str(weight.sizes()));
  check_inner(input, weight, input.size(-1), weight.size(-1), "linear");
  if (weight.dim() == 1) {
    const Tensor y = matmul(input, weight);
    return bias.defined() ? add(y, bias) : y;
  }
  if (bias.defined()) {
    check_dtypes(input, bias, "linear");
    OPSIN_CHECK(ShapeError, bias.dim() == 1 && bias.sizes()[0] == weight.sizes()[0],
                "linear: expected bias [", weight.sizes()[0], "] for weight ", str(weight.sizes()), ", got ",
                str(bias.sizes()));
  }
  return call<Linear>({is_constant(weight)}, row_step(input) ? input : contiguous(input), weight, bias);
}

/// y[n, o] = x1[n, i] W[o, i, j] x2[n, j] + b[o], as a matrix product with x1 and a weighted sum with x2.
Tensor bilinear(const Tensor& input1, const Tensor& input2, const Tensor& weight, const Tensor& bias) {
  if (autocast::is_on(DeviceType::kCUDA, input1))
    return autocast::call<autocast::kWidest>(bilinear, input1, input2, weight, bias);
  if (autocast::is_active()) return autocast::call<autocast::kAsIs>(bilinear, input1, input2, weight, bias);
  OPSIN_CHECK(ShapeError,
              weight.dim() == 3 && input1.dim() > 0 && input2.dim() == input1.dim() &&
                  input1.size(-1) == weight.sizes()[1] && input2.size(-1) == weight.sizes()[2],
              "bilinear: expected inputs [..., i] and [..., j] for weight [o, i, j], got ",
              str(input1.sizes()), ", ", str(input2.sizes()), " and ", str(weight.sizes()));
  const int64_t out = weight.sizes()[0], n1 = weight.sizes()[1], n2 = weight.sizes()[2];
  Dims sizes = input1.sizes();
  sizes.back() = out;
  sizes.push_back(n2);
  const Tensor left = matmul(input1, reshape(permute(weight, Dims{1, 0, 2}), Dims{n1, out * n2}));
  const Tensor y = sum(mul(reshape(left, sizes), unsqueeze(input2, -2)), Dims{-1});
  return bias.defined() ? add(y, bias) : y;
}

void register_matmul(Registry& registry) {
  registry.add<&bilinear>(
      "nn.functional.bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor",
      "y[..., o] = input1[..., i] weight[o, i, j] input2[..., j] + bias[o].");
  register_matmul_cpu();
  registry.add<&matmul>("matmul(Tensor self, Tensor other) -> Tensor",
                        "The matrix product; vectors are rows or columns, leading dimensions broadcast.");
  registry.add<&mm>("mm(Tensor self, Tensor mat2) -> Tensor", "[m, k] x [k, n] -> [m, n].");
  registry.add<&bmm>("bmm(Tensor self, Tensor mat2) -> Tensor", "[b, m, k] x [b, k, n] -> [b, m, n].");
  registry.add<&mv>("mv(Tensor self, Tensor vec) -> Tensor", "[m, k] x [k] -> [m].");
  registry.add<&dot>("dot(Tensor self, Tensor tensor) -> Tensor", "The scalar product of two vectors.");
  registry.add<&outer>("outer(Tensor self, Tensor vec2) -> Tensor", "[m] x [n] -> [m, n].");
  registry.add<&addmm>(
      "addmm(Tensor self, Tensor mat1, Tensor mat2, *, Number beta=1, Number alpha=1) -> Tensor",
      "beta * self + alpha * (mat1 x mat2).");
  registry.add<&baddbmm>(
      "baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1) -> Tensor",
      "beta * self + alpha * (batch1 x batch2), batch by batch.");
  registry.add<&addmv>(
      "addmv(Tensor self, Tensor mat, Tensor vec, *, Number beta=1, Number alpha=1) -> Tensor",
      "beta * self + alpha * (mat x vec).");
  registry.add<&inner>("inner(Tensor self, Tensor other) -> Tensor",
                       "Scalar products of the last dimension of both: [..., k] and [*, k] -> [..., *].");
  registry.add<&addr>(
      "addr(Tensor self, Tensor vec1, Tensor vec2, *, Number beta=1, Number alpha=1) -> Tensor",
      "beta * self + alpha * (vec1 outer vec2).");
  registry.add<&addbmm>(
      "addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Number beta=1, Number alpha=1) -> Tensor",
      "beta * self + alpha * the sum over batches of (batch1 x batch2).");
  registry.add<&linear>("nn.functional.linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor",
                        "x W^T + b for input [..., in], weight [out, in] and bias [out].");
}

}  // namespace opsin
