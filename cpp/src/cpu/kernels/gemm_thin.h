// Products of a few rows with a B whose rows lie side by side in memory, such as the gradient of the input of
// a linear layer. B is read once, where it is, in long runs of a few of its rows; sums stay in the
// first-level cache meanwhile.
#pragma once

#include "dot.h"
#include "gemm_table.h"
#include "gemm_tile.h"
#include "gemm_vector.h"
#if defined(__AVX512BF16__)
#include "bf16_pairs.h"
#endif

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Sums in registers at a time: rows of A, no more than these, times vectors of columns.
#if defined(__AVX512F__)
constexpr int thin_sums = 16, thin_together = 8;
#else
constexpr int thin_sums = 8, thin_together = 4;
#endif
// Steps of k after which the sums are put aside for those of the next columns.
constexpr int64_t thin_steps = 32;
// Elements of a line.
template <class S>
constexpr int line_of = 64 / static_cast<int>(sizeof(S));
// Half of the first-level cache, for the sums. What is fetched of B while they are added to is twice as much.
constexpr int64_t thin_bytes = 16 * 1024;

// Two vectors of columns, of which `cols` are there, of a step: one row of B, or a pair, whose `second` row
// is null where there is none.
template <class S, class P, bool kWhole>
OPSIN_INLINE void load_step(const S* first, [[maybe_unused]] const S* second, int64_t cols,
                            typename Dot<P>::Steps* column) {
  using T = Compute<P>;
  constexpr int lanes = lanes_of<T>;
#if defined(__AVX512BF16__)
  if constexpr (Dot<P>::step == 2) {
    const auto row = [&](const S* p) { return kWhole ? _mm512_loadu_si512(p) : load_elements(p, cols); };
    return interleave(row(first), second == nullptr ? _mm512_setzero_si512() : row(second), column);
  }
#endif
  if constexpr (Dot<P>::step == 1) {
    column[0] = kWhole ? load_wide(first) : load_some<T>(first, cols);
    column[1] =
        kWhole || cols > lanes ? load_some<T>(first + lanes, kWhole ? lanes : cols - lanes) : Vector<T>{};
  }
}

// Adds the products of `rows` rows of A, G at a time, with `depth` steps by W vectors of columns.
// Sums lie by two vectors of columns, then by rows. P is the type of the panel of A. `next`: from here to
// what is to be fetched.
template <class S, class P, int G, int W, bool kWhole>
OPSIN_INLINE void add_thin(const S* b, int64_t b_step, int64_t cols, int64_t next, const P* a, int64_t rows,
                           int64_t depth, Compute<P>* sums) {
  using T = Compute<P>;
  using D = Dot<P>;
  constexpr int lanes = lanes_of<T>;
  for (int64_t r = 0; r < rows; r += G, sums += G * 2 * lanes) {
    Vector<T> sum[G][W];
#pragma GCC unroll 8
    for (int i = 0; i < G; ++i)
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) sum[i][w] = load(sums + (w / 2 * rows + i) * 2 * lanes + w % 2 * lanes);
    const S* line = b;
    const P* x = a + r * D::step;
    for (int64_t p = 0; p < depth; p += D::step, line += D::step * b_step, x += D::step * rows) {
      typename D::Steps column[W + W % 2];
#pragma GCC unroll 4
      for (int w = 0; w < W; w += 2) {
        const S* const first = line + w * lanes;
        load_step<S, P, kWhole>(first, p + D::step <= depth ? first + b_step : nullptr, cols, column + w);
        // The hardware does not foresee so many runs, nor where the next begin.
        if (r == 0)
          for (int i = 0; i < D::step; ++i)
            for (int j = 0; j < 2 * lanes; j += line_of<S>)
              __builtin_prefetch(first + next + i * b_step + j, 0, 2);
      }
#pragma GCC unroll 8
      for (int i = 0; i < G; ++i) {
        const typename D::Steps factor = D::broadcast(x + i * D::step);
#pragma GCC unroll 8
        for (int w = 0; w < W; ++w) sum[i][w] = D::fma(factor, column[w], sum[i][w]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < G; ++i)
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) store(sums + (w / 2 * rows + i) * 2 * lanes + w % 2 * lanes, sum[i][w]);
  }
}

// Adds the sums of a slice to C, in the order that cpu/gemm.h promises.
template <class T>
void finish_thin(const GemmBlock& g, const T* sums, int64_t col, int64_t cols) {
  constexpr int64_t lanes = lanes_of<T>, step = 2 * lanes;
  const bool adjacent = g.c_col == 1 && !(g.bias && g.bias_by_row);
  const T* const bias = static_cast<const T*>(g.bias);
  for (int64_t j = 0; j < cols; j += step, sums += g.a_step * step) {
    const int64_t some = cols - j < step ? cols - j : step;
    if (!adjacent) {
      finish_edge(g, sums, step, 0, g.m, col + j, some);
      continue;
    }
    for (int64_t i = 0; i < g.m; ++i) {
      T* const c = static_cast<T*>(g.c) + i * g.c_row + col + j;
      for (int64_t l = 0; l < some; l += lanes) {
        Vector<T> value = load(sums + i * step + l);
        if (bias) value += load_some<T>(bias + col + j + l, some - l);
        if (g.add) value += load_some<T>(c + l, some - l);
        store_some(c + l, value, some - l);
      }
    }
  }
}

template <class S, class P, int G>
void multiply_thin_rows(const GemmBlock& g) {
  using T = Compute<P>;
  constexpr int most = thin_sums / G, W = most < 8 ? most : 8;
  constexpr int64_t lanes = lanes_of<T>, step = 2 * lanes, depth = thin_steps * Dot<P>::step;
  alignas(64) T sums[thin_bytes / sizeof(T)];
  const int64_t rows = g.a_step;
  const int64_t held = thin_bytes / static_cast<int64_t>(sizeof(T)) / rows;
  constexpr int64_t fetched = 2 * thin_bytes / depth / static_cast<int64_t>(sizeof(S));
  const int64_t width = (held < fetched ? held : fetched) / step * step;
  for (int64_t col = 0; col < g.n; col += width) {
    const S* b = static_cast<const S*>(g.b) + col;
    const auto* a = static_cast<const P*>(g.a);
    const int64_t cols = g.n - col < width ? g.n - col : width;
    for (int64_t i = 0; i < rows * width; i += lanes) store(sums + i, Vector<T>{});
    const int64_t next = depth * g.b_step;
    for (int64_t p = 0; p < g.depth; p += depth, b += next, a += depth * rows) {
      const int64_t some = g.depth - p < depth ? g.depth - p : depth;
      int64_t j = 0;
      for (; j + W * lanes <= cols; j += W * lanes)
        add_thin<S, P, G, W, true>(b + j, g.b_step, step, next, a, rows, some, sums + j * rows);
      if constexpr (W > 2) {
        for (; j + step <= cols; j += step)
          add_thin<S, P, G, 2, true>(b + j, g.b_step, step, next, a, rows, some, sums + j * rows);
      }
      const int64_t rest = cols - j;
      if (rest > lanes) {
        add_thin<S, P, G, 2, false>(b + j, g.b_step, rest, next, a, rows, some, sums + j * rows);
      } else if (rest > 0) {
        add_thin<S, P, G, 1, false>(b + j, g.b_step, rest, next, a, rows, some, sums + j * rows);
      }
    }
    finish_thin(g, sums, col, cols);
  }
}

template <class S, class P>
void multiply_thin_rows(const GemmBlock& g) {
  if (g.a_step == 1) return multiply_thin_rows<S, P, 1>(g);
  if (g.a_step == 2) return multiply_thin_rows<S, P, 2>(g);
  if (g.a_step == 4) return multiply_thin_rows<S, P, 4>(g);
  multiply_thin_rows<S, P, thin_together>(g);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
