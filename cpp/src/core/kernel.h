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

class KernelSlotBase;

namespace detail {
/// The error for an empty slot; names the dtypes that have a kernel.
[[noreturn, gnu::cold]] OPSIN_API void raise_no_kernel(const char* op, Device device, DType dtype,
                                                       std::span<const bool, kNumDTypes> have);
/// Loads the plug-in of the device where it is not loaded yet, so that its slots are filled, and makes the
/// device the one that kernels of this thread run on.
OPSIN_API void activate(Device device);
/// The slots that were ever filled, newest first.
OPSIN_API KernelSlotBase*& first_slot();
}  // namespace detail

/// What all slots have in common, so that they can be listed.
class KernelSlotBase {
 public:
  using Has = bool (*)(const KernelSlotBase&, DeviceType, DType);

  const char* op;

  bool has(DeviceType device, DType dtype) const { return has_(*this, device, dtype); }
  const KernelSlotBase* next() const { return next_; }

 protected:
  constexpr KernelSlotBase(const char* op_, Has answer) : op(op_), has_(answer) {}
  void list() {
    if (listed_) return;
    listed_ = true;
    next_ = detail::first_slot();
    detail::first_slot() = this;
  }

 private:
  Has has_;
  KernelSlotBase* next_ = nullptr;
  bool listed_ = false;
};

/// `Fn` is a function pointer type, or a type that is as cheap and converts from and compares with nullptr.
/// Slots are constant-initialised globals: `constinit KernelSlot<Fn> s{"conv"}`; those that a plug-in fills
/// are OPSIN_API. Filled by register functions only, which never run at the same time.
template <class Fn>
class KernelSlot : public KernelSlotBase {
 public:
  constexpr explicit KernelSlot(const char* op_) : KernelSlotBase(op_, &has_kernel) {}

  void set(DeviceType device, DType dtype, Fn fn) {
    table_[static_cast<int>(device)][static_cast<int>(dtype)] = fn;
    list();
  }

  /// The kernel; for a GPU also makes `device` the active one of this thread.
  Fn get(Device device, DType dtype) const {
    if (__builtin_expect(!device.is_cpu(), 0)) detail::activate(device);
    const Fn& fn = table_[static_cast<int>(device.type)][static_cast<int>(dtype)];
    if (__builtin_expect(fn == nullptr, 0)) {
      ensure_ops_registered();
      if (fn == nullptr) raise_missing(device, dtype);
    }
    return fn;
  }

 private:
  static bool has_kernel(const KernelSlotBase& slot, DeviceType device, DType dtype) {
    const auto& table = static_cast<const KernelSlot&>(slot).table_;
    return table[static_cast<int>(device)][static_cast<int>(dtype)] != nullptr;
  }

  [[noreturn, gnu::cold]] void raise_missing(Device device, DType dtype) const {
    bool have[kNumDTypes];
    for (int i = 0; i < kNumDTypes; ++i) have[i] = has(device.type, static_cast<DType>(i));
    detail::raise_no_kernel(op, device, dtype, have);
  }

  Fn table_[kNumDeviceTypes][kNumDTypes] = {};
};

}  // namespace opsin
