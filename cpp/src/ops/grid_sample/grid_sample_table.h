// What the sampling loops get: plain numbers and pointers, see cpu/dispatch.h.
#pragma once

#include "grid_taps.h"

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// Points [begin, end) of one image and channels [c0, c1) of it. Steps are in elements.
struct GridCall {
  grid::Mode mode;
  grid::Padding padding;
  bool align_corners;
  int rank;
  int order[3];
  int size[3];
  int64_t begin, end, c0, c1;
  int64_t pixel_step, channel_step;  ///< Of the image.
  int64_t point_step, value_step;    ///< Of the values: from point to point, from channel to channel.
  const void* grid;                  ///< [points, rank]
  const void* image;
  const void* values;
  void* out;
};

struct GridTable {
  using Run = void (*)(const GridCall&);
  struct Kernels {
    Run forward, scatter, slopes;
  };
  Kernels f32, f64, f16, bf16;
};
OPSIN_ISA_TABLE(GridTable, grid_table)

}  // namespace opsin::cpu
