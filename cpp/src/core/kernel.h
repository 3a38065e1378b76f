// Kernel slots: one function pointer for each device and dtype of an op. No stub backends: an empty slot
// raises.
#pragma once

#include <span>

#include <opsin/device.h>
#include <opsin/dtype.h>
#include <opsin/error.h>

namespace opsin {

/// Fills all slots and schemas, once; cheap afterwards.
OPSIN_API void ensure_ops_registered();

namespace detail {
/// The error for an empty slot; names the dtypes that have a kernel.
[[noreturn, gnu::cold]] OPSIN_API void raise_no_kernel(const char* op, Device device, DType dtype,
                                                       std::span<const bool, kNumDTypes> have);
}  // namespace detail

/// `Fn` is a function pointer type. Slots are constant-initialised globals: `constinit KernelSlot<Fn>
/// s{"conv"}`.
template <class Fn>
struct KernelSlot {
  const char* op;
  Fn table[kNumDeviceTypes][kNumDTypes] = {};

  void set(DeviceType device, DType dtype, Fn fn) {
    table[static_cast<int>(device)][static_cast<int>(dtype)] = fn;
  }

  Fn get(Device device, DType dtype) const {
    const Fn& fn = table[static_cast<int>(device.type)][static_cast<int>(dtype)];
    if (__builtin_expect(fn == nullptr, 0)) {
      ensure_ops_registered();
      if (!fn) raise_missing(device, dtype);
    }
    return fn;
  }

 private:
  [[noreturn, gnu::cold]] void raise_missing(Device device, DType dtype) const {
    bool have[kNumDTypes];
    for (int i = 0; i < kNumDTypes; ++i) have[i] = table[static_cast<int>(device.type)][i] != nullptr;
    detail::raise_no_kernel(op, device, dtype, have);
  }
};

}  // namespace opsin
