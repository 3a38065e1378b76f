// The contract between the random ops and their kernels. Value i of a call is made from the words of one
// block of Philox: word i % 4 of block i / 4 for values of 32 bits or fewer, two words of block i / 2 for
// values of 64.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "core/philox_state.h"
#include "cpu/dispatch.h"

namespace opsin {

/// Blocks that `count` values take.
template <int kPerBlock>
uint64_t philox_blocks(int64_t count) {
  return static_cast<uint64_t>((count + kPerBlock - 1) / kPerBlock);
}

/// `count` values side by side at `out`.
struct FillParams {
  void* out = nullptr;
  int64_t count = 0;
  DType dtype = kInt64;
  PhiloxSeed random = {};
  double a = 0, b = 0;  ///< uniform: from, to - from. normal: mean, standard deviation.
  uint32_t limit = 0;   ///< bernoulli: 1 where the upper 24 bits of the word are below it.
  int64_t low = 0;      ///< randint: low, high - low.
  uint64_t range = 0;
};
using FillSlot = KernelSlot<void (*)(const FillParams&)>;
extern OPSIN_API FillSlot uniform_fill, normal_fill, bernoulli_fill, randint_fill;
/// The permutation that Fisher's and Yates' method gives, with block i for the choice of place i; int64.
extern OPSIN_API FillSlot randperm_fill;

/// y = 1 where the word, as a fraction in 24 bits, is below p; Error for a p outside [0, 1].
struct BernoulliParams {
  const void* p;
  void* y;
  int64_t count;
  DType dtype;
  PhiloxSeed random;
};
extern OPSIN_API KernelSlot<void (*)(const BernoulliParams&)> bernoulli_forward;

/// y = x * scale where the upper 24 bits of the word are at least `least`, else 0; in the order of memory.
struct DropoutParams {
  const void* x;
  void* y;
  int64_t count;
  DType dtype;
  PhiloxSeed random;
  uint32_t least;
  double scale;
};
extern OPSIN_API KernelSlot<void (*)(const DropoutParams&)> dropout_forward;

/// index[r, s] is where draws[r, s] times the last of cumulative[r] falls: the number of elements of that row
/// that are not above it, at most n - 1. Only GPUs have it.
struct ChooseParams {
  const double* cumulative;  ///< [rows, n]
  const double* draws;       ///< [rows, samples], in [0, 1)
  int64_t* index;            ///< [rows, samples]
  int64_t rows, n, samples;
};
extern OPSIN_API KernelSlot<void (*)(const ChooseParams&)> multinomial_choose;

void register_random_cpu();

namespace cpu {

/// `words` are those of the values from the first block of a call on: value i of 32 bits is word i, value i
/// of 64 bits the words 2i and 2i + 1. `n` counts values; a pair of normals lies in one block, so n may be
/// odd.
struct RandomTable {
  /// The four words of each of `blocks` blocks, as philox::block(seed, offset + i) gives them.
  void (*words)(uint64_t seed, uint64_t offset, int64_t blocks, uint32_t* out);
  /// y = u * range + from for u in [0, 1), a multiple of 2^-bits.
  void (*uniform_float)(const uint32_t* words, int64_t n, int bits, double from, double range, float* y);
  void (*uniform_double)(const uint32_t* words, int64_t n, double from, double range, double* y);
  void (*normal_float)(const uint32_t* words, int64_t n, double mean, double std, float* y);
  void (*normal_double)(const uint32_t* words, int64_t n, double mean, double std, double* y);
  /// y = x * scale where the upper 24 bits of the word are at least `least`, else 0; floating dtypes only.
  void (*dropout[kNumDTypes])(const uint32_t* words, int64_t n, uint32_t least, double scale, const void* x,
                              void* y);
};
OPSIN_ISA_TABLE(RandomTable, random_table)

}  // namespace cpu

}  // namespace opsin
