// Device memory for the length of one call.
#pragma once

#include <opsin/tensor.h>

#include "core/backend.h"

namespace opsin::cuda {

/// Scratch memory on the active device for what is launched on the current stream while it lives. The caching
/// allocator hands out memory in stream order, so it may die right after the last launch.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) {
    if (bytes > 0) {
      memory_ = empty({bytes}, kUInt8, {DeviceType::kCUDA, static_cast<int8_t>(active_device())});
    }
  }
  /// Null for a size of 0.
  void* get() const { return memory_.defined() ? memory_.impl()->mutable_physical_data() : nullptr; }

 private:
  Tensor memory_;
};

}  // namespace opsin::cuda
