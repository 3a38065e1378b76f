// The contract between the blocking of convolution (cpu/conv*.cpp, compiled once) and its kernels
// (conv_isa*.cpp, compiled once per instruction set). Plain data and function pointers only. Sizes and
// strides count elements. A packed weight chunk is [taps][channels][width] with width = one or two vectors of
// output channels.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// target[p][j] (+)= bias[j] + sum over t, c of source(t, p)[source_offset + c] * weight[t][c][j], j <
/// columns.
template <class T>
struct ConvTiles {
  const T* const* source;  ///< [ceil(pixels / rows)][taps][rows]
  T* const* target;        ///< [pixels]
  int64_t target_offset;
  const T* weight;  ///< [taps][channels][width]
  const T* bias;    ///< [columns] or null
  int64_t source_offset;
  int64_t taps, channels, pixels, columns;
  bool accumulate;
};

/// One packed chunk: out[slot[t]][c][lane] = in[lane * lane_stride + c * channel_stride + t], zeros in the
/// other lanes.
template <class T>
struct ConvPack {
  const T* in;
  int64_t lane_stride, channel_stride;
  int64_t lanes, channels, taps;
  const int64_t* slot;  ///< [taps]
  T* out;
  int64_t width;
};

/// The way back: out[lane * lane_stride + c * taps + t] (+)= sum over s of in[s * split_stride + (t *
/// channels + c) * width + lane].
template <class T>
struct ConvUnpack {
  const T* in;
  int64_t splits, split_stride;
  int64_t lanes, channels, taps, width;
  T* out;
  int64_t lane_stride;
  bool accumulate;
};

/// out[c][j] (+)= sum over p of source[p][c] * grad[p][j], j < width.
template <class T>
struct ConvOuter {
  const T* source;  ///< [pixels][source_stride]
  int64_t source_stride;
  const T* grad;  ///< [pixels][width]
  T* out;         ///< [channels][width]
  int64_t channels, pixels, width;
  bool accumulate;
};

/// out[p][c] = source[p][source_offset + c], c < channels.
template <class T>
struct ConvGather {
  const T* const* source;  ///< [pixels]
  int64_t source_offset, pixels, channels;
  T* out;
};

/// A rectangle of rows; what a function makes of it is said there.
template <class T>
struct ConvRows {
  const T* in;
  int64_t stride, rows, columns;
  T* out;
  int64_t width;
  bool accumulate;
};

/// target[p][c] = bias[c] + sum over t of source(t, p)[c] * weight[t][c]. Channels start at `offset`
/// everywhere.
template <class T>
struct ConvDepthwise {
  const T* const* source;  ///< [ceil(pixels / rows)][taps][rows]
  T* const* target;        ///< [pixels]
  const T* weight;         ///< [taps][group][weight_stride]
  int64_t weight_stride, group;
  const T* bias;  ///< or null
  int64_t offset, taps, channels, pixels;
};

/// out[t][c] (+)= sum over p of source(t, p)[c] * grad[p][c]. Channels start at `offset` everywhere.
template <class T>
struct ConvDepthwiseOuter {
  const T* const* source;  ///< [taps][pixels]
  const T* grad;           ///< [pixels][grad_stride]
  int64_t grad_stride;
  T* out;  ///< [taps][out_stride]
  int64_t out_stride;
  int64_t offset, taps, channels, pixels;
  bool accumulate;
};

template <class T>
struct ConvKernels {
  int64_t lanes;  ///< elements of a vector
  int64_t rows;   ///< pixels of a register tile
  void (*tiles)(const ConvTiles<T>&);
  void (*pack)(const ConvPack<T>&);
  void (*unpack)(const ConvUnpack<T>&);
  void (*gather)(const ConvGather<T>&);
  void (*outer)(const ConvOuter<T>&);
  /// out[r][j] = in[r * stride + j] for j < columns, 0 for j < width.
  void (*copy_rows)(const ConvRows<T>&);
  /// out[j] (+)= sum over r of in[r * stride + j], j < columns.
  void (*sum_rows)(const ConvRows<T>&);
  void (*depthwise)(const ConvDepthwise<T>&);
  void (*grouped)(const ConvDepthwise<T>&);
  void (*depthwise_outer)(const ConvDepthwiseOuter<T>&);
};

struct ConvConvert {
  void (*widen)(const void* in, float* out, int64_t count);
  void (*narrow)(const float* in, void* out, int64_t count);
};

struct ConvTable {
  const ConvKernels<float>* f32;
  const ConvKernels<double>* f64;
  ConvConvert f16, bf16;
};

OPSIN_ISA_TABLE(ConvTable, conv_table)

}  // namespace opsin::cpu
