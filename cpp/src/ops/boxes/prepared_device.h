// Boxes as kernels on a GPU read them: all columns of one together.
#pragma once

#include "overlap_pairs.h"

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin::cuda {

/// [n, kBoxColumns] of boxes [n, coordinates_of(kind, rank)], both on the device; float and double.
template <class T>
Scratch<T> prepare_boxes(Overlap kind, int rank, const T* coordinates, int64_t n);

extern template Scratch<float> prepare_boxes(Overlap, int, const float*, int64_t);
extern template Scratch<double> prepare_boxes(Overlap, int, const double*, int64_t);

template <class T>
__device__ __forceinline__ void load_box(T (&to)[kBoxColumns], const T* columns, int64_t i) {
  OPSIN_UNROLL
  for (int c = 0; c < kBoxColumns; ++c) to[c] = columns[i * kBoxColumns + c];
}

}  // namespace opsin::cuda
