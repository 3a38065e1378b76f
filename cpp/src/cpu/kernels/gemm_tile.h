// The register tile of GEMM.
//
// It keeps mr x 2 vectors of C in registers; each step of k loads two vectors of B and broadcasts mr
// elements of A (K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; F. Van
// Zee, R. van de Geijn, "BLIS", 2015). 14 x 2 of 32 AVX-512 registers, 6 x 2 of 16 AVX2 ones, 4 x 2 of 16 SSE
// ones. Every tile height has its own code, so that the rows of a block can be shared out evenly instead of
// leaving a thin rest.
#pragma once

#include "dot.h"
#include "gemm_table.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

#if defined(__AVX512F__)
constexpr int tile_rows = 14;
constexpr int thin_rows = 8, thin_transposed = 8;
#elif defined(__AVX2__)
constexpr int tile_rows = 6;
constexpr int thin_rows = 4, thin_transposed = 8;
#else
constexpr int tile_rows = 4;
constexpr int thin_rows = 4, thin_transposed = 4;
#endif

template <class T>
constexpr int tile_cols = 2 * lanes_of<T>;

// Whether A can be read by its rows, without packing. 6 of them take two pointers and a stride. 14 take five,
// and were measured in pairs alone.
#if defined(__AVX512BF16__)
constexpr bool has_pairs = true;
#else
constexpr bool has_pairs = false;
#endif
template <class P>
constexpr bool reads_rows = __is_same(P, Compute<P>) ? tile_rows <= 6 : has_pairs && __is_same(P, BFloat16);

// Length of a slice of k: a panel of A then stays in the first-level cache while panels of B stream past it.
template <class T>
constexpr int64_t slice_depth = 1024 / static_cast<int64_t>(sizeof(T));

// P is the type of the panels.
template <class P>
struct Tile {
  int64_t depth;
  const P* a;
  int64_t a_step, a_lane;
  const P* b;
  int64_t b_step;
  Compute<P>* c;
  int64_t c_row;
  const Compute<P>* bias;
  bool add;
};

// kRows: A is read by its rows, a_lane apart; otherwise these are adjacent.
template <class P, int R, int W, bool kRows>
[[gnu::noinline]] void multiply_tile(const Tile<P>& t) {
  using T = Compute<P>;
  using D = Dot<P>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[R][W];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) sum[i][w] = Vector<T>{};
  // What an address adds to a pointer is a stride once or twice.
  constexpr int together = kRows ? 3 : R;
  constexpr int pointers = (R + together - 1) / together;
  const int64_t a_lane = kRows ? t.a_lane : D::step;
  const P* a[pointers];
#pragma GCC unroll 16
  for (int i = 0; i < pointers; ++i) a[i] = t.a + i * together * a_lane;
  // C comes from beyond the first-level cache, in lines that nothing foresees: there is time to fetch them
  // now.
  T* const c = t.c;
  const int64_t c_row = t.c_row;
  constexpr int line = 64 / vector_bytes;
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int w = 0; w < W; w += line) __builtin_prefetch(c + i * c_row + w * lanes, 1);
  const P* b = t.b;
  const int64_t a_step = (kRows ? 1 : t.a_step) * D::step, b_step = t.b_step * D::step;
  // Unrolled, the multiply-adds share the processor with fewer steps of pointers; measured on AVX2 alone.
#pragma GCC unroll 4
  for (int64_t p = t.depth; p > 0; p -= D::step) {
    typename D::Steps column[W];
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) column[w] = D::load(b + w * lanes * D::step);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const typename D::Steps x = D::broadcast(a[i / together] + i % together * a_lane);
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) sum[i][w] = D::fma(x, column[w], sum[i][w]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < pointers; ++i) a[i] += a_step;
    b += b_step;
  }
  const T* const bias = t.bias;
  if (bias) {
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) {
      const Vector<T> shift = load(bias + w * lanes);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) sum[i][w] += shift;
    }
  }
  if (t.add) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) sum[i][w] += load(c + i * c_row + w * lanes);
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) store(c + i * c_row + w * lanes, sum[i][w]);
}

template <class P, int R, int W>
OPSIN_INLINE void multiply_either(const Tile<P>& t) {
  if constexpr (reads_rows<P>) {
    if (t.a_lane > 1) return multiply_tile<P, R, W, true>(t);
  }
  multiply_tile<P, R, W, false>(t);
}

template <class P, int W>
OPSIN_INLINE void multiply_rows(int64_t rows, const Tile<P>& t) {
#define OPSIN_TILE(R)                                                 \
  case R:                                                             \
    if constexpr (R <= tile_rows) return multiply_either<P, R, W>(t); \
    break;
  switch (rows) {
    OPSIN_TILE(1)
    OPSIN_TILE(2)
    OPSIN_TILE(3)
    OPSIN_TILE(4)
    OPSIN_TILE(5)
    OPSIN_TILE(6)
    OPSIN_TILE(7)
    OPSIN_TILE(8)
    OPSIN_TILE(9)
    OPSIN_TILE(10)
    OPSIN_TILE(11)
    OPSIN_TILE(12)
    OPSIN_TILE(13)
    OPSIN_TILE(14)
    default:
      break;
  }
#undef OPSIN_TILE
}

// Adds sums[rows][sum_row] to the elements of C that do not fill vectors or do not lie side by side.
template <class T>
void finish_edge(const GemmBlock& g, const T* sums, int64_t sum_row, int64_t row, int64_t rows, int64_t col,
                 int64_t cols) {
  T* c = static_cast<T*>(g.c) + row * g.c_row + col * g.c_col;
  const T* bias = static_cast<const T*>(g.bias);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      T value = sums[i * sum_row + j];
      if (bias) value += bias[g.bias_by_row ? row + i : col + j];
      T* out = c + i * g.c_row + j * g.c_col;
      if (g.add) value += *out;
      *out = value;
    }
  }
}

template <class P>
void multiply_edge(const GemmBlock& g, Tile<P> t, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  using T = Compute<P>;
  T buffer[tile_rows * tile_cols<T>];
  t.c = buffer;
  t.c_row = tile_cols<T>;
  t.bias = nullptr;
  t.add = false;
  if (cols <= lanes_of<T>) {
    multiply_rows<P, 1>(rows, t);
  } else {
    multiply_rows<P, 2>(rows, t);
  }
  finish_edge(g, buffer, tile_cols<T>, row, rows, col, cols);
}

// A in panels comes from the second-level cache while a panel of B stays in the first: what streams is then
// the smaller of both, and B may be as wide as it likes. A by its rows, which are not foreseen by the
// hardware, is read once from wherever it is, and panels of B stream past it. In pairs its rows are half as
// long, and it stays in the second-level cache as panels do.
template <class P>
void multiply_block(const GemmBlock& g) {
  using T = Compute<P>;
  const T* bias = static_cast<const T*>(g.bias);
  Tile<P> t{};
  t.depth = g.depth;
  t.a_step = g.a_step;
  t.a_lane = g.a_lane;
  t.b_step = g.b_step;
  t.c_row = g.c_row;
  t.add = g.add;
  const bool adjacent = g.c_col == 1 && !(bias && g.bias_by_row);
  const auto tile = [&](int64_t row, int64_t col) {
    const int64_t rows = g.m - row < g.panel_rows ? g.m - row : g.panel_rows;
    const int64_t cols = g.n - col < tile_cols<T> ? g.n - col : tile_cols<T>;
    if (adjacent && (cols == tile_cols<T> || cols == lanes_of<T>)) {
      t.c = static_cast<T*>(g.c) + row * g.c_row + col;
      t.bias = bias ? bias + col : nullptr;
      if (cols == tile_cols<T>) {
        multiply_rows<P, 2>(rows, t);
      } else {
        multiply_rows<P, 1>(rows, t);
      }
    } else {
      multiply_edge<P>(g, t, row, rows, col, cols);
    }
  };
  t.a = static_cast<const P*>(g.a);
  t.b = static_cast<const P*>(g.b);
  if (g.a_lane > 1 && Dot<P>::step == 1) {
    for (int64_t row = 0; row < g.m; row += g.panel_rows, t.a += g.a_panel) {
      t.b = static_cast<const P*>(g.b);
      for (int64_t col = 0; col < g.n; col += tile_cols<T>, t.b += g.b_panel) tile(row, col);
    }
  } else {
    for (int64_t col = 0; col < g.n; col += tile_cols<T>, t.b += g.b_panel) {
      t.a = static_cast<const P*>(g.a);
      for (int64_t row = 0; row < g.m; row += g.panel_rows, t.a += g.a_panel) tile(row, col);
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
