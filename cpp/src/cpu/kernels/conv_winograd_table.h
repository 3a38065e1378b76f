// The transforms of Winograd convolution, cpu/conv_winograd.cpp, for each instruction set.
#pragma once

#include "conv_table.h"

namespace opsin::cpu {

/// A transform of one tile of pixels to (m + 2)^2 elements, each to out[e * stride] with e = row * (m + 2) +
/// column: that of the input, of (m + 2)^2 pixels, whose `channels` adjacent values are filled up with zeros
/// where they are less than a vector; or that of the gradient of the output, of m^2 pixels, filled up with
/// zeros to whole vectors.
template <class S>
struct WinogradPixels {
  const S* const* source;
  int64_t source_offset, channels;
  float* out;
  int64_t stride;
};

/// The weight transform of [9][rows] to [(m + 2)^2] runs of `rows` values, `stride` apart; rows are whole
/// vectors. Or, for gradients, the way back, where `out` may be `in`.
struct WinogradWeight {
  const float* in;
  int64_t rows;
  float* out;
  int64_t stride;
};

/// target[p][target_offset + c] = bias[c] + the output transform, p = row * m + column, of values `stride`
/// apart. Those are there for whole vectors.
template <class S>
struct WinogradOutput {
  const float* in;
  int64_t stride, channels;
  const float* bias;  ///< [channels] or null
  S* const* target;   ///< [m^2]
  int64_t target_offset;
};

/// Winograd convolution of 3 x 3 taps in tiles of m x m outputs, in float32 between tensors of S.
template <class S>
struct WinogradKernels {
  int64_t m;
  void (*input)(const WinogradPixels<S>&);
  void (*pack)(const ConvPack<float, S>&);
  void (*weight)(const WinogradWeight&);
  void (*output)(const WinogradOutput<S>&);
};

/// Gradients of weights, in tiles of 4 x 4 outputs, beside the input transform of these.
template <class S>
struct WinogradGradKernels {
  void (*output)(const WinogradPixels<S>&);
  /// From (m + 2)^2 runs to [9][rows].
  void (*weight)(const WinogradWeight&);
  void (*unpack)(const ConvUnpack<S>&);
};

/// By m; larger tiles are for 16-bit floats alone, whose rounding hides their errors.
template <class S>
struct WinogradTable {
  WinogradKernels<S> two, four, six;
  WinogradGradKernels<S> grad;
};

struct WinogradTables {
  WinogradTable<float> f32;
  WinogradTable<BFloat16> bf16;
  WinogradTable<Float16> f16;
};

OPSIN_ISA_TABLE(WinogradTables, winograd_tables)

}  // namespace opsin::cpu
