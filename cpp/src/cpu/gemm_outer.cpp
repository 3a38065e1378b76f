#include "cpu/gemm_outer.h"

#include <algorithm>
#include <cstdint>

#include "cpu/stream.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::gemm {
namespace {

// A task packs its rows of A, and then B and its products for some columns at a time, whose panels stay in
// the first-level cache.
constexpr int64_t most_rows = 64;
constexpr int64_t panel_bytes = 16 * 1024;
constexpr int64_t most_cols = 1024;

// C smaller than this stays in the first-level cache, in whatever order it is written.
constexpr int64_t least_bytes = 32 * 1024;
// Fewer columns do not repay the packing of A.
constexpr int64_t least_cols = 256;

// Most steps of k for which writing C takes longer than all else.
constexpr int64_t most_depth = 8;

}  // namespace

bool prefers_outer(const Problem& g) {
  const GemmKernels& kernels = *g.kernels;
  return kernels.outer && g.k <= most_depth && g.b_col == 1 && g.c_col == 1 && !g.accumulate && !g.bias &&
         g.m >= 4 * kernels.outer_rows && g.n >= least_cols && g.m * g.n * kernels.storage >= least_bytes;
}

void run_outer(const Problem& g) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t storage = kernels.storage, packed = kernels.packed, height = kernels.outer_rows;
  const int64_t depth = panel_depth(kernels, g.k);
  const int64_t chunk = std::min(most_cols, panel_bytes / (depth * packed) / kernels.nr * kernels.nr);
  const auto wanted = 4 * static_cast<int64_t>(num_threads());
  int64_t rows = std::min(most_rows, round_up(g.m, height));
  while (rows > height && ceil_div(g.m, rows) < wanted && rows * g.n * g.k > 2 * task_work)
    rows = round_up(rows / 2, height);
  int64_t cols = g.n;
  const int64_t row_tasks = ceil_div(g.m, rows);
  if (row_tasks < wanted) {
    const int64_t parts = std::min(ceil_div(wanted, row_tasks), ceil_div(rows * g.n * g.k, task_work));
    cols = round_up(ceil_div(g.n, std::max<int64_t>(parts, 1)), chunk);
  }
  const int64_t col_tasks = ceil_div(g.n, cols);
  const int64_t a_panel = round_up(height * depth + pack_slack, 64);
  const int64_t b_panel = depth * kernels.nr;
  const int64_t a_bytes = ceil_div(rows, height) * a_panel * packed;
  const bool past_caches = g.m * g.n * storage >= stream_bytes && g.c_row * storage % 64 == 0 &&
                           reinterpret_cast<uintptr_t>(g.c) % 64 == 0;
  parallel_for(row_tasks * col_tasks, 1, [&](int64_t begin, int64_t end) {
    const Scratch memory(a_bytes + round_up((chunk * depth + pack_slack) * packed, 64));
    for (int64_t task = begin; task < end; ++task) {
      const Range lines = part(g.m, rows, task / col_tasks), strip = part(g.n, cols, task % col_tasks);
      for (int64_t row = 0; row < lines.size; row += height) {
        kernels.pack_a({g.a + (lines.begin + row) * g.a_row * storage, g.a_row, g.a_col,
                        std::min(height, lines.size - row), g.k,
                        memory.data() + row / height * a_panel * packed, height});
      }
      char* const panels = memory.data() + a_bytes;
      for (int64_t col = 0; col < strip.size; col += chunk) {
        const Range some{strip.begin + col, std::min(chunk, strip.size - col)};
        pack_b(g, some, {0, g.k}, panels);
        kernels.outer({lines.size, some.size, g.k, memory.data(), a_panel, panels, b_panel,
                       g.c + (lines.begin * g.c_row + some.begin) * storage, g.c_row, past_caches});
      }
    }
  });
}

}  // namespace opsin::cpu::gemm
