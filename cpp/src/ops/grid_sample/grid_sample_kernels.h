// The contract of sampling at the points of a grid.
#pragma once

#include "grid_taps.h"

#include "core/kernel.h"

namespace opsin {

/// What is sampled. There are always three axes; with two, the first has size 1 and no coordinate.
struct GridSampling {
  grid::Mode mode = grid::Mode::kLinear;
  grid::Padding padding = grid::Padding::kZeros;
  bool align_corners = false;
  int rank = 2;
  /// How often the result is differentiated with respect to the coordinate of each axis.
  int order[3] = {0, 0, 0};
};

/// One call over dense memory: images [N, C, spatial...] of `size`, values at `points` points [N, C, points],
/// both row-major or both channels last, and a grid [N, points, rank] of coordinates, the last axis first.
struct GridParams : GridSampling {
  DType dtype = kFloat32;
  int64_t batch = 0, channels = 0, points = 0;
  int64_t size[3] = {1, 1, 1};
  bool channels_last = false;
  const void* grid = nullptr;
  const void* image = nullptr;   ///< x
  const void* values = nullptr;  ///< grad_y
  void* out = nullptr;

  int64_t pixels() const { return size[0] * size[1] * size[2]; }
};
using GridFn = void (*)(const GridParams&);

/// image, grid -> out [N, C, points]
extern OPSIN_API KernelSlot<GridFn> grid_sample_forward;
/// values, grid -> out like images, of the type of computation: each pixel the sum of what reads it. The
/// transposed step of the forward one.
extern OPSIN_API KernelSlot<GridFn> grid_sample_scatter;
/// values, image, grid -> out [N, points, rank]: the sum over channels of values times the sample, once more
/// differentiated with respect to each coordinate.
extern OPSIN_API KernelSlot<GridFn> grid_sample_slopes;

void register_grid_sample_cpu();

}  // namespace opsin
