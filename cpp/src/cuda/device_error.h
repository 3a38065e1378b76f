// What kernels report: an index or a label out of range. The kernel skips or clamps the bad value and goes
// on; the host raises IndexError at the next launch or wait after the report. The device stays usable.
//
//   OPSIN_LAUNCH(gather, grid, block, 0, params, device_error());
//   ...
//   if (index < 0 || index >= size) return report_index(error, "gather", index, 0, size);
#pragma once

#include <cstdint>

#include "cuda/device_report.h"
#include "cuda/launch.h"

namespace opsin::cuda {

/// Reports that `index` is not in [low, high). `op` is a string that the host gave to the kernel.
__device__ inline void report_index(DeviceError* error, const char* op, int64_t index, int64_t low,
                                    int64_t high) {
  if (atomicCAS(&error->claimed, 0, 1) != 0) return;
  error->op = op;
  error->index = index;
  error->low = low;
  error->high = high;
#if defined(__CUDA_ARCH__)
  __threadfence_system();
#else
  __threadfence();
#endif
  *static_cast<volatile int*>(&error->complete) = 1;
}

}  // namespace opsin::cuda
