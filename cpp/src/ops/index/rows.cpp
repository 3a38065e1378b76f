#include "rows.h"

#include "index_kernels.h"

#include <atomic>

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>

#include "core/call.h"
#include "core/same_device.h"
#include "cpu/thread_pool.h"

namespace opsin {

constinit KernelSlot<IndexFn> rows_select("index"), rows_put("index_put_"), rows_add("index_add_"),
    along_gather("gather"), along_scatter("scatter_"), along_fold("scatter_reduce");

namespace {

/// Runs `write(target)` on dense memory, on the CPU of float32 or wider where values are summed, and brings
/// the result to `y`. A GPU widens what it sums on the way.
template <class F>
void write_dense(Tensor& y, bool accumulate, F write) {
  const DType dtype = accumulate && y.device().is_cpu() ? compute_type(y.dtype()) : y.dtype();
  if (y.is_contiguous() && dtype == y.dtype()) {
    write(y);
    return;
  }
  Tensor target = to(contiguous(y.detach()), dtype);
  if (target.impl()->storage.get() == y.impl()->storage.get()) target = clone(target);
  write(target);
  copy_(y.detach(), target);
}

/// `values` as dense memory of the dtype of `target`, apart from the memory of `target`.
Tensor source_for(const Tensor& target, const Tensor& values) {
  Tensor source = contiguous(to(values.detach(), target.dtype()));
  return source.impl()->storage.get() == target.impl()->storage.get() ? clone(source) : source;
}

void run(const KernelSlot<IndexFn>& slot, const RowGeometry& geometry, const Tensor& from, const Tensor& to,
         const Tensor& at, Fold fold = Fold::kSum) {
  slot.get(to.device(), to.dtype())({geometry, to.dtype(), from.impl()->data(), to.impl()->mutable_data(),
                                     at.data<int64_t>(), fold, /*include_self=*/true});
}

// y[o, c, i] = x[o, rows[c], i]: every element of y is one of x, so the gradient of an element of x is the
// sum over the elements of y that show it.
struct SelectRows {
  static constexpr const char* kName = "index";
  struct Params {
    RowGeometry geometry;
    Dims input_sizes, output_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& rows) {
    check_same_device(kName, x, rows);
    const Tensor y = empty(p.output_sizes, x.dtype(), x.device());
    if (y.numel() > 0) run(rows_select, p.geometry, contiguous(x), y, rows);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& rows, const Tensor&) {
    saver.save(0, rows);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    ctx.set(0, put_rows_(zeros(p.input_sizes, grad.dtype(), grad.device()), ctx.saved(0), grad, p.geometry,
                         /*accumulate=*/true));
  }
};

// y = x but y[o, rows[c], i] = v[o, c, i], or += v. What is overwritten gets no gradient; v gets that of its
// rows.
struct PutRows {
  static constexpr const char* kName = "index_put_";
  struct Params {
    RowGeometry geometry;
    bool accumulate;
    Dims value_sizes;
  };
  static void forward_into(Tensor& y, const Params& p, const Tensor& x, const Tensor& rows,
                           const Tensor& values) {
    for (const Tensor& t : {rows, values}) check_same_device(kName, x, t);
    if (!y.defined()) y = clone(x);
    if (values.numel() == 0) return;
    write_dense(y, p.accumulate, [&](const Tensor& target) {
      run(p.accumulate ? rows_add : rows_put, p.geometry, source_for(target, values), target, rows);
    });
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& rows, const Tensor&,
                   const Tensor&) {
    saver.save(0, rows);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const Tensor rows = ctx.saved(0);
    if (ctx.needs(0) && p.accumulate) ctx.set(0, grad);
    if (ctx.needs(0) && !p.accumulate) {
      ctx.set(0, put_rows(grad, rows, zeros(p.value_sizes, grad.dtype(), grad.device()), p.geometry, false));
    }
    if (ctx.needs(2)) ctx.set(2, select_rows(grad, rows, p.geometry, p.value_sizes));
  }
};

// y[o, c, i] = x[o, at[o, c, i], i]; the gradient goes the other way, as in SelectRows.
struct GatherAlong {
  static constexpr const char* kName = "gather";
  struct Params {
    RowGeometry geometry;
    Dims input_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& at) {
    check_same_device(kName, x, at);
    const Tensor y = empty(at.sizes(), x.dtype(), x.device());
    if (y.numel() > 0) run(along_gather, p.geometry, contiguous(x), y, at);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& at, const Tensor&) {
    saver.save(0, at);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    ctx.set(0,
            scatter_along_(zeros(p.input_sizes, grad.dtype(), grad.device()), ctx.saved(0), grad, p.geometry,
                           /*accumulate=*/true));
  }
};

// The gradients are those of PutRows, with a row number for each element.
struct ScatterAlong {
  static constexpr const char* kName = "scatter_";
  struct Params {
    RowGeometry geometry;
    bool accumulate;
  };
  static void forward_into(Tensor& y, const Params& p, const Tensor& x, const Tensor& at,
                           const Tensor& values) {
    for (const Tensor& t : {at, values}) check_same_device(kName, x, t);
    if (values.numel() == 0) return;
    write_dense(y, p.accumulate, [&](const Tensor& target) {
      run(p.accumulate ? along_fold : along_scatter, p.geometry, source_for(target, values), target, at);
    });
  }
  static void save(Saver& saver, const Params&, const Tensor&, const Tensor& at, const Tensor&,
                   const Tensor&) {
    saver.save(0, at);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const Tensor at = ctx.saved(0);
    if (ctx.needs(0) && p.accumulate) ctx.set(0, grad);
    if (ctx.needs(0) && !p.accumulate) {
      ctx.set(0, scatter_along_(clone(grad), at, zeros(at.sizes(), grad.dtype(), grad.device()), p.geometry,
                                false));
    }
    if (ctx.needs(2)) ctx.set(2, gather_along(grad, at, p.geometry));
  }
};

}  // namespace

Tensor select_rows(const Tensor& x, const Tensor& rows, const RowGeometry& geometry, IntSpan sizes) {
  return call<SelectRows>({geometry, x.sizes(), Dims(sizes)}, x, rows);
}

Tensor put_rows(const Tensor& x, const Tensor& rows, const Tensor& values, const RowGeometry& geometry,
                bool accumulate) {
  return call<PutRows>({geometry, accumulate, values.sizes()}, x, rows, values);
}

Tensor put_rows_(const Tensor& x, const Tensor& rows, const Tensor& values, const RowGeometry& geometry,
                 bool accumulate) {
  return call_inplace<PutRows>({geometry, accumulate, values.sizes()}, x, rows, values);
}

Tensor gather_along(const Tensor& x, const Tensor& at, const RowGeometry& geometry) {
  return call<GatherAlong>({geometry, x.sizes()}, x, at);
}

Tensor scatter_along_(const Tensor& x, const Tensor& at, const Tensor& values, const RowGeometry& geometry,
                      bool accumulate) {
  return call_inplace<ScatterAlong>({geometry, accumulate}, x, at, values);
}

Tensor checked_indices(const Tensor& index, int64_t dim, int64_t size, bool allow_negative, const char* op,
                       bool own) {
  const Tensor given = contiguous(to(index.detach(), kInt64));
  const bool shared = given.impl()->storage.get() == index.impl()->storage.get();
  const int64_t least = allow_negative ? -size : 0, n = given.numel();
  if (!index.device().is_cpu()) {
    OPSIN_CHECK(IndexError, n == 0 || size > 0, op, ": index is out of bounds for dimension ", dim,
                " with size ", size);
    return own && shared ? clone(given) : given;
  }
  const int64_t* at = given.data<int64_t>();
  // Looked for in sign bits, which any instruction set does by the vector.
  constexpr uint64_t kSign = uint64_t{1} << 63;
  std::atomic<uint64_t> negative = 0, outside = 0;
  cpu::parallel_for(n, 32768, [&](int64_t begin, int64_t end) {
    const auto lower = static_cast<uint64_t>(least), upper = static_cast<uint64_t>(size) - 1;
    uint64_t below = 0, beyond = 0;
    for (int64_t i = begin; i < end; ++i) {
      const auto value = static_cast<uint64_t>(at[i]);
      below |= value;
      beyond |= (value - lower) | (upper - value);
    }
    negative.fetch_or(below & kSign, std::memory_order_relaxed);
    outside.fetch_or(beyond & kSign, std::memory_order_relaxed);
  });
  for (int64_t i = 0; outside != 0 && i < n; ++i) {
    OPSIN_CHECK(IndexError, at[i] >= least && at[i] < size, op, ": index ", at[i],
                " is out of bounds for dimension ", dim, " with size ", size);
  }
  if (negative == 0) return own && shared ? clone(given) : given;
  const Tensor wrapped = empty(given.sizes(), kInt64, given.device());
  auto* out = wrapped.mutable_data<int64_t>();
  for (int64_t i = 0; i < n; ++i) out[i] = at[i] < 0 ? at[i] + size : at[i];
  return wrapped;
}

bool keeps_indices(const Tensor& x) { return GradMode::is_enabled() && x.requires_grad(); }

int64_t size_along(const Tensor& x, int64_t dim) {
  return x.dim() == 0 ? 1 : x.sizes()[static_cast<size_t>(dim)];
}

Tensor number_on(const Tensor& value, DType dtype, Device device) {
  const Tensor number = to(value, dtype);
  if (value.device() == device || !value.device().is_cpu() || value.dim() > 0) return number;
  // The value travels as an argument of a kernel: nothing waits.
  return value.requires_grad() ? to(number, device) : full(IntSpan{}, value.scalar(), dtype, device);
}

RowGeometry geometry_along(const Tensor& x, int64_t dim, int64_t count, const char* op, bool wraps) {
  RowGeometry geometry{1, size_along(x, dim), count, 1, op, wraps};
  for (int64_t i = 0; i < x.dim(); ++i) {
    if (i < dim) geometry.outer *= x.sizes()[static_cast<size_t>(i)];
    if (i > dim) geometry.inner *= x.sizes()[static_cast<size_t>(i)];
  }
  return geometry;
}

}  // namespace opsin
