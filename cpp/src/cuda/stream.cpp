#include "cuda/stream.h"

#include <algorithm>
#include <mutex>

#include <opsin/error.h>

#include "core/backend.h"
#include "cuda/device_report.h"
#include "cuda/graph.h"

namespace opsin::cuda {

namespace {

constexpr int kStreams = 32;
/// Priorities 0 to -5, as many as CUDA has on any device.
constexpr int kPriorities = 6;

constinit thread_local api::Stream streams[kMaxCudaDevices] = {};

struct StreamPool {
  api::Stream streams[kPriorities][kStreams] = {};
  unsigned next[kPriorities] = {};
};

}  // namespace

api::Stream stream_of(int device) { return streams[device]; }
void set_stream_of(int device, api::Stream stream) { streams[device] = stream; }

void* current_stream() { return streams[active_device()]; }

void before_launch() {
  const int device = active_device();
  api::set_device(device);
  if (__builtin_expect(has_device_error(device), 0)) raise_device_error(device);
}

api::Stream stream_from_pool(int device, int& priority) {
  static std::mutex mutex;
  static StreamPool* const pools = new StreamPool[kMaxCudaDevices];
  api::set_device(device);
  int greatest = 0, least = 0;
  api::priority_range(greatest, least);
  priority = std::clamp(priority, std::max(greatest, 1 - kPriorities), least);
  const std::lock_guard lock(mutex);
  StreamPool& pool = pools[device];
  api::Stream& stream = pool.streams[-priority][pool.next[-priority]++ % kStreams];
  if (!stream) stream = api::create_stream(priority);
  return stream;
}

void synchronize(int device, api::Stream stream, const char* op) {
  check_not_capturing(op);
  api::set_device(device);
  api::synchronize_stream(stream);
  if (__builtin_expect(has_device_error(device), 0)) raise_device_error(device);
}

}  // namespace opsin::cuda
