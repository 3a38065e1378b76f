// Folding over any set of dimensions. The plan sorts and merges the dimensions by where they lie in memory
// (channels last as well as row-major).
#pragma once

#include "fold_kernels.h"

#include <opsin/tensor.h>

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

  /// `shift`, if the fold wants one, must come from this plan too. With dtype kFloat64 a fold of other
  /// floating-point numbers keeps all digits.
  Tensor run(Fold fold, DType dtype, const FoldArgs& args = {}, const Tensor& shift = {}) const;
  /// The output as the caller should see it: run() gives it in the order of the plan.
  Tensor settle(const Tensor& y) const;

  /// Memory for one element per output, in the order of the plan.
  Tensor make_output(DType dtype) const;
  /// Valid as long as the plan.
  FoldShape shape() const;

 private:
  void merge(uint64_t mask);

  Tensor x_;
  Dims kept_sizes_, kept_strides_, reduced_sizes_, reduced_strides_;  // Fastest first; strides in bytes.
  int64_t outputs_ = 1, reduced_ = 1;
  bool rows_ = true;
  bool hidden_output_ = false;
  Dims out_sizes_, out_strides_;
};

}  // namespace opsin
