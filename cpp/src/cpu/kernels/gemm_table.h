// The contract between the blocking of GEMM (cpu/gemm.cpp, compiled once) and its kernels (gemm_isa.cpp,
// compiled once per instruction set). Plain data and function pointers only, so that nothing here leaves a
// symbol behind.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"
#include "cpu/gemm.h"

namespace opsin::cpu {

/// One panel to be laid out for the kernel: out[p * step + i] = in[i * lane_stride + p * depth_stride], in
/// the type of the panels, for i < lanes, p < depth; lanes up to `step` are zero. Kernels that multiply
/// several steps of k at a time keep some of them adjacent, out[(p / pair * step + i) * pair + p % pair], and
/// fill up the last with zeros. `out` needs room for 16 more elements.
struct GemmPack {
  const void* in;
  int64_t lane_stride, depth_stride;
  int64_t lanes, depth;
  void* out;
  int64_t step;
};

/// c[m, n] (+)= A * B over one slice of k. A comes in panels of `panel_rows` <= mr rows: element (i, p) of a
/// panel lies at p * a_step + i, and panels are `a_panel` apart; B likewise in panels of nr columns, of which
/// the last is padded. With reads_rows, A may also be a matrix by rows: element (i, p) at p + i * a_lane,
/// where a_lane > 1.
struct GemmBlock {
  int64_t m, n, depth;
  int64_t panel_rows;
  const void* a;
  int64_t a_step, a_lane, a_panel;
  const void* b;
  int64_t b_step, b_panel;
  void* c;
  int64_t c_row, c_col;
  /// Null, or added to every row (stride 1 along n), or to every column where bias_by_row (stride 1 along m).
  const void* bias;
  bool bias_by_row;
  bool add;
};

/// c[m, n] = A * B for products of few steps of k. A comes in panels of `outer_rows` rows, B in panels of nr
/// columns, both filled up with zeros, a_panel and b_panel elements apart; C is in the storage type.
struct GemmOuter {
  int64_t m, n, depth;
  const void* a;
  int64_t a_panel;
  const void* b;
  int64_t b_panel;
  void* c;
  int64_t c_row;
  /// No cache holds C; its rows begin with lines.
  bool past_caches;
};

/// The kernels for one storage dtype. `storage`, `compute` and `packed`, the type of the panels, are sizes in
/// bytes; `pair` steps of k are multiplied at a time, which divides `slice`. A tile of `height` rows takes no
/// longer than one of fewer.
struct GemmKernels {
  int64_t mr, height, nr, slice;
  /// Most rows of a thin product, if the columns of B are adjacent and if its rows are.
  int64_t thin_rows, thin_transposed;
  /// Rows of a panel of A of `outer`.
  int64_t outer_rows;
  int64_t storage, compute, packed, pair;
  bool reads_rows;
  void (*pack_a)(const GemmPack&);
  void (*pack_b)(const GemmPack&);
  void (*block)(const GemmBlock&);
  /// The same for m <= thin_rows or thin_transposed with B as it lies in memory, in the storage type: element
  /// (p, j) at p * b_step + j * b_panel, one of the two strides being 1; A is one packed panel of 1, 2,
  /// 4 or the most rows, whichever is the least that holds m. If the columns of B are adjacent, m may be
  /// twice thin_rows too.
  void (*thin)(const GemmBlock&);
  /// Null where panels are tiles.
  void (*outer)(const GemmOuter&);
  /// The whole product with neither packing nor scratch memory, for the smallest sizes; k <= slice.
  void (*direct)(const GemmParams&);
  /// Convert `count` adjacent elements between the storage type and the type of computation.
  void (*widen)(const void* in, void* out, int64_t count);
  void (*narrow)(const void* in, void* out, int64_t count);
};

struct GemmTable {
  GemmKernels f32, f64, bf16, f16;
};

/// What gemm_f32() and the others do with the kernels of cpu::isa().
void run_gemm(const GemmKernels& kernels, const GemmParams& params);

OPSIN_ISA_TABLE(GemmTable, gemm_table)

#if defined(__x86_64__)
namespace avx512_bf16 {
/// bfloat16 without widening.
const GemmKernels& gemm_kernels();
}  // namespace avx512_bf16
namespace amx_bf16 {
/// The same by tiles.
const GemmKernels& gemm_kernels();
}  // namespace amx_bf16
#endif

}  // namespace opsin::cpu
