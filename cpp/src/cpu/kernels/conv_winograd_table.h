// The transforms of Winograd convolution, cpu/conv_winograd.cpp, for each instruction set.
#pragma once

#include "conv_table.h"

namespace opsin::cpu {

/// The input transform of one tile of (m + 2)^2 pixels, element e = row * (m + 2) + column of which goes to
/// out[e * stride], with `channels` adjacent values, filled up with zeros to whole vectors.
template <class S>
struct WinogradInput {
  const S* const* source;  ///< [(m + 2)^2], each of `channels` values
  int64_t channels;
  float* out;
  int64_t stride;
};

/// The weight transform of [9][rows] to [(m + 2)^2] runs of `rows` values, `stride` apart; rows are whole
/// vectors.
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
  void (*input)(const WinogradInput<S>&);
  void (*pack)(const ConvPack<float, S>&);
  void (*weight)(const WinogradWeight&);
  void (*output)(const WinogradOutput<S>&);
};

/// By m; larger tiles are for 16-bit floats alone, whose rounding hides their errors.
template <class S>
struct WinogradTable {
  WinogradKernels<S> two, four, six;
};

struct WinogradTables {
  WinogradTable<float> f32;
  WinogradTable<BFloat16> bf16;
  WinogradTable<Float16> f16;
};

OPSIN_ISA_TABLE(WinogradTables, winograd_tables)

}  // namespace opsin::cpu
