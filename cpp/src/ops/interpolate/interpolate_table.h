// What the resampling loops get: plain numbers and pointers, see cpu/dispatch.h.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// Row o of a table: y[o] = sum over k < count[o] of weights[o * most + k] * x[first[o] + k].
struct ResampleAxis {
  int64_t in, out, most;
  const int64_t* first;
  const int64_t* count;
  const void* weights;  ///< Of the type of computation.
};

constexpr int kMostAtOnce = 8;

/// Rows of pixels along the last of three axes, each pixel `inner` elements.
struct ResampleRows {
  ResampleAxis axis[3];
  int64_t inner;
  const void* x;
  void* y;
  /// Instead of axis[2], for pixels of few elements: element j of a row is the sum over k < axis[2].most of
  /// weights[k * n + j] * row[places[k * n + j]]. The row is followed by a zero, which places without a tap
  /// name.
  const int32_t* places;
  const void* weights;
  /// Pixels [apart_begin, apart_end) of one element are windows of axis[2].most neighbours, each two further
  /// than the one before.
  int64_t apart_begin, apart_end;
  bool at_once;  ///< All taps of a pixel, at most kMostAtOnce, in one step.
};

/// Which rows [begin, end), numbered over the outer images and the first two axes, and elements [c0, c1) of
/// each pixel.
struct ResamplePart {
  int64_t begin, end, c0, c1;
  void* buffer;  ///< A row of axis[2].in pixels of c1 - c0 elements, and one more.
};

struct ResampleTable {
  using Run = void (*)(const ResampleRows&, const ResamplePart&);
  Run f32, f64, f16, bf16;
};
OPSIN_ISA_TABLE(ResampleTable, resample_table)

}  // namespace opsin::cpu
