// The contract between the blocking of convolution (cpu/conv*.cpp, compiled once) and its kernels
// (conv*_isa.cpp, compiled once per instruction set, conv_avx512_bf16.cpp and conv_amx_bf16.cpp). Plain data
// and function pointers only. S is the storage type, sums are Compute<S>. Sizes and strides count elements.
//
// A kernel for S multiplies `step` channels (or pixels, for a gradient of weights) at a time, adjacent in
// memory: 1, or 2 for bfloat16. Tiles of bfloat16 multiply `pixel_step` = 32 pixels at a time, which lie side
// by side in the source. A packed weight chunk is [taps][channels / step][width][step] with width = one or
// two vectors of output channels.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"
#include "cpu/half.h"

namespace opsin::cpu {

/// What becomes of the sums where there are numbers, as the batch norm after the convolution would do it:
/// (sum - numbers[0][j]) * numbers[1][j] + numbers[2][j], + residual unless null, then kept in [0, ceiling]
/// if that is not 0. S is the type of computation.
template <class S>
struct ConvAfterSums {
  const Compute<S>* numbers;  ///< [3][stride] or null
  int64_t stride;
  const S *residual, *target;  ///< of one geometry: the residual of an element lies as far from the start
  Compute<S> ceiling;

  /// The same from another column on.
  ConvAfterSums from(int64_t column) const {
    return {numbers == nullptr ? nullptr : numbers + column, stride, residual, target, ceiling};
  }
};

/// target[p][j] (+)= bias[j] + sum over t, c of source(t, p)[source_offset + c] * weight[t][c][j], j <
/// columns. `accumulate` only where S is the type of computation.
template <class S>
struct ConvTiles {
  const S* const* source;  ///< [ceil(pixels / rows)][taps][rows]
  S* const* target;        ///< [pixels]
  int64_t target_offset;
  const S* weight;         ///< [taps][channels / step][width][step]
  const Compute<S>* bias;  ///< [columns] or null
  int64_t source_offset;
  int64_t taps, channels, pixels, columns;
  bool accumulate;
  bool continues;  ///< sums start from the target, whose vectors are whole; S is the type of computation
  /// What will be read next, contiguous: a cache line is fetched per step of the first tap, from a place per
  /// tile that lies `ahead_pixel` after that of the pixel before; where that is 0, one line again and again.
  const S* ahead;
  int64_t ahead_pixel;
  bool stream;  ///< writes past the caches; pairs of vectors are whole and their addresses multiples of 64
  ConvAfterSums<S> after;
};

/// One packed chunk: out[slot[t]][c / step][lane][c % step] = in[lane * lane_stride + c * channel_stride +
/// t], zeros in the other lanes.
template <class S, class From = S>
struct ConvPack {
  const From* in;
  int64_t lane_stride, channel_stride;
  int64_t lanes, channels, taps;
  const int64_t* slot;  ///< [taps]
  S* out;
  int64_t width;
};

/// The way back: out[lane * lane_stride + c * taps + t] (+)= sum over s of in[s * split_stride + (t *
/// channels + c) * width + lane].
template <class S>
struct ConvUnpack {
  const Compute<S>* in;
  int64_t splits, split_stride;
  int64_t lanes, channels, taps, width;
  S* out;
  int64_t lane_stride;
  bool accumulate;
  bool stream;  ///< past the caches, where lines are whole
};

/// out[c][j] (+)= sum over p of source[p][c] * grad[p][j], j < width. Pixels that do not fill a pixel_step
/// are zeros, in both.
template <class S>
struct ConvOuter {
  const S* source;  ///< [ceil(pixels / pixel_step)][source_stride][pixel_step]
  int64_t source_stride;
  const S* grad;        ///< [ceil(pixels / step)][width][step]
  int64_t grad_stride;  ///< from step to step, at least width * step; tiles of bfloat16 take it for that
  Compute<S>* out;      ///< [channels][out_stride]
  int64_t out_stride;
  int64_t channels, pixels, width;
  bool accumulate;
  /// What will be read next: every `fetch_pixels` of a tile, a cache line is fetched and `ahead_stride`
  /// added; the next tile goes on from there.
  const S* ahead;
  int64_t ahead_stride;
};

/// Some channels of scattered pixels; what a function makes of it is said there.
template <class S>
struct ConvGather {
  const S* const* source;  ///< [pixels]
  int64_t source_offset, pixels, channels;
  S* out;
  int64_t out_stride;  ///< of pixels
};

/// Rows cut into panels of `width` columns, or of half of it for a last one that fills no more: panel i, at
/// i * panel, has out[r / step][j][r % step] = in[r * stride + i * width + j], zeros beyond the columns and
/// up to a whole pixel_step of rows.
template <class S>
struct ConvPanels {
  const S* in;
  int64_t stride, rows, columns;
  S* out;
  int64_t width, panel;
};

/// out[j] (+)= sum over r of in[r * stride + j], j < columns.
template <class S>
struct ConvSum {
  const S* in;
  int64_t stride, rows, columns;
  Compute<S>* out;
  bool accumulate;
};

/// A row of a depthwise or grouped convolution: target[p][c] = bias[c] + sum over rows r, taps t and members
/// j of the group of c: rows[r].source[i][j] * rows[r].weight[t][j][c], for outputs p in [begin, end) and
/// pixels i = p * step + first + t * spacing in [0, size).
template <class S>
struct ConvDepthwise {
  struct Row {
    const S* source;           ///< [size][channels], pixels `source_step` apart
    const Compute<S>* weight;  ///< [taps][group][channels]
  };
  const Row* rows;
  int64_t row_count, size;
  int64_t taps, step, first, spacing;
  int64_t source_step;
  S* target;
  int64_t target_step;  ///< from output to output
  int64_t begin, end;
  const Compute<S>* bias;  ///< or null
  int64_t channels, group;
  /// Rows behind the last that will be read next, `row_elements` apart: fetched meanwhile. None where they
  /// are in a cache: then to fetch them costs time.
  int64_t ahead_rows, row_elements;
  /// Only with three taps that are neighbours, at most three rows of them and channels that fill a vector; no
  /// residual.
  ConvAfterSums<S> after;
};

/// out[r][t][j][c] += sum over output rows y and p in [begin, end) of grad(y)[p][c] times member j of the
/// group of c in source(y, r)[i], where pixel i = p * step + first + t * spacing is in [0, size). In groups
/// of 1, a tap has `sum_step` sums: vectors of channels, the last of them of the last channels.
template <class S>
struct ConvDepthwiseOuter {
  const S* const* source;  ///< [output_rows][kernel_rows], each [size][channels] or null
  const S* const* grad;    ///< [output_rows], each [end][channels]
  int64_t pixel_step;      ///< from pixel to pixel of both
  int64_t output_rows, kernel_rows, row_taps, size;
  int64_t step, first, spacing;
  int64_t begin, end;
  Compute<S>* out;  ///< [kernel_rows][row_taps][group][channels]
  int64_t channels, group, sum_step;
  /// Of outer_rows: where not null, the sums of grad are added here, as those of a tap; and whether what the
  /// next row reads is fetched, see ConvDepthwise.
  Compute<S>* grad_sum;
  bool ahead;
};

template <class S>
struct ConvKernels {
  int64_t lanes;  ///< elements of a vector of sums
  int64_t rows;   ///< pixels of a register tile
  int64_t step;   ///< elements of a product
  int64_t pixel_step;
  int64_t fetch_pixels;  ///< of ConvOuter, per line that is fetched
  void (*tiles)(const ConvTiles<S>&);
  /// The same of 1 to 4 columns, with weights [taps][columns][channels], channels that fill vectors of `step`
  /// times the lanes, not accumulating. Null where tiles() is as fast.
  void (*thin)(const ConvTiles<S>&);
  void (*pack)(const ConvPack<S>&);
  void (*unpack)(const ConvUnpack<S>&);
  /// out[p][c] = source[p][source_offset + c], c < channels.
  void (*gather)(const ConvGather<S>&);
  /// out[p / pixel_step][c][p % pixel_step] = the same, with out_stride = channels.
  void (*gather_steps)(const ConvGather<S>&);
  void (*outer)(const ConvOuter<S>&);
  void (*panels)(const ConvPanels<S>&);
  void (*sum_rows)(const ConvSum<S>&);
};

/// Depthwise and narrow convolution: 16-bit floats are converted in registers.
template <class S>
struct ConvDepthwiseKernels {
  int64_t lanes;
  void (*row)(const ConvDepthwise<S>&);
  void (*outer)(const ConvDepthwiseOuter<S>&);  ///< groups of 1
  /// The same, pixels in the order of memory: of 3, 5 or with step 1 also 7 taps that are neighbours, of
  /// channels that fill a vector and step 1 or 2. Null where sums are not float32.
  void (*outer_rows)(const ConvDepthwiseOuter<S>&);
  void (*narrow)(const ConvDepthwiseOuter<S>&);  ///< larger groups, see sums_narrow()
  void (*sum_rows)(const ConvSum<S>&);
};

/// Between a 16-bit storage type and float32.
struct ConvConvert {
  void (*widen)(const void* in, void* out, int64_t count);
  void (*narrow)(const void* in, void* out, int64_t count);
};

struct ConvTable {
  ConvKernels<float> f32;
  ConvKernels<double> f64;
  ConvConvert f16, bf16;
};

struct ConvDepthwiseTable {
  ConvDepthwiseKernels<float> f32;
  ConvDepthwiseKernels<double> f64;
  ConvDepthwiseKernels<BFloat16> bf16;
  ConvDepthwiseKernels<Float16> f16;
};

OPSIN_ISA_TABLE(ConvTable, conv_table)
OPSIN_ISA_TABLE(ConvDepthwiseTable, conv_depthwise_table)

#if defined(__x86_64__)
namespace avx512_bf16 {
const ConvKernels<BFloat16>& conv_kernels();
/// ConvDepthwiseKernels::row.
void conv_depthwise_row(const ConvDepthwise<BFloat16>& a);
}  // namespace avx512_bf16
namespace amx_bf16 {
const ConvKernels<BFloat16>& conv_kernels();
}
#endif

}  // namespace opsin::cpu
