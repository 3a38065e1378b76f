// Views: new geometry over the storage of the input. Each gradient is the view that goes the other way, or,
// where elements were left out, a write of the gradient into zeros.
#include "overlap.h"
#include "parts.h"
#include "view_kernels.h"

#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

namespace {

struct AsStrided {
  static constexpr const char* kName = "as_strided";
  static constexpr bool kView = true;
  struct Params {
    Dims sizes, strides;
    int64_t offset;
    Dims input_sizes, input_strides;
    int64_t input_offset;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    return make_view(x, p.sizes, p.strides, p.offset);
  }
  // Both geometries address one imagined storage: the gradient is summed into it by the view's geometry
  // (overlapping elements add up) and read by the input's, shared among elements of the input that overlap.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const int64_t base = std::min(p.offset, p.input_offset);
    const auto reach = [](const Dims& sizes, const Dims& strides, int64_t offset) {
      for (size_t i = 0; i < sizes.size(); ++i) offset += (std::max<int64_t>(sizes[i], 1) - 1) * strides[i];
      return offset + 1;
    };
    const int64_t extent =
        std::max(reach(p.sizes, p.strides, p.offset), reach(p.input_sizes, p.input_strides, p.input_offset)) -
        base;
    const Tensor storage = zeros(Dims{extent}, grad.dtype(), grad.device());
    scatter_add_geometry(storage, grad, p.sizes, p.strides, p.offset - base);
    ctx.set(0, as_strided(storage, p.input_sizes, p.input_strides, p.input_offset - base));
  }

 private:
  /// Adds `grad` to `storage` one index of the overlapping dimensions at a time, so that no write overlaps
  /// another.
  static void scatter_add_geometry(const Tensor& storage, const Tensor& grad, Dims sizes, Dims strides,
                                   int64_t offset) {
    if (grad.numel() == 0) return;
    size_t overlapping = sizes.size();
    for (size_t i = 0; i < sizes.size() && overlapping == sizes.size(); ++i) {
      int64_t inner = 0;
      for (size_t j = 0; j < sizes.size(); ++j) {
        if (j != i && (strides[j] < strides[i] || (strides[j] == strides[i] && j > i)))
          inner += (sizes[j] - 1) * strides[j];
      }
      if (sizes[i] > 1 && strides[i] <= inner) overlapping = i;
    }
    if (overlapping == sizes.size()) {
      const Tensor part = as_strided(storage, sizes, strides, offset);
      add_(part, grad, 1);
      return;
    }
    const int64_t count = sizes[overlapping];
    const int64_t stride = strides[overlapping];
    sizes.erase(overlapping);
    strides.erase(overlapping);
    for (int64_t i = 0; i < count; ++i) {
      scatter_add_geometry(storage, select(grad, static_cast<int64_t>(overlapping), i), sizes, strides,
                           offset + i * stride);
    }
  }
};

AsStrided::Params as_strided_params(const Tensor& x, IntSpan size, IntSpan stride, int64_t offset) {
  return {Dims(size), Dims(stride), offset, x.sizes(), x.strides(), x.storage_offset()};
}

struct View {
  static constexpr const char* kName = "view";
  static constexpr bool kView = true;
  struct Params {
    Dims sizes, strides, input_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    return make_view(x, p.sizes, p.strides, x.storage_offset());
  }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, reshape(ctx.grad(), p.input_sizes)); }
};

struct Permute {
  static constexpr const char* kName = "permute";
  static constexpr bool kView = true;
  struct Params {
    Dims dims;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    Dims sizes(p.dims.size()), strides(p.dims.size());
    for (size_t i = 0; i < p.dims.size(); ++i) {
      sizes[i] = x.sizes()[static_cast<size_t>(p.dims[i])];
      strides[i] = x.strides()[static_cast<size_t>(p.dims[i])];
    }
    return make_view(x, std::move(sizes), std::move(strides), x.storage_offset());
  }
  static void backward(Backward& ctx, const Params& p) {
    Dims inverse(p.dims.size());
    for (size_t i = 0; i < p.dims.size(); ++i)
      inverse[static_cast<size_t>(p.dims[i])] = static_cast<int64_t>(i);
    ctx.set(0, permute(ctx.grad(), inverse));
  }
};

struct Expand {
  static constexpr const char* kName = "expand";
  static constexpr bool kView = true;
  struct Params {
    Dims sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    Dims strides(p.sizes.size());
    const size_t missing = p.sizes.size() - x.sizes().size();
    for (size_t i = missing; i < p.sizes.size(); ++i) {
      strides[i] = x.sizes()[i - missing] == 1 && p.sizes[i] != 1 ? 0 : x.strides()[i - missing];
    }
    return make_view(x, p.sizes, std::move(strides), x.storage_offset());
  }
  // The engine sums the gradient over what was broadcast.
  static void backward(Backward& ctx, const Params&) { ctx.set(0, ctx.grad()); }
};

struct Select {
  static constexpr const char* kName = "select";
  static constexpr bool kView = true;
  struct Params {
    int64_t dim, index;
    Dims input_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const auto d = static_cast<size_t>(p.dim);
    Dims sizes = x.sizes(), strides = x.strides();
    const int64_t offset = x.storage_offset() + p.index * strides[d];
    sizes.erase(d);
    strides.erase(d);
    return make_view(x, std::move(sizes), std::move(strides), offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0,
            embedded(ctx.grad(), p.input_sizes, [&](const Tensor& x) { return select(x, p.dim, p.index); }));
  }
};

struct Slice {
  static constexpr const char* kName = "slice";
  static constexpr bool kView = true;
  struct Params {
    int64_t dim, start, end, step;
    Dims input_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const auto d = static_cast<size_t>(p.dim);
    Dims sizes = x.sizes(), strides = x.strides();
    const int64_t offset = x.storage_offset() + p.start * strides[d];
    sizes[d] = (p.end - p.start + p.step - 1) / p.step;
    strides[d] *= p.step;
    return make_view(x, std::move(sizes), std::move(strides), offset);
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, embedded(ctx.grad(), p.input_sizes,
                        [&](const Tensor& x) { return slice(x, p.dim, p.start, p.end, p.step); }));
  }
};

/// Strides with which `x` can be seen as `sizes` without copying, if any.
std::optional<Dims> view_strides(const Tensor& x, const Dims& sizes) {
  if (x.is_contiguous() || x.numel() == 0) return contiguous_strides(sizes);
  // Walks both shapes from the back, one block of mergeable dimensions of x at a time.
  Dims strides(sizes.size());
  size_t to = sizes.size();
  int64_t block = 1, seen = 1;
  int64_t inner_stride = x.strides().empty() ? 1 : x.strides().back();
  for (size_t from = x.sizes().size(); from-- > 0;) {
    block *= x.sizes()[from];
    const bool ends =
        from == 0 || (x.sizes()[from - 1] != 1 && x.strides()[from - 1] != block * inner_stride);
    if (!ends) continue;
    while (to > 0 && (seen < block || sizes[to - 1] == 1)) {
      strides[to - 1] = seen * inner_stride;
      seen *= sizes[to - 1];
      --to;
    }
    if (seen != block) return std::nullopt;
    if (from > 0) {
      inner_stride = x.strides()[from - 1];
      block = seen = 1;
    }
  }
  return to == 0 ? std::optional(strides) : std::nullopt;
}

/// Replaces one -1 by what the number of elements leaves for it.
Dims infer_size(const Tensor& x, IntSpan size, const char* op) {
  Dims sizes(size);
  int64_t known = 1;
  std::optional<size_t> open;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == -1) {
      OPSIN_CHECK(Error, !open, op, ": only one dimension can be inferred, got ", str(size));
      open = i;
      continue;
    }
    OPSIN_CHECK(ShapeError, sizes[i] >= 0, op, ": invalid shape dimension ", sizes[i], " in ", str(size));
    OPSIN_CHECK(ShapeError, !__builtin_mul_overflow(known, sizes[i], &known), op, ": shape ", str(size),
                " overflows 64 bits");
  }
  if (open) {
    OPSIN_CHECK(ShapeError, known != 0, op, ": cannot reshape tensor of ", x.numel(), " elements into shape ",
                str(size), " because the unspecified dimension size -1 can be any value and is ambiguous");
    OPSIN_CHECK(ShapeError, x.numel() % known == 0, op, ": shape '", str(size),
                "' is invalid for input of size ", x.numel(), " (", str(x.sizes()), ")");
    sizes[*open] = x.numel() / known;
  } else {
    OPSIN_CHECK(ShapeError, known == x.numel(), op, ": shape '", str(size), "' is invalid for input of size ",
                x.numel(), " (", str(x.sizes()), ")");
  }
  return sizes;
}

}  // namespace

Ref<Node> make_as_strided_node(const Tensor& base, const Tensor& view) {
  const auto node = detail::make_node<AsStrided>(
      as_strided_params(base, view.sizes(), view.strides(), view.storage_offset()), base);
  node->outputs.push_back({view.sizes(), view.dtype(), view.device()});
  return node;
}

Tensor as_strided(const Tensor& self, IntSpan size, IntSpan stride, std::optional<int64_t> storage_offset) {
  OPSIN_CHECK(ShapeError, size.size() == stride.size(), "as_strided: expected as many strides as sizes, got ",
              str(size), " and ", str(stride));
  const int64_t offset = storage_offset.value_or(self.storage_offset());
  OPSIN_CHECK(Error, offset >= 0, "as_strided: expected storage_offset >= 0, got ", offset);
  const int64_t count = count_elements(size);
  int64_t last = offset;
  bool overflow = false;
  for (size_t i = 0; i < size.size(); ++i) {
    OPSIN_CHECK(Error, stride[i] >= 0, "as_strided: expected non-negative strides, got ", str(stride));
    int64_t reach = 0;
    overflow |= __builtin_mul_overflow(std::max<int64_t>(size[i], 1) - 1, stride[i], &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  const auto capacity = static_cast<int64_t>(self.impl()->storage->bytes / item_size(self.dtype()));
  OPSIN_CHECK(ShapeError, count == 0 || (!overflow && last < capacity), "as_strided: sizes ", str(size),
              " with strides ", str(stride), " at offset ", offset, " reach beyond the storage of ", capacity,
              " elements");
  return call<AsStrided>(as_strided_params(self, size, stride, offset), self);
}

Tensor view(const Tensor& self, IntSpan size) {
  Dims sizes = infer_size(self, size, "view");
  auto strides = view_strides(self, sizes);
  OPSIN_CHECK(ShapeError, strides,
              "view: view size is not compatible with input tensor's size and stride (got ",
              str(self.sizes()), " with strides ", str(self.strides()), " as ", str(size),
              "). Use .reshape(...) instead.");
  return call<View>({std::move(sizes), std::move(*strides), self.sizes()}, self);
}

Tensor reshape(const Tensor& self, IntSpan shape) {
  Dims sizes = infer_size(self, shape, "reshape");
  auto strides = view_strides(self, sizes);
  if (!strides) return view(contiguous(self), sizes);
  return call<View>({std::move(sizes), std::move(*strides), self.sizes()}, self);
}

Tensor permute(const Tensor& self, IntSpan dims) {
  OPSIN_CHECK(ShapeError, static_cast<int64_t>(dims.size()) == self.dim(), "permute: expected ", self.dim(),
              " dimensions, got ", str(dims));
  Dims wrapped(dims.size());
  uint64_t seen = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    wrapped[i] = wrap_dim(dims[i], self.dim(), "permute");
    OPSIN_CHECK(Error, !(seen >> wrapped[i] & 1), "permute: duplicate dims are not allowed, got ", str(dims));
    seen |= uint64_t{1} << wrapped[i];
  }
  return call<Permute>({std::move(wrapped)}, self);
}

Tensor transpose(const Tensor& self, int64_t dim0, int64_t dim1) {
  const int64_t a = wrap_dim(dim0, self.dim(), "transpose");
  const int64_t b = wrap_dim(dim1, self.dim(), "transpose");
  if (self.dim() == 0) return self;
  Dims dims(self.sizes().size());
  for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(i);
  std::swap(dims[static_cast<size_t>(a)], dims[static_cast<size_t>(b)]);
  return call<Permute>({std::move(dims)}, self);
}

Tensor expand(const Tensor& self, IntSpan size) {
  OPSIN_CHECK(ShapeError, size.size() >= self.sizes().size(), "expand: the number of sizes provided (",
              size.size(), ") must be greater or equal to the number of dimensions in the tensor (",
              self.dim(), ")");
  Dims sizes(size);
  const size_t missing = sizes.size() - self.sizes().size();
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t own = i < missing ? 1 : self.sizes()[i - missing];
    if (sizes[i] == -1 && i >= missing) sizes[i] = own;
    OPSIN_CHECK(ShapeError, sizes[i] >= 0 && (sizes[i] == own || own == 1),
                "expand: the expanded size of the tensor (", size[i], ") must match the existing size (", own,
                ") at non-singleton dimension ", i, "; target sizes ", str(size), ", tensor sizes ",
                str(self.sizes()));
  }
  return call<Expand>({std::move(sizes)}, self);
}

Tensor select(const Tensor& self, int64_t dim, int64_t index) {
  OPSIN_CHECK(IndexError, self.dim() > 0, "select: cannot be applied to a 0-dim tensor");
  const int64_t d = wrap_dim(dim, self.dim(), "select");
  const int64_t size = self.sizes()[static_cast<size_t>(d)];
  OPSIN_CHECK(IndexError, index >= -size && index < size, "select: index ", index,
              " is out of bounds for dimension ", d, " with size ", size);
  return call<Select>({d, index < 0 ? index + size : index, self.sizes()}, self);
}

Tensor slice(const Tensor& self, int64_t dim, int64_t start, int64_t end, int64_t step) {
  OPSIN_CHECK(IndexError, self.dim() > 0, "slice: cannot be applied to a 0-dim tensor");
  OPSIN_CHECK(ValueError, step > 0, "slice: step must be greater than zero, got ", step);
  const int64_t d = wrap_dim(dim, self.dim(), "slice");
  const int64_t size = self.sizes()[static_cast<size_t>(d)];
  const auto clamp = [size](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size); };
  const int64_t first = clamp(start);
  const int64_t last = std::max(clamp(end), first);
  return call<Slice>({d, first, last, std::min(step, std::max<int64_t>(size, 1)), self.sizes()}, self);
}

Tensor without_repeats(const Tensor& x) {
  Tensor result = x;
  if (x.is_contiguous()) return result;
  for (size_t d = 0; d < x.sizes().size(); ++d) {
    if (repeats(x, d)) result = slice(result, static_cast<int64_t>(d), 0, 1);
  }
  return result;
}

Tensor unsqueeze(const Tensor& self, int64_t dim) {
  const auto d = static_cast<size_t>(wrap_dim(dim, self.dim() + 1, "unsqueeze"));
  Dims sizes = self.sizes(), strides = self.strides();
  const int64_t stride = d < sizes.size() ? sizes[d] * strides[d] : 1;
  sizes.insert(d, 1);
  strides.insert(d, stride);
  return call<View>({std::move(sizes), std::move(strides), self.sizes()}, self);
}

Tensor squeeze(const Tensor& self, IntSpan dims) {
  uint64_t drop = 0;
  for (const int64_t dim : dims) drop |= uint64_t{1} << wrap_dim(dim, self.dim(), "squeeze");
  Dims sizes, strides;
  for (size_t i = 0; i < self.sizes().size(); ++i) {
    if (self.sizes()[i] == 1 && (drop >> i & 1)) continue;
    sizes.push_back(self.sizes()[i]);
    strides.push_back(self.strides()[i]);
  }
  return call<View>({std::move(sizes), std::move(strides), self.sizes()}, self);
}

Tensor squeeze(const Tensor& self) {
  Dims dims(self.sizes().size());
  for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(i);
  return squeeze(self, dims);
}

void register_view(Registry& registry) {
  register_view_cpu();
  registry.add<&as_strided>(
      "as_strided(Tensor self, int[] size, int[] stride, int? storage_offset=None) -> Tensor",
      "Any geometry over the storage of `self`.");
  registry.add<static_cast<Tensor (*)(const Tensor&, IntSpan)>(&view)>(
      "Tensor.view(Tensor self, int[]... size) -> Tensor",
      "The same memory in another shape; one entry may be -1.");
  registry.add<&reshape>("reshape(Tensor self, int[]... shape) -> Tensor",
                         "The same elements in another shape; a view where strides allow it, else a copy.");
  registry.add<&permute>("permute(Tensor self, int[]... dims) -> Tensor",
                         "Dimension i of the result is dimension dims[i] of `self`.");
  registry.add<&transpose>("transpose(Tensor self, int dim0, int dim1) -> Tensor", "Swaps two dimensions.");
  registry.add<&expand>("Tensor.expand(Tensor self, int[]... size) -> Tensor",
                        "Repeats dimensions of size 1 without copying; -1 keeps a size.");
  registry.add<&select>("select(Tensor self, int dim, int index) -> Tensor",
                        "One index of a dimension, which goes away.");
  registry.add<&unsqueeze>("unsqueeze(Tensor self, int dim) -> Tensor", "Inserts a dimension of size 1.");
  registry.add<static_cast<Tensor (*)(const Tensor&)>(&squeeze)>("squeeze(Tensor self) -> Tensor",
                                                                 "Drops all dimensions of size 1.");
  registry.add<static_cast<Tensor (*)(const Tensor&, IntSpan)>(&squeeze)>(
      "squeeze(Tensor self, int[1] dim) -> Tensor", "Drops the given dimensions where their size is 1.");
  register_meshgrid(registry);
  register_view_diagonal(registry);
  register_view_rearranged(registry);
  register_view_scattered(registry);
  register_view_shapes(registry);
  register_view_split(registry);
}

}  // namespace opsin
