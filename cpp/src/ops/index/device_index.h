// What the kernels of this folder share.
#pragma once

#include "index_kernels.h"

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/device_error.h"

namespace opsin {

/// Checks and wraps the indices that a kernel reads.
struct IndexCheck {
  cuda::DeviceError* error;
  cuda::HostText op;
  int64_t low, size;

  explicit IndexCheck(const RowGeometry& g)
      : error(g.op ? cuda::device_error() : nullptr), op(g.op), low(g.wraps ? -g.size : 0), size(g.size) {}

  /// The index in [0, size); -1 after it was reported.
  __device__ int64_t operator()(int64_t index) const {
    if (op.get() && (index < low || index >= size)) {
      cuda::report_index(error, op, index, low, size);
      return -1;
    }
    return index < 0 ? index + size : index;
  }
};

}  // namespace opsin
