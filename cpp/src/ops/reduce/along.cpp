#include "along.h"

#include "along_kernels.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>

#include "core/call.h"

namespace opsin {

constinit KernelSlot<void (*)(const AlongParams&)> take_along_rows{"take_along"};
constinit KernelSlot<void (*)(const AlongParams&)> put_along_rows{"put_along"};

namespace {

AlongParams params_of(const Tensor& x, const Tensor& y, const Tensor& index, IntSpan sizes, int64_t dim,
                      int64_t large) {
  AlongParams p{x.impl()->data(), y.impl()->mutable_data(), index.data<int64_t>(), 1, large, 1, 1, x.dtype()};
  for (size_t d = 0; d < sizes.size(); ++d) {
    (static_cast<int64_t>(d) < dim    ? p.outer
     : static_cast<int64_t>(d) == dim ? p.small
                                      : p.inner) *= sizes[d];
  }
  return p;
}

struct TakeAlong {
  static constexpr const char* kName = "take_along";
  struct Params {
    int64_t dim, size;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& index) {
    const Tensor from = contiguous(x), at = contiguous(index);
    const auto kernel = take_along_rows.get(x.device(), x.dtype());
    const Tensor y = empty(index.sizes(), x.dtype(), x.device());
    if (y.numel() == 0) return y;
    kernel(params_of(from, y, at, index.sizes(), p.dim, p.size));
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& index, const Tensor&) {
    saver.save(0, index);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, put_along(ctx.grad(), p.dim, ctx.saved(0), p.size));
  }
};

struct PutAlong {
  static constexpr const char* kName = "put_along";
  struct Params {
    int64_t dim, size;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& index) {
    const Tensor from = contiguous(x), at = contiguous(index);
    Dims sizes = x.sizes();
    if (x.dim() > 0) sizes[static_cast<size_t>(p.dim)] = p.size;
    const auto kernel = put_along_rows.get(x.device(), x.dtype());
    const Tensor y = zeros(sizes, x.dtype(), x.device());
    if (x.numel() == 0) return y;
    kernel(params_of(from, y, at, x.sizes(), p.dim, p.size));
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& index, const Tensor&) {
    saver.save(0, index);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, take_along(ctx.grad(), p.dim, ctx.saved(0)));
  }
};

}  // namespace

Tensor take_along(const Tensor& x, int64_t dim, const Tensor& index) {
  return call<TakeAlong>({dim, x.dim() == 0 ? 1 : x.size(dim)}, x, index);
}

Tensor put_along(const Tensor& x, int64_t dim, const Tensor& index, int64_t size) {
  return call<PutAlong>({dim, size}, x, index);
}

}  // namespace opsin
