// Copies with the elements in other places.
#include "parts.h"
#include "view_kernels.h"

#include <opsin/ops/cat.h>
#include <opsin/ops/index.h>
#include <opsin/ops/rearrange.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const RepeatParams&)> repeat_count("repeat_interleave"),
    repeat_write("repeat_interleave");

namespace {

// Reading backwards is its own reverse.
struct Flip {
  static constexpr const char* kName = "flip";
  struct Params {
    Dims dims;
  };
  static Tensor forward(const Params& p, const Tensor& x) {
    const Tensor y = empty(x.sizes(), x.dtype(), x.device());
    if (x.numel() == 0) return y;
    Dims strides = x.strides();
    int64_t offset = x.storage_offset();
    for (const int64_t dim : p.dims) {
      const auto d = static_cast<size_t>(dim);
      offset += (x.sizes()[d] - 1) * strides[d];
      strides[d] = -strides[d];
    }
    copy_(y, make_view(x, x.sizes(), std::move(strides), offset));
    return y;
  }
  static void backward(Backward& ctx, const Params& p) { ctx.set(0, flip(ctx.grad(), p.dims)); }
};

/// `expanded` as memory of its own with shape `sizes`.
Tensor copied_as(const Tensor& source, const Tensor& expanded, IntSpan sizes) {
  const Tensor dense = contiguous(expanded);
  return view(dense.impl()->storage.get() == source.impl()->storage.get() ? clone(dense) : dense, sizes);
}

Tensor roll_one(const Tensor& x, int64_t shift, int64_t dim) {
  const int64_t size = x.size(dim);
  if (size == 0) return clone(x);
  const int64_t start = ((-shift) % size + size) % size;
  if (start == 0) return clone(x);
  return cat(TensorList{slice(x, dim, start, size), slice(x, dim, 0, start)}, dim);
}

/// Index i repeats[i] times; `total` is their sum if it is known, so that a GPU need not be asked.
Tensor repeated_indices(const Tensor& repeats, std::optional<int64_t> total = std::nullopt) {
  OPSIN_CHECK(Error, repeats.dim() == 1 && (repeats.dtype() == kInt64 || repeats.dtype() == kInt32),
              "repeat_interleave: repeats must be a vector of int64 or int32, got ", name(repeats.dtype()),
              " ", str(repeats.sizes()));
  const Tensor counts = contiguous(to(repeats.detach(), kInt64));
  const Device device = counts.device();
  const auto* count = counts.data<int64_t>();
  const int64_t n = counts.numel();
  if (!device.is_cpu()) {
    const Tensor starts = empty(Dims{n + 1}, kInt64, device);
    RepeatParams p{count, n, starts.mutable_data<int64_t>(), nullptr, 0};
    repeat_count.get(device, kInt64)(p);
    p.total = n == 0 ? 0 : total ? *total : select(starts, 0, n).item<int64_t>();
    const Tensor result = empty(Dims{p.total}, kInt64, device);
    p.out = result.mutable_data<int64_t>();
    if (p.total > 0) repeat_write.get(device, kInt64)(p);
    return result;
  }
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    OPSIN_CHECK(Error, count[i] >= 0, "repeat_interleave: repeats can not be negative, got ", count[i]);
    sum += count[i];
  }
  const Tensor result = empty(Dims{sum}, kInt64, device);
  auto* out = result.mutable_data<int64_t>();
  for (int64_t i = 0; i < n; ++i) out = std::fill_n(out, count[i], i);
  return result;
}

Tensor repeated(const Tensor& self, const Tensor& repeats, std::optional<int64_t> dim,
                std::optional<int64_t> total) {
  const Tensor x = dim && self.dim() > 0 ? self : reshape(self, Dims{-1});
  const int64_t d = wrap_dim(dim.value_or(0), x.dim(), "repeat_interleave");
  Tensor counts = repeats.dim() == 0 ? reshape(repeats, Dims{1}) : repeats;
  if (counts.numel() == 1) counts = expand(counts, Dims{x.size(d)});
  OPSIN_CHECK(ShapeError, counts.dim() == 1 && counts.numel() == x.size(d),
              "repeat_interleave: repeats must have the same size as input along dim ", d,
              ", but got repeats of ", str(repeats.sizes()), " for ", str(x.sizes()));
  return index_select(x, d, repeated_indices(counts, total));
}

Tensor repeat_interleave_int(const Tensor& self, int64_t repeats, std::optional<int64_t> dim,
                             std::optional<int64_t>) {
  return repeat_interleave(self, repeats, dim);
}
Tensor repeat_interleave_indices(const Tensor& repeats) { return repeated_indices(repeats); }

Tensor fliplr(const Tensor& self) {
  OPSIN_CHECK(ShapeError, self.dim() >= 2, "fliplr: input must be >= 2-d, got ", str(self.sizes()));
  return flip(self, Dims{1});
}
Tensor flipud(const Tensor& self) {
  OPSIN_CHECK(ShapeError, self.dim() >= 1, "flipud: input must be >= 1-d, got a 0-dim tensor");
  return flip(self, Dims{0});
}

}  // namespace

Tensor repeat(const Tensor& self, IntSpan repeats) {
  OPSIN_CHECK(ShapeError, repeats.size() >= self.sizes().size(),
              "repeat: Number of dimensions of repeat dims ", str(repeats),
              " can not be smaller than number of dimensions of tensor ", str(self.sizes()));
  const size_t extra = repeats.size() - self.sizes().size();
  // [s0, s1] -> [1, s0, 1, s1] -> [r0, s0, r1, s1] -> [r0 s0, r1 s1]
  Dims parts, expanded, sizes;
  for (size_t i = 0; i < repeats.size(); ++i) {
    OPSIN_CHECK(ShapeError, repeats[i] >= 0, "repeat: expected non-negative repeats, got ", str(repeats));
    const int64_t own = i < extra ? 1 : self.sizes()[i - extra];
    parts.push_back(1);
    parts.push_back(own);
    expanded.push_back(repeats[i]);
    expanded.push_back(own);
    sizes.push_back(own * repeats[i]);
  }
  return copied_as(self, expand(reshape(self, parts), expanded), sizes);
}

Tensor tile(const Tensor& self, IntSpan dims) {
  Dims repeats(dims);
  while (repeats.size() < self.sizes().size()) repeats.insert(0, 1);
  return repeat(self, repeats);
}

Tensor repeat_interleave(const Tensor& self, int64_t repeats, std::optional<int64_t> dim) {
  OPSIN_CHECK(ShapeError, repeats >= 0, "repeat_interleave: repeats must be non-negative, got ", repeats);
  const Tensor x = dim && self.dim() > 0 ? self : reshape(self, Dims{-1});
  const int64_t d = wrap_dim(dim.value_or(0), x.dim(), "repeat_interleave");
  const Tensor parts = unsqueeze(x, d + 1);
  Dims expanded = parts.sizes(), sizes = x.sizes();
  expanded[static_cast<size_t>(d) + 1] = repeats;
  sizes[static_cast<size_t>(d)] *= repeats;
  return copied_as(self, expand(parts, expanded), sizes);
}

Tensor repeat_interleave(const Tensor& self, const Tensor& repeats, std::optional<int64_t> dim) {
  return repeated(self, repeats, dim, std::nullopt);
}

Tensor flip(const Tensor& self, IntSpan dims) {
  Dims wrapped;
  uint64_t seen = 0;
  for (const int64_t dim : dims) {
    const int64_t d = wrap_dim(dim, self.dim(), "flip");
    OPSIN_CHECK(Error, !(seen >> d & 1), "flip: dim ", d, " appears multiple times in the list of dims");
    seen |= uint64_t{1} << d;
    if (self.dim() > 0) wrapped.push_back(d);
  }
  return call<Flip>({std::move(wrapped)}, self);
}

Tensor roll(const Tensor& self, IntSpan shifts, IntSpan dims) {
  OPSIN_CHECK(Error, !shifts.empty(), "roll: `shifts` required");
  if (dims.empty()) {
    OPSIN_CHECK(Error, shifts.size() == 1, "roll: shifts and dimensions must align. shifts: ", shifts.size(),
                ", dims:0");
    return view(roll_one(reshape(self, Dims{-1}), shifts[0], 0), self.sizes());
  }
  OPSIN_CHECK(Error, shifts.size() == dims.size(),
              "roll: shifts and dimensions must align. shifts: ", shifts.size(), ", dims:", dims.size());
  Tensor result = self;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t d = wrap_dim(dims[i], self.dim(), "roll");
    result = self.dim() == 0 ? clone(result) : roll_one(result, shifts[i], d);
  }
  return result;
}

Tensor rot90(const Tensor& self, int64_t k, IntSpan dims) {
  OPSIN_CHECK(ShapeError, dims.size() == 2, "rot90: expected total rotation dims == 2, but got dims ",
              str(dims));
  OPSIN_CHECK(ShapeError, self.dim() >= 2, "rot90: expected total dims >= 2, but got ", self.dim());
  const int64_t a = wrap_dim(dims[0], self.dim(), "rot90"), b = wrap_dim(dims[1], self.dim(), "rot90");
  OPSIN_CHECK(ShapeError, a != b, "rot90: expected rotation dims to be different, but got ", str(dims));
  switch ((k % 4 + 4) % 4) {
    case 1:
      return transpose(flip(self, Dims{b}), a, b);
    case 2:
      return flip(self, Dims{a, b});
    case 3:
      return transpose(flip(self, Dims{a}), a, b);
    default:
      return clone(self);
  }
}

void register_view_rearranged(Registry& registry) {
  registry.add<&repeat>(
      "Tensor.repeat(Tensor self, int[]... repeats) -> Tensor",
      "A copy repeated repeats[i] times along dimension i; extra leading entries add dimensions.");
  registry.add<&tile>("tile(Tensor self, int[]... dims) -> Tensor",
                      "As repeat, where missing leading entries are 1.");
  registry.add<&repeat_interleave_int>(
      "repeat_interleave(Tensor self, int repeats, int? dim=None, *, int? output_size=None) -> Tensor",
      "Each element `repeats` times in place, along `dim` or flat.");
  registry.add<&repeated>(
      "repeat_interleave(Tensor self, Tensor repeats, int? dim=None, *, int? output_size=None) -> Tensor",
      "Element i repeats[i] times in place, along `dim` or flat.");
  registry.add<&repeat_interleave_indices>("repeat_interleave(Tensor repeats) -> Tensor",
                                           "Index i repeats[i] times.");
  registry.add<&flip>("flip(Tensor self, int[]... dims) -> Tensor",
                      "A copy with the order of the dimensions reversed.");
  registry.add<&fliplr>("fliplr(Tensor self) -> Tensor", "A copy with the order of dimension 1 reversed.");
  registry.add<&flipud>("flipud(Tensor self) -> Tensor", "A copy with the order of dimension 0 reversed.");
  registry.add<&roll>(
      "roll(Tensor self, int[1] shifts, int[1] dims=[]) -> Tensor",
      "Moved by `shifts` along `dims`, what falls off put back at the start; flat without `dims`.");
  registry.add<&rot90>("rot90(Tensor self, int k=1, int[] dims=[0,1]) -> Tensor",
                       "Turned by 90 degrees k times from dims[0] to dims[1].");
}

}  // namespace opsin
