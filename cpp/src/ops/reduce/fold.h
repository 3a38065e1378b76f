// Folding over any set of dimensions. The plan sorts and merges the dimensions by where they lie in memory
// (channels last as well as row-major), splits the work by the shape alone, and merges parts in a fixed
// order, so the bits of a result do not depend on the number of threads.
#pragma once

#include "fold_kernels.h"

#include <opsin/tensor.h>

#include "cpu/thread_pool.h"

namespace opsin {

/// Bit d is set for each dimension d in `dims`; all bits if there are none. IndexError for a dimension out of
/// range, RuntimeError for one that is named twice.
uint64_t reduced_mask(const Tensor& x, IntSpan dims, const char* op);
/// The sizes of x with the reduced dimensions dropped, or of size 1 with `keepdim`.
Dims reduced_sizes(const Tensor& x, uint64_t mask, bool keepdim);
/// How many elements of x go into one output.
int64_t reduced_count(const Tensor& x, uint64_t mask);

class FoldPlan {
 public:
  /// The parts of complex numbers are folded apart.
  FoldPlan(const Tensor& x, uint64_t mask, bool keepdim);

  /// `shift`, if the fold wants one, must come from this plan too. `wide` gives float64.
  Tensor run(Fold fold, const char* op, DType dtype, const FoldArgs& args = {}, const Tensor& shift = {},
             bool wide = false) const;
  /// The output as the caller should see it: run() gives it in the order of the plan.
  Tensor settle(const Tensor& y) const;

  /// Memory for one element per output, in the order of the plan.
  Tensor make_output(DType dtype) const;
  /// Whether the reduced elements of an output follow each other in memory; otherwise outputs do.
  bool is_rows() const { return rows_; }
  int64_t step() const { return kept_strides_[0]; }
  int64_t reduced_step() const { return reduced_strides_[0]; }
  int64_t reduced() const { return reduced_; }
  /// Calls body(first, count, x) on several threads for blocks of outputs; their first elements lie at
  /// x + i * step().
  template <class Body>
  void for_blocks(Body&& body) const {
    const int64_t block = block_size();
    const int64_t per_row = (kept_sizes_[0] + block - 1) / block;
    const int64_t blocks = outputs_ == 0 ? 0 : outputs_ / kept_sizes_[0] * per_row;
    cpu::parallel_for(blocks, grain(block), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t from = i % per_row * block, count = std::min(block, kept_sizes_[0] - from);
        body(i / per_row * kept_sizes_[0] + from, count, start_of(i / per_row) + from * kept_strides_[0]);
      }
    });
  }

 private:
  static constexpr int64_t kMaxBlock = 512;

  int64_t block_size() const;
  int64_t grain(int64_t block) const {
    return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, block * reduced_));
  }
  const char* start_of(int64_t row) const;
  void fold_slice(const cpu::FoldKernel& kernel, void* state, const char* x, int64_t count, int64_t begin,
                  int64_t end, const void* shift, const FoldArgs& args) const;

  Tensor x_;
  const char* data_;
  Dims kept_sizes_, kept_strides_, reduced_sizes_, reduced_strides_;  // Fastest first; strides in bytes.
  int64_t outputs_ = 1, reduced_ = 1;
  bool rows_ = true;
  bool hidden_output_ = false;
  Dims out_sizes_, out_strides_;
};

}  // namespace opsin
