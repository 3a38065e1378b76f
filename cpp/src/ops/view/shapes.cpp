// Views that are made from the basic ones, and views in place.
#include "parts.h"

#include <opsin/ops/binary.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

namespace {

// Window w holds the elements w * step + k. The gradient of an element is the sum over the windows that show
// it; the sum runs over window positions or over windows, whichever are fewer, so that no write overlaps
// another.
struct Unfold {
  static constexpr const char* kName = "unfold";
  static constexpr bool kView = true;
  struct Params {
    int64_t dim, size, step;
    Dims input_sizes;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    Dims sizes = x.sizes(), strides = x.strides();
    if (x.dim() == 0) return make_view(x, Dims{p.size}, Dims{1}, x.storage_offset());
    const auto d = static_cast<size_t>(p.dim);
    const int64_t stride = strides[d];
    sizes[d] = (sizes[d] - p.size) / p.step + 1;
    strides[d] = stride * p.step;
    sizes.push_back(p.size);
    strides.push_back(stride);
    return make_view(x, std::move(sizes), std::move(strides), x.storage_offset());
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    const Tensor result = zeros(p.input_sizes, grad.dtype(), grad.device());
    if (p.input_sizes.empty()) {
      ctx.set(0, reshape(grad, p.input_sizes));
      return;
    }
    const int64_t windows = grad.size(p.dim);
    if (p.size <= windows) {
      for (int64_t k = 0; k < p.size; ++k) {
        add_(slice(result, p.dim, k, k + (windows - 1) * p.step + 1, p.step), select(grad, -1, k));
      }
    } else {
      for (int64_t w = 0; w < windows; ++w) {
        add_(slice(result, p.dim, w * p.step, w * p.step + p.size),
             movedim(select(grad, p.dim, w), Dims{-1}, Dims{p.dim}));
      }
    }
    ctx.set(0, result);
  }
};

Tensor transpose_(const Tensor& self, int64_t dim0, int64_t dim1) {
  return rebase_geometry(self, transpose(self, dim0, dim1), "transpose_");
}
Tensor t_(const Tensor& self) { return rebase_geometry(self, t(self), "t_"); }
Tensor unsqueeze_(const Tensor& self, int64_t dim) {
  return rebase_geometry(self, unsqueeze(self, dim), "unsqueeze_");
}
Tensor squeeze_all_(const Tensor& self) { return rebase_geometry(self, squeeze(self), "squeeze_"); }
Tensor squeeze_(const Tensor& self, IntSpan dim) {
  return rebase_geometry(self, squeeze(self, dim), "squeeze_");
}

Tensor detach_(const Tensor& self) {
  if (!self.impl()->autograd) return self;
  AutogradMeta& meta = autograd_meta(self);
  OPSIN_CHECK(Error, !meta.base.defined(), "detach_: Can't detach views in-place. Use detach() instead.");
  meta.grad_fn.reset();
  meta.output_nr = 0;
  meta.requires_grad = false;
  meta.retains_grad = false;
  return self;
}

Tensor ravel(const Tensor& self) { return reshape(self, Dims{-1}); }
Tensor expand_as(const Tensor& self, const Tensor& other) { return expand(self, other.sizes()); }
Tensor view_as(const Tensor& self, const Tensor& other) { return view(self, other.sizes()); }
Tensor reshape_as(const Tensor& self, const Tensor& other) { return reshape(self, other.sizes()); }
Tensor movedim_one(const Tensor& self, int64_t source, int64_t destination) {
  return movedim(self, Dims{source}, Dims{destination});
}

Tensor atleast_1d(const Tensor& x) { return x.dim() == 0 ? reshape(x, Dims{1}) : x; }
Tensor atleast_2d(const Tensor& x) {
  return x.dim() == 0 ? reshape(x, Dims{1, 1}) : x.dim() == 1 ? unsqueeze(x, 0) : x;
}
Tensor atleast_3d(const Tensor& x) {
  if (x.dim() == 0) return reshape(x, Dims{1, 1, 1});
  return x.dim() == 1 ? unsqueeze(unsqueeze(x, 0), -1) : x.dim() == 2 ? unsqueeze(x, -1) : x;
}
template <Tensor (*kFunction)(const Tensor&)>
TensorList each(TensorSpan tensors) {
  TensorList result;
  for (const Tensor& tensor : tensors) result.push_back(kFunction(tensor));
  return result;
}

}  // namespace

Tensor view(const Tensor& self, DType dtype) {
  if (dtype == self.dtype()) return view(self, self.sizes());
  const auto from = static_cast<int64_t>(item_size(self.dtype()));
  const auto to = static_cast<int64_t>(item_size(dtype));
  Dims sizes = self.sizes(), strides = self.strides();
  int64_t offset = self.storage_offset();
  if (from != to) {
    OPSIN_CHECK(ShapeError, self.dim() > 0, "view: self.dim() cannot be 0 to view ", name(self.dtype()),
                " as ", name(dtype), " (different element sizes)");
    OPSIN_CHECK(ShapeError, strides.back() == 1, "view: self.stride(-1) must be 1 to view ",
                name(self.dtype()), " as ", name(dtype), " (different element sizes), got strides ",
                str(strides));
    bool divides = sizes.back() * from % to == 0 && offset * from % to == 0;
    for (size_t d = 0; d + 1 < strides.size(); ++d) divides &= strides[d] * from % to == 0;
    OPSIN_CHECK(ShapeError, divides, "view: the last size, the strides and the offset must be divisible by ",
                std::max<int64_t>(to / from, 1), " to view ", name(self.dtype()), " as ", name(dtype),
                ", got sizes ", str(sizes), " with strides ", str(strides), " at offset ", offset);
    sizes.back() = sizes.back() * from / to;
    for (size_t d = 0; d + 1 < strides.size(); ++d) strides[d] = strides[d] * from / to;
    offset = offset * from / to;
  }
  self.impl()->expose();
  return Tensor(
      make_ref<TensorImpl>(self.impl()->storage, dtype, std::move(sizes), std::move(strides), offset));
}

Tensor t(const Tensor& self) {
  OPSIN_CHECK(ShapeError, self.dim() <= 2, "t: expects a tensor with <= 2 dimensions, but self is ",
              self.dim(), "D with shape ", str(self.sizes()));
  return self.dim() < 2 ? view(self, self.sizes()) : transpose(self, 0, 1);
}

Tensor movedim(const Tensor& self, IntSpan source, IntSpan destination) {
  OPSIN_CHECK(ShapeError, source.size() == destination.size(),
              "movedim: source and destination must have the same number ", "of elements, got ", str(source),
              " and ", str(destination));
  Dims order(self.sizes().size(), -1);
  uint64_t moved = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const int64_t from = wrap_dim(source[i], self.dim(), "movedim");
    const auto to = static_cast<size_t>(wrap_dim(destination[i], self.dim(), "movedim"));
    if (self.dim() == 0) continue;
    OPSIN_CHECK(ShapeError, !(moved >> from & 1) && order[to] == -1,
                "movedim: repeated dim in source or destination, got ", str(source), " and ",
                str(destination));
    moved |= uint64_t{1} << from;
    order[to] = from;
  }
  int64_t next = 0;
  for (int64_t& entry : order) {
    if (entry != -1) continue;
    while (moved >> next & 1) ++next;
    entry = next++;
  }
  return permute(self, order);
}

TensorList broadcast_tensors(TensorSpan tensors) {
  Dims shape;
  for (const Tensor& tensor : tensors) shape = broadcast_shapes(shape, tensor.sizes(), "broadcast_tensors");
  TensorList result;
  for (const Tensor& tensor : tensors) result.push_back(expand(tensor, shape));
  return result;
}

Tensor narrow(const Tensor& self, int64_t dim, int64_t start, int64_t length) {
  OPSIN_CHECK(ShapeError, self.dim() > 0, "narrow: cannot be applied to a 0-dim tensor");
  OPSIN_CHECK(ShapeError, length >= 0, "narrow: length must be non-negative, got ", length);
  const int64_t d = wrap_dim(dim, self.dim(), "narrow");
  const int64_t size = self.size(d);
  OPSIN_CHECK(IndexError, start >= -size && start <= size,
              "narrow: start out of range (expected to be in range of [", -size, ", ", size, "], but got ",
              start, ")");
  const int64_t first = start < 0 ? start + size : start;
  OPSIN_CHECK(ShapeError, first <= size - length, "narrow: start (", first, ") + length (", length,
              ") exceeds dimension size (", size, ")");
  return slice(self, d, first, first + length);
}

Tensor flatten(const Tensor& self, int64_t start_dim, int64_t end_dim) {
  const int64_t first = wrap_dim(start_dim, self.dim(), "flatten");
  const int64_t last = wrap_dim(end_dim, self.dim(), "flatten");
  OPSIN_CHECK(ShapeError, first <= last,
              "flatten: start_dim cannot come after end_dim, got start_dim=", start_dim,
              " and end_dim=", end_dim, " for a tensor of ", self.dim(), " dimensions");
  if (self.dim() == 0) return reshape(self, Dims{1});
  if (first == last) return self;
  Dims sizes;
  int64_t merged = 1;
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (d < first || d > last) {
      sizes.push_back(self.size(d));
      continue;
    }
    merged *= self.size(d);
    if (d == last) sizes.push_back(merged);
  }
  return reshape(self, sizes);
}

Tensor unflatten(const Tensor& self, int64_t dim, IntSpan sizes) {
  const int64_t d = wrap_dim(dim, self.dim(), "unflatten");
  OPSIN_CHECK(ShapeError, self.dim() > 0 && !sizes.empty(),
              "unflatten: expected a dimension and at least one size, got ", str(sizes), " for shape ",
              str(self.sizes()));
  int64_t known = 1;
  int open = 0;
  for (const int64_t size : sizes) {
    open += size == -1;
    if (size != -1) known *= size;
  }
  const int64_t own = self.size(d);
  OPSIN_CHECK(ShapeError, open <= 1 && (open ? known != 0 && own % known == 0 : known == own),
              "unflatten: Provided sizes ", str(sizes), " don't multiply up to the size of dim ", d, " (",
              own, ") in the input tensor");
  Dims shape;
  for (int64_t i = 0; i < self.dim(); ++i) {
    if (i != d) {
      shape.push_back(self.size(i));
      continue;
    }
    for (const int64_t size : sizes) shape.push_back(size == -1 ? own / known : size);
  }
  return view(self, shape);
}

Tensor unfold(const Tensor& self, int64_t dimension, int64_t size, int64_t step) {
  const int64_t d = wrap_dim(dimension, self.dim(), "unfold");
  const int64_t own = self.dim() == 0 ? 1 : self.size(d);
  OPSIN_CHECK(ShapeError, size >= 0 && size <= own, "unfold: maximum size for tensor at dimension ", d,
              " is ", own, " but size is ", size);
  OPSIN_CHECK(ShapeError, step > 0, "unfold: step is ", step, " but must be > 0");
  return call<Unfold>({d, size, step, self.sizes()}, self);
}

void register_view_shapes(Registry& registry) {
  registry.add<static_cast<Tensor (*)(const Tensor&, DType)>(&view)>(
      "Tensor.view(Tensor self, dtype dtype) -> Tensor",
      "The same bytes as another dtype; the last dimension grows or shrinks with the size of an element.");
  registry.add<&transpose>("swapaxes(Tensor self, int axis0, int axis1) -> Tensor", "Swaps two dimensions.");
  registry.add<&transpose>("swapdims(Tensor self, int dim0, int dim1) -> Tensor", "Swaps two dimensions.");
  registry.add<&t>("t(Tensor self) -> Tensor", "The transpose of a matrix; vectors as they are.");
  for (const char* alias : {"movedim", "moveaxis"}) {
    registry.add<&movedim_one>(std::string(alias) + "(Tensor self, int source, int destination) -> Tensor",
                               "Moves a dimension; the others keep their order.");
    registry.add<&movedim>(std::string(alias) + "(Tensor self, int[] source, int[] destination) -> Tensor",
                           "Moves dimension source[i] to destination[i]; the others keep their order.");
  }
  registry.add<&narrow>("narrow(Tensor self, int dim, int start, int length) -> Tensor",
                        "`length` indices of dimension `dim` from `start`.");
  registry.add<&flatten>(
      "flatten(Tensor self, int start_dim=0, int end_dim=-1) -> Tensor",
      "Dimensions start_dim to end_dim as one; a view where strides allow it, else a copy.");
  registry.add<&unflatten>("unflatten(Tensor self, int dim, int[] sizes) -> Tensor",
                           "Dimension `dim` as several; one of the sizes may be -1.");
  registry.add<&ravel>("ravel(Tensor self) -> Tensor", "All elements as one dimension.");
  registry.add<&expand_as>("Tensor.expand_as(Tensor self, Tensor other) -> Tensor",
                           "expand() to the shape of `other`.");
  registry.add<&view_as>("Tensor.view_as(Tensor self, Tensor other) -> Tensor",
                         "view() with the shape of `other`.");
  registry.add<&reshape_as>("Tensor.reshape_as(Tensor self, Tensor other) -> Tensor",
                            "reshape() to the shape of `other`.");
  registry.add<&expand>("broadcast_to(Tensor self, int[] size) -> Tensor",
                        "Repeats dimensions of size 1 without copying; -1 keeps a size.");
  registry.add<&broadcast_tensors>("broadcast_tensors(Tensor[]... tensors) -> Tensor[]",
                                   "All tensors expanded to their common shape.");
  registry.add<&unfold>(
      "Tensor.unfold(Tensor self, int dimension, int size, int step) -> Tensor",
      "All windows of `size` elements, `step` apart, of a dimension; their elements come last.");
  registry.add<&atleast_1d>("atleast_1d(Tensor tensor) -> Tensor", "At least one dimension.");
  registry.add<&each<atleast_1d>>("atleast_1d(Tensor[]... tensors) -> Tensor[]",
                                  "At least one dimension each.");
  registry.add<&atleast_2d>("atleast_2d(Tensor tensor) -> Tensor",
                            "At least two dimensions; vectors become rows.");
  registry.add<&each<atleast_2d>>("atleast_2d(Tensor[]... tensors) -> Tensor[]",
                                  "At least two dimensions each.");
  registry.add<&atleast_3d>("atleast_3d(Tensor tensor) -> Tensor",
                            "At least three dimensions: [n] as [1, n, 1], [m, n] as [m, n, 1].");
  registry.add<&each<atleast_3d>>("atleast_3d(Tensor[]... tensors) -> Tensor[]",
                                  "At least three dimensions each.");
  registry.add<&transpose_>("Tensor.transpose_(Tensor self, int dim0, int dim1) -> Tensor",
                            "In-place version of transpose.");
  registry.add<&transpose_>("Tensor.swapaxes_(Tensor self, int axis0, int axis1) -> Tensor",
                            "In-place version of swapaxes.");
  registry.add<&transpose_>("Tensor.swapdims_(Tensor self, int dim0, int dim1) -> Tensor",
                            "In-place version of swapdims.");
  registry.add<&t_>("Tensor.t_(Tensor self) -> Tensor", "In-place version of t.");
  registry.add<&unsqueeze_>("Tensor.unsqueeze_(Tensor self, int dim) -> Tensor",
                            "In-place version of unsqueeze.");
  registry.add<&squeeze_all_>("Tensor.squeeze_(Tensor self) -> Tensor", "In-place version of squeeze.");
  registry.add<&squeeze_>("Tensor.squeeze_(Tensor self, int[1] dim) -> Tensor",
                          "In-place version of squeeze.");
  registry.add<&detach_>("Tensor.detach_(Tensor self) -> Tensor", "Takes this tensor out of the graph.");
}

}  // namespace opsin
