// The folds: reductions whose state is one number. The contract between the plan (fold.cpp) and the kernels.
#pragma once

#include <opsin/dtype.h>
#include <opsin/shape.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

// X(name, dtypes): floating for floating-point types only, real for all but complex.
#define OPSIN_FOLDS(X)         \
  X(Sum, real)                 \
  X(Prod, real)                \
  X(Max, real)                 \
  X(Min, real)                 \
  X(All, real)                 \
  X(Any, real)                 \
  X(CountNonzero, real)        \
  X(NanSum, floating)          \
  X(SumAbs, floating)          \
  X(SumSquares, floating)      \
  X(SumPowers, floating)       \
  X(MaxAbs, floating)          \
  X(MinAbs, floating)          \
  X(CenteredSquares, floating) \
  X(LogSumExp, floating)

enum class Fold {
#define OPSIN_ROW(Name, dtypes) Name,
  OPSIN_FOLDS(OPSIN_ROW)
#undef OPSIN_ROW
      kCount,
};

/// Numbers that go into a result: CenteredSquares and Sum end with a division by `divisor`; SumPowers adds
/// |x|^power.
struct FoldArgs {
  double divisor = 1;
  double power = 2;
  /// SumSquares, SumPowers and CenteredSquares end with the root of this degree (1: none).
  double root = 1;
};

/// Most dimensions of each kind on a GPU.
inline constexpr size_t kMaxFoldRank = 8;

/// Which elements go into which output. Dimensions are sorted by stride and merged, the fastest first; there
/// is at least one of each kind. Strides are in bytes.
struct FoldShape {
  const char* x;
  DType dtype;  ///< Of what is folded; never complex.
  int64_t outputs, reduced;
  /// Whether the reduced elements of an output follow each other in memory; otherwise outputs do.
  bool rows;
  IntSpan kept_sizes, kept_strides, reduced_sizes, reduced_strides;
};

/// One fold. Outputs follow each other at `y`, in the order of the kept dimensions.
struct FoldParams {
  FoldShape shape;
  Fold fold;
  FoldArgs args;
  char* y;
  DType y_dtype;
  /// Per output: for CenteredSquares the means as float64, for LogSumExp the maxima in the dtype, else null.
  const char* shift;
};

inline constexpr int kFolds = static_cast<int>(Fold::kCount);
/// By Fold and the dtype of what is folded. At least one output.
extern OPSIN_API KernelSlot<void (*)(const FoldParams&)> fold_forward[kFolds];

void register_fold_cpu();

namespace cpu {

/// The steps of a fold over one dtype. `state` holds one accumulator of `state_size` bytes for each of
/// `count` outputs; `shift` runs along.
struct FoldKernel {
  int state_size;
  void (*init)(void* state, int64_t count);
  /// Folds n elements, each following the other in memory, per output; outputs are `step` bytes apart.
  void (*rows)(void* state, const char* x, int64_t count, int64_t step, int64_t n, const void* shift,
               const FoldArgs& args);
  /// Folds n elements, `step` bytes apart, per output; outputs follow each other in memory.
  void (*columns)(void* state, const char* x, int64_t count, int64_t step, int64_t n, const void* shift,
                  const FoldArgs& args);
  void (*merge)(void* state, const void* other, int64_t count);
  void (*finish)(const void* state, char* y, int64_t count, const void* shift, const FoldArgs& args);
  /// As `finish`, with results as float64; null for integers.
  void (*finish_wide)(const void* state, char* y, int64_t count, const void* shift, const FoldArgs& args);
};

struct FoldTable {
  FoldKernel kernel[kFolds][kNumDTypes];
};
OPSIN_ISA_TABLE(FoldTable, fold_table)

}  // namespace cpu
}  // namespace opsin
