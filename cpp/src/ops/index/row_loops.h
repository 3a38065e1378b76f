// The loops over rows. Values are moved, not computed, unless they are added up.
#pragma once

#include "rows.h"

#include <cstring>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin::row_loops {

inline constexpr int64_t kGrain = 32768;

struct Bits128 {
  uint64_t low, high;
};

/// `body.template operator()<T>()` with a T of the given size.
template <class F>
void dispatch_item(size_t item, F&& body) {
  switch (item) {
    case 1:
      return body.template operator()<uint8_t>();
    case 2:
      return body.template operator()<uint16_t>();
    case 4:
      return body.template operator()<uint32_t>();
    case 8:
      return body.template operator()<uint64_t>();
    default:
      return body.template operator()<Bits128>();
  }
}

/// Calls body(o, first, last) for blocks of the columns of each outer index. A block is one thread's, so that
/// what is written to one element keeps its order.
template <class F>
void for_columns(const RowGeometry& g, F&& body) {
  constexpr int64_t kBlock = 512;
  const int64_t blocks = (g.inner + kBlock - 1) / kBlock;
  const int64_t work = std::max<int64_t>(1, g.count * std::min(g.inner, kBlock));
  cpu::parallel_for(g.outer * blocks, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * kBlock;
      body(i / blocks, first, std::min(g.inner, first + kBlock));
    }
  });
}

/// Calls body(o, first, last) for ranges of the rows of each outer index.
template <class F>
void for_rows(const RowGeometry& g, F&& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, g.inner));
  cpu::parallel_for(g.outer * g.count, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t o = begin / g.count, first = begin % g.count;
      const int64_t last = std::min(g.count, first + end - begin);
      body(o, first, last);
      begin += last - first;
    }
  });
}

template <class T>
void select(const T* x, const int64_t* rows, T* y, const RowGeometry& g) {
  for_rows(g, [&](int64_t o, int64_t first, int64_t last) {
    const T* from = x + o * g.size * g.inner;
    T* to = y + o * g.count * g.inner;
    if (g.inner == 1) {
      for (int64_t c = first; c < last; ++c) to[c] = from[rows[c]];
      return;
    }
    for (int64_t c = first; c < last; ++c) {
      std::memcpy(to + c * g.inner, from + rows[c] * g.inner, static_cast<size_t>(g.inner) * sizeof(T));
    }
  });
}

template <class T>
void put(T* y, const int64_t* rows, const T* v, const RowGeometry& g) {
  for_columns(g, [&](int64_t o, int64_t first, int64_t last) {
    for (int64_t c = 0; c < g.count; ++c) {
      T* to = y + (o * g.size + rows[c]) * g.inner;
      const T* from = v + (o * g.count + c) * g.inner;
      for (int64_t i = first; i < last; ++i) to[i] = from[i];
    }
  });
}

template <class T>
void add(T* y, const int64_t* rows, const T* v, const RowGeometry& g) {
  for_columns(g, [&](int64_t o, int64_t first, int64_t last) {
    for (int64_t c = 0; c < g.count; ++c) {
      T* __restrict to = y + (o * g.size + rows[c]) * g.inner;
      const T* __restrict from = v + (o * g.count + c) * g.inner;
      for (int64_t i = first; i < last; ++i) to[i] = static_cast<T>(to[i] + from[i]);
    }
  });
}

template <class T>
void gather(const T* x, const int64_t* at, T* y, const RowGeometry& g) {
  for_rows(g, [&](int64_t o, int64_t first, int64_t last) {
    const T* from = x + o * g.size * g.inner;
    const int64_t base = o * g.count * g.inner;
    if (g.inner == 1) {
      for (int64_t i = base + first; i < base + last; ++i) y[i] = from[at[i]];
      return;
    }
    for (int64_t c = first; c < last; ++c) {
      const int64_t row = base + c * g.inner;
      for (int64_t i = 0; i < g.inner; ++i) y[row + i] = from[at[row + i] * g.inner + i];
    }
  });
}

/// y[o, at, i] = f(y[o, at, i], v[o, c, i]), for c upwards.
template <class T, class F>
void scatter(T* y, const int64_t* at, const T* v, const RowGeometry& g, F f) {
  for_columns(g, [&](int64_t o, int64_t first, int64_t last) {
    for (int64_t c = 0; c < g.count; ++c) {
      const int64_t base = (o * g.count + c) * g.inner;
      T* to = y + o * g.size * g.inner;
      for (int64_t i = first; i < last; ++i) {
        T& element = to[at[base + i] * g.inner + i];
        element = f(element, v[base + i]);
      }
    }
  });
}

}  // namespace opsin::row_loops
