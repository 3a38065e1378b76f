// What kernels report: an index or a label out of range, a value that breaks a rule. The kernel skips or
// clamps the bad value and goes on; the host raises IndexError or Error at the next launch or wait after the
// report. The device stays usable.
//
//   OPSIN_LAUNCH(gather, grid, block, 0, params, "gather", device_error());
//   ...
//   if (index < 0 || index >= size) return report_index(error, op, index, 0, size);
#pragma once

#include <cstdint>

#include "cuda/device_report.h"
#include "cuda/launch.h"

namespace opsin::cuda {

/// A string literal of the host, of which only the address travels to a kernel and back. Kernels cannot make
/// one: their own literals lie in memory of the device, where the host would not find them.
class HostText {
 public:
  HostText(const char* text) : text_(text) {}
  __host__ __device__ const char* get() const { return text_; }

 private:
  const char* text_;
};

namespace detail {
/// Whether the caller may write the report; finish_report() ends it.
__device__ inline bool begin_report(DeviceError* error, HostText op) {
  if (atomicCAS(&error->claimed, 0, 1) != 0) return false;
  error->op = op.get();
  return true;
}
__device__ inline void finish_report(DeviceError* error) {
#if defined(__CUDA_ARCH__)
  __threadfence_system();
#else
  __threadfence();
#endif
  *static_cast<volatile int*>(&error->complete) = 1;
}
}  // namespace detail

/// Reports that `index` is not in [low, high).
__device__ inline void report_index(DeviceError* error, HostText op, int64_t index, int64_t low,
                                    int64_t high) {
  if (!detail::begin_report(error, op)) return;
  error->index = index;
  error->low = low;
  error->high = high;
  detail::finish_report(error);
}

/// Reports that `value` breaks `rule`, such as "expected probabilities in [0, 1]".
__device__ inline void report_value(DeviceError* error, HostText op, HostText rule, double value) {
  if (!detail::begin_report(error, op)) return;
  error->rule = rule.get();
  error->value = value;
  detail::finish_report(error);
}

}  // namespace opsin::cuda
