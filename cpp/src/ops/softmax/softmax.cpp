#include "softmax_kernels.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/softmax.h>
#include <opsin/ops/unary.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const SoftmaxParams&)> softmax_forward{"softmax"};
constinit KernelSlot<void (*)(const SoftmaxBackwardParams&)> softmax_backward{"softmax_backward"};

namespace {

/// Where the vectors along a dimension lie in memory: outer blocks of `inner` vectors side by side.
struct Vectors {
  int64_t outer, n, inner;

  Vectors(const Tensor& x, int64_t dim) : outer(1), n(x.dim() == 0 ? 1 : x.size(dim)), inner(1) {
    for (int64_t d = 0; d < x.dim(); ++d) (d < dim ? outer : inner) *= d == dim ? 1 : x.size(d);
    // Channels last, the channels of a pixel follow each other.
    if (x.impl()->is_hidden()) {
      if (dim == 1) {
        outer *= inner;
        inner = 1;
      } else if (dim == 0) {
        outer = 1;
      } else {
        outer = x.size(0);
        for (int64_t d = 2; d < dim; ++d) outer *= x.size(d);
        inner = x.size(1);
        for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
      }
    }
  }
};

/// A tensor laid out as `model`, and dense.
Tensor dense_like(const Tensor& x, const Tensor& model) {
  if (x.is_contiguous() && x.impl()->is_hidden() == model.impl()->is_hidden()) return x;
  const Tensor y = model.impl()->is_hidden() ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                                             : empty(x.sizes(), x.dtype(), x.device());
  return copy_(y, x);
}
Tensor empty_as(const Tensor& model) {
  return model.impl()->is_hidden() ? empty_channels_last(model.sizes(), model.dtype(), model.device())
                                   : empty(model.sizes(), model.dtype(), model.device());
}

template <bool kLog>
struct Softmax {
  static constexpr const char* kName = kLog ? "log_softmax" : "softmax";
  struct Params {
    int64_t dim;
  };
  static Tensor forward(const Params& p, const Tensor& input) {
    const Tensor x = contiguous(input);
    if (!is_floating_point(x.dtype())) detail::raise_unsupported(kName, x.dtype());
    const auto kernel = softmax_forward.get(x.device(), x.dtype());
    const Tensor y = empty_as(x);
    if (x.numel() == 0) return y;
    const Vectors v(x, p.dim);
    kernel({x.impl()->physical_data(), y.impl()->mutable_physical_data(), v.outer, v.n, v.inner, x.dtype(),
            kLog});
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& y) { saver.save_output(0, y); }
  // softmax: dy_i/dx_j = y_i (delta_ij - y_j), so dx = y (dy - sum(dy y)).
  // log_softmax: dy_i/dx_j = delta_ij - exp(y_j), so dx = dy - exp(y) sum(dy).
  static void backward(Backward& ctx, const Params& p) {
    const Tensor y = ctx.saved(0);
    const Tensor& grad_y = ctx.grad();
    if (ctx.create_graph()) {
      if constexpr (kLog) {
        ctx.set(0, grad_y - exp(y) * sum(grad_y, Dims{p.dim}, true));
      } else {
        ctx.set(0, y * (grad_y - sum(grad_y * y, Dims{p.dim}, true)));
      }
      return;
    }
    const Tensor g = dense_like(grad_y, y);
    const Tensor grad_x = empty_as(y);
    const auto kernel = softmax_backward.get(y.device(), y.dtype());
    if (y.numel() > 0) {
      const Vectors v(y, p.dim);
      kernel({g.impl()->physical_data(), y.impl()->physical_data(), grad_x.impl()->mutable_physical_data(),
              v.outer, v.n, v.inner, y.dtype(), kLog});
    }
    ctx.set(0, grad_x);
  }
};

// The dimension that PyTorch's module functions take when none is given.
int64_t legacy_dim(const Tensor& x, std::optional<int64_t> dim) {
  return dim.value_or(x.dim() == 0 || x.dim() == 1 || x.dim() == 3 ? 0 : 1);
}
Tensor functional_softmax(const Tensor& input, std::optional<int64_t> dim, int64_t,
                          std::optional<DType> dtype) {
  return softmax(input, legacy_dim(input, dim), dtype);
}
Tensor functional_log_softmax(const Tensor& input, std::optional<int64_t> dim, int64_t,
                              std::optional<DType> dtype) {
  return log_softmax(input, legacy_dim(input, dim), dtype);
}
Tensor functional_softmin(const Tensor& input, std::optional<int64_t> dim, int64_t,
                          std::optional<DType> dtype) {
  return softmin(input, legacy_dim(input, dim), dtype);
}

}  // namespace

Tensor softmax(const Tensor& self, int64_t dim, std::optional<DType> dtype) {
  dtype = autocast::full_dtype(self, dtype);
  return call<Softmax<false>>({wrap_dim(dim, self.dim(), "softmax")}, to(self, dtype.value_or(self.dtype())));
}

Tensor log_softmax(const Tensor& self, int64_t dim, std::optional<DType> dtype) {
  dtype = autocast::full_dtype(self, dtype);
  return call<Softmax<true>>({wrap_dim(dim, self.dim(), "log_softmax")},
                             to(self, dtype.value_or(self.dtype())));
}

Tensor softmin(const Tensor& input, int64_t dim, std::optional<DType> dtype) {
  return softmax(neg(input), dim, dtype);
}

void register_softmax(Registry& registry) {
  register_softmax_cpu();
  registry.add<&softmax>("softmax(Tensor self, int dim, dtype? dtype=None) -> Tensor",
                         "exp(x) / sum(exp(x)) along a dimension.");
  registry.add<&log_softmax>("log_softmax(Tensor self, int dim, dtype? dtype=None) -> Tensor",
                             "x - log(sum(exp(x))) along a dimension.");
  registry.add<&functional_softmax>(
      "nn.functional.softmax(Tensor input, int? dim=None, int _stacklevel=3, dtype? dtype=None) -> Tensor",
      "exp(x) / sum(exp(x)) along a dimension.");
  registry.add<&functional_log_softmax>(
      "nn.functional.log_softmax(Tensor input, int? dim=None, int _stacklevel=3, dtype? dtype=None) -> "
      "Tensor",
      "x - log(sum(exp(x))) along a dimension.");
  registry.add<&functional_softmin>(
      "nn.functional.softmin(Tensor input, int? dim=None, int _stacklevel=3, dtype? dtype=None) -> Tensor",
      "softmax(-x) along a dimension.");
}

}  // namespace opsin
