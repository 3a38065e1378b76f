// Sorting and selection along a dimension.
#include <algorithm>
#include <vector>

#include <opsin/ops/copy.h>
#include <opsin/ops/sort.h>
#include <opsin/ops/view.h>

#include "../reduce/along.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/registry.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

enum class Pick { kSort, kTop, kNth, kMedian };

struct SortParams {
  Pick pick;
  int64_t dim;
  bool descending;
  int64_t k;     ///< How many values the result has along `dim`; for kNth which one, from 0.
  int64_t size;  ///< Of the input along `dim`.
};

template <class T>
struct Item {
  T value;
  int64_t position;
};

/// NaN is the largest value; of equals, the earlier comes first.
template <class T>
bool less_than(const Item<T>& a, const Item<T>& b) {
  if (a.value < b.value || (b.value != b.value && a.value == a.value)) return true;
  if (b.value < a.value || (a.value != a.value && b.value == b.value)) return false;
  return a.position < b.position;
}
template <class T>
bool greater_than(const Item<T>& a, const Item<T>& b) {
  if (b.value < a.value || (a.value != a.value && b.value == b.value)) return true;
  if (a.value < b.value || (b.value != b.value && a.value == a.value)) return false;
  return a.position < b.position;
}

/// The first of items[0, results) are the `results` first of a row, in order: few, so that each new one is
/// put in its place.
template <class T, class C, class Before>
void pick_few(const T* x, int64_t n, Item<C>* items, int64_t results, Before before) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Item<C> item{static_cast<C>(x[i]), i};
    if (found == results && !before(item, items[results - 1])) continue;
    int64_t place = found < results ? found++ : results - 1;
    for (; place > 0 && before(item, items[place - 1]); --place) items[place] = items[place - 1];
    items[place] = item;
  }
}

template <class C, class Before>
void pick_row(std::vector<Item<C>>& items, const SortParams& p, int64_t results, Before before) {
  const auto from = items.begin(), end = items.end();
  switch (p.pick) {
    case Pick::kSort:
      std::sort(from, end, before);
      return;
    case Pick::kTop:
      std::partial_sort(from, from + results, end, before);
      return;
    case Pick::kNth:
      std::nth_element(from, from + p.k, end, before);
      std::swap(items[0], items[static_cast<size_t>(p.k)]);
      return;
    case Pick::kMedian: {
      const auto nan = std::find_if(from, end, [](const Item<C>& a) { return a.value != a.value; });
      const auto middle = nan == end ? from + (p.size - 1) / 2 : nan;
      if (nan == end) std::nth_element(from, middle, end, before);
      std::swap(items[0], *middle);
      return;
    }
  }
}

/// One row, whose results come to the front of `items`.
template <class T, class C, class Before>
void pick_from(const T* x, int64_t n, std::vector<Item<C>>& items, const SortParams& p, int64_t results,
               Before before) {
  constexpr int64_t kFew = 16;
  if (p.pick == Pick::kTop && results > 0 && results <= kFew) {
    return pick_few(x, n, items.data(), results, before);
  }
  for (int64_t i = 0; i < n; ++i) items[static_cast<size_t>(i)] = {static_cast<C>(x[i]), i};
  pick_row(items, p, results, before);
}

struct Sort {
  static constexpr const char* kName = "sort";
  using Params = SortParams;

  static std::array<Tensor, 2> forward(const Params& p, const Tensor& input) {
    const int64_t last = input.dim() - 1;
    const Tensor x = input.dim() == 0 ? input : contiguous(transpose(input, p.dim, last));
    const int64_t results = p.pick == Pick::kSort || p.pick == Pick::kTop ? p.k : 1;
    Dims sizes = x.sizes();
    if (!sizes.empty()) sizes.back() = results;
    const Tensor values = empty(sizes, x.dtype()), positions = empty(sizes, kInt64);
    const int64_t n = p.size, rows = n == 0 ? 0 : x.numel() / n;
    dispatch_real(x.dtype(), kName, [&]<class T>() {
      using C = compute_t<T>;
      const T* xs = x.data<T>();
      T* value = values.mutable_data<T>();
      int64_t* position = positions.mutable_data<int64_t>();
      cpu::parallel_for(
          rows, std::max<int64_t>(1, 2048 / std::max<int64_t>(1, n)), [&](int64_t begin, int64_t end) {
            std::vector<Item<C>> items(static_cast<size_t>(n));
            for (int64_t r = begin; r < end; ++r) {
              if (p.descending) {
                pick_from(xs + r * n, n, items, p, results,
                          [](const Item<C>& a, const Item<C>& b) { return greater_than(a, b); });
              } else {
                pick_from(xs + r * n, n, items, p, results,
                          [](const Item<C>& a, const Item<C>& b) { return less_than(a, b); });
              }
              for (int64_t i = 0; i < results; ++i) {
                value[r * results + i] = static_cast<T>(items[static_cast<size_t>(i)].value);
                position[r * results + i] = items[static_cast<size_t>(i)].position;
              }
            }
          });
    });
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
