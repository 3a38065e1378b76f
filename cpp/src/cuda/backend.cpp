#include "cuda/backend.h"

#include <atomic>
#include <mutex>

#include <opsin/error.h>

#include "cuda/api.h"
#include "cuda/device_report.h"
#include "cuda/graph.h"
#include "cuda/pinned.h"
#include "cuda/stream.h"
#include "cuda/transpose.h"

namespace opsin::cuda {

namespace {

class RealMemory final : public DeviceMemory {
 public:
  explicit RealMemory(int device) : device_(device) {}

  void* allocate(size_t bytes) override {
    api::set_device(device_);
    return api::allocate(bytes);
  }
  // The driver knows the device by the address.
  void release(void* data) noexcept override { api::release(data); }
  void synchronize() override {
    api::set_device(device_);
    api::synchronize_device();
  }
  std::pair<size_t, size_t> info() override { return api::memory_info(device_); }
  Event record(Stream stream) override {
    api::set_device(device_);
    const Event event = api::create_event(false);
    api::record_event(event, stream);
    return event;
  }
  bool done(Event event) override { return api::query_event(event); }
  void wait(Event event) override { api::synchronize_event(event); }
  void drop(Event event) noexcept override { api::destroy_event(event); }

 private:
  int device_;
};

struct DeviceAllocator {
  explicit DeviceAllocator(int device)
      : memory(device), allocator(memory, "cuda:" + std::to_string(device)) {}
  RealMemory memory;
  Allocator allocator;
};

constinit std::atomic<DeviceAllocator*> allocators[kMaxCudaDevices] = {};

DeviceAllocator* make_allocator(int device) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  DeviceAllocator* known = allocators[device].load(std::memory_order_acquire);
  if (!known) {
    // Never destroyed: tensors may outlive the library's own objects.
    known = new DeviceAllocator(device);
    allocators[device].store(known, std::memory_order_release);
  }
  return known;
}

/// CUDA copies so many bytes from the host into the command itself.
constexpr size_t kInlineCopy = 64 << 10;

void raise_reports(int device) {
  if (__builtin_expect(has_device_error(device), 0)) raise_device_error(device);
}

class CudaBackend final : public Backend {
 public:
  int device_count(std::string& why_not) override { return api::device_count(why_not); }

  void* allocate(size_t bytes, Device device) override {
    return allocator(device.index).allocate(bytes, stream_of(device.index));
  }
  void deallocate(void* data, size_t, Device device) noexcept override {
    allocator(device.index).deallocate(data, stream_of(device.index));
  }

  void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes,
            bool non_blocking) override {
    if (bytes == 0) return;
    if (to_device.is_cpu()) return copy_to_host(to, from, from_device.index, bytes, non_blocking);
    if (from_device.is_cpu()) return copy_to_device(to, to_device.index, from, bytes, non_blocking);
    const api::Stream stream = stream_of(from_device.index);
    if (to_device == from_device) {
      api::set_device(to_device.index);
      return api::copy(to, from, bytes, api::Copy::kWithin, stream);
    }
    // In the order of both streams: the target may still be read there, and is ready for what comes next.
    const api::Stream other = stream_of(to_device.index);
    wait_for(from_device.index, stream, to_device.index, other);
    api::set_device(from_device.index);
    api::copy_peer(to, to_device.index, from, from_device.index, bytes, stream);
    wait_for(to_device.index, other, from_device.index, stream);
  }

  void fill_zero(void* data, size_t bytes, Device device) override {
    if (bytes == 0) return;
    api::set_device(device.index);
    api::fill(data, 0, bytes, stream_of(device.index));
  }

  void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols, size_t item_size,
                 Device device) override {
    active_device() = device.index;
    cuda::transpose(from, to, batch, rows, cols, item_size);
  }

  const DeviceProperties& properties(int device) override { return api::properties(device); }

  void synchronize(int device) override {
    check_not_capturing("synchronize");
    api::set_device(device);
    api::synchronize_device();
    raise_reports(device);
  }

  void* new_stream(int device, int& priority) override { return stream_from_pool(device, priority); }
  void* current_stream(int device) override { return stream_of(device); }
  void set_current_stream(int device, void* stream) override { set_stream_of(device, stream); }
  void synchronize_stream(int device, void* stream) override {
    cuda::synchronize(device, stream, "Stream.synchronize");
  }
  bool query_stream(int device, void* stream) override {
    check_not_capturing("Stream.query");
    api::set_device(device);
    return api::query_stream(stream);
  }
  void wait_event(int device, void* stream, void* event) override {
    api::set_device(device);
    api::wait_event(stream, event);
  }

  void* new_event(int device, bool timing) override {
    api::set_device(device);
    return api::create_event(timing);
  }
  void drop_event(int, void* event) noexcept override { api::destroy_event(event); }
  void record_event(int device, void* event, void* stream) override {
    api::set_device(device);
    api::record_event(event, stream);
  }
  void synchronize_event(int device, void* event) override {
    check_not_capturing("Event.synchronize");
    api::set_device(device);
    api::synchronize_event(event);
    raise_reports(device);
  }
  bool query_event(int device, void* event) override {
    check_not_capturing("Event.query");
    api::set_device(device);
    return api::query_event(event);
  }
  float elapsed_time(int device, void* start, void* end) override {
    api::set_device(device);
    return api::elapsed_time(start, end);
  }

  MemoryStats memory_stats(int device) override { return allocator(device).stats(); }
  void reset_peak_memory_stats(int device) override { allocator(device).reset_peaks(); }
  void reset_accumulated_memory_stats(int device) override { allocator(device).reset_accumulated(); }
  void empty_cache() override {
    check_not_capturing("empty_cache");
    for (auto& entry : allocators) {
      if (DeviceAllocator* known = entry.load(std::memory_order_acquire)) known->allocator.empty_cache();
    }
    empty_pinned_cache();
  }
  std::pair<size_t, size_t> memory_info(int device) override { return api::memory_info(device); }
  void set_memory_limit(int device, size_t bytes) override { allocator(device).set_limit(bytes); }
  void record_stream(const void* data, int device, void* stream) override {
    allocator(device).record_stream(data, stream);
  }

  void* allocate_pinned(size_t bytes) override { return cuda::allocate_pinned(bytes); }
  void deallocate_pinned(void* data) noexcept override { cuda::deallocate_pinned(data); }
  bool is_pinned(const void* data) override { return cuda::is_pinned(data); }

  size_t cudnn_version() override { return api::cudnn_version(); }

  std::unique_ptr<BackendGraph> new_graph() override { return cuda::new_graph(); }
  bool is_capturing() override { return is_capturing_here(); }
  PhiloxSeed capture_random(Generator& generator, uint64_t count) override {
    return cuda::capture_random(generator, count);
  }

 private:
  void copy_to_host(void* to, const void* from, int device, size_t bytes, bool non_blocking) {
    const api::Stream stream = stream_of(device);
    const bool pinned = non_blocking && cuda::is_pinned(to);
    if (!pinned) check_not_capturing("copy to the CPU");
    api::set_device(device);
    api::copy(to, from, bytes, api::Copy::kToHost, stream);
    if (pinned) {
      note_pinned_use(to, device, stream);
    } else {
      cuda::synchronize(device, stream, "copy to the CPU");
    }
  }

  void copy_to_device(void* to, int device, const void* from, size_t bytes, bool non_blocking) {
    const api::Stream stream = stream_of(device);
    const bool pinned = non_blocking && cuda::is_pinned(from);
    if (!pinned && is_capturing_here()) from = keep_for_replays(from, bytes);
    api::set_device(device);
    api::copy(to, from, bytes, api::Copy::kToDevice, stream);
    if (pinned) {
      note_pinned_use(from, device, stream);
    } else if (bytes > kInlineCopy && !is_capturing_here()) {
      cuda::synchronize(device, stream, "copy to the device");
    }
  }

  /// What `stream` gets from here on runs after what `other` holds now.
  void wait_for(int device, api::Stream stream, int other_device, api::Stream other) {
    api::set_device(other_device);
    const api::Event event = api::create_event(false);
    try {
      api::record_event(event, other);
      api::set_device(device);
      api::wait_event(stream, event);
    } catch (...) {
      api::destroy_event(event);
      throw;
    }
    // The wait itself keeps what it needs of the event.
    api::destroy_event(event);
  }
};

}  // namespace

Backend& backend() {
  static CudaBackend* const backend = new CudaBackend;
  return *backend;
}

Allocator& allocator(int device) {
  DeviceAllocator* known = allocators[device].load(std::memory_order_acquire);
  if (__builtin_expect(!known, 0)) known = make_allocator(device);
  return known->allocator;
}

}  // namespace opsin::cuda
