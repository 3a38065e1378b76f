// Sorting on the CPU: each row on one thread.
#include "sort_kernels.h"

#include <algorithm>
#include <vector>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

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
void pick_row(std::vector<Item<C>>& items, const SortParams& p, Before before) {
  const auto from = items.begin(), end = items.end();
  switch (p.pick) {
    case Pick::kSort:
      std::sort(from, end, before);
      return;
    case Pick::kTop:
      std::partial_sort(from, from + p.results, end, before);
      return;
    case Pick::kNth:
      std::nth_element(from, from + p.k, end, before);
      std::swap(items[0], items[static_cast<size_t>(p.k)]);
      return;
    case Pick::kMedian: {
      const auto nan = std::find_if(from, end, [](const Item<C>& a) { return a.value != a.value; });
      const auto middle = nan == end ? from + (p.n - 1) / 2 : nan;
      if (nan == end) std::nth_element(from, middle, end, before);
      std::swap(items[0], *middle);
      return;
    }
  }
}

/// One row, whose results come to the front of `items`.
template <class T, class C, class Before>
void pick_from(const T* x, std::vector<Item<C>>& items, const SortParams& p, Before before) {
  constexpr int64_t kFew = 16;
  if (p.pick == Pick::kTop && p.results <= kFew) return pick_few(x, p.n, items.data(), p.results, before);
  for (int64_t i = 0; i < p.n; ++i) items[static_cast<size_t>(i)] = {static_cast<C>(x[i]), i};
  pick_row(items, p, before);
}

void sort_rows(const SortParams& p) {
  dispatch_real(p.dtype, "sort", [&]<class T>() {
    using C = compute_t<T>;
    const auto* x = static_cast<const T*>(p.x);
    auto* values = static_cast<T*>(p.values);
    cpu::parallel_for(p.rows, std::max<int64_t>(1, 2048 / p.n), [&](int64_t begin, int64_t end) {
      std::vector<Item<C>> items(static_cast<size_t>(p.n));
      for (int64_t r = begin; r < end; ++r) {
        if (p.descending) {
          pick_from(x + r * p.n, items, p,
                    [](const Item<C>& a, const Item<C>& b) { return greater_than(a, b); });
        } else {
          pick_from(x + r * p.n, items, p,
                    [](const Item<C>& a, const Item<C>& b) { return less_than(a, b); });
        }
        for (int64_t i = 0; i < p.results; ++i) {
          values[r * p.results + i] = static_cast<T>(items[static_cast<size_t>(i)].value);
          p.positions[r * p.results + i] = items[static_cast<size_t>(i)].position;
        }
      }
    });
  });
}

}  // namespace

void register_sort_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_complex(dtype)) sort_forward.set(DeviceType::kCPU, dtype, sort_rows);
  }
}

}  // namespace opsin
