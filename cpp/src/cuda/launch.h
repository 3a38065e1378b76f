// How kernels are written and launched: the one header that every `.cu` file needs. Under nvcc kernels run on
// the GPU; a plain C++ compiler gets the emulator instead, which runs the same source on the CPU.
//
//   __global__ void scale(float* x, float factor, int64_t n) { ... }
//
//   OPSIN_LAUNCH(scale, grid_for(n, 256), 256, 0, x, 2.0f, n);
//
// A kernel with commas in its template arguments goes in parentheses: OPSIN_LAUNCH((fold<float, 4>), ...).
#pragma once

#include "cuda/current_stream.h"
#include "cuda/launch_check.h"

#if defined(__CUDACC__)
#include "cuda/nvidia/kernel.h"
#else
#include "cuda/emulated/kernel.h"
#endif

/// Launches `kernel` on the current stream of the active device: sizes of the grid and of a block, bytes of
/// dynamic shared memory, arguments. An empty grid does nothing; what the GPU refuses raises Error with the
/// name of the kernel. Kernels have OPSIN_SHARED(T, name) for the dynamic shared memory, aligned to 16 bytes,
/// OPSIN_UNROLL and OPSIN_NO_UNROLL before loops, and OPSIN_NOINLINE for functions that are called, not
/// inlined.
#define OPSIN_LAUNCH(kernel, grid, block, shared_bytes, ...) \
  ::opsin::cuda::launch(#kernel, kernel, grid, block, shared_bytes __VA_OPT__(, ) __VA_ARGS__)
