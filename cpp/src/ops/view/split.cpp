// Cutting a tensor into views. One call makes all parts, so that their gradients are joined in one piece.
#include "parts.h"

#include <opsin/ops/cat.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

namespace {

/// The gradients of all outputs, zeros for those nothing flowed to.
TensorList all_grads(const Backward& ctx, size_t count) {
  TensorList grads;
  grads.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const TensorMeta& meta = ctx.output_meta(i);
    grads.push_back(ctx.grad(i).defined() ? ctx.grad(i) : zeros(meta.sizes, meta.dtype, meta.device));
  }
  return grads;
}

struct Split {
  static constexpr const char* kName = "split";
  static constexpr bool kView = true;
  struct Params {
    int64_t dim;
    Dims parts;
  };
  static TensorList forward(const Params& p, const Tensor& x) {
    TensorList result;
    result.reserve(p.parts.size());
    int64_t offset = x.storage_offset();
    for (const int64_t part : p.parts) {
      Dims sizes = x.sizes();
      sizes[static_cast<size_t>(p.dim)] = part;
      result.push_back(make_view(x, std::move(sizes), x.strides(), offset));
      offset += part * x.stride(p.dim);
    }
    return result;
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, cat(all_grads(ctx, p.parts.size()), p.dim));
  }
};

struct Unbind {
  static constexpr const char* kName = "unbind";
  static constexpr bool kView = true;
  struct Params {
    int64_t dim, count;
  };
  static TensorList forward(const Params& p, const Tensor& x) {
    Dims sizes = x.sizes(), strides = x.strides();
    sizes.erase(static_cast<size_t>(p.dim));
    strides.erase(static_cast<size_t>(p.dim));
    TensorList result;
    result.reserve(static_cast<size_t>(p.count));
    for (int64_t i = 0; i < p.count; ++i) {
      result.push_back(make_view(x, sizes, strides, x.storage_offset() + i * x.stride(p.dim)));
    }
    return result;
  }
  static void backward(Backward& ctx, const Params& p) {
    ctx.set(0, stack(all_grads(ctx, static_cast<size_t>(p.count)), p.dim));
  }
};

int64_t checked_dim(const Tensor& x, int64_t dim, const char* op) {
  OPSIN_CHECK(ShapeError, x.dim() > 0, op, ": expects at least a 1-dimensional tensor, got a 0-dim one");
  return wrap_dim(dim, x.dim(), op);
}

/// The dimension that hsplit, vsplit and dsplit cut.
int64_t stacked_dim(const Tensor& x, char direction) {
  const int64_t rank = direction == 'h' ? 1 : direction == 'v' ? 2 : 3;
  OPSIN_CHECK(ShapeError, x.dim() >= rank, direction, "split: requires a tensor with at least ", rank,
              " dimension(s), got ", x.dim());
  return direction == 'v' || x.dim() == 1 ? 0 : rank == 1 ? 1 : 2;
}

template <char kDirection>
TensorList split_sections(const Tensor& self, int64_t sections) {
  const int64_t d = stacked_dim(self, kDirection);
  OPSIN_CHECK(ShapeError, sections > 0 && self.size(d) % sections == 0, kDirection,
              "split: attempted to split along dimension ", d, ", but the size of the dimension ",
              self.size(d), " is not divisible by ", sections);
  return tensor_split(self, sections, d);
}

template <char kDirection>
TensorList split_indices(const Tensor& self, IntSpan indices) {
  return tensor_split(self, indices, stacked_dim(self, kDirection));
}

TensorList tensor_split_at(const Tensor& self, const Tensor& indices, int64_t dim) {
  OPSIN_CHECK(ShapeError, indices.dim() <= 1 && indices.dtype() == kInt64,
              "tensor_split: expected an int64 tensor of 0 or 1 dimensions, got ", name(indices.dtype()), " ",
              str(indices.sizes()));
  if (indices.dim() == 0) return tensor_split(self, indices.item<int64_t>(), dim);
  const Tensor dense = contiguous(to(indices.detach(), kCPU));
  return tensor_split(self, IntSpan(dense.data<int64_t>(), static_cast<size_t>(dense.numel())), dim);
}

}  // namespace

TensorList split(const Tensor& self, IntSpan split_sizes, int64_t dim) {
  const int64_t d = checked_dim(self, dim, "split");
  int64_t total = 0;
  for (const int64_t size : split_sizes) {
    OPSIN_CHECK(ShapeError, size >= 0, "split: expects split sizes to be non-negative, got ",
                str(split_sizes));
    total += size;
  }
  OPSIN_CHECK(ShapeError, total == self.size(d), "split: expects split_sizes to sum exactly to ",
              self.size(d), " (input tensor's size at dimension ", d,
              "), but got split_sizes=", str(split_sizes));
  return call<Split>({d, Dims(split_sizes)}, self);
}

TensorList split(const Tensor& self, int64_t split_size, int64_t dim) {
  const int64_t d = checked_dim(self, dim, "split");
  OPSIN_CHECK(ShapeError, split_size >= 0,
              "split: expects split_size to be non-negative, but got split_size=", split_size);
  const int64_t size = self.size(d);
  OPSIN_CHECK(ShapeError, split_size > 0 || size == 0,
              "split: split_size can only be 0 if dimension size is 0, but got ", "dimension size of ", size);
  if (size == 0) return split(self, Dims{0}, d);
  Dims parts(static_cast<size_t>((size - 1) / split_size + 1), split_size);
  parts.back() = size - split_size * static_cast<int64_t>(parts.size() - 1);
  return split(self, parts, d);
}

TensorList chunk(const Tensor& self, int64_t chunks, int64_t dim) {
  OPSIN_CHECK(ShapeError, chunks > 0, "chunk: expects chunks to be greater than 0, got chunks=", chunks);
  const int64_t d = checked_dim(self, dim, "chunk");
  // As in PyTorch, an empty dimension gives as many empty parts as asked for.
  if (self.size(d) == 0) return split(self, Dims(static_cast<size_t>(chunks), 0), d);
  return split(self, (self.size(d) + chunks - 1) / chunks, d);
}

TensorList tensor_split(const Tensor& self, int64_t sections, int64_t dim) {
  const int64_t d = checked_dim(self, dim, "tensor_split");
  OPSIN_CHECK(ShapeError, sections > 0, "tensor_split: number of sections must be larger than 0, got ",
              sections);
  Dims parts(static_cast<size_t>(sections), self.size(d) / sections);
  for (size_t i = 0; i < static_cast<size_t>(self.size(d) % sections); ++i) ++parts[i];
  return split(self, parts, d);
}

TensorList tensor_split(const Tensor& self, IntSpan indices, int64_t dim) {
  const int64_t d = checked_dim(self, dim, "tensor_split");
  // Python's slices: indices out of order give empty parts.
  TensorList result;
  int64_t begin = 0;
  for (const int64_t index : indices) {
    result.push_back(slice(self, d, begin, index));
    begin = index;
  }
  result.push_back(slice(self, d, begin, INT64_MAX));
  return result;
}

TensorList unbind(const Tensor& self, int64_t dim) {
  OPSIN_CHECK(IndexError, self.dim() > 0, "unbind: Dimension specified as ", dim,
              " but tensor has no dimensions");
  const int64_t d = wrap_dim(dim, self.dim(), "unbind");
  return call<Unbind>({d, self.size(d)}, self);
}

void register_view_split(Registry& registry) {
  using BySize = TensorList (*)(const Tensor&, int64_t, int64_t);
  using BySizes = TensorList (*)(const Tensor&, IntSpan, int64_t);
  registry.add<static_cast<BySize>(&split)>(
      "split(Tensor self, int split_size_or_sections, int dim=0) -> Tensor[]",
      "Parts of the given size along `dim`; the last one may be smaller.");
  registry.add<static_cast<BySizes>(&split)>(
      "split(Tensor self, int[] split_size_or_sections, int dim=0) -> Tensor[]",
      "Parts of the given sizes along `dim`.");
  registry.add<static_cast<BySize>(&split)>(
      "Tensor.split(Tensor self, int split_size, int dim=0) -> Tensor[]",
      "Parts of the given size along `dim`; the last one may be smaller.");
  registry.add<static_cast<BySizes>(&split)>(
      "Tensor.split(Tensor self, int[] split_size, int dim=0) -> Tensor[]",
      "Parts of the given sizes along `dim`.");
  registry.add<static_cast<BySizes>(&split)>(
      "split_with_sizes(Tensor self, int[] split_sizes, int dim=0) -> Tensor[]",
      "Parts of the given sizes along `dim`.");
  registry.add<&chunk>("chunk(Tensor self, int chunks, int dim=0) -> Tensor[]",
                       "At most `chunks` parts of equal size along `dim`; the last one may be smaller.");
  registry.add<static_cast<BySize>(&tensor_split)>(
      "tensor_split(Tensor self, int indices_or_sections, int dim=0) -> Tensor[]",
      "Exactly that many parts along `dim`, the first ones one longer if it doesn't come out even.");
  registry.add<static_cast<BySizes>(&tensor_split)>(
      "tensor_split(Tensor self, int[] indices_or_sections, int dim=0) -> Tensor[]",
      "Parts along `dim` that end before each of the indices, and the rest.");
  registry.add<&tensor_split_at>(
      "tensor_split(Tensor self, Tensor indices_or_sections, int dim=0) -> Tensor[]",
      "As above, from an int64 tensor.");
  registry.add<&split_sections<'h'>>("hsplit(Tensor self, int sections) -> Tensor[]",
                                     "Equal parts along dimension 1, or 0 for vectors.");
  registry.add<&split_indices<'h'>>(
      "hsplit(Tensor self, int[] indices) -> Tensor[]",
      "Parts along dimension 1, or 0 for vectors, that end before each of the indices.");
  registry.add<&split_sections<'v'>>("vsplit(Tensor self, int sections) -> Tensor[]",
                                     "Equal parts along dimension 0.");
  registry.add<&split_indices<'v'>>("vsplit(Tensor self, int[] indices) -> Tensor[]",
                                    "Parts along dimension 0 that end before each of the indices.");
  registry.add<&split_sections<'d'>>("dsplit(Tensor self, int sections) -> Tensor[]",
                                     "Equal parts along dimension 2.");
  registry.add<&split_indices<'d'>>("dsplit(Tensor self, int[] indices) -> Tensor[]",
                                    "Parts along dimension 2 that end before each of the indices.");
  registry.add<&unbind>("unbind(Tensor self, int dim=0) -> Tensor[]",
                        "All indices of dimension `dim`, each without that dimension.");
}

}  // namespace opsin
