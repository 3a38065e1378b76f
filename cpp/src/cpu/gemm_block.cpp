#include "cpu/gemm_block.h"

namespace opsin::cpu::gemm {
namespace {

// Bytes after which addresses share a line of the first-level cache.
constexpr int64_t cache_way = 4096;

// Columns of a block up to which the rows of A are read where they are; more repay panels of A.
constexpr int64_t rows_in_place = 768;

// The least height of panels that gives no more of them than `most` would: evenly filled tiles.
int64_t even_rows(int64_t rows, int64_t most, int64_t height) {
  return round_up(ceil_div(rows, ceil_div(rows, most)), height);
}

// Where the rows of A lie side by side, panels share lines of the cache, and one panel after the other would
// fetch them again: so many panels are packed together, for so many steps of k at a time.
constexpr int64_t pack_panels = 16, pack_depth = 16;

// `step` is the height that panels of `panel_rows` are filled up to.
void pack_a(const Problem& g, Range rows, Range depth, int64_t panel_rows, int64_t step, char* out) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t panel = step * panel_depth(kernels, depth.size) * kernels.packed;
  const bool together = g.a_row == 1 && kernels.pair == 1;
  const int64_t most_rows = together ? pack_panels * panel_rows : panel_rows;
  const int64_t most_depth = together ? pack_depth : depth.size;
  for (int64_t first = 0; first < rows.size; first += most_rows) {
    const int64_t end = std::min(rows.size, first + most_rows);
    for (int64_t p = 0; p < depth.size; p += most_depth) {
      for (int64_t row = first; row < end; row += panel_rows) {
        const char* in = g.a + ((rows.begin + row) * g.a_row + (depth.begin + p) * g.a_col) * kernels.storage;
        kernels.pack_a({in, g.a_row, g.a_col, std::min(panel_rows, end - row),
                        std::min(most_depth, depth.size - p),
                        out + row / panel_rows * panel + p * step * kernels.packed, step});
      }
    }
  }
}

// Rows of a panel of A of a tile: a single one, which would be read with as much of B, is not filled up.
int64_t tile_panel(const GemmKernels& kernels, int64_t rows) {
  return rows < kernels.mr && kernels.height == 1 ? rows : kernels.mr;
}

// Rows of a panel of A: all of a thin product.
int64_t panel_step(const Problem& g, const BlockPlan& plan, int64_t rows) {
  return plan.thin ? thin_panel(g, rows) : tile_panel(*g.kernels, rows);
}

// Depth over which the rows of B, which lie side by side in memory, are read to their end before the next
// few: such long runs are what the hardware foresees.
constexpr int64_t thin_depth = 8192;

void multiply_rows_of_b(const Problem& g, GemmBlock block, Range rows, Range cols, Range depth, char* panel) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t step = block.a_step, lanes = kernels.nr / 2;
  char* const c = static_cast<char*>(block.c);
  for (int64_t p = 0; p < depth.size; p += thin_depth) {
    const Range run{depth.begin + p, std::min(thin_depth, depth.size - p)};
    pack_a(g, rows, run, step, step, panel);
    for (int64_t col = 0; col < cols.size; col += lanes) {
      block.n = std::min(lanes, cols.size - col);
      block.c = c + col * block.c_col * kernels.compute;
      for (int64_t q = 0; q < run.size; q += kernels.slice) {
        const int64_t begin = run.begin + q;
        block.depth = std::min(kernels.slice, run.size - q);
        block.add = begin > 0 || g.accumulate;
        block.a = panel + q * step * kernels.packed;
        block.b = g.b + (begin * g.b_row + (cols.begin + col) * g.b_col) * kernels.storage;
        const int64_t first = g.bias_by_row ? rows.begin : cols.begin + col;
        block.bias = begin == 0 && g.bias ? g.bias + first * kernels.compute : nullptr;
        kernels.thin(block);
      }
    }
  }
}

// Elements from panel to panel of A where several blocks share them: whole lines for every type.
int64_t shared_panel(const Problem& g, int64_t depth) {
  return g.kernels->mr * panel_depth(*g.kernels, depth) + 2 * pack_slack;
}

char* slice_of(const Problem& g, const PackedA& packed, int64_t index) {
  const GemmKernels& kernels = *g.kernels;
  return packed.data +
         index * ceil_div(packed.rows, kernels.mr) * shared_panel(g, kernels.slice) * kernels.packed;
}

}  // namespace

int64_t thin_panel(const Problem& g, int64_t rows) {
  if (rows <= 2) return rows;
  if (rows <= 4) return 4;
  return g.b_col == 1 ? round_up(rows, 8) : g.kernels->thin_transposed;
}

PackedA plan_a(const Problem& g, int64_t rows, char* data) {
  return {data, rows, even_rows(rows, g.kernels->mr, g.kernels->height)};
}

int64_t bytes_of_a(const Problem& g, int64_t rows) {
  const int64_t slices = ceil_div(g.k, g.kernels->slice);
  return ceil_div(rows, g.kernels->mr) * slices * shared_panel(g, g.kernels->slice) * g.kernels->packed;
}

void pack_a(const Problem& g, Range rows, const PackedA& packed, int64_t panel, int64_t index) {
  const GemmKernels& kernels = *g.kernels;
  const Range slice = part(g.k, kernels.slice, index), lanes = part(rows.size, packed.panel_rows, panel);
  if (lanes.size <= 0) return;
  pack_a(g, {rows.begin + lanes.begin, lanes.size}, slice, packed.panel_rows, tile_panel(kernels, rows.size),
         slice_of(g, packed, index) + panel * shared_panel(g, slice.size) * kernels.packed);
}

void pack_b(const Problem& g, Range cols, Range depth, char* out) {
  const GemmKernels& kernels = *g.kernels;
  for (int64_t col = 0; col < cols.size; col += kernels.nr) {
    const char* in = g.b + (depth.begin * g.b_row + (cols.begin + col) * g.b_col) * kernels.storage;
    kernels.pack_b(
        {in, g.b_col, g.b_row, std::min(kernels.nr, cols.size - col), depth.size, out, kernels.nr});
    out += kernels.nr * panel_depth(kernels, depth.size) * kernels.packed;
  }
}

BlockPlan plan_blocks(const Problem& g, int64_t rows, int64_t cols, bool packed_b) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t depth = panel_depth(kernels, std::min(g.k, kernels.slice));
  const bool same_type = kernels.storage == kernels.compute;
  BlockPlan plan{};
  const int64_t thin = g.b_col == 1 ? kernels.thin_rows : g.b_row == 1 ? kernels.thin_transposed : 0;
  plan.thin = !packed_b && rows <= thin;
  // Read where they are if they lie as panels do and few tiles use them, or A by its rows. These, or the
  // columns of A, must not be so far apart that they fall on the same lines of the cache.
  plan.b_in_place = !packed_b && !plan.thin && same_type && g.b_col == 1 && rows <= 5 * kernels.mr;
  const bool by_columns = g.a_row == 1 && cols <= 4 * kernels.nr && g.a_col * kernels.storage <= 1024;
  // The last of several steps has to be there, because B may hold zeros for it alone.
  const bool by_rows = kernels.reads_rows && g.a_col == 1 && g.a_row > 1 && g.k % kernels.pair == 0 &&
                       (cols <= rows_in_place || kernels.pair > 1) &&
                       g.a_row * kernels.storage % cache_way != 0;
  plan.a_in_place = !plan.thin && ((same_type && by_columns) || by_rows);
  if (!plan.a_in_place) {
    const int64_t held = plan.thin && g.b_col != 1 ? panel_depth(kernels, std::min(g.k, thin_depth)) : depth;
    plan.a_bytes =
        round_up((round_up(rows, panel_step(g, plan, rows)) * held + pack_slack) * kernels.packed, 64);
  }
  if (!packed_b && !plan.thin) {
    const int64_t panels = plan.b_in_place ? kernels.nr : round_up(cols, kernels.nr);
    plan.b_bytes = round_up((panels * depth + pack_slack) * kernels.packed, 64);
  }
  if (!g.wide) plan.c_bytes = round_up(rows * cols * kernels.compute, 64);
  return plan;
}

void multiply(const Problem& g, const BlockPlan& plan, Range rows, Range cols, Range depth,
              const PackedB* packed, int64_t packed_col, char* memory, const PackedA* packed_a) {
  const GemmKernels& kernels = *g.kernels;
  char* const a_panels = memory;
  char* const b_panels = memory + plan.a_bytes;
  char* const wide_c = memory + plan.a_bytes + plan.b_bytes;
  const int64_t storage = kernels.storage, compute = kernels.compute;

  GemmBlock block{};
  block.m = rows.size;
  const int64_t step = panel_step(g, plan, rows.size);
  block.panel_rows = even_rows(rows.size, step, kernels.height);
  block.bias_by_row = g.bias_by_row;
  const int64_t c_offset = rows.begin * g.c_row + cols.begin * g.c_col;
  if (g.wide) {
    block.c = g.c + c_offset * compute;
    block.c_row = g.c_row;
    block.c_col = g.c_col;
  } else {
    block.c = wide_c;
    block.c_row = g.c_col == 1 ? cols.size : 1;
    block.c_col = g.c_col == 1 ? 1 : rows.size;
  }
  const int64_t lines = g.c_col == 1 ? rows.size : cols.size;
  const int64_t line = g.c_col == 1 ? cols.size : rows.size;
  const int64_t line_stride = g.c_col == 1 ? g.c_row : g.c_col;
  char* const narrow_c = g.c + c_offset * storage;
  if (!g.wide && g.accumulate) {
    for (int64_t i = 0; i < lines; ++i)
      kernels.widen(narrow_c + i * line_stride * storage, wide_c + i * line * compute, line);
  }

  const bool by_rows_of_b = plan.thin && g.b_col != 1;
  if (by_rows_of_b) {
    block.a_step = step;
    block.b_step = g.b_row;
    block.b_panel = g.b_col;
    multiply_rows_of_b(g, block, rows, cols, depth, a_panels);
  }
  for (int64_t p = by_rows_of_b ? depth.size : 0; p < depth.size; p += kernels.slice) {
    const Range slice{depth.begin + p, std::min(kernels.slice, depth.size - p)};
    const bool first = slice.begin == 0;
    block.depth = slice.size;
    block.add = !first || g.accumulate;
    const char* bias =
        first && g.bias ? g.bias + (g.bias_by_row ? rows.begin : cols.begin) * compute : nullptr;
    if (plan.a_in_place) {
      block.a = g.a + (rows.begin * g.a_row + slice.begin * g.a_col) * storage;
      block.a_step = g.a_col;
      block.a_lane = g.a_row;
      block.a_panel = block.panel_rows * g.a_row;
    } else {
      block.a_step = step;
      block.a_lane = 0;
      if (packed_a) {
        block.a = slice_of(g, *packed_a, slice.begin / kernels.slice);
        block.a_panel = shared_panel(g, slice.size);
      } else {
        pack_a(g, rows, slice, block.panel_rows, step, a_panels);
        block.a = a_panels;
        block.a_panel = step * panel_depth(kernels, slice.size);
      }
    }
    if (plan.thin) {
      block.n = cols.size;
      block.b = g.b + (slice.begin * g.b_row + cols.begin * g.b_col) * storage;
      block.b_step = g.b_row;
      block.b_panel = g.b_col;
      block.bias = bias;
      kernels.thin(block);
      continue;
    }
    int64_t col = 0;
    if (plan.b_in_place && cols.size >= kernels.nr) {
      block.n = cols.size / kernels.nr * kernels.nr;
      block.b = g.b + (slice.begin * g.b_row + cols.begin) * storage;
      block.b_step = g.b_row;
      block.b_panel = kernels.nr;
      block.bias = bias;
      kernels.block(block);
      col = block.n;
    }
    if (col == cols.size) continue;
    GemmBlock rest = block;
    rest.n = cols.size - col;
    rest.c = static_cast<char*>(block.c) + col * block.c_col * compute;
    rest.bias = bias && !g.bias_by_row ? bias + col * compute : bias;
    rest.b_step = kernels.nr;
    rest.b_panel = kernels.nr * panel_depth(kernels, slice.size);
    if (packed) {
      rest.b = packed->data + ((slice.begin - packed->depth.begin) * packed->cols +
                               packed_col * panel_depth(kernels, slice.size)) *
                                  kernels.packed;
    } else {
      pack_b(g, {cols.begin + col, rest.n}, slice, b_panels);
      rest.b = b_panels;
    }
    kernels.block(rest);
  }

  if (!g.wide) {
    for (int64_t i = 0; i < lines; ++i)
      kernels.narrow(wide_c + i * line * compute, narrow_c + i * line_stride * storage, line);
  }
}

}  // namespace opsin::cpu::gemm
