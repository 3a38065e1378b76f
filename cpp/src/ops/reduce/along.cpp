#include "along.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

struct Extent {
  int64_t outer = 1, inner = 1;
};
Extent extent_around(IntSpan sizes, int64_t dim) {
  Extent e;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (static_cast<int64_t>(d) != dim) (static_cast<int64_t>(d) < dim ? e.outer : e.inner) *= sizes[d];
  }
  return e;
}

/// Calls body(offset in the large tensor, offset in the small one) for each index; `outer` slices run in
/// parallel.
template <class Body>
void for_picks(IntSpan sizes, int64_t dim, int64_t large, int64_t small, const int64_t* index, Body&& body) {
  const Extent e = extent_around(sizes, dim);
  const int64_t work = std::max<int64_t>(1, small * e.inner);
  cpu::parallel_for(e.outer, std::max<int64_t>(1, 16384 / work), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t i = 0; i < small; ++i) {
        for (int64_t k = 0; k < e.inner; ++k) {
          const int64_t at = (o * small + i) * e.inner + k;
          body((o * large + index[at]) * e.inner + k, at);
        }
      }
    }
  });
}

struct TakeAlong {
  static constexpr const char* kName = "take_along";
  struct Params {
    int64_t dim, size;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& index) {
    const Tensor from = contiguous(x), at = contiguous(index);
    const Tensor y = empty(index.sizes(), x.dtype());
    if (y.numel() == 0) return y;
    const auto d = static_cast<size_t>(p.dim);
    dispatch_all(x.dtype(), kName, [&]<class T>() {
      const T* source = from.data<T>();
      T* to = y.mutable_data<T>();
      for_picks(index.sizes(), p.dim, x.dim() == 0 ? 1 : x.sizes()[d], x.dim() == 0 ? 1 : index.sizes()[d],
                at.data<int64_t>(), [&](int64_t large, int64_t small) { to[small] = source[large]; });
    });
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
    const auto d = static_cast<size_t>(p.dim);
    Dims sizes = x.sizes();
    if (x.dim() > 0) sizes[d] = p.size;
    const Tensor y = zeros(sizes, x.dtype());
    if (x.numel() == 0) return y;
    dispatch_all(x.dtype(), kName, [&]<class T>() {
      const T* source = from.data<T>();
      T* to = y.mutable_data<T>();
      for_picks(x.sizes(), p.dim, p.size, x.dim() == 0 ? 1 : x.sizes()[d], at.data<int64_t>(),
                [&](int64_t large, int64_t small) {
                  to[large] = static_cast<T>(static_cast<compute_t<T>>(to[large]) +
                                             static_cast<compute_t<T>>(source[small]));
                });
    });
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
