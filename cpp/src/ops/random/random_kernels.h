// The contract between random.cpp and its kernels.
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

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

}  // namespace opsin::cpu
