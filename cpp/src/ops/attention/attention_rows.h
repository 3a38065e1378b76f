// The product of a tile of attention by its rows and panels of GEMM of type P.
#pragma once

#include "attention_kernels.h"

#include "cpu/kernels/gemm_tile.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

/// A register tile of GEMM whose rows of A lie apart; rows beyond the last repeat it.
template <class P, int W>
[[gnu::noinline]] void add_tile(const AttentionRows& p, int64_t row, int64_t col, const P* b) {
  using T = Compute<P>;
  using D = Dot<P>;
  constexpr int lanes = lanes_of<T>;
  const int64_t rows = p.rows - row < tile_rows ? p.rows - row : tile_rows;
  const P* a[tile_rows];
  Vector<T> sum[tile_rows][W];
#pragma GCC unroll 16
  for (int i = 0; i < tile_rows; ++i) {
    a[i] = static_cast<const P*>(p.a) + (row + (i < rows ? i : rows - 1)) * p.a_row;
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) sum[i][w] = Vector<T>{};
  }
  for (int64_t k = 0; k < p.depth; k += D::step, b += tile_cols<T> * D::step) {
    typename D::Steps column[W];
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) column[w] = D::load(b + w * lanes * D::step);
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; ++i) {
      const typename D::Steps x = D::broadcast(a[i] + k);
#pragma GCC unroll 2
      for (int w = 0; w < W; ++w) sum[i][w] = D::fma(x, column[w], sum[i][w]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < tile_rows; ++i) {
    if (i >= rows) break;
#pragma GCC unroll 2
    for (int w = 0; w < W; ++w) {
      const int64_t count = p.n - col - w * lanes;
      if (count <= 0) break;
      T* c = static_cast<T*>(p.c) + (row + i) * p.c_row + col + w * lanes;
      store_some(c, load_some<T>(c, count) + sum[i][w], count);
    }
  }
}

template <class P>
void add_rows(const AttentionRows& p) {
  using T = Compute<P>;
  for (int64_t row = 0; row < p.rows; row += tile_rows) {
    const P* b = static_cast<const P*>(p.b);
    for (int64_t col = 0; col < p.n; col += tile_cols<T>, b += p.b_panel) {
      if (p.n - col <= lanes_of<T>) {
        add_tile<P, 1>(p, row, col, b);
      } else {
        add_tile<P, 2>(p, row, col, b);
      }
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
