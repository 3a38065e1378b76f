// GEMM of bfloat16 by tiles (TDPBF16PS), see amx_tiles.h.
//
// Panels of A are rows of tiles, [k / 32][32 rows][32]; those of B pairs of steps, [k / 2][32 columns][2], as
// those of AVX512-BF16, and slices of k as long as there. The sums of a block are written and read once per
// slice: 64 rows of tiles and as many vectors of C, which at a row per cycle is a quarter of the 512
// cycles that 256 steps take, and an eighth of those of 512. A panel of B then takes 32 of the 48 KiB of the
// first-level cache, and the prototype's operands needed none of it.
//
// Every product goes this way, the thin and the smallest too: VDPBF16PS adds in another order, and a row must
// not depend on how many rows are computed with it.
#include "amx_tiles.h"
#include "bf16_lines.h"
#include "gemm_convert.h"
#include "gemm_pairs.h"
#include "gemm_tile.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int lanes = lanes_of<float>;
constexpr int64_t slice = 512;

int64_t padded(int64_t depth) { return (depth + tile_depth - 1) / tile_depth * tile_depth; }

void pack_rows(const GemmPack& g) {
  const auto* in = static_cast<const BFloat16*>(g.in);
  auto* out = static_cast<BFloat16*>(g.out);
  for (int64_t p = 0; p < g.depth; p += tile_depth, in += tile_depth * g.depth_stride) {
    const int64_t depth = g.depth - p < tile_depth ? g.depth - p : tile_depth;
    int64_t i = 0;
    if (g.depth_stride == 1) {
      for (; i < g.lanes; ++i, out += tile_depth) {
        store_elements(out, load_elements(in + i * g.lane_stride, depth), tile_depth);
      }
    } else if (g.lane_stride == 1) {
      for (; i < g.lanes; i += tile_lines) {
        const int64_t count = g.lanes - i < tile_lines ? g.lanes - i : tile_lines;
        turn_rows([&](int64_t q) { return in + i + q * g.depth_stride; }, depth, count, out);
        out += count * tile_depth;
      }
      i = g.lanes;
    } else {
      for (; i < g.lanes; ++i, out += tile_depth) {
        for (int64_t q = 0; q < tile_depth; ++q) {
          out[q] = q < depth ? in[i * g.lane_stride + q * g.depth_stride] : BFloat16{};
        }
      }
    }
    for (; i < g.step; ++i, out += tile_depth) store_elements(out, _mm512_setzero_si512(), tile_depth);
  }
}

void pack_columns(const GemmPack& g) {
  pack_pairs(g);
  auto* out = static_cast<BFloat16*>(g.out);
  const int64_t end = padded(g.depth) * g.step;
  for (int64_t i = (g.depth + 1) / 2 * 2 * g.step; i < end; i += tile_depth) {
    store_elements(out + i, _mm512_setzero_si512(), end - i);
  }
}

// Adds sums to the elements of C that lie side by side.
void join(const GemmBlock& g, const float* sums, float* c, int64_t rows, int64_t col, int64_t cols) {
  const auto* bias = static_cast<const float*>(g.bias);
  for (int64_t i = 0; i < rows; ++i, sums += block_lines, c += g.c_row) {
    for (int64_t j = 0; j < cols; j += lanes) {
      Float sum = load(sums + j);
      if (bias) sum += load_some<float>(bias + col + j, cols - j);
      if (g.add) sum += load_some<float>(c + j, cols - j);
      store_some(c + j, sum, cols - j);
    }
  }
}

void multiply_tiles(const GemmBlock& g) {
  const Tiles tiles;
  alignas(64) float buffer[block_lines * block_lines];
  const int64_t steps = padded(g.depth) / tile_depth;
  const bool adjacent = g.c_col == 1 && !(g.bias && g.bias_by_row);
  const auto* b = static_cast<const BFloat16*>(g.b);
  for (int64_t col = 0; col < g.n; col += block_lines, b += g.b_panel) {
    const int64_t cols = g.n - col < block_lines ? g.n - col : block_lines;
    const auto* a = static_cast<const BFloat16*>(g.a);
    for (int64_t row = 0; row < g.m; row += g.panel_rows, a += g.a_panel) {
      const int64_t rows = g.m - row < g.panel_rows ? g.m - row : g.panel_rows;
      float* const c = static_cast<float*>(g.c) + row * g.c_row + col * g.c_col;
      with_tiles(rows, cols, [&]<int M, int N>() {
        const int64_t line = tile_depth * static_cast<int64_t>(sizeof(BFloat16));
        clear_sums<M, N>();
        add_products<M, N>({a, line}, {a + tile_lines * tile_depth, line}, g.a_step * tile_depth, b,
                           block_lines, steps);
        const bool whole = rows == M * tile_lines && cols == N * tile_lines;
        if (whole && adjacent && !g.bias && !g.add) return store_sums<M, N>(c, g.c_row);
        store_sums<M, N>(buffer, block_lines);
        if (adjacent) return join(g, buffer, c, rows, col, cols);
        finish_edge(g, buffer, block_lines, row, rows, col, cols);
      });
    }
  }
}

void multiply_direct(const GemmParams& g) {
  const Tiles tiles;
  alignas(64) BFloat16 x[tile_lines * tile_depth], y[tile_lines * tile_depth];
  alignas(64) float sums[tile_lines * tile_lines];
  const auto few = [](int64_t rest, int64_t most) { return rest < most ? rest : most; };
  for (int64_t item = 0; item < g.batch; ++item) {
    const auto* a = static_cast<const BFloat16*>(g.a) + item * g.a_batch;
    const auto* b = static_cast<const BFloat16*>(g.b) + item * g.b_batch;
    for (int64_t row = 0; row < g.m; row += tile_lines) {
      const int64_t rows = few(g.m - row, tile_lines);
      for (int64_t col = 0; col < g.n; col += tile_lines) {
        const int64_t cols = few(g.n - col, tile_lines);
        clear_sums<1, 1>();
        for (int64_t p = 0; p < g.k; p += tile_depth) {
          const int64_t depth = few(g.k - p, tile_depth);
          pack_rows({a + row * g.a_row + p * g.a_col, g.a_row, g.a_col, rows, depth, x, tile_lines});
          pack_columns({b + p * g.b_row + col * g.b_col, g.b_col, g.b_row, cols, depth, y, tile_lines});
          add_products<1, 1>({x, sizeof(x) / tile_lines}, {}, 0, y, tile_lines, 1);
        }
        store_sums<1, 1>(sums, tile_lines);
        for (int64_t i = 0; i < rows; ++i) {
          auto* c = static_cast<BFloat16*>(g.c) + item * g.c_batch + (row + i) * g.c_row + col;
          for (int64_t j = 0; j < cols; ++j) {
            float value = sums[i * tile_lines + j];
            if (g.bias) value += widen(static_cast<const BFloat16*>(g.bias)[col + j]);
            if (g.accumulate) value += widen(c[j]);
            narrow(value, c + j);
          }
        }
      }
    }
  }
}

}  // namespace

const GemmKernels& gemm_kernels() {
  static constexpr GemmKernels kernels = {block_lines,
                                          tile_lines,
                                          block_lines,
                                          slice,
                                          0,
                                          0,
                                          0,
                                          sizeof(BFloat16),
                                          sizeof(float),
                                          sizeof(BFloat16),
                                          tile_depth,
                                          false,
                                          pack_rows,
                                          pack_columns,
                                          multiply_tiles,
                                          nullptr,
                                          nullptr,
                                          multiply_direct,
                                          widen_all<BFloat16, float>,
                                          narrow_all<BFloat16, float>};
  return kernels;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
