// The folds: reductions whose state is one number. The contract between the plan (fold.cpp) and the kernels.
#pragma once

#include <opsin/dtype.h>

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

namespace cpu {

/// The steps of a fold over one dtype. `state` holds one accumulator of `state_size` bytes for each of
/// `count` outputs; `shift` (for CenteredSquares the means as float64, for LogSumExp the maxima in the dtype,
/// else null) runs along.
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
  FoldKernel kernel[static_cast<int>(Fold::kCount)][kNumDTypes];
};
OPSIN_ISA_TABLE(FoldTable, fold_table)

}  // namespace cpu
}  // namespace opsin
