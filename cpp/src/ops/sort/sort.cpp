// Sorting and selection along a dimension.
#include "sort_kernels.h"

#include <opsin/ops/copy.h>
#include <opsin/ops/sort.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const SortParams&)> sort_forward("sort");

namespace {

struct AlongParams {
  Pick pick;
  int64_t dim;
  bool descending;
  int64_t k;     ///< How many values the result has along `dim`; for kNth which one, from 0.
  int64_t size;  ///< Of the input along `dim`.
};

struct Sort {
  static constexpr const char* kName = "sort";
  using Params = AlongParams;

  static std::array<Tensor, 2> forward(const Params& p, const Tensor& input) {
    const int64_t last = input.dim() - 1;
    const Tensor x = input.dim() == 0 ? input : contiguous(transpose(input, p.dim, last));
    const int64_t results = p.pick == Pick::kSort || p.pick == Pick::kTop ? p.k : 1;
    Dims sizes = x.sizes();
    if (!sizes.empty()) sizes.back() = results;
    const auto kernel = sort_forward.get(x.device(), x.dtype());
    const Tensor values = empty(sizes, x.dtype(), x.device()), positions = empty(sizes, kInt64, x.device());
    if (x.numel() > 0 && results > 0) {
      kernel({x.impl()->data(), values.impl()->mutable_physical_data(), positions.mutable_data<int64_t>(),
              x.numel() / p.size, p.size, results, p.k, p.pick, p.descending, x.dtype()});
    }
    if (input.dim() == 0) return {values, positions};
    return {contiguous(transpose(values, p.dim, last)), contiguous(transpose(positions, p.dim, last))};
  }
  static void save(Saver& saver, const Params&, const Tensor&, const std::array<Tensor, 2>& y) {
    saver.save(0, y[1]);
  }
  // Every value came from one position.
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.grad().defined()) ctx.set(0, put_along(ctx.grad(), p.dim, ctx.saved(0), p.size));
  }
};

std::array<Tensor, 2> pick(Pick way, const Tensor& self, int64_t dim, bool descending, int64_t k,
                           const char* op) {
  dim = wrap_dim(dim, self.dim(), op);
  const int64_t size = self.dim() == 0 ? 1 : self.size(dim);
  if (way == Pick::kSort) k = size;
  OPSIN_CHECK(Error, way != Pick::kTop || (k >= 0 && k <= size), op,
              ": selected index k out of range, got k = ", k, " for dimension ", dim, " of ",
              str(self.sizes()));
  OPSIN_CHECK(Error, way != Pick::kNth || (k >= 0 && k < size), op,
              ": selected number k out of range for dimension ", dim, ", got k = ", k + 1, " for ",
              str(self.sizes()));
  OPSIN_CHECK(IndexError, way != Pick::kMedian || size > 0, op, ": Expected reduction dim ", dim,
              " to have non-zero size, got ", str(self.sizes()));
  return call<Sort>({way, dim, descending, k, size}, self);
}

std::array<Tensor, 2> drop_dim(std::array<Tensor, 2> y, int64_t dim, bool keepdim) {
  if (keepdim || y[0].dim() == 0) return y;
  return {squeeze(y[0], Dims{dim}), squeeze(y[1], Dims{dim})};
}

std::array<Tensor, 2> sort_stable(const Tensor& self, std::optional<bool>, int64_t dim, bool descending) {
  return sort(self, dim, descending);
}
Tensor argsort_stable(const Tensor& self, bool, int64_t dim, bool descending) {
  return argsort(self, dim, descending);
}
std::array<Tensor, 2> topk_call(const Tensor& self, int64_t k, int64_t dim, bool largest, bool) {
  return topk(self, k, dim, largest);
}

}  // namespace

std::array<Tensor, 2> sort(const Tensor& self, int64_t dim, bool descending) {
  return pick(Pick::kSort, self, dim, descending, 0, "sort");
}

Tensor argsort(const Tensor& self, int64_t dim, bool descending) {
  return sort(self.detach(), dim, descending)[1];
}

std::array<Tensor, 2> topk(const Tensor& self, int64_t k, int64_t dim, bool largest) {
  return pick(Pick::kTop, self, dim, largest, k, "topk");
}

std::array<Tensor, 2> kthvalue(const Tensor& self, int64_t k, int64_t dim, bool keepdim) {
  return drop_dim(pick(Pick::kNth, self, dim, false, k - 1, "kthvalue"), dim, keepdim);
}

Tensor median(const Tensor& self) {
  const Tensor flat = reshape(self, Dims{-1});
  return squeeze(pick(Pick::kMedian, flat, 0, false, 0, "median")[0], Dims{0});
}

std::array<Tensor, 2> median(const Tensor& self, int64_t dim, bool keepdim) {
  return drop_dim(pick(Pick::kMedian, self, dim, false, 0, "median"), dim, keepdim);
}

void register_sort(Registry& registry) {
  register_sort_cpu();
  registry.add<&sort>(
      "sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)",
      "Sorted values along a dimension and where they were; equal values keep their order.");
  registry.add<&sort_stable>(
      "sort(Tensor self, *, bool? stable=None, int dim=-1, bool descending=False) -> (Tensor values, Tensor "
      "indices)",
      "The same; sorting is always stable.");
  registry.add<&argsort>("argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor",
                         "Where the sorted values are.");
  registry.add<&argsort_stable>(
      "argsort(Tensor self, *, bool stable=False, int dim=-1, bool descending=False) -> Tensor",
      "The same; sorting is always stable.");
  registry.add<&topk_call>(
      "topk(Tensor self, int k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor "
      "indices)",
      "The k largest or smallest values along a dimension, in order, and where they are.");
  registry.add<&kthvalue>(
      "kthvalue(Tensor self, int k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)",
      "The k-th smallest value along a dimension, counted from 1, and where it is.");
  using Full = Tensor (*)(const Tensor&);
  using Along = std::array<Tensor, 2> (*)(const Tensor&, int64_t, bool);
  registry.add<static_cast<Full>(&median)>("median(Tensor self) -> Tensor",
                                           "The lower of the two middle values.");
  registry.add<static_cast<Along>(&median)>(
      "median(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
      "The lower of the two middle values along a dimension and where one is.");
}

}  // namespace opsin
