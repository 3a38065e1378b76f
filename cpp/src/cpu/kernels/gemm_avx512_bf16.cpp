// GEMM of bfloat16 by products of pairs (VDPBF16PS): panels stay bfloat16, two steps of k side by side, half
// the bytes and twice the products of float32. See gemm_isa.cpp for what the kernels do.
#include "gemm_convert.h"
#include "gemm_outer.h"
#include "gemm_pairs.h"
#include "gemm_table.h"
#include "gemm_thin.h"
#include "gemm_tile.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

using D = Dot<BFloat16>;
constexpr int lanes = lanes_of<float>;
// Twice as long as in float32: a tile takes half as long for as many steps, so that reading and writing its
// sums takes twice the share. Panels of B then fill the first-level cache, which their reads run ahead of
// anyway.
constexpr int64_t slice = 512;

OPSIN_INLINE D::Steps steps(Float v) { return reinterpret_cast<D::Steps>(v); }

template <int R>
void multiply_thin_columns(const GemmBlock& g) {
  const auto* b = static_cast<const BFloat16*>(g.b);
  const auto* a = static_cast<const BFloat16*>(g.a);
  for (int64_t col = 0; col < g.n; col += lanes, b += lanes * g.b_panel) {
    const int64_t cols = g.n - col < lanes ? g.n - col : lanes;
    Float sum[R] = {};
    for (int64_t p = 0; p < g.depth; p += 2 * lanes) {
      const int64_t pairs = g.depth - p < 2 * lanes ? (g.depth - p + 1) / 2 : lanes;
      Float square[lanes];
      load_square(b + p, g.b_panel, cols, g.depth - p, square);
      const BFloat16* x = a + p * g.a_step;
      for (int q = 0; q < pairs; ++q, x += 2 * g.a_step) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r] = D::fma(D::broadcast(x + 2 * r), steps(square[q]), sum[r]);
      }
    }
    finish_edge(g, reinterpret_cast<const float*>(sum), lanes, 0, g.m, col, cols);
  }
}

void multiply_thin(const GemmBlock& g) {
  if (g.b_panel == 1) return multiply_thin_rows<BFloat16, BFloat16>(g);
  if (g.m == 1) return multiply_thin_columns<1>(g);
  if (g.m == 2) return multiply_thin_columns<2>(g);
  if (g.m <= 4) return multiply_thin_columns<4>(g);
  multiply_thin_columns<thin_transposed>(g);
}

void multiply_direct(const GemmParams& g) {
  for (int64_t item = 0; item < g.batch; ++item) {
    const auto* b = static_cast<const BFloat16*>(g.b) + item * g.b_batch;
    for (int64_t i = 0; i < g.m; ++i) {
      const auto* a = static_cast<const BFloat16*>(g.a) + item * g.a_batch + i * g.a_row;
      auto* c = static_cast<BFloat16*>(g.c) + item * g.c_batch + i * g.c_row;
      for (int64_t j = 0; j < g.n; j += lanes) {
        const int64_t cols = g.n - j < lanes ? g.n - j : lanes;
        Float sum{};
        for (int64_t p = 0; p < g.k; p += 2) {
          const bool whole = p + 1 < g.k;
          alignas(64) BFloat16 x[2] = {a[p * g.a_col], whole ? a[(p + 1) * g.a_col] : BFloat16{}};
          alignas(64) BFloat16 y[2 * lanes] = {};
          for (int64_t l = 0; l < cols; ++l) {
            const BFloat16* at = b + p * g.b_row + (j + l) * g.b_col;
            y[2 * l] = *at;
            if (whole) y[2 * l + 1] = at[g.b_row];
          }
          sum = D::fma(D::broadcast(x), D::load(y), sum);
        }
        for (int64_t l = 0; l < cols; ++l) {
          float value = sum[l];
          if (g.bias) value += widen(static_cast<const BFloat16*>(g.bias)[j + l]);
          if (g.accumulate) value += widen(c[j + l]);
          narrow(value, c + j + l);
        }
      }
    }
  }
}

}  // namespace

const GemmKernels& gemm_kernels() {
  static constexpr GemmKernels kernels = {tile_rows,
                                          1,
                                          tile_cols<float>,
                                          slice,
                                          thin_rows,
                                          thin_transposed,
                                          outer_rows,
                                          sizeof(BFloat16),
                                          sizeof(float),
                                          sizeof(BFloat16),
                                          D::step,
                                          reads_rows<BFloat16>,
                                          pack_pairs,
                                          pack_pairs,
                                          multiply_block<BFloat16>,
                                          multiply_thin,
                                          multiply_outer<BFloat16, BFloat16>,
                                          multiply_direct,
                                          widen_all<BFloat16, float>,
                                          narrow_all<BFloat16, float>};
  return kernels;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
