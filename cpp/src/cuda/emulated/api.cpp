// CUDA's runtime where there is none: device memory comes from malloc, streams run at once, and a capture
// keeps what it was asked to do.
#include "cuda/api.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <opsin/error.h>

#include "cuda/emulated/kernel.h"

namespace opsin::cuda::api {

namespace {

// Two, so that what goes wrong between devices can be tested.
constexpr int kDevices = 2;

struct Stream_ {
  int priority;
};

struct Event_ {
  bool timing;
  bool recorded = false;
  std::chrono::steady_clock::time_point time{};
};

thread_local int current = 0;

/// What lies on the devices and in pinned memory.
struct Memory {
  std::mutex mutex;
  std::map<const char*, size_t, std::greater<>> pinned;
  std::map<void*, std::pair<int, size_t>> blocks;
  size_t used[kDevices] = {};
};
Memory& memory() {
  static Memory* const memory = new Memory;
  return *memory;
}

/// Bytes of each device: OPSIN_CUDA_EMULATED_MEMORY, for tests of what happens when they run out.
size_t capacity() {
  const char* text = std::getenv("OPSIN_CUDA_EMULATED_MEMORY");
  return text && *text ? std::strtoull(text, nullptr, 10) : size_t{16} << 30;
}

/// Runs `step`, or keeps it for later where this thread captures.
template <class Step>
void enqueue(Step step) {
  if (emulated::Recorder* recorder = emulated::recorder()) {
    recorder->steps.emplace_back(step);
  } else {
    step();
  }
}

void check_not_capturing(const char* what) {
  OPSIN_CHECK(Error, !emulated::recorder(), what,
              ": operation not permitted when stream is capturing (it waits for the device)");
}

}  // namespace

int device_count(std::string&) noexcept { return kDevices; }

void set_device(int device) { current = device; }

const DeviceProperties& properties(int) {
  static const DeviceProperties* const properties = [] {
    auto* p = new DeviceProperties;
    p->name = "Opsin's emulated GPU";
    p->major = 9;
    p->total_memory = capacity();
    p->multi_processor_count = 2;
    p->max_threads_per_multi_processor = 2048;
    p->regs_per_multiprocessor = 65536;
    p->shared_memory_per_block = 48 << 10;
    p->shared_memory_per_block_optin = 227 << 10;
    p->shared_memory_per_multiprocessor = 228 << 10;
    p->l2_cache_size = 1 << 20;
    p->uuid = "00000000-0000-0000-0000-000000000000";
    return p;
  }();
  return *properties;
}

size_t cudnn_version() { return 0; }

std::pair<size_t, size_t> memory_info(int device) {
  const size_t total = capacity();
  const std::lock_guard lock(memory().mutex);
  return {total - std::min(total, memory().used[device]), total};
}

void* allocate(size_t bytes) {
  Memory& all = memory();
  const std::lock_guard lock(all.mutex);
  const size_t total = capacity(), used = all.used[current];
  if (used > total || bytes > total - used) return nullptr;
  void* const data = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (!data) return nullptr;
  // What is read before it was written shows: NaN, and indices out of range.
  std::memset(data, 0xff, bytes);
  all.blocks[data] = {current, bytes};
  all.used[current] += bytes;
  return data;
}

void release(void* data) noexcept {
  Memory& all = memory();
  const std::lock_guard lock(all.mutex);
  const auto block = all.blocks.find(data);
  if (block == all.blocks.end()) return;
  all.used[block->second.first] -= block->second.second;
  all.blocks.erase(block);
  std::free(data);
}

void* allocate_pinned(size_t bytes) {
  void* const data = std::aligned_alloc(512, (std::max<size_t>(bytes, 1) + 511) / 512 * 512);
  if (!data) return nullptr;
  const std::lock_guard lock(memory().mutex);
  memory().pinned[static_cast<const char*>(data)] = bytes;
  return data;
}

void release_pinned(void* data) noexcept {
  const std::lock_guard lock(memory().mutex);
  if (memory().pinned.erase(static_cast<const char*>(data)) > 0) std::free(data);
}

bool is_pinned(const void* data) noexcept {
  const auto* at = static_cast<const char*>(data);
  const std::lock_guard lock(memory().mutex);
  const auto block = memory().pinned.lower_bound(at);
  return block != memory().pinned.end() && at < block->first + block->second;
}

void copy(void* to, const void* from, size_t bytes, Copy kind, Stream) {
  (void)kind;
  enqueue([=] { std::memmove(to, from, bytes); });
}

void copy_peer(void* to, int, const void* from, int, size_t bytes, Stream) {
  enqueue([=] { std::memmove(to, from, bytes); });
}

void fill(void* data, uint8_t value, size_t bytes, Stream) {
  enqueue([=] { std::memset(data, value, bytes); });
}

Stream create_stream(int priority) { return new Stream_{priority}; }
void destroy_stream(Stream stream) noexcept { delete static_cast<Stream_*>(stream); }
void synchronize_stream(Stream) { check_not_capturing("synchronize"); }
bool query_stream(Stream) {
  check_not_capturing("query");
  return true;
}
void wait_event(Stream, Event) {}
void synchronize_device() { check_not_capturing("synchronize"); }
void priority_range(int& greatest, int& least) {
  greatest = -5;
  least = 0;
}

Event create_event(bool timing) { return new Event_{timing}; }
void destroy_event(Event event) noexcept { delete static_cast<Event_*>(event); }
void record_event(Event event, Stream) {
  auto* const own = static_cast<Event_*>(event);
  own->recorded = true;
  own->time = std::chrono::steady_clock::now();
}
void synchronize_event(Event) { check_not_capturing("synchronize"); }
bool query_event(Event) { return true; }

float elapsed_time(Event start, Event end) {
  const auto* const from = static_cast<Event_*>(start);
  const auto* const to = static_cast<Event_*>(end);
  OPSIN_CHECK(Error, from->timing && to->timing && from->recorded && to->recorded,
              "elapsed_time: invalid resource handle (both events must be made for timing and recorded)");
  return std::chrono::duration<float, std::milli>(to->time - from->time).count();
}

void begin_capture(Stream, CaptureMode) {
  OPSIN_CHECK(Error, !emulated::recorder(), "begin_capture: this thread captures already");
  emulated::recorder() = new emulated::Recorder;
}

GraphExec end_capture(Stream) {
  OPSIN_CHECK(Error, emulated::recorder(), "end_capture: this thread captures nothing");
  return std::exchange(emulated::recorder(), nullptr);
}

void abort_capture(Stream) noexcept { delete std::exchange(emulated::recorder(), nullptr); }

void launch_graph(GraphExec graph, Stream) {
  for (const auto& step : static_cast<emulated::Recorder*>(graph)->steps) enqueue(step);
}

void destroy_graph(GraphExec graph) noexcept { delete static_cast<emulated::Recorder*>(graph); }

}  // namespace opsin::cuda::api
