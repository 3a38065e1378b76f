// Loops over the elements of broadcast operands. An op gives inner loops over rows; the plan decides the
// order of the dimensions, merges them, splits the work over threads and chooses the layout of the output.
#pragma once

#include <cstddef>

#include <opsin/tensor.h>

#include "core/kernel.h"

namespace opsin {

/// The inner loop: `data[0]` is the output and data[1..] are the inputs, each stepping by its stride in
/// bytes; `params` is what the op passed to run(). A stride is 0 for a broadcast operand.
using LoopFn = void (*)(char* const* data, const int64_t* strides, int64_t n, const void* params);
/// The same over n consecutive elements of each operand, 16-bit floats already as float; see
/// core/dense_rows.h.
using DenseFn = void (*)(void* const* data, int64_t n, const void* params);

/// Where the operands of one launch lie on a GPU: the output, then the inputs. At most 2^30 elements.
struct DevicePlan {
  static constexpr int kMaxOperands = 8, kMaxRank = 12;

  int operands;
  int rank;
  int64_t numel;
  int64_t sizes[kMaxRank];                  ///< Fastest first.
  int64_t strides[kMaxOperands][kMaxRank];  ///< In bytes.
  char* data[kMaxOperands];                 ///< Null for a number.
  DType dtype[kMaxOperands];                ///< As it lies in memory.
  alignas(16) char number[kMaxOperands][16];
};
/// Enqueues the whole plan.
using DeviceFn = void (*)(const DevicePlan& plan, const void* params);

/// A kernel of an elementwise op: a loop on the CPU, in the form that its family uses, a launch on a GPU.
class ElementwiseFn {
 public:
  constexpr ElementwiseFn(std::nullptr_t = nullptr) {}
  ElementwiseFn(LoopFn fn) : fn_(reinterpret_cast<Any>(fn)) {}
  ElementwiseFn(DenseFn fn) : fn_(reinterpret_cast<Any>(fn)) {}
  ElementwiseFn(DeviceFn fn) : fn_(reinterpret_cast<Any>(fn)) {}

  LoopFn rows() const { return reinterpret_cast<LoopFn>(fn_); }
  DenseFn dense() const { return reinterpret_cast<DenseFn>(fn_); }
  DeviceFn device() const { return reinterpret_cast<DeviceFn>(fn_); }
  bool operator==(std::nullptr_t) const { return fn_ == nullptr; }

 private:
  using Any = void (*)();
  Any fn_ = nullptr;
};
using ElementwiseSlot = KernelSlot<ElementwiseFn>;

class Elementwise {
 public:
  static constexpr int kMaxOperands = DevicePlan::kMaxOperands;

  /// `op` names the op in errors. `output` is allocated by build() when undefined; otherwise it is written in
  /// place and must have the broadcast shape.
  Elementwise(const char* op, Tensor& output, DType output_dtype);
  Elementwise(const Elementwise&) = delete;
  Elementwise& operator=(const Elementwise&) = delete;

  /// Adds an input that the loop reads as `dtype`; converted if it is of another. The tensor must outlive the
  /// plan.
  void input(const Tensor& tensor, DType dtype);
  void input(Tensor&& tensor, DType dtype);
  /// Settles device, shapes and layout. ShapeError if the inputs don't broadcast, Error if they lie on
  /// different devices; a 0-d tensor on the CPU goes with every device.
  void build();
  /// Runs the loop over all elements, on several threads if there are many; on a GPU, launches the kernel.
  void run(ElementwiseFn loop, const void* params = nullptr);
  void run_dense(ElementwiseFn kernel, const void* params = nullptr);

  int64_t numel() const { return numel_; }
  /// Where the plan runs; known after build().
  Device device() const { return device_; }

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

  void settle_device();
  bool build_flat();
  void build_strided();
  void allocate_output(const Dims& shape);
  void protect_overlapping_inputs();
  void own(int i, Tensor tensor);
  void run_device(DeviceFn launch, const void* params);
  void finish();
  void run_grid(LoopFn loop, const void* params, int64_t begin, int64_t end) const;

  const char* op_;
  Tensor& output_;
  DType output_dtype_;
  int count_ = 1;
  Device device_;
  int64_t numel_ = 0;
  Operand operands_[kMaxOperands];
  int64_t strides_[kMaxOperands];  // In bytes, without a grid.
  Tensor owned_[kMaxOperands];     // Converted and copied inputs.
  Tensor target_;                  // The real output when `output_` is of another dtype than the loop writes.
  std::unique_ptr<Grid> grid_;
};

/// Fills the CPU's side of the slots of a table family from its kernels by op and computing dtype.
template <size_t N>
void fill_dense_slots(ElementwiseSlot (&slots)[N], const DenseFn (&kernels)[N][kNumDTypes]) {
  for (size_t op = 0; op < N; ++op) {
    for (int dtype = 0; dtype < kNumDTypes; ++dtype) {
      const auto stored = static_cast<DType>(dtype);
      const DenseFn kernel = kernels[op][static_cast<int>(compute_type(stored))];
      if (kernel) slots[op].set(DeviceType::kCPU, stored, kernel);
    }
  }
}

/// Stores `value` as `dtype` at `data`.
OPSIN_API void store_scalar(const Scalar& value, DType dtype, void* data);

}  // namespace opsin
