// Loops over the elements of broadcast operands. An op gives inner loops over rows; the plan decides the
// order of the dimensions, merges them, splits the work over threads and chooses the layout of the output.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// The inner loop: `data[0]` is the output and data[1..] are the inputs, each stepping by its stride in
/// bytes; `params` is what the op passed to run(). A stride is 0 for a broadcast operand.
using LoopFn = void (*)(char* const* data, const int64_t* strides, int64_t n, const void* params);
/// The same over n consecutive elements of each operand, 16-bit floats already as float; see
/// core/dense_rows.h.
using DenseFn = void (*)(void* const* data, int64_t n, const void* params);

class Elementwise {
 public:
  static constexpr int kMaxOperands = 8;

  /// `op` names the op in errors. `output` is allocated by build() when undefined; otherwise it is written in
  /// place and must have the broadcast shape.
  Elementwise(const char* op, Tensor& output, DType output_dtype);
  Elementwise(const Elementwise&) = delete;
  Elementwise& operator=(const Elementwise&) = delete;

  /// Adds an input that the loop reads as `dtype`; converted if it is of another. The tensor must outlive the
  /// plan.
  void input(const Tensor& tensor, DType dtype);
  void input(Tensor&& tensor, DType dtype);
  /// Settles shapes and layout. ShapeError if the inputs don't broadcast.
  void build();
  /// Runs the loop over all elements, on several threads if there are many.
  void run(LoopFn loop, const void* params = nullptr);
  void run_dense(DenseFn kernel, const void* params = nullptr);

  int64_t numel() const { return numel_; }

 private:
  // Left uninitialised beyond count_: a plan is made for every small call too.
  struct Operand {
    TensorImpl* impl;
    char* data;
    DType dtype;
    bool is_number;
    alignas(16) char number[16];
  };
  /// Only for operands that are no single row.
  struct Grid {
    Dims shape;                  // Iteration shape, fastest dimension first.
    Dims strides[kMaxOperands];  // In bytes.
  };

  bool build_flat();
  void build_strided();
  void allocate_output(const Dims& shape);
  void protect_overlapping_inputs();
  void own(int i, Tensor tensor);
  void run_grid(LoopFn loop, const void* params, int64_t begin, int64_t end) const;

  const char* op_;
  Tensor& output_;
  DType output_dtype_;
  int count_ = 1;
  int64_t numel_ = 0;
  Operand operands_[kMaxOperands];
  int64_t strides_[kMaxOperands];  // In bytes, without a grid.
  Tensor owned_[kMaxOperands];     // Converted and copied inputs.
  Tensor target_;                  // The real output when `output_` is of another dtype than the loop writes.
  std::unique_ptr<Grid> grid_;
};

/// Stores `value` as `dtype` at `data`.
OPSIN_API void store_scalar(const Scalar& value, DType dtype, void* data);

}  // namespace opsin
