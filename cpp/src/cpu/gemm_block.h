// One block of a matrix product: what it reads, where it packs, and the loop over slices of k. Internal to
// GEMM.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/allocator.h"
#include "cpu/kernels/gemm_table.h"

namespace opsin::cpu::gemm {

/// Multiply-adds that a task should have.
constexpr int64_t task_work = 64 * 1024;

class Scratch {
 public:
  explicit Scratch(int64_t bytes)
      : bytes_(static_cast<size_t>(bytes)), data_(bytes > 0 ? allocate(bytes_) : nullptr) {}
  ~Scratch() {
    if (data_) deallocate(data_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

/// Elements that a pack may write beyond its panel.
constexpr int64_t pack_slack = 16;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Steps of k that a panel of `depth` holds, the zeros at its end included.
inline int64_t panel_depth(const GemmKernels& kernels, int64_t depth) {
  return round_up(depth, kernels.pair);
}

/// A product as the kernels see it. For a narrow C the operands change places (C^T = B^T A^T), so that its
/// long side runs along the vectors; products commute, so no bit changes.
struct Problem {
  const GemmKernels* kernels;
  int64_t m, n, k;
  const char* a;
  int64_t a_row, a_col;
  const char* b;
  int64_t b_row, b_col;
  char* c;
  int64_t c_row, c_col;
  /// In the type of computation.
  const char* bias;
  bool bias_by_row;
  bool accumulate;
  /// C is stored in the type of computation.
  bool wide;
};

struct Range {
  int64_t begin, size;
};

/// The `index`-th piece of `step` of a whole of `total`.
inline Range part(int64_t total, int64_t step, int64_t index) {
  return {index * step, std::min(step, total - index * step)};
}

/// How blocks of one size, and the smaller ones at the edges, read their operands. The rest is the scratch
/// memory that this takes, in bytes.
struct BlockPlan {
  /// Too few rows to repay the packing of B.
  bool thin;
  bool a_in_place, b_in_place;
  int64_t a_bytes, b_bytes, c_bytes;
  int64_t bytes() const { return a_bytes + b_bytes + c_bytes; }
};

/// Rows of the panel of A of a thin product.
int64_t thin_panel(const Problem& g, int64_t rows);

/// `packed_b`: B comes to multiply() in panels.
BlockPlan plan_blocks(const Problem& g, int64_t rows, int64_t cols, bool packed_b);

/// Panels of B that were packed for several blocks: slice by slice of `depth`, each of them `cols` wide.
struct PackedB {
  const char* data;
  Range depth;
  int64_t cols;
};

/// Lays out the columns `cols` of B, over `depth`, in panels of nr.
void pack_b(const Problem& g, Range cols, Range depth, char* out);

/// Panels of A that were packed for several blocks of columns, slice by slice, as a block of rows reads them.
/// They lie apart, because several threads pack them and each writes beyond its own.
struct PackedA {
  char* data;
  int64_t rows, panel_rows;
};

/// The panels of a block of `rows` in memory of bytes_of_a(), which begins with `data`.
PackedA plan_a(const Problem& g, int64_t rows, char* data);
int64_t bytes_of_a(const Problem& g, int64_t rows);

/// Lays out a panel of A, if the block of rows has as many, over slice `index` of k.
void pack_a(const Problem& g, Range rows, const PackedA& packed, int64_t panel, int64_t index);

/// One block of C over the slices of `depth`, no larger than the blocks of `plan`. A and B are packed here
/// unless `packed_a` or `packed` holds them, B from its column `packed_col`. `memory` has room for
/// `plan.bytes()`.
void multiply(const Problem& g, const BlockPlan& plan, Range rows, Range cols, Range depth,
              const PackedB* packed, int64_t packed_col, char* memory, const PackedA* packed_a = nullptr);

}  // namespace opsin::cpu::gemm
