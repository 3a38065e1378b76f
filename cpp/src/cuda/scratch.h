// Memory that kernels of one op hand to each other.
#pragma once

#include <cstdint>

#include <opsin/tensor.h>

#include "core/backend.h"

namespace opsin::cuda {

/// The device that this thread's kernels run on.
inline Device kernel_device() { return {DeviceType::kCUDA, static_cast<std::int8_t>(active_device())}; }

/// `count` elements, not initialised, on the active device. Destroyed when its last launch is enqueued: what
/// is freed on a stream stays valid for the work before it.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(std::int64_t count)
      : storage_(Storage::allocate(static_cast<size_t>(count) * sizeof(T), kernel_device())) {}

  /// Null for one that was not given a count.
  T* data() const { return storage_ ? static_cast<T*>(storage_->data) : nullptr; }

 private:
  Ref<Storage> storage_;
};

/// Clears `bytes` of memory of the active device.
inline void clear(void* data, std::int64_t bytes) {
  opsin::backend(kernel_device()).fill_zero(data, static_cast<size_t>(bytes), kernel_device());
}

}  // namespace opsin::cuda
