// Recurrent layers on the CPU. The sums of all steps that come from x are one product, written where the
// gates will be kept; then each step adds the product with h to its own. A task of a step is a block of
// hidden units: the columns of all their gates, while these are in the cache followed by the gates
// themselves. Going back, a task is the gradient of h for a block of units and the gates of the step before
// it. Weights are packed once.
#include "rnn_kernels.h"

#include <cstring>

#include "core/dispatch.h"
#include "cpu/gemm_block.h"
#include "cpu/packed_cache.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

using cpu::GemmKernels;
using cpu::Scratch;
using cpu::gemm::BlockPlan;
using cpu::gemm::ceil_div;
using cpu::gemm::PackedB;
using cpu::gemm::panel_depth;
using cpu::gemm::Problem;
using cpu::gemm::Range;
using cpu::gemm::round_up;

/// Sequences and hidden units of a tile at most: with four gates of float32 it fits the first-level cache.
constexpr int64_t kTileRows = 96, kTileUnits = 64;
/// Columns of a task where no gates follow.
constexpr int64_t kWideColumns = 512;
/// Rows so far apart fall on the same lines of the cache: products copy them.
constexpr int64_t kCacheWay = 4096;
/// Multiply-adds that a task should have.
constexpr int64_t kTaskWork = 64 * 1024;

const GemmKernels& kernels_of(DType dtype) {
  const cpu::GemmTable& table = OPSIN_ISA_SELECT(cpu::gemm_table);
  switch (dtype) {
    case kFloat64:
      return table.f64;
    case kFloat16:
      return table.f16;
    case kBFloat16:
      return table.bf16;
    default:
      return table.f32;
  }
}

/// Hidden units of a tile at most. Each tile copies the left side of its products where these do not read it
/// in place; then there are few tiles.
int64_t most_units(const GemmKernels& kernels, int64_t depth) {
  const bool copies = kernels.storage != kernels.packed || depth * kernels.storage % kCacheWay == 0;
  return copies ? kWideColumns : kTileUnits;
}

/// `parts` matrices B [k, n] of a weight, the right sides of products. Element (i, j) of part p lies at p *
/// part + i * row + j * col.
class Weight {
 public:
  Weight(const GemmKernels& kernels, const void* data, int64_t k, int64_t n, int64_t row, int64_t col,
         int64_t parts, bool packs, const cpu::KeptWeight* kept)
      : kernels_(kernels),
        data_(static_cast<const char*>(data)),
        k_(k),
        n_(n),
        row_(row),
        col_(col),
        part_(n * k * kernels.storage),
        width_(round_up(n, kernels.nr)),
        panels_(panel_depth(kernels, k) * width_ * kernels.packed) {
    if (k > 0 && data && (packs || kept)) pack(parts, kept);
  }

  explicit operator bool() const { return data_ != nullptr; }
  int64_t depth() const { return k_; }

  /// c[rows, cols] (+)= a B + bias, of part `part`. `c` and `bias`, in the type of computation, start at
  /// column 0.
  void multiply(int64_t part, const char* a, int64_t a_row, int64_t rows, Range cols, char* c, int64_t c_row,
                const char* bias, bool accumulate) const {
    Problem g{};
    g.kernels = &kernels_;
    g.m = rows;
    g.n = n_;
    g.k = k_;
    g.a = a;
    g.a_row = a_row;
    g.a_col = 1;
    g.b = data_ + part * part_;
    g.b_row = row_;
    g.b_col = col_;
    g.c = c;
    g.c_row = c_row;
    g.c_col = 1;
    g.bias = bias;
    g.accumulate = accumulate;
    g.wide = true;
    const PackedB packed{
        block_ ? static_cast<const char*>(block_->data()) + part * panels_ : nullptr, {0, k_}, width_};
    const PackedB* const panels = block_ ? &packed : nullptr;
    const BlockPlan plan = plan_blocks(g, rows, cols.size, block_ != nullptr);
    constexpr int64_t kStack = 16 * 1024;
    alignas(64) char stack[kStack];
    const Scratch<char> heap(plan.bytes() > kStack ? plan.bytes() : 0);
    cpu::gemm::multiply(g, plan, {0, rows}, cols, {0, k_}, panels, cols.begin,
                        plan.bytes() > kStack ? heap.get() : stack);
  }

 private:
  void pack(int64_t parts, const cpu::KeptWeight* kept) {
    const int64_t nr = kernels_.nr, count = width_ / nr, slices = ceil_div(k_, kernels_.slice);
    const auto bytes = static_cast<size_t>(parts * panels_ + cpu::gemm::pack_slack * kernels_.packed);
    cpu::PackKey key{cpu::key_of(&kernels_), cpu::key_of(data_), row_, col_, k_, n_, parts};
    block_ = cpu::packed_weight(kept, std::move(key), bytes, [&](void* out) {
      cpu::parallel_for(
          parts * slices * count, ceil_div(kTaskWork, kernels_.slice * nr), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              Problem g{};
              g.kernels = &kernels_;
              const int64_t part = i / (slices * count);
              g.b = data_ + part * part_;
              g.b_row = row_;
              g.b_col = col_;
              const Range slice = cpu::gemm::part(k_, kernels_.slice, i / count % slices),
                          panel = cpu::gemm::part(n_, nr, i % count);
              const int64_t first = slice.begin * width_ + panel.begin * panel_depth(kernels_, slice.size);
              pack_b(g, panel, slice, static_cast<char*>(out) + part * panels_ + first * kernels_.packed);
            }
          });
    });
  }

  const GemmKernels& kernels_;
  const char* data_;
  int64_t k_, n_, row_, col_;
  int64_t part_;    ///< bytes
  int64_t width_;   ///< columns of all panels of a part
  int64_t panels_;  ///< bytes of them
  Ref<cpu::PackedBlock> block_;
};

/// Calls body(rows, cols) for the tiles of a matrix, in parallel. `work`: multiply-adds for each element.
template <class F>
void for_tiles(int64_t rows, int64_t cols, int64_t most_rows, int64_t most_cols, int64_t nr, int64_t work,
               F&& body) {
  int64_t row_step = std::min(rows, most_rows), col_step = std::min(round_up(cols, nr), most_cols);
  const int64_t wanted = 2 * static_cast<int64_t>(cpu::num_threads());
  const auto count = [&] { return ceil_div(rows, row_step) * ceil_div(cols, col_step); };
  while (count() < wanted && col_step > nr && row_step * col_step * work >= 2 * kTaskWork)
    col_step = round_up(col_step / 2, nr);
  const int64_t row_tiles = ceil_div(rows, row_step), col_tiles = ceil_div(cols, col_step);
  row_step = ceil_div(rows, row_tiles);
  const int64_t grain = ceil_div(kTaskWork, std::max<int64_t>(row_step * col_step * work, 1));
  cpu::parallel_for(row_tiles * col_tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      body(cpu::gemm::part(rows, row_step, i % row_tiles), cpu::gemm::part(cols, col_step, i / row_tiles));
  });
}

/// `count` values of the dtype in the type of computation: themselves or a copy; null stays.
template <class T>
class Wide {
 public:
  Wide(const GemmKernels& kernels, const void* data, int64_t count)
      : copy_(data && kernels.storage != sizeof(T) ? count : 0), data_(static_cast<const T*>(data)) {
    if (!data || kernels.storage == sizeof(T)) return;
    kernels.widen(data, copy_.get(), count);
    data_ = copy_.get();
  }
  const T* get() const { return data_; }
  const char* from(int64_t i) const { return data_ ? reinterpret_cast<const char*>(data_ + i) : nullptr; }

 private:
  Scratch<T> copy_;
  const T* data_;
};

template <class T>
class Forward {
 public:
  explicit Forward(const RnnForwardParams& p)
      : p_(p),
        kernels_(kernels_of(p.dtype)),
        run_(OPSIN_ISA_SELECT(cpu::rnn_table).forward[static_cast<int>(p.kind)][static_cast<int>(p.dtype)]),
        w_ih_(kernels_, p.w_ih, p.inputs, p.gates(), 1, p.inputs, 1, p.steps > 1, p.kept_ih),
        w_hh_(kernels_, p.w_hh, p.outputs, p.hidden, 1, p.outputs, rnn_gates(p.kind), p.steps > 1, p.kept_hh),
        w_hr_(kernels_, p.w_hr, p.hidden, p.outputs, 1, p.hidden, 1, p.steps > 1, p.kept_hr),
        b_ih_(kernels_, p.b_ih, p.gates()),
        b_hh_(kernels_, p.b_hh, p.gates()),
        c_(p.kind == RnnKind::kLstm ? p.batch() * p.hidden : 0),
        h_(static_cast<int64_t>(bytes(p.batch() * p.outputs))),
        inner_(p.w_hr ? static_cast<int64_t>(bytes(p.batch() * p.hidden)) : 0),
        wide_(p.w_hr && kernels_.storage != sizeof(T) ? p.batch() * p.outputs : 0) {}

  void run() {
    if (p_.kind == RnnKind::kLstm) kernels_.widen(p_.c0, c_.get(), p_.batch() * p_.hidden);
    add_inputs();
    const char* before = static_cast<const char*>(p_.h0);
    int64_t rows = p_.batch();
    for_rnn_steps(p_, false, [&](int64_t t, int64_t first) {
      const int64_t n = p_.batch_sizes[t];
      if (n > rows) {
        // Sequences that begin here, the last steps of others being done.
        std::memcpy(h_.get(), before, bytes(rows * p_.outputs));
        std::memcpy(h_.get() + bytes(rows * p_.outputs),
                    static_cast<const char*>(p_.h0) + bytes(rows * p_.outputs),
                    bytes((n - rows) * p_.outputs));
        before = h_.get();
      }
      step(first, n, before);
      before = y(first);
      rows = n;
      // The sequences that end here.
      const int64_t left = p_.reverse ? (t == 0 ? 0 : n) : t + 1 < p_.steps ? p_.batch_sizes[t + 1] : 0;
      if (left < n) {
        std::memcpy(static_cast<char*>(p_.h_n) + bytes(left * p_.outputs), y(first + left),
                    bytes((n - left) * p_.outputs));
      }
    });
    if (p_.kind == RnnKind::kLstm) kernels_.narrow(c_.get(), p_.c_n, p_.batch() * p_.hidden);
  }

 private:
  size_t bytes(int64_t elements) const { return static_cast<size_t>(elements * kernels_.storage); }
  char* y(int64_t row) const { return static_cast<char*>(p_.y) + bytes(row * p_.outputs); }
  T* kept(int64_t row) const { return static_cast<T*>(p_.kept) + row * p_.kept_size(); }

  void add_inputs() {
    if (p_.inputs == 0) {
      for (int64_t row = 0; row < p_.rows; ++row) {
        std::fill_n(kept(row), p_.gates(), T(0));
        if (b_ih_.get()) std::copy_n(b_ih_.get(), p_.gates(), kept(row));
      }
      return;
    }
    const auto* x = static_cast<const char*>(p_.x);
    for_tiles(
        p_.rows, p_.gates(), kTileRows, kWideColumns, kernels_.nr, p_.inputs, [&](Range rows, Range cols) {
          w_ih_.multiply(0, x + bytes(rows.begin * p_.inputs), p_.inputs, rows.size, cols,
                         reinterpret_cast<char*>(kept(rows.begin)), p_.kept_size(), b_ih_.from(0), false);
        });
  }

  void step(int64_t first, int64_t n, const char* h) {
    const int64_t hidden = p_.hidden, gates = rnn_gates(p_.kind);
    char* const out = p_.w_hr ? inner_.get() : y(first);
    for_tiles(
        n, hidden, kTileRows, most_units(kernels_, p_.outputs), kernels_.nr, gates * p_.outputs,
        [&](Range rows, Range units) {
          const char* const before = h + bytes(rows.begin * p_.outputs);
          T* const sums = kept(first + rows.begin);
          for (int64_t g = 0; g < gates; ++g) {
            // The part of n from h stays apart.
            const bool apart = p_.kind == RnnKind::kGru && g == 2;
            w_hh_.multiply(g, before, p_.outputs, rows.size, units,
                           reinterpret_cast<char*>(sums + (apart ? 3 : g) * hidden), p_.kept_size(),
                           b_hh_.from(g * hidden), !apart);
          }
          T* const c = p_.kind == RnnKind::kLstm ? c_.get() + rows.begin * hidden + units.begin : nullptr;
          run_({rows.size, units.size, hidden, sums + units.begin, p_.kept_size(), c,
                before + bytes(units.begin), hidden, out + bytes(rows.begin * hidden + units.begin), hidden});
        });
    if (p_.w_hr) project(first, n);
  }

  void project(int64_t first, int64_t n) {
    T* const sums = kernels_.storage == sizeof(T) ? reinterpret_cast<T*>(y(first)) : wide_.get();
    for_tiles(n, p_.outputs, kTileRows, kWideColumns, kernels_.nr, p_.hidden, [&](Range rows, Range cols) {
      T* const to = sums + rows.begin * p_.outputs;
      w_hr_.multiply(0, inner_.get() + bytes(rows.begin * p_.hidden), p_.hidden, rows.size, cols,
                     reinterpret_cast<char*>(to), p_.outputs, nullptr, false);
      if (kernels_.storage == sizeof(T)) return;
      for (int64_t i = 0; i < rows.size; ++i) {
        kernels_.narrow(to + i * p_.outputs + cols.begin, y(first + rows.begin + i) + bytes(cols.begin),
                        cols.size);
      }
    });
  }

  const RnnForwardParams& p_;
  const GemmKernels& kernels_;
  void (*run_)(const cpu::RnnForwardTile&);
  Weight w_ih_, w_hh_, w_hr_;
  Wide<T> b_ih_, b_hh_;
  Scratch<T> c_;
  Scratch<char> h_;      ///< h before a step in which sequences begin.
  Scratch<char> inner_;  ///< What is projected.
  Scratch<T> wide_;      ///< Projections before they are rounded.
};

template <class T>
class Gradients {
 public:
  explicit Gradients(const RnnBackwardParams& p)
      : p_(p),
        kernels_(kernels_of(p.dtype)),
        run_(OPSIN_ISA_SELECT(cpu::rnn_table).backward[static_cast<int>(p.kind)][static_cast<int>(p.dtype)]),
        w_hh_(kernels_, p.w_hh, p.gates(), p.outputs, p.outputs, 1, 1, p.steps > 2, nullptr),
        w_hr_(kernels_, p.w_hr, p.outputs, p.hidden, p.hidden, 1, 1, p.steps > 1, nullptr),
        inner_(p.w_hr ? p.batch() * p.hidden : 0) {}

  void run() {
    int64_t done = 0, done_rows = 0;
    for_rnn_steps(p_, true, [&](int64_t t, int64_t first) {
      const int64_t n = p_.batch_sizes[t];
      if (p_.w_hr) {
        step_projected(done, done_rows, first, n);
      } else {
        for_tiles(std::max(n, done_rows), p_.hidden, kTileRows, most_units(kernels_, p_.gates()), kernels_.nr,
                  p_.gates(), [&](Range rows, Range units) {
                    add_gates(done, done_rows, rows, units);
                    const int64_t count = std::min(rows.size, n - rows.begin);
                    if (count > 0)
                      run_gates(grad_h(rows.begin), p_.grad_y, first, {rows.begin, count}, units);
                  });
      }
      done = first;
      done_rows = n;
    });
    if (!p_.wants_h0) return;
    for_tiles(done_rows, p_.outputs, kTileRows, kWideColumns, kernels_.nr, p_.gates(),
              [&](Range rows, Range cols) { add_gates(done, done_rows, rows, cols); });
  }

 private:
  size_t bytes(int64_t elements) const { return static_cast<size_t>(elements * kernels_.storage); }
  const char* at(const void* data, int64_t i) const {
    return data ? static_cast<const char*>(data) + bytes(i) : nullptr;
  }
  char* at(void* data, int64_t i) const { return static_cast<char*>(data) + bytes(i); }
  T* grad_h(int64_t row) const { return static_cast<T*>(p_.grad_h) + row * p_.outputs; }

  /// The gradient of h before a step, from its `n` rows of gates at `first`.
  void add_gates(int64_t first, int64_t n, Range rows, Range cols) {
    const int64_t count = std::min(rows.size, n - rows.begin);
    if (count <= 0) return;
    w_hh_.multiply(0, at(p_.grad_h_gates, (first + rows.begin) * p_.gates()), p_.gates(), count, cols,
                   reinterpret_cast<char*>(grad_h(rows.begin)), p_.outputs, nullptr,
                   p_.kind == RnnKind::kGru);
  }

  /// `grad_h`: of the first row of the tile, before a projection.
  void run_gates(T* grad_h, const void* grad_y, int64_t first, Range rows, Range units) {
    const int64_t hidden = p_.hidden, row = first + rows.begin, state = rows.begin * hidden + units.begin;
    run_({rows.size, units.size, hidden, static_cast<const T*>(p_.kept) + row * p_.kept_size() + units.begin,
          p_.kept_size(), at(p_.previous, row * hidden + units.begin), hidden,
          at(grad_y, row * hidden + units.begin), hidden, grad_h + units.begin,
          p_.grad_c ? static_cast<T*>(p_.grad_c) + state : nullptr, hidden,
          at(p_.grad_x_gates, row * p_.gates() + units.begin),
          at(p_.grad_h_gates, row * p_.gates() + units.begin), p_.gates()});
  }

  void step_projected(int64_t done, int64_t done_rows, int64_t first, int64_t n) {
    for_tiles(std::max(n, done_rows), p_.outputs, kTileRows, kWideColumns, kernels_.nr, p_.gates(),
              [&](Range rows, Range cols) {
                add_gates(done, done_rows, rows, cols);
                for (int64_t i = rows.begin; i < std::min(rows.begin + rows.size, n); ++i)
                  add_outputs(first + i, i, cols);
              });
    for_tiles(n, p_.hidden, kTileRows, most_units(kernels_, p_.outputs), kernels_.nr, p_.outputs,
              [&](Range rows, Range units) {
                T* const inner = inner_.get() + rows.begin * p_.hidden;
                w_hr_.multiply(0, at(p_.grad_outputs, (first + rows.begin) * p_.outputs), p_.outputs,
                               rows.size, units, reinterpret_cast<char*>(inner), p_.hidden, nullptr, false);
                run_gates(inner, nullptr, first, rows, units);
              });
  }
  void add_outputs(int64_t row, int64_t sequence, Range cols) {
    const int64_t from = row * p_.outputs + cols.begin;
    T sums[kWideColumns];
    std::fill_n(sums, cols.size, T(0));
    if (p_.grad_y) kernels_.widen(at(p_.grad_y, from), sums, cols.size);
    const T* const carried = grad_h(sequence) + cols.begin;
    for (int64_t j = 0; j < cols.size; ++j) sums[j] += carried[j];
    kernels_.narrow(sums, at(p_.grad_outputs, from), cols.size);
  }

  const RnnBackwardParams& p_;
  const GemmKernels& kernels_;
  void (*run_)(const cpu::RnnBackwardTile&);
  Weight w_hh_, w_hr_;
  Scratch<T> inner_;  ///< The gradient of what was projected.
};

}  // namespace

void register_rnn_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    using Run = void (*)(const RnnForwardParams&);
    using RunBack = void (*)(const RnnBackwardParams&);
    const Run forward[] = {[](const RnnForwardParams& p) { Forward<float>(p).run(); },
                           [](const RnnForwardParams& p) { Forward<double>(p).run(); }};
    const RunBack backward[] = {[](const RnnBackwardParams& p) { Gradients<float>(p).run(); },
                                [](const RnnBackwardParams& p) { Gradients<double>(p).run(); }};
    rnn_forward.set(DeviceType::kCPU, dtype, forward[wide]);
    rnn_backward.set(DeviceType::kCPU, dtype, backward[wide]);
  }
}

}  // namespace opsin
