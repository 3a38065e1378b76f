// Blocking, packing plan and threading of GEMM; the kernels are in kernels/gemm_isa.cpp.
//
// The loops follow Goto and van de Geijn (2008) and BLIS (Van Zee and van de Geijn, 2015): k is cut into
// slices whose panels of B (slice x nr) fit the first-level cache, and C into blocks whose panels of A (block
// rows x slice) fit the second-level cache. Operands are copied
// ("packed") into panels, in the order in which the kernel reads them, unless they already lie that way and
// are used too seldom to be worth it.
//
// Six plans, chosen by shape. They cannot differ in a bit, because all of them compute the sum that gemm.h
// promises:
//   direct   the smallest products: no packing, no scratch memory, no threads.
//   blocks   blocks of C (of all batch items) are the tasks; each packs what it needs of A and B.
//   shared   large products: B is packed once, in parallel, then blocks of C are the tasks; each packs its
//            rows of A.
//   kept     B is a weight that was multiplied with before: all of it is packed, and kept for the next call;
//            blocks of C are the tasks.
//   outer    a few steps of k: every element of C is written once, in its own type (gemm_outer.cpp).
//   slices   few elements of C, long k (weight gradients): slices of k are the tasks; their partial sums are
//            added to C in order.
#include "cpu/gemm.h"

#include <algorithm>
#include <utility>

#include "cpu/gemm_block.h"
#include "cpu/gemm_outer.h"
#include "cpu/gemm_thin.h"
#include "cpu/kernels/gemm_table.h"
#include "cpu/packed_cache.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace {

using namespace gemm;

// Blocks of C: rows bounded by the second-level cache, columns by what a task packs of B. Where B comes in
// panels they may be wider: each panel of A that was packed is then multiplied with more of them.
constexpr int64_t block_rows = 224;
constexpr int64_t block_cols = 512;
constexpr int64_t packed_block_cols = 4096;
// B is packed by the shared plan up to this depth and size at a time, so that it stays in the last-level
// cache.
constexpr int64_t shared_depth = 2048;
constexpr int64_t shared_bytes = int64_t{8} << 20;
// Partial sums of the slices plan that exist at once.
constexpr int64_t partial_bytes = int64_t{2} << 20;
// Largest C of the slices plan, in elements.
constexpr int64_t slices_elements = 32 * 1024;
// C of float16 and bfloat16 is kept in float32 in pieces of this size where a plan visits it more than once.
constexpr int64_t wide_rows = 4096, wide_cols = 1024;
// Multiply-adds: below the first a call is cheapest done directly; a task should have the second.
constexpr int64_t direct_work = 2048;
constexpr int64_t shared_work = int64_t{8} << 20;
// Blocks that need no more have their scratch memory on the stack.
constexpr int64_t stack_bytes = 32 * 1024;

// Block sizes that give every thread a few tasks of reasonable size; they cannot influence the result.
struct BlockShape {
  int64_t rows, cols;
};

BlockShape choose_blocks(const Problem& g, int64_t batch, int64_t most_cols) {
  const GemmKernels& kernels = *g.kernels;
  BlockShape shape{std::min(g.m, block_rows), std::min(g.n, most_cols)};
  const int64_t wanted = 4 * static_cast<int64_t>(num_threads());
  for (;;) {
    const int64_t count = batch * ceil_div(g.m, shape.rows) * ceil_div(g.n, shape.cols);
    if (count >= wanted || shape.rows * shape.cols * g.k < 2 * task_work) break;
    if (shape.rows >= 2 * kernels.mr && (shape.rows >= shape.cols || shape.cols < 2 * kernels.nr)) {
      shape.rows = ceil_div(shape.rows, 2);
    } else if (shape.cols >= 2 * kernels.nr) {
      shape.cols = ceil_div(shape.cols, 2);
    } else {
      break;
    }
  }
  shape.rows = ceil_div(g.m, ceil_div(g.m, shape.rows));
  shape.cols = std::min(g.n, round_up(ceil_div(g.n, ceil_div(g.n, shape.cols)), kernels.nr));
  return shape;
}

// Columns of a block, no more than `most` and not below half, so that threads which take blocks in turn
// finish together.
int64_t even_cols(int64_t n, int64_t most, int64_t nr, int64_t row_blocks) {
  const int64_t panels = ceil_div(n, nr), widest = ceil_div(most, nr);
  const auto threads = static_cast<int64_t>(num_threads());
  const auto longest = [&](int64_t width) {
    return ceil_div(row_blocks * ceil_div(panels, width), threads) * width;
  };
  int64_t best = widest;
  for (int64_t width = widest - 1; 2 * width >= widest; --width)
    if (longest(width) < longest(best)) best = width;
  return std::min(n, best * nr);
}

struct BatchStrides {
  int64_t a, b, c;
};

Problem item_of(const Problem& g, const BatchStrides& strides, int64_t item) {
  const int64_t storage = g.kernels->storage;
  Problem one = g;
  one.a += item * strides.a * storage;
  one.b += item * strides.b * storage;
  one.c += item * strides.c * storage;
  return one;
}

void run_blocks(const Problem& g, int64_t batch, const BatchStrides& strides) {
  const BlockShape shape = choose_blocks(g, batch, block_cols);
  const int64_t row_blocks = ceil_div(g.m, shape.rows), col_blocks = ceil_div(g.n, shape.cols);
  const BlockPlan plan = plan_blocks(g, shape.rows, shape.cols, false);
  const int64_t bytes = plan.bytes();
  const int64_t work = std::max<int64_t>(1, shape.rows * shape.cols * g.k);
  const auto tasks = [&](int64_t begin, int64_t end) {
    alignas(64) char stack[stack_bytes];
    const Scratch heap(bytes > stack_bytes ? bytes : 0);
    char* memory = bytes > stack_bytes ? heap.data() : stack;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % (row_blocks * col_blocks);
      const Problem one = item_of(g, strides, task / (row_blocks * col_blocks));
      multiply(one, plan, part(g.m, shape.rows, block / col_blocks),
               part(g.n, shape.cols, block % col_blocks), {0, g.k}, nullptr, 0, memory);
    }
  };
  parallel_for(batch * row_blocks * col_blocks, ceil_div(task_work, work), tasks);
}

void run_shared(const Problem& g) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t depth_step = panel_depth(kernels, std::min(g.k, shared_depth));
  const int64_t fitting = shared_bytes / (depth_step * kernels.packed) / kernels.nr * kernels.nr;
  const int64_t width = std::min(std::max(fitting, block_cols), round_up(g.n, kernels.nr));
  const BlockShape shape = choose_blocks(g, 1, packed_block_cols);
  const Scratch packed_memory((depth_step * width + pack_slack) * kernels.packed);
  const BlockPlan plan = plan_blocks(g, shape.rows, shape.cols, true);
  for (int64_t col = 0; col < g.n; col += width) {
    const int64_t cols = std::min(width, g.n - col);
    const int64_t panels = ceil_div(cols, kernels.nr);
    for (int64_t p = 0; p < g.k; p += depth_step) {
      const Range depth{p, std::min(depth_step, g.k - p)};
      const int64_t slices = ceil_div(depth.size, kernels.slice);
      const PackedB packed{packed_memory.data(), depth, panels * kernels.nr};
      parallel_for(panels * slices, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const Range slice = part(depth.size, kernels.slice, i / panels);
          const Range panel = part(cols, kernels.nr, i % panels);
          pack_b(g, {col + panel.begin, panel.size}, {p + slice.begin, slice.size},
                 packed_memory.data() +
                     (slice.begin * packed.cols + panel.begin * panel_depth(kernels, slice.size)) *
                         kernels.packed);
        }
      });
      const int64_t row_blocks = ceil_div(g.m, shape.rows), col_blocks = ceil_div(cols, shape.cols);
      parallel_for(row_blocks * col_blocks, 1, [&](int64_t begin, int64_t end) {
        const Scratch memory(plan.bytes());
        for (int64_t i = begin; i < end; ++i) {
          const Range block = part(cols, shape.cols, i % col_blocks);
          multiply(g, plan, part(g.m, shape.rows, i / col_blocks), {col + block.begin, block.size}, depth,
                   &packed, block.begin, memory.data());
        }
      });
    }
  }
}

void run_kept(const Problem& g, const KeptWeight& weight) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t panels = ceil_div(g.n, kernels.nr), slices = ceil_div(g.k, kernels.slice);
  const int64_t width = panels * kernels.nr;
  const int64_t elements = panel_depth(kernels, g.k) * width + pack_slack;
  PackKey key{key_of(&kernels), key_of(g.b), g.b_row, g.b_col, g.k, g.n};
  const auto block =
      packed_weight(&weight, std::move(key), static_cast<size_t>(elements * kernels.packed), [&](void* out) {
        parallel_for(panels * slices, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const Range slice = part(g.k, kernels.slice, i / panels),
                        panel = part(g.n, kernels.nr, i % panels);
            const int64_t first = slice.begin * width + panel.begin * panel_depth(kernels, slice.size);
            pack_b(g, panel, slice, static_cast<char*>(out) + first * kernels.packed);
          }
        });
      });
  const PackedB packed{static_cast<const char*>(block->data()), {0, g.k}, width};
  BlockShape shape = choose_blocks(g, 1, packed_block_cols);
  const int64_t row_blocks = ceil_div(g.m, shape.rows);
  if (shape.cols < g.n) shape.cols = even_cols(g.n, shape.cols, kernels.nr, row_blocks);
  const int64_t col_blocks = ceil_div(g.n, shape.cols);
  const BlockPlan plan = plan_blocks(g, shape.rows, shape.cols, true);
  const int64_t work = std::max<int64_t>(1, shape.rows * shape.cols * g.k);
  // Tasks of the same rows share their panels.
  const int64_t block_bytes = bytes_of_a(g, shape.rows), a_bytes = row_blocks * block_bytes;
  const bool shares_a = col_blocks > 1 && !plan.a_in_place && a_bytes <= shared_bytes;
  const Scratch a_memory(shares_a ? a_bytes : 0);
  const auto packed_a = [&](int64_t index) {
    return plan_a(g, part(g.m, shape.rows, index).size, a_memory.data() + index * block_bytes);
  };
  if (shares_a) {
    const int64_t a_panels = ceil_div(shape.rows, kernels.mr), count = row_blocks * slices * a_panels;
    const int64_t grain = ceil_div(task_work / 4, kernels.mr * std::min(g.k, kernels.slice));
    parallel_for(count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t index = i / a_panels / slices;
        pack_a(g, part(g.m, shape.rows, index), packed_a(index), i % a_panels, i / a_panels % slices);
      }
    });
  }
  parallel_for(row_blocks * col_blocks, ceil_div(task_work, work), [&](int64_t begin, int64_t end) {
    const Scratch memory(plan.bytes());
    for (int64_t i = begin; i < end; ++i) {
      const Range cols = part(g.n, shape.cols, i % col_blocks);
      const PackedA panels_of_a = shares_a ? packed_a(i / col_blocks) : PackedA{};
      multiply(g, plan, part(g.m, shape.rows, i / col_blocks), cols, {0, g.k}, &packed, cols.begin,
               memory.data(), shares_a ? &panels_of_a : nullptr);
    }
  });
}

// Adds the partial sums of `count` slices to lines [begin, end) of C. Lines are what lies side by side in C:
// rows, or columns where the operands changed places.
template <class T>
void merge_lines(const Problem& g, const T* partial, int64_t count, bool first, int64_t begin, int64_t end) {
  const bool by_row = g.c_col == 1;
  const int64_t size = by_row ? g.n : g.m;
  const int64_t stride = by_row ? g.c_row : g.c_col;
  const T* bias = first ? reinterpret_cast<const T*>(g.bias) : nullptr;
  for (int64_t line = begin; line < end; ++line) {
    T* c = reinterpret_cast<T*>(g.c) + line * stride;
    const T* terms = partial + line * size;
    int64_t done = 0;
    if (first) {
      for (int64_t i = 0; i < size; ++i) {
        T value = terms[i];
        if (bias) value += bias[by_row == g.bias_by_row ? line : i];
        if (g.accumulate) value += c[i];
        c[i] = value;
      }
      done = 1;
    }
    for (; done < count; ++done) {
      const T* term = terms + done * g.m * g.n;
      for (int64_t i = 0; i < size; ++i) c[i] += term[i];
    }
  }
}

void run_slices(const Problem& g) {
  const GemmKernels& kernels = *g.kernels;
  const int64_t compute = kernels.compute, storage = kernels.storage;
  const bool by_row = g.c_col == 1;
  const int64_t size = g.m * g.n * compute;
  const int64_t slices = ceil_div(g.k, kernels.slice);
  const int64_t wave = std::min(slices, std::max<int64_t>(partial_bytes / size, 2));
  const int64_t lines = by_row ? g.m : g.n;
  const Scratch partials(wave * size);
  const BlockPlan plan = plan_blocks(g, g.m, g.n, false);
  const int64_t work = std::max<int64_t>(1, g.m * g.n * kernels.slice);
  for (int64_t start = 0; start < slices; start += wave) {
    const int64_t count = std::min(wave, slices - start);
    parallel_for(count, ceil_div(task_work, work), [&](int64_t begin, int64_t end) {
      const Scratch memory(plan.bytes());
      for (int64_t i = begin; i < end; ++i) {
        const Range slice = part(g.k, kernels.slice, start + i);
        Problem one = g;
        one.a += slice.begin * g.a_col * storage;
        one.b += slice.begin * g.b_row * storage;
        one.k = slice.size;
        one.c = partials.data() + i * size;
        one.c_row = by_row ? g.n : 1;
        one.c_col = by_row ? 1 : g.m;
        one.bias = nullptr;
        one.accumulate = false;
        multiply(one, plan, {0, g.m}, {0, g.n}, {0, slice.size}, nullptr, 0, memory.data());
      }
    });
    const int64_t grain = ceil_div(task_work, count * (by_row ? g.n : g.m));
    parallel_for(lines, grain, [&](int64_t begin, int64_t end) {
      if (compute == 4) {
        merge_lines(g, reinterpret_cast<const float*>(partials.data()), count, start == 0, begin, end);
      } else {
        merge_lines(g, reinterpret_cast<const double*>(partials.data()), count, start == 0, begin, end);
      }
    });
  }
}

// Widens lines of C into `wide`, or rounds them back.
void convert_lines(const Problem& g, char* wide, bool back) {
  const GemmKernels& kernels = *g.kernels;
  const bool by_row = g.c_col == 1;
  const int64_t lines = by_row ? g.m : g.n, size = by_row ? g.n : g.m;
  const int64_t stride = (by_row ? g.c_row : g.c_col) * kernels.storage;
  parallel_for(lines, ceil_div(task_work, size), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* line = wide + i * size * kernels.compute;
      if (back) {
        kernels.narrow(line, g.c + i * stride, size);
      } else {
        kernels.widen(g.c + i * stride, line, size);
      }
    }
  });
}

void run_item(const Problem& g);

// The plans that visit C more than once need it in the type of computation.
void run_wide(const Problem& g) {
  const Scratch memory(g.m * g.n * g.kernels->compute);
  Problem wide = g;
  wide.c = memory.data();
  wide.c_row = g.c_col == 1 ? g.n : 1;
  wide.c_col = g.c_col == 1 ? 1 : g.m;
  wide.wide = true;
  if (g.accumulate) convert_lines(g, memory.data(), false);
  run_item(wide);
  convert_lines(g, memory.data(), true);
}

double work_of(const Problem& g) {
  return static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
}

bool prefers_slices(const Problem& g) {
  return std::max(g.m, g.n) <= block_cols && g.m * g.n <= slices_elements && g.k >= 4 * g.kernels->slice &&
         work_of(g) >= static_cast<double>(4 * task_work);
}

// Rows that are streamed once, as they lie, need no panels; those of 16-bit floats would be twice as long.
bool pays_to_keep(const Problem& g) {
  return !(g.m <= g.kernels->thin_rows && (g.b_col == 1 || g.kernels->storage != g.kernels->packed));
}

void run_item(const Problem& g) {
  if (prefers_outer(g)) return run_outer(g);
  const bool slices = prefers_slices(g);
  const bool shared = !slices && work_of(g) >= static_cast<double>(shared_work) && g.m >= 8 * g.kernels->mr;
  if (!g.wide && (slices || (shared && g.k > shared_depth))) {
    for (int64_t row = 0; row < g.m; row += wide_rows) {
      for (int64_t col = 0; col < g.n; col += wide_cols) {
        Problem one = g;
        one.m = std::min(wide_rows, g.m - row);
        one.n = std::min(wide_cols, g.n - col);
        one.a += row * g.a_row * g.kernels->storage;
        one.b += col * g.b_col * g.kernels->storage;
        one.c += (row * g.c_row + col * g.c_col) * g.kernels->storage;
        if (g.bias) one.bias += (g.bias_by_row ? row : col) * g.kernels->compute;
        run_wide(one);
      }
    }
  } else if (slices) {
    run_slices(g);
  } else if (prefers_thin(g)) {
    run_thin(g);
  } else if (shared) {
    run_shared(g);
  } else {
    run_blocks(g, 1, {0, 0, 0});
  }
}

void run_direct(const GemmKernels& kernels, const GemmParams& p, int64_t work) {
  parallel_for(p.batch, ceil_div(task_work, work), [&](int64_t begin, int64_t end) {
    GemmParams items = p;
    items.a = static_cast<const char*>(p.a) + begin * p.a_batch * kernels.storage;
    items.b = static_cast<const char*>(p.b) + begin * p.b_batch * kernels.storage;
    items.c = static_cast<char*>(p.c) + begin * p.c_batch * kernels.storage;
    items.batch = end - begin;
    kernels.direct(items);
  });
}

// A batch that multiplies the rows of one tall matrix by the same B is that matrix.
GemmParams fold_batch(GemmParams p) {
  if (p.batch > 1 && p.b_batch == 0 && p.a_batch == p.m * p.a_row && p.c_batch == p.m * p.c_row) {
    p.m *= p.batch;
    p.batch = 1;
  }
  return p;
}

}  // namespace

void run_gemm(const GemmKernels& kernels, const GemmParams& params) {
  if (params.m <= 0 || params.n <= 0 || params.batch <= 0) return;
  const GemmParams p = fold_batch(params);
  const double work = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  if (p.k <= 0 || (p.k <= kernels.slice && work <= static_cast<double>(direct_work))) {
    return run_direct(kernels, p, std::max<int64_t>(1, static_cast<int64_t>(work)));
  }
  const bool same_type = kernels.storage == kernels.compute;
  const Scratch wide_bias(p.bias && !same_type ? p.n * kernels.compute : 0);
  if (wide_bias.data()) kernels.widen(p.bias, wide_bias.data(), p.n);

  Problem g{};
  g.kernels = &kernels;
  g.k = p.k;
  g.c = static_cast<char*>(p.c);
  g.bias = wide_bias.data() ? wide_bias.data() : static_cast<const char*>(p.bias);
  g.accumulate = p.accumulate;
  g.wide = same_type;
  BatchStrides strides{p.a_batch, p.b_batch, p.c_batch};
  const char* a = static_cast<const char*>(p.a);
  const char* b = static_cast<const char*>(p.b);
  if (p.n <= kernels.nr / 8 && p.m > p.n) {
    g.m = p.n;
    g.n = p.m;
    g.a = b;
    g.a_row = p.b_col;
    g.a_col = p.b_row;
    g.b = a;
    g.b_row = p.a_col;
    g.b_col = p.a_row;
    g.c_row = 1;
    g.c_col = p.c_row;
    g.bias_by_row = true;
    std::swap(strides.a, strides.b);
  } else {
    g.m = p.m;
    g.n = p.n;
    g.a = a;
    g.a_row = p.a_row;
    g.a_col = p.a_col;
    g.b = b;
    g.b_row = p.b_row;
    g.b_col = p.b_col;
    g.c_row = p.c_row;
    g.c_col = 1;
  }
  if (p.batch == 1 && p.weight && g.c_col == 1 && !prefers_outer(g) && pays_to_keep(g))
    return run_kept(g, *p.weight);
  if (p.batch == 1) return run_item(g);
  // Small items are tasks of one region, large ones have regions of their own.
  if (work < static_cast<double>(shared_work) && !(prefers_slices(g) && p.batch < 4)) {
    return run_blocks(g, p.batch, strides);
  }
  for (int64_t item = 0; item < p.batch; ++item) run_item(item_of(g, strides, item));
}

void gemm_f32(const GemmParams& params) { run_gemm(OPSIN_ISA_SELECT(gemm_table).f32, params); }
void gemm_f64(const GemmParams& params) { run_gemm(OPSIN_ISA_SELECT(gemm_table).f64, params); }
void gemm_bf16(const GemmParams& params) {
#if defined(__x86_64__)
  if (isa() == Isa::amx_bf16) return run_gemm(amx_bf16::gemm_kernels(), params);
  if (isa() == Isa::avx512_bf16) return run_gemm(avx512_bf16::gemm_kernels(), params);
#endif
  run_gemm(OPSIN_ISA_SELECT(gemm_table).bf16, params);
}
void gemm_f16(const GemmParams& params) { run_gemm(OPSIN_ISA_SELECT(gemm_table).f16, params); }

}  // namespace opsin::cpu
