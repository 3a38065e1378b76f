// Boxes as kernels on a GPU read them: all columns of one together.
#pragma once

#include "overlap_pairs.h"

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin::cuda {

template <class T>
__global__ void __launch_bounds__(256)
    prepare_kernel(Overlap kind, int rank, int width, const T* coordinates, int64_t n, T* columns) {
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    boxes::prepare(kind, rank, coordinates + i * width, columns + i * kBoxColumns, 1);
  }
}

/// [n, kBoxColumns] of boxes [n, coordinates_of(kind, rank)].
template <class T>
Scratch<T> prepare_boxes(Overlap kind, int rank, const T* coordinates, int64_t n) {
  Scratch<T> columns(n * kBoxColumns);
  OPSIN_LAUNCH(prepare_kernel<T>, grid_for(n, 256), 256, 0, kind, rank, coordinates_of(kind, rank),
               coordinates, n, columns.data());
  return columns;
}

template <class T>
__device__ __forceinline__ void load_box(T (&to)[kBoxColumns], const T* columns, int64_t i) {
  OPSIN_UNROLL
  for (int c = 0; c < kBoxColumns; ++c) to[c] = columns[i * kBoxColumns + c];
}

}  // namespace opsin::cuda
