// The contract of the pooling kernels.
#pragma once

#include <opsin/shape.h>

#include "core/kernel.h"
#include "cpu/pool.h"

namespace opsin {

using cpu::PoolPositions;

/// One pooling, the parameter of all its ops.
struct PoolParams {
  cpu::PoolGeometry geometry;
  Dims x_sizes, y_sizes;
  bool count_include_pad = true;
  int64_t divisor_override = 0;
  /// Tensors lie row by row, not channels last: on the CPU, where cpu::pools_planes() says so.
  bool row_major = false;
};

/// params, dtype, x, y, positions (either form, or none)
extern OPSIN_API KernelSlot<void (*)(const PoolParams&, DType, const void*, void*, PoolPositions)>
    max_pool_forward;
/// params, dtype, grad_y, positions, grad_x
extern OPSIN_API KernelSlot<void (*)(const PoolParams&, DType, const void*, PoolPositions, void*)>
    max_pool_backward;
/// params, dtype, x, positions, y
extern OPSIN_API KernelSlot<void (*)(const PoolParams&, DType, const void*, PoolPositions, void*)>
    max_pool_gather;
/// params, dtype, x, y
extern OPSIN_API KernelSlot<void (*)(const PoolParams&, DType, const void*, void*)> avg_pool_forward;
/// params, dtype, grad_y, grad_x
extern OPSIN_API KernelSlot<void (*)(const PoolParams&, DType, const void*, void*)> avg_pool_backward;

void register_pool_cpu();

}  // namespace opsin
