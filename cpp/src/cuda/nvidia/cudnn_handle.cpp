#include "cuda/nvidia/cudnn_handle.h"

#include <array>
#include <mutex>

#include "core/backend.h"
#include "cuda/current_stream.h"

namespace opsin::cuda::cudnn {

namespace {

/// As many as an index of eight bits can name.
constexpr size_t kDevices = 128;

struct Entry {
  cudnnHandle_t handle = nullptr;
  void* stream = nullptr;
};

/// Handles of threads that ended, for those that start. Never destroyed: at the end of the process the driver
/// may be gone before them.
struct Pool {
  std::mutex mutex;
  std::array<std::vector<Entry>, kDevices> idle;
};
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

Entry take(int device) {
  {
    Pool& all = pool();
    const std::lock_guard lock(all.mutex);
    auto& idle = all.idle[static_cast<size_t>(device)];
    if (!idle.empty()) {
      const Entry entry = idle.back();
      idle.pop_back();
      return entry;
    }
  }
  check_version();
  Entry entry;
  check(cudnnCreate(&entry.handle), "cudnnCreate");
  return entry;
}

struct PerThread {
  std::array<Entry, kDevices> entries;
  ~PerThread() {
    Pool& all = pool();
    const std::lock_guard lock(all.mutex);
    for (size_t device = 0; device < entries.size(); ++device) {
      if (entries[device].handle) all.idle[device].push_back(entries[device]);
    }
  }
};

}  // namespace

cudnnHandle_t handle() {
  thread_local PerThread mine;
  before_launch();
  const int device = active_device();
  Entry& entry = mine.entries[static_cast<size_t>(device)];
  if (!entry.handle) entry = take(device);
  void* const stream = current_stream();
  if (entry.stream != stream) {
    check(cudnnSetStream(entry.handle, static_cast<cudaStream_t>(stream)), "cudnnSetStream");
    entry.stream = stream;
  }
  return entry.handle;
}

}  // namespace opsin::cuda::cudnn
