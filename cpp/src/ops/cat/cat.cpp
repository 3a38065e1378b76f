// Joining tensors. A join of channels-last memory is channels-last again.
#include "cat_kernels.h"

#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/promotion.h"
#include "core/registry.h"
#include "core/relayout.h"
#include "core/same_device.h"

namespace opsin {

constinit KernelSlot<void (*)(const BlockParams&)> copy_blocks("cat");

namespace {

bool is_legacy_empty(const Tensor& x) { return x.dim() == 1 && x.numel() == 0; }

/// Whether all inputs lie in channels-last order, some of them in no other.
bool joins_hidden(TensorSpan inputs) {
  bool any = false;
  for (const Tensor& x : inputs) {
    if (is_legacy_empty(x)) continue;
    if (x.dim() < 3 || x.numel() == 0) return false;
    if (x.impl()->is_hidden()) {
      any = true;
    } else if (!x.is_contiguous() || !is_same_order(x.sizes())) {
      return false;
    }
  }
  return any;
}

/// How memory of `sizes` is cut by dimension `dim`: `outer` blocks with `inner` bytes per index.
struct Blocks {
  int64_t outer = 1, inner;
};
Blocks blocks_of(const Dims& sizes, int64_t dim, bool hidden, DType dtype) {
  Blocks blocks{1, static_cast<int64_t>(item_size(dtype))};
  // The order of dimensions in memory.
  Dims order;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (!hidden || i != 1) order.push_back(static_cast<int64_t>(i));
  }
  if (hidden) order.push_back(1);
  bool inside = false;
  for (const int64_t o : order) {
    if (o == dim) {
      inside = true;
    } else {
      (inside ? blocks.inner : blocks.outer) *= sizes[static_cast<size_t>(o)];
    }
  }
  return blocks;
}

/// The indices from `begin` on along `dim` of a hidden channels-last tensor, copied, so that neither is
/// re-laid; its gradient is among zeros.
struct CatPart {
  static constexpr const char* kName = "cat_part";
  struct Params {
    int64_t dim, begin;
    Dims sizes, whole;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const Tensor y = empty_channels_last(p.sizes, x.dtype(), x.device());
    if (y.numel() == 0) return y;
    const auto d = static_cast<size_t>(p.dim);
    const Blocks blocks = blocks_of(p.whole, p.dim, true, x.dtype());
    const int64_t from = p.whole[d] * blocks.inner, to = p.sizes[d] * blocks.inner;
    const BlockPiece piece{x.impl()->physical_data() + p.begin * blocks.inner,
                           y.impl()->mutable_physical_data(), to, from, to};
    copy_blocks.get(x.device(), x.dtype())({blocks.outer, &piece, 1});
    return y;
  }
  static void backward(Backward& ctx, const Params& p) {
    const auto zeros_of = [&](int64_t extent) {
      Dims sizes = p.sizes;
      sizes[static_cast<size_t>(p.dim)] = extent;
      return zeros(sizes, ctx.grad().dtype(), ctx.grad().device());
    };
    const auto d = static_cast<size_t>(p.dim);
    const Tensor parts[] = {zeros_of(p.begin), ctx.grad(), zeros_of(p.whole[d] - p.begin - p.sizes[d])};
    ctx.set(0, cat(parts, p.dim));
  }
};

// Each input shows up as one slice of the result, so its gradient is that slice of the gradient.
struct Cat {
  static constexpr const char* kName = "cat";
  struct Params {
    int64_t dim;
    Dims sizes;  // Of the result.
    std::vector<Dims> input_sizes;
    /// Of input i along `dim`.
    int64_t extent(size_t i) const {
      return input_sizes[i].size() == sizes.size() ? input_sizes[i][static_cast<size_t>(dim)] : 0;
    }
  };
  static Tensor forward(const Params& p, TensorSpan inputs) {
    const auto d = static_cast<size_t>(p.dim);
    const bool hidden = joins_hidden(inputs);
    const DType dtype = inputs[0].dtype();
    const Device device = inputs[0].device();
    const Tensor y = hidden ? empty_channels_last(p.sizes, dtype, device) : empty(p.sizes, dtype, device);
    if (y.numel() == 0) return y;
    const auto [outer, inner] = blocks_of(p.sizes, p.dim, hidden, dtype);
    char* const out = y.impl()->mutable_physical_data();
    const int64_t block = p.sizes[d] * inner;
    TensorList dense;
    std::vector<BlockPiece> pieces;
    int64_t begin = 0;
    for (size_t i = 0; i < inputs.size(); begin += p.extent(i++)) {
      if (p.extent(i) == 0) continue;
      check_same_device(kName, y, inputs[i]);
      dense.push_back(hidden ? inputs[i] : contiguous(inputs[i]));
      const char* data = hidden ? inputs[i].impl()->physical_data() : dense.back().impl()->data();
      const int64_t bytes = p.extent(i) * inner;
      pieces.push_back({data, out + begin * inner, bytes, bytes, block});
    }
    copy_blocks.get(device, dtype)({outer, pieces.data(), static_cast<int64_t>(pieces.size())});
    return y;
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor& grad = ctx.grad();
    int64_t begin = 0;
    for (size_t i = 0; i < ctx.num_inputs(); begin += p.extent(i++)) {
      if (!ctx.needs(i)) continue;
      if (p.input_sizes[i].size() != p.sizes.size()) {
        ctx.set(i, zeros(p.input_sizes[i], grad.dtype(), grad.device()));
      } else if (grad.impl()->is_hidden()) {
        ctx.set(i, call<CatPart>({p.dim, begin, p.input_sizes[i], p.sizes}, grad));
      } else {
        ctx.set(i, slice(grad, p.dim, begin, begin + p.extent(i)));
      }
    }
  }
};

/// All tensors with the dtype that holds them.
TensorList promoted(TensorSpan tensors) {
  const DType dtype = result_type(tensors);
  TensorList result;
  result.reserve(tensors.size());
  for (const Tensor& tensor : tensors) result.push_back(to(tensor, dtype));
  return result;
}

template <class F>
TensorList mapped(TensorSpan tensors, F f) {
  TensorList result;
  for (const Tensor& tensor : tensors) result.push_back(f(tensor));
  return result;
}

Tensor at_least_1d(const Tensor& x) { return x.dim() == 0 ? reshape(x, Dims{1}) : x; }

Tensor at_least_2d(const Tensor& x) { return x.dim() < 2 ? unsqueeze(at_least_1d(x), 0) : x; }

}  // namespace

Tensor cat(TensorSpan tensors, int64_t dim) {
  OPSIN_CHECK(Error, !tensors.empty(), "cat: expected a non-empty list of Tensors");
  const Tensor* model = nullptr;
  for (size_t i = 0; i < tensors.size(); ++i) {
    OPSIN_CHECK(Error, tensors[i].dim() > 0, "cat: zero-dimensional tensor (at position ", i,
                ") cannot be concatenated (use stack)");
    if (!model && !is_legacy_empty(tensors[i])) model = &tensors[i];
  }
  if (!model) model = &tensors[0];
  Cat::Params params{wrap_dim(dim, model->dim(), "cat"), model->sizes(), {}};
  const auto d = static_cast<size_t>(params.dim);
  params.sizes[d] = 0;
  params.input_sizes.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& x = tensors[i];
    params.input_sizes.push_back(x.sizes());
    if (is_legacy_empty(x)) continue;
    bool agrees = x.dim() == model->dim();
    for (size_t k = 0; agrees && k < params.sizes.size(); ++k)
      agrees = k == d || x.sizes()[k] == params.sizes[k];
    OPSIN_CHECK(ShapeError, agrees, "cat: Sizes of tensors must match except in dimension ", params.dim,
                ". Expected ", str(model->sizes()), " but got ", str(x.sizes()), " for tensor number ", i,
                " in the list.");
    params.sizes[d] += x.sizes()[d];
  }
  return call<Cat>(params, TensorSpan(promoted(tensors)));
}

Tensor stack(TensorSpan tensors, int64_t dim) {
  OPSIN_CHECK(Error, !tensors.empty(), "stack: expected a non-empty TensorList");
  const int64_t d = wrap_dim(dim, tensors[0].dim() + 1, "stack");
  for (size_t i = 0; i < tensors.size(); ++i) {
    OPSIN_CHECK(ShapeError, tensors[i].sizes() == tensors[0].sizes(),
                "stack: expects each tensor to be equal size, but got ", str(tensors[0].sizes()),
                " at entry 0 and ", str(tensors[i].sizes()), " at entry ", i);
  }
  return cat(mapped(tensors, [d](const Tensor& x) { return unsqueeze(x, d); }), d);
}

Tensor hstack(TensorSpan tensors) {
  OPSIN_CHECK(Error, !tensors.empty(), "hstack: expected a non-empty TensorList");
  return cat(mapped(tensors, at_least_1d), tensors[0].dim() <= 1 ? 0 : 1);
}

Tensor vstack(TensorSpan tensors) {
  OPSIN_CHECK(Error, !tensors.empty(), "vstack: expected a non-empty TensorList");
  return cat(mapped(tensors, at_least_2d), 0);
}

Tensor dstack(TensorSpan tensors) {
  OPSIN_CHECK(Error, !tensors.empty(), "dstack: expected a non-empty TensorList");
  return cat(mapped(tensors, [](const Tensor& x) { return x.dim() < 3 ? unsqueeze(at_least_2d(x), 2) : x; }),
             2);
}

Tensor column_stack(TensorSpan tensors) {
  OPSIN_CHECK(Error, !tensors.empty(), "column_stack: expected a non-empty TensorList");
  return cat(
      mapped(tensors, [](const Tensor& x) { return x.dim() < 2 ? reshape(x, Dims{x.numel(), 1}) : x; }), 1);
}

Tensor block_diag(TensorSpan tensors) {
  OPSIN_CHECK(Error, !tensors.empty(), "block_diag: expected at least one tensor");
  int64_t columns = 0;
  const TensorList blocks = mapped(promoted(tensors), at_least_2d);
  for (const Tensor& block : blocks) {
    OPSIN_CHECK(ShapeError, block.dim() == 2, "block_diag: expected tensors of at most 2 dimensions, got ",
                str(block.sizes()));
    columns += block.size(1);
  }
  TensorList rows;
  int64_t before = 0;
  for (const Tensor& block : blocks) {
    const Tensor left = zeros(Dims{block.size(0), before}, block.dtype(), block.device());
    before += block.size(1);
    const Tensor right = zeros(Dims{block.size(0), columns - before}, block.dtype(), block.device());
    rows.push_back(cat(TensorList{left, block, right}, 1));
  }
  return cat(rows, 0);
}

void register_cat(Registry& registry) {
  register_cat_cpu();
  for (const char* alias : {"cat", "concat", "concatenate"}) {
    registry.add<&cat>(std::string(alias) + "(Tensor[] tensors, int dim=0) -> Tensor",
                       "The tensors one after the other along dimension `dim`; other sizes must agree.");
  }
  registry.add<&stack>("stack(Tensor[] tensors, int dim=0) -> Tensor",
                       "Tensors of one shape along a new dimension.");
  registry.add<&hstack>("hstack(Tensor[] tensors) -> Tensor", "Joins along dimension 1, or 0 for vectors.");
  for (const char* alias : {"vstack", "row_stack"}) {
    registry.add<&vstack>(std::string(alias) + "(Tensor[] tensors) -> Tensor",
                          "Joins along dimension 0; vectors are rows.");
  }
  registry.add<&dstack>("dstack(Tensor[] tensors) -> Tensor",
                        "Joins along dimension 2, after adding it where it is missing.");
  registry.add<&block_diag>("block_diag(Tensor[]... tensors) -> Tensor",
                            "The tensors along the diagonal of a matrix of zeros; vectors are rows.");
  registry.add<&column_stack>("column_stack(Tensor[] tensors) -> Tensor",
                              "Joins along dimension 1; vectors are columns.");
}

}  // namespace opsin
