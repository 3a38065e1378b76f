#include "rows.h"

#include "row_loops.h"

#include <atomic>

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>

#include "core/call.h"

namespace opsin {

namespace {

/// Runs `write(target)` on dense memory of float32 or wider where values are summed, and brings the result to
/// `y`.
template <class F>
void write_dense(Tensor& y, bool accumulate, F write) {
  const DType dtype = accumulate ? compute_type(y.dtype()) : y.dtype();
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

// y[o, c, i] = x[o, rows[c], i]: every element of y is one of x, so the gradient of an element of x is the
// sum over the elements of y that show it.
struct SelectRows {
  static constexpr const char* kName = "index";
  struct Params {
    RowGeometry geometry;
    Dims input_sizes, output_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x, const Tensor& rows) {
    const Tensor dense = contiguous(x);
    const Tensor y = empty(p.output_sizes, x.dtype(), x.device());
    if (y.numel() == 0) return y;
    row_loops::dispatch_item(item_size(x.dtype()), [&]<class T>() {
      row_loops::select(row_loops::raw<const T>(dense), rows.data<int64_t>(), row_loops::raw<T>(y),
                        p.geometry);
    });
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
    if (!y.defined()) y = clone(x);
    if (values.numel() == 0) return;
    write_dense(y, p.accumulate, [&](const Tensor& target) {
      const Tensor source = source_for(target, values);
      if (!p.accumulate) {
        row_loops::dispatch_item(item_size(target.dtype()), [&]<class T>() {
          row_loops::put(row_loops::raw<T>(target), rows.data<int64_t>(), row_loops::raw<const T>(source),
                         p.geometry);
        });
        return;
      }
      dispatch_all(target.dtype(), kName, [&]<class T>() {
        row_loops::add(target.mutable_data<T>(), rows.data<int64_t>(), source.data<T>(), p.geometry);
      });
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
    const Tensor dense = contiguous(x);
    const Tensor y = empty(at.sizes(), x.dtype(), x.device());
    if (y.numel() == 0) return y;
    row_loops::dispatch_item(item_size(x.dtype()), [&]<class T>() {
      row_loops::gather(row_loops::raw<const T>(dense), at.data<int64_t>(), row_loops::raw<T>(y), p.geometry);
    });
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
  static void forward_into(Tensor& y, const Params& p, const Tensor&, const Tensor& at,
                           const Tensor& values) {
    if (values.numel() == 0) return;
    write_dense(y, p.accumulate, [&](const Tensor& target) {
      const Tensor source = source_for(target, values);
      if (!p.accumulate) {
        row_loops::dispatch_item(item_size(target.dtype()), [&]<class T>() {
          row_loops::scatter(row_loops::raw<T>(target), at.data<int64_t>(), row_loops::raw<const T>(source),
                             p.geometry, [](const T&, const T& value) { return value; });
        });
        return;
      }
      dispatch_all(target.dtype(), kName, [&]<class T>() {
        row_loops::scatter(target.mutable_data<T>(), at.data<int64_t>(), source.data<T>(), p.geometry,
                           [](const T& old, const T& value) { return static_cast<T>(old + value); });
      });
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
  const int64_t* at = given.data<int64_t>();
  const int64_t least = allow_negative ? -size : 0, n = given.numel();
  // Looked for in sign bits, which any instruction set does by the vector.
  constexpr uint64_t kSign = uint64_t{1} << 63;
  std::atomic<uint64_t> negative = 0, outside = 0;
  cpu::parallel_for(n, row_loops::kGrain, [&](int64_t begin, int64_t end) {
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
  if (negative == 0) {
    return own && given.impl()->storage.get() == index.impl()->storage.get() ? clone(given) : given;
  }
  const Tensor wrapped = empty(given.sizes(), kInt64, given.device());
  auto* out = wrapped.mutable_data<int64_t>();
  for (int64_t i = 0; i < n; ++i) out[i] = at[i] < 0 ? at[i] + size : at[i];
  return wrapped;
}

bool keeps_indices(const Tensor& x) { return GradMode::is_enabled() && x.requires_grad(); }

int64_t size_along(const Tensor& x, int64_t dim) {
  return x.dim() == 0 ? 1 : x.sizes()[static_cast<size_t>(dim)];
}

RowGeometry geometry_along(const Tensor& x, int64_t dim, int64_t count) {
  RowGeometry geometry{1, size_along(x, dim), count, 1};
  for (int64_t i = 0; i < x.dim(); ++i) {
    if (i < dim) geometry.outer *= x.sizes()[static_cast<size_t>(i)];
    if (i > dim) geometry.inner *= x.sizes()[static_cast<size_t>(i)];
  }
  return geometry;
}

}  // namespace opsin
