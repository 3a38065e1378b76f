// The contract of the kernels that make tensors from nothing.
#pragma once

#include "core/kernel.h"

namespace opsin {

/// `count` values written as `dtype` at `out`.
struct RangeParams {
  enum class Kind : uint8_t { kIntegers, kReals, kLinear, kPowers };

  Kind kind;
  DType dtype;
  void* out;
  int64_t count;
  /// kIntegers: first + i * step.
  int64_t first = 0, step = 0;
  /// kReals: start + i * by. kLinear: from both ends, so that the last number is `end` itself. kPowers: base
  /// to the power of that.
  double start = 0, end = 0, by = 0, base = 0;
};
extern OPSIN_API KernelSlot<void (*)(const RangeParams&)> range_forward;

/// Positions of a triangle of a [rows, cols] matrix, row by row: `count` row numbers, then as many columns.
/// The lower triangle has the columns up to row + offset, the upper one those from there on.
struct TriangleParams {
  int64_t rows, cols, offset;
  bool upper;
  int64_t count;
  int64_t* out;
};
extern OPSIN_API KernelSlot<void (*)(const TriangleParams&)> triangle_forward;

void register_creation_cpu();

}  // namespace opsin
