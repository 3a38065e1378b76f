// The contract between the normalizations and their kernels. Sums are float64; numbers per channel or element
// that go into results have the compute type (float32 for 16-bit types).
#pragma once

#include <opsin/dtype.h>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// Values of channels. `columns`: rows of `channels` neighbours each, `rows` of them. Otherwise one row of
/// `rows` neighbours of a single channel, and `channels` is 1.
struct ChannelParams {
  int64_t rows, channels;
  bool columns;
  const void* x;
  const void* g;        ///< Gradient of the output, or null.
  void* y;              ///< Output.
  const double* shift;  ///< Per channel, for the sums.
  double* sum;          ///< += g, or x - shift without g.
  double* product;      ///< += g (x - shift), or (x - shift)^2 without g.
  const void* mean;     ///< Per channel, for the outputs.
  const void* scale;
  const void* offset;
  const void* slope;
};

/// `rows` rows of n neighbours, each normalised by its own mean and variance.
struct LayerNormParams {
  int64_t rows, n;
  const void* x;
  const void* g;
  void* y;             ///< Forward: the output. Backward: the gradient of x, or null.
  const void* weight;  ///< Per element of a row, compute type; null for ones.
  const void* bias;
  double* mean;     ///< Per row: written forward, read backward.
  double* inverse;  ///< 1 / sqrt(variance + eps).
  double eps;
  double* weight_sum;  ///< Backward, per element: += g xhat; or null.
  double* bias_sum;    ///< += g; or null.
};

struct NormTable {
  void (*sums[kNumDTypes])(const ChannelParams&);
  /// y = (x - mean) scale + offset
  void (*apply[kNumDTypes])(const ChannelParams&);
  /// y = g scale - offset - (x - mean) slope
  void (*apply_backward[kNumDTypes])(const ChannelParams&);
  void (*layer_forward[kNumDTypes])(const LayerNormParams&);
  void (*layer_backward[kNumDTypes])(const LayerNormParams&);
};
OPSIN_ISA_TABLE(NormTable, norm_table)

}  // namespace opsin::cpu
