// Products of few steps of k, such as the weight gradient of a linear layer from a small batch. Writing C is
// most of the time that they take: every element is rounded in registers and written once, in long runs, and
// past the caches where these could not hold C, since a store into a cache fetches the line first.
#pragma once

#include "dot.h"
#include "gemm_table.h"
#include "gemm_tile.h"
#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Rows that share the loads of B. More of them are more runs that are written at the same time.
#if defined(__AVX512F__)
constexpr int outer_rows = 8;
#else
constexpr int outer_rows = tile_rows;
#endif

// How a tile is written: past the caches, all of it, or the columns that are there.
enum class Write { stream, whole, some };

template <Write kWrite, class S>
OPSIN_INLINE void write_tile(S* p, Vector<Compute<S>> low, Vector<Compute<S>> high, int64_t cols) {
  constexpr int lanes = lanes_of<Compute<S>>;
  if constexpr (kWrite == Write::some) {
    store_some(p, low, cols);
    store_some(p + lanes, high, cols - lanes);
    return;
  }
#if defined(__AVX512F__)
  if constexpr (!__is_same(S, Compute<S>)) {
    const __m512i line = rounded_pair(low, high, p);
    if (kWrite == Write::stream) return _mm512_stream_si512(reinterpret_cast<__m512i*>(p), line);
    return _mm512_storeu_si512(p, line);
  }
#endif
  if constexpr (kWrite == Write::stream) {
    stream(p, low);
    stream(p + lanes, high);
  } else {
    store_some(p, low, lanes);
    store_some(p + lanes, high, lanes);
  }
}

// P is the type of the panels.
template <class S, class P, Write kWrite>
OPSIN_INLINE void multiply_outer_tile(const P* a, const P* b, int64_t depth, S* c, int64_t c_row,
                                      int64_t rows, int64_t cols) {
  using T = Compute<S>;
  using D = Dot<P>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[outer_rows][2] = {};
  for (int64_t p = 0; p < depth; p += D::step) {
    const typename D::Steps low = D::load(b), high = D::load(b + lanes * D::step);
#pragma GCC unroll 8
    for (int i = 0; i < outer_rows; ++i) {
      const typename D::Steps x = D::broadcast(a + i * D::step);
      sum[i][0] = D::fma(x, low, sum[i][0]);
      sum[i][1] = D::fma(x, high, sum[i][1]);
    }
    a += outer_rows * D::step;
    b += 2 * lanes * D::step;
  }
#pragma GCC unroll 8
  for (int i = 0; i < outer_rows; ++i) {
    if (i == rows) return;
    write_tile<kWrite>(c + i * c_row, sum[i][0], sum[i][1], cols);
  }
}

template <class S, class P>
void multiply_outer(const GemmOuter& g) {
  constexpr int64_t cols = tile_cols<Compute<S>>;
  // Parts of lines would be fetched nevertheless.
  constexpr bool lines = cols * static_cast<int64_t>(sizeof(S)) % 64 == 0;
  constexpr Write stream_or_store = lines ? Write::stream : Write::whole;
  const bool streams = lines && g.past_caches;
  const auto* a = static_cast<const P*>(g.a);
  for (int64_t row = 0; row < g.m; row += outer_rows, a += g.a_panel) {
    const int64_t rows = g.m - row < outer_rows ? g.m - row : outer_rows;
    const auto* b = static_cast<const P*>(g.b);
    S* c = static_cast<S*>(g.c) + row * g.c_row;
    int64_t col = 0;
    if (streams) {
      for (; col + cols <= g.n; col += cols, b += g.b_panel)
        multiply_outer_tile<S, P, stream_or_store>(a, b, g.depth, c + col, g.c_row, rows, cols);
    } else {
      for (; col + cols <= g.n; col += cols, b += g.b_panel)
        multiply_outer_tile<S, P, Write::whole>(a, b, g.depth, c + col, g.c_row, rows, cols);
    }
    if (col < g.n) multiply_outer_tile<S, P, Write::some>(a, b, g.depth, c + col, g.c_row, rows, g.n - col);
  }
  if (streams) stream_fence();
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
