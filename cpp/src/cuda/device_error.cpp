#include <atomic>
#include <cstring>
#include <mutex>

#include <opsin/device.h>
#include <opsin/error.h>

#include "core/backend.h"
#include "cuda/api.h"
#include "cuda/device_report.h"
#include "cuda/graph.h"

namespace opsin::cuda {

namespace {

constinit std::atomic<DeviceError*> records[kMaxCudaDevices] = {};

std::mutex& record_mutex() {
  static std::mutex* const mutex = new std::mutex;
  return *mutex;
}

DeviceError* make_record(int device) {
  const std::lock_guard lock(record_mutex());
  if (DeviceError* known = records[device].load(std::memory_order_acquire)) return known;
  auto* const record = static_cast<DeviceError*>(api::allocate_pinned(sizeof(DeviceError)));
  OPSIN_CHECK(OutOfMemoryError, record, "cuda: no page-locked memory left on this machine");
  std::memset(record, 0, sizeof *record);
  records[device].store(record, std::memory_order_release);
  return record;
}

bool is_complete(const DeviceError* record) {
  return *static_cast<const volatile int*>(&record->complete) != 0;
}

}  // namespace

DeviceError* device_error() {
  const int device = active_device();
  DeviceError* const record = records[device].load(std::memory_order_acquire);
  return record ? record : make_record(device);
}

bool has_device_error(int device) {
  const DeviceError* const record = records[device].load(std::memory_order_acquire);
  return record && is_complete(record);
}

void raise_device_error(int device) {
  const std::lock_guard lock(record_mutex());
  DeviceError* const record = records[device].load(std::memory_order_acquire);
  if (!record || !is_complete(record)) return;
  // The kernel may still be running, and must not report the same again.
  if (!is_capturing_here()) {
    api::set_device(device);
    api::synchronize_device();
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const DeviceError error = *record;
  std::memset(record, 0, sizeof *record);
  if (error.rule) opsin::detail::raise<Error>(error.op, ": ", error.rule, ", got ", error.value);
  opsin::detail::raise<IndexError>(error.op, ": index ", error.index, " is out of bounds, expected [",
                                   error.low, ", ", error.high, ")");
}

}  // namespace opsin::cuda
