// Fills the CPU slots of pooling.
#include "pool_kernels.h"

namespace opsin {

void register_pool_cpu() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16, kUInt8, kInt8, kInt16, kInt32, kInt64}) {
    max_pool_forward.set(
        DeviceType::kCPU, dtype,
        [](const PoolParams& p, DType type, const void* x, void* y, PoolPositions positions) {
          if (p.row_major) return cpu::max_pool_planes(p.geometry, x, y, positions);
          cpu::max_pool_forward(p.geometry, type, x, y, positions);
        });
    if (!is_floating_point(dtype)) continue;
    max_pool_backward.set(
        DeviceType::kCPU, dtype,
        [](const PoolParams& p, DType type, const void* grad_y, PoolPositions positions, void* grad_x) {
          if (p.row_major) return cpu::max_pool_planes_backward(p.geometry, grad_y, positions, grad_x);
          cpu::max_pool_backward(p.geometry, type, grad_y, positions, grad_x);
        });
    max_pool_gather.set(DeviceType::kCPU, dtype,
                        [](const PoolParams& p, DType type, const void* x, PoolPositions positions, void* y) {
                          if (p.row_major) return cpu::max_pool_planes_gather(p.geometry, x, positions, y);
                          cpu::max_pool_gather(p.geometry, type, x, positions, y);
                        });
    avg_pool_forward.set(
        DeviceType::kCPU, dtype, [](const PoolParams& p, DType type, const void* x, void* y) {
          if (p.row_major)
            return cpu::avg_pool_planes(p.geometry, p.count_include_pad, p.divisor_override, x, y);
          cpu::avg_pool_forward(p.geometry, type, p.count_include_pad, p.divisor_override, x, y);
        });
    avg_pool_backward.set(
        DeviceType::kCPU, dtype, [](const PoolParams& p, DType type, const void* grad_y, void* grad_x) {
          if (p.row_major)
            return cpu::avg_pool_planes_backward(p.geometry, p.count_include_pad, p.divisor_override, grad_y,
                                                 grad_x);
          cpu::avg_pool_backward(p.geometry, type, p.count_include_pad, p.divisor_override, grad_y, grad_x);
        });
  }
}

}  // namespace opsin
