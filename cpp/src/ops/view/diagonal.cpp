// Diagonals and triangles of matrices.
#include "parts.h"
#include "view_kernels.h"

#include <opsin/ops/rearrange.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const TriangularParams&)> triangle_keep("tril");

namespace {

struct DiagonalParams {
  int64_t offset, dim1, dim2;
  Dims input_sizes;
};

struct Diagonal {
  static constexpr const char* kName = "diagonal";
  static constexpr bool kView = true;
  using Params = DiagonalParams;
  static Tensor forward(const Params& p, const Tensor& x) {
    const auto a = static_cast<size_t>(p.dim1), b = static_cast<size_t>(p.dim2);
    Dims sizes = x.sizes(), strides = x.strides();
    const int64_t length =
        p.offset >= 0 ? std::min(sizes[a], sizes[b] - p.offset) : std::min(sizes[a] + p.offset, sizes[b]);
    const int64_t stride = strides[a] + strides[b];
    int64_t offset = x.storage_offset();
    if (length > 0) offset += p.offset >= 0 ? p.offset * strides[b] : -p.offset * strides[a];
    for (Dims* dims : {&sizes, &strides}) {
      dims->erase(std::max(a, b));
      dims->erase(std::min(a, b));
    }
    sizes.push_back(std::max<int64_t>(length, 0));
    strides.push_back(stride);
    return make_view(x, std::move(sizes), std::move(strides), offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, embedded(ctx.grad(), p.input_sizes,
                        [&](const Tensor& x) { return diagonal(x, p.offset, p.dim1, p.dim2); }));
  }
};

// The elements of x on the diagonals, zeros elsewhere: the gradient is read off the diagonals.
struct DiagEmbed {
  static constexpr const char* kName = "diag_embed";
  struct Params {
    int64_t offset, dim1, dim2;
    Dims sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    return embedded(x, p.sizes, [&](const Tensor& y) { return diagonal(y, p.offset, p.dim1, p.dim2); });
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, diagonal(ctx.grad(), p.offset, p.dim1, p.dim2));
  }
};

// Keeps the elements with column - row <= diagonal (lower) or >= diagonal (upper); so does the gradient.
template <bool kUpper>
struct Triangle {
  static constexpr const char* kName = kUpper ? "triu" : "tril";
  struct Params {
    int64_t diagonal;
  };
  static void forward_into(Tensor& y, const Params& p, const Tensor& x) {
    const Tensor source = contiguous(x.detach());
    const Tensor target = y.defined() && y.is_contiguous() ? y : empty(x.sizes(), x.dtype(), x.device());
    if (x.numel() > 0) {
      const int64_t rows = x.size(-2), columns = x.size(-1);
      triangle_keep.get(
          x.device(), x.dtype())({source.impl()->data(), target.impl()->mutable_data(),
                                  x.numel() / rows / columns, rows, columns, p.diagonal, kUpper, x.dtype()});
    }
    if (!y.defined()) {
      y = target;
    } else if (!target.is_same(y)) {
      copy_(y.detach(), target);
    }
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, kUpper ? triu(ctx.grad(), p.diagonal) : tril(ctx.grad(), p.diagonal));
  }
};

template <bool kUpper>
typename Triangle<kUpper>::Params triangle_params(const Tensor& x, int64_t diagonal) {
  OPSIN_CHECK(ShapeError, x.dim() >= 2, Triangle<kUpper>::kName,
              ": input tensor must have at least 2 dimensions, got ", str(x.sizes()));
  // Beyond the matrix nothing changes, and the sum with a row number must not overflow.
  return {std::clamp(diagonal, -x.size(-2) - 1, x.size(-1) + 1)};
}

Tensor diagflat(const Tensor& self, int64_t offset) {
  return diag_embed(reshape(self, Dims{-1}), offset, 0, 1);
}

Tensor fill_diagonal_(const Tensor& self, const Scalar& fill_value, bool wrap) {
  OPSIN_CHECK(ShapeError, self.dim() >= 2, "fill_diagonal_: dimensions must be larger than 1, got shape ",
              str(self.sizes()));
  int64_t length = INT64_MAX, stride = 0;
  for (int64_t d = 0; d < self.dim(); ++d) {
    OPSIN_CHECK(ShapeError, self.dim() == 2 || self.size(d) == self.size(0),
                "fill_diagonal_: all dimensions of input must be of equal length, got ", str(self.sizes()));
    length = std::min(length, self.size(d));
    stride += self.stride(d);
  }
  fill_(as_strided(self, Dims{length}, Dims{stride}), fill_value);
  const int64_t width = self.size(1);
  if (wrap && self.dim() == 2 && self.size(0) > width + 1) {
    // The diagonal starts again after one row without it.
    const int64_t rest = (self.numel() + width) / (width + 1) - length;
    fill_(as_strided(self, Dims{rest}, Dims{stride}, self.storage_offset() + self.stride(0) * (width + 1)),
          fill_value);
  }
  return self;
}

}  // namespace

Tensor diagonal(const Tensor& self, int64_t offset, int64_t dim1, int64_t dim2) {
  const int64_t a = wrap_dim(dim1, self.dim(), "diagonal");
  const int64_t b = wrap_dim(dim2, self.dim(), "diagonal");
  OPSIN_CHECK(ShapeError, a != b, "diagonal: dimensions cannot be identical ", dim1, ", ", dim2);
  return call<Diagonal>({offset, a, b, self.sizes()}, self);
}

Tensor diag_embed(const Tensor& self, int64_t offset, int64_t dim1, int64_t dim2) {
  OPSIN_CHECK(ShapeError, self.dim() > 0,
              "diag_embed: expected a tensor of at least 1 dimension, got a 0-dim one");
  const int64_t a = wrap_dim(dim1, self.dim() + 1, "diag_embed");
  const int64_t b = wrap_dim(dim2, self.dim() + 1, "diag_embed");
  OPSIN_CHECK(ShapeError, a != b, "diag_embed: dimensions cannot be identical ", dim1, ", ", dim2);
  Dims sizes = self.sizes();
  const int64_t width = sizes.back() + std::abs(offset);
  sizes.erase(sizes.size() - 1);
  sizes.insert(static_cast<size_t>(std::min(a, b)), width);
  sizes.insert(static_cast<size_t>(std::max(a, b)), width);
  return call<DiagEmbed>({offset, a, b, std::move(sizes)}, self);
}

Tensor diag(const Tensor& self, int64_t d) {
  OPSIN_CHECK(ShapeError, self.dim() == 1 || self.dim() == 2, "diag: supports 1D or 2D tensors, got ",
              self.dim(), "D");
  return self.dim() == 1 ? diag_embed(self, d, 0, 1) : clone(diagonal(self, d, 0, 1));
}

Tensor tril(const Tensor& self, int64_t d) {
  return call<Triangle<false>>(triangle_params<false>(self, d), self);
}
Tensor tril_(const Tensor& self, int64_t d) {
  return call_inplace<Triangle<false>>(triangle_params<false>(self, d), self);
}
Tensor triu(const Tensor& self, int64_t d) {
  return call<Triangle<true>>(triangle_params<true>(self, d), self);
}
Tensor triu_(const Tensor& self, int64_t d) {
  return call_inplace<Triangle<true>>(triangle_params<true>(self, d), self);
}

void register_view_diagonal(Registry& registry) {
  registry.add<&diagonal>(
      "diagonal(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor",
      "The diagonals of the matrices in dimensions dim1 and dim2, as a new last dimension.");
  registry.add<&diag_embed>("diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor",
                            "Matrices of zeros with the last dimension of `self` as their diagonals.");
  registry.add<&diag>("diag(Tensor self, int diagonal=0) -> Tensor",
                      "The diagonal of a matrix, or the matrix with a vector as its diagonal.");
  registry.add<&diagflat>("diagflat(Tensor self, int offset=0) -> Tensor",
                          "The matrix with all elements of `self` as its diagonal.");
  registry.add<&tril>("tril(Tensor self, int diagonal=0) -> Tensor",
                      "The lower triangles of matrices [..., m, n], zeros elsewhere.");
  registry.add<&tril_>("Tensor.tril_(Tensor self, int diagonal=0) -> Tensor", "In-place version of tril.");
  registry.add<&triu>("triu(Tensor self, int diagonal=0) -> Tensor",
                      "The upper triangles of matrices [..., m, n], zeros elsewhere.");
  registry.add<&triu_>("Tensor.triu_(Tensor self, int diagonal=0) -> Tensor", "In-place version of triu.");
  registry.add<&fill_diagonal_>(
      "Tensor.fill_diagonal_(Tensor self, Number fill_value, bool wrap=False) -> Tensor",
      "Writes a number to the main diagonal; `wrap` restarts it below for tall matrices.");
}

}  // namespace opsin
