#include "cpu/gemm_thin.h"

#include <algorithm>
#include <cstdint>

#include "cpu/thread_pool.h"

namespace opsin::cpu::gemm {
namespace {

// Columns of a task: long runs of every row of B.
constexpr int64_t most_cols = 512;

}  // namespace

bool prefers_thin(const Problem& g) {
  if (g.b_col != 1 || g.c_col != 1 || g.n <= g.kernels->nr) return false;
  const int64_t most = g.kernels->thin_rows;
  // Rows between would be filled up with zeros, for which tiles of their height are no slower.
  return g.m <= most || g.m == 2 * most;
}

void run_thin(const Problem& g) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t step = thin_panel(g, g.m), nr = kernels.nr;
  const int64_t a_bytes = round_up((step * panel_depth(kernels, g.k) + pack_slack) * kernels.packed, 64);
  const Scratch a_memory(a_bytes);
  const int64_t slices = ceil_div(g.k, kernels.slice);
  const auto panel = [&](int64_t index) {
    return a_memory.data() + index * kernels.slice * step * kernels.packed;
  };
  // One after the other, because what is written beyond a panel belongs to the next.
  for (int64_t i = 0; i < slices; ++i) {
    const Range slice = part(g.k, kernels.slice, i);
    kernels.pack_a(
        {g.a + slice.begin * g.a_col * kernels.storage, g.a_row, g.a_col, g.m, slice.size, panel(i), step});
  }
  const auto wanted = 4 * static_cast<int64_t>(num_threads());
  const int64_t panels = ceil_div(g.n, nr);
  const int64_t least = ceil_div(task_work, g.m * g.k * nr);
  const int64_t width = std::max(least, std::min(most_cols / nr, ceil_div(panels, wanted))) * nr;
  parallel_for(ceil_div(g.n, width), 1, [&](int64_t begin, int64_t end) {
    const Scratch wide(g.wide ? 0 : g.m * width * kernels.compute);
    for (int64_t task = begin; task < end; ++task) {
      const Range cols = part(g.n, width, task);
      char* const c = g.c + cols.begin * (g.wide ? kernels.compute : kernels.storage);
      const int64_t row = g.c_row * kernels.storage;
      GemmBlock block{};
      block.m = g.m;
      block.n = cols.size;
      block.a_step = step;
      block.b_step = g.b_row;
      block.b_panel = 1;
      block.c = g.wide ? c : wide.data();
      block.c_row = g.wide ? g.c_row : cols.size;
      block.c_col = 1;
      if (!g.wide && g.accumulate) {
        for (int64_t i = 0; i < g.m; ++i)
          kernels.widen(c + i * row, wide.data() + i * cols.size * kernels.compute, cols.size);
      }
      for (int64_t i = 0; i < slices; ++i) {
        const Range slice = part(g.k, kernels.slice, i);
        block.depth = slice.size;
        block.a = panel(i);
        block.b = g.b + (slice.begin * g.b_row + cols.begin) * kernels.storage;
        block.bias = i == 0 && g.bias ? g.bias + cols.begin * kernels.compute : nullptr;
        block.add = i > 0 || g.accumulate;
        kernels.thin(block);
      }
      if (g.wide) continue;
      for (int64_t i = 0; i < g.m; ++i)
        kernels.narrow(wide.data() + i * cols.size * kernels.compute, c + i * row, cols.size);
    }
  });
}

}  // namespace opsin::cpu::gemm
