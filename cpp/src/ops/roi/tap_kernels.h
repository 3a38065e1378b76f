// Weighted sums of rows of channels, the inner loops of ops that sample features. `at` holds the first
// element of each row; weights and results are of the compute type.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

struct TapParams {
  const void* x;      ///< Or the gradient of a row, for `spread` and `spread_taken`.
  const int64_t* at;  ///< [taps]
  const void* weights;
  int64_t taps, channels;
};

struct TapTable {
  /// y[c] = sum of weights[t] * x[at[t] + c]
  void (*gather[kNumDTypes])(const TapParams&, void* y);
  /// y[at[t] + c] += weights[t] * x[c], y of the compute type
  void (*spread[kNumDTypes])(const TapParams&, void* y);
  /// The same for the channels where taken[c] is `number`.
  void (*spread_taken[kNumDTypes])(const TapParams&, int32_t number, const int32_t* taken, void* y);
  /// products[t] = sum over c of g[c] * x[at[t] + c]; no weights
  void (*products[kNumDTypes])(const TapParams&, const void* g, void* products);
  /// Where the sum of `gather` is above best[c] or NaN: it takes its place, and `number` that of taken[c].
  void (*largest[kNumDTypes])(const TapParams&, int32_t number, void* best, int32_t* taken);
  /// y[c] = values[c] from the compute type
  void (*narrow[kNumDTypes])(const void* values, int64_t channels, void* y);
};
OPSIN_ISA_TABLE(TapTable, tap_table)

}  // namespace opsin::cpu
