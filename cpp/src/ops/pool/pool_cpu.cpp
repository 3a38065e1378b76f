// Fills the CPU slots of pooling.
#include "pool_kernels.h"

namespace opsin {

void register_pool_cpu() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16, kUInt8, kInt8, kInt16, kInt32, kInt64}) {
    max_pool_forward.set(DeviceType::kCPU, dtype,
                         [](const PoolParams& p, DType type, const void* x, void* y, int64_t* indices) {
                           (p.adaptive ? cpu::adaptive_max_pool_forward : cpu::max_pool_forward)(
                               p.geometry, type, x, y, indices);
                         });
    if (!is_floating_point(dtype)) continue;
    max_pool_backward.set(
        DeviceType::kCPU, dtype,
        [](const PoolParams& p, DType type, const void* grad_y, const int64_t* indices, void* grad_x) {
          cpu::max_pool_backward(p.geometry, type, grad_y, indices, grad_x);
        });
    max_pool_gather.set(DeviceType::kCPU, dtype,
                        [](const PoolParams& p, DType type, const void* x, const int64_t* indices, void* y) {
                          cpu::max_pool_gather(p.geometry, type, x, indices, y);
                        });
    avg_pool_forward.set(
        DeviceType::kCPU, dtype, [](const PoolParams& p, DType type, const void* x, void* y) {
          if (p.adaptive) return cpu::adaptive_avg_pool_forward(p.geometry, type, x, y);
          cpu::avg_pool_forward(p.geometry, type, p.count_include_pad, p.divisor_override, x, y);
        });
    avg_pool_backward.set(
        DeviceType::kCPU, dtype, [](const PoolParams& p, DType type, const void* grad_y, void* grad_x) {
          if (p.adaptive) return cpu::adaptive_avg_pool_backward(p.geometry, type, grad_y, grad_x);
          cpu::avg_pool_backward(p.geometry, type, p.count_include_pad, p.divisor_override, grad_y, grad_x);
        });
  }
}

}  // namespace opsin
