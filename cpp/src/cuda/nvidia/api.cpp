#include "cuda/api.h"

#include <cstdio>
#include <memory>
#include <mutex>

#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <opsin/error.h>

namespace opsin::cuda::api {

namespace {

[[noreturn, gnu::cold]] void fail(const char* what, cudaError_t error) {
  // The next call must not see it again; errors of the context itself stay.
  (void)cudaGetLastError();
  detail::raise<Error>(what, ": CUDA error: ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
}

void check(cudaError_t error, const char* what) {
  if (__builtin_expect(error != cudaSuccess, 0)) fail(what, error);
}

/// Allows this thread's calls that a capture forbids, here or in another thread: none of them is about what
/// is being captured.
class Relaxed {
 public:
  Relaxed() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~Relaxed() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

cudaStream_t stream_of(Stream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(Event event) { return static_cast<cudaEvent_t>(event); }

std::string text(const cudaUUID_t& uuid) {
  std::string result;
  for (int i = 0; i < 16; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    if (i == 4 || i == 6 || i == 8 || i == 10) result += '-';
    result += digits;
  }
  return result;
}

DeviceProperties ask(int device) {
  cudaDeviceProp all;
  check(cudaGetDeviceProperties(&all, device), "get_device_properties");
  DeviceProperties p;
  p.name = all.name;
  p.major = all.major;
  p.minor = all.minor;
  p.total_memory = all.totalGlobalMem;
  p.multi_processor_count = all.multiProcessorCount;
  p.max_threads_per_multi_processor = all.maxThreadsPerMultiProcessor;
  p.regs_per_multiprocessor = all.regsPerMultiprocessor;
  p.shared_memory_per_block = all.sharedMemPerBlock;
  p.shared_memory_per_block_optin = all.sharedMemPerBlockOptin;
  p.shared_memory_per_multiprocessor = all.sharedMemPerMultiprocessor;
  p.l2_cache_size = static_cast<size_t>(all.l2CacheSize);
  p.pci_bus_id = all.pciBusID;
  p.pci_device_id = all.pciDeviceID;
  p.is_integrated = all.integrated != 0;
  p.uuid = text(all.uuid);
  check(cudaDriverGetVersion(&p.driver_version), "get_device_properties");
  check(cudaRuntimeGetVersion(&p.runtime_version), "get_device_properties");
  return p;
}

}  // namespace

int device_count(std::string& why_not) noexcept {
  // Left as it is where the call fails.
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count < kMaxCudaDevices ? count : kMaxCudaDevices;
  (void)cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    why_not = driver == 0 ? "no NVIDIA driver is installed"
                          : "the NVIDIA driver is too old: it serves CUDA " + std::to_string(driver / 1000) +
                                "." + std::to_string(driver % 1000 / 10) + ", this build needs 13.0";
  } else if (error == cudaErrorNoDevice || error == cudaSuccess) {
    why_not = "the NVIDIA driver finds no GPU (look at nvidia-smi and CUDA_VISIBLE_DEVICES)";
  } else {
    why_not = std::string("CUDA error: ") + cudaGetErrorString(error);
  }
  return 0;
}

void set_device(int device) {
  // Asked each time, because other libraries in the process set it too.
  int current = -1;
  if (cudaGetDevice(&current) == cudaSuccess && current == device) return;
  check(cudaSetDevice(device), "set_device");
}

const DeviceProperties& properties(int device) {
  static std::mutex mutex;
  static std::unique_ptr<DeviceProperties> known[kMaxCudaDevices];
  const std::lock_guard lock(mutex);
  auto& entry = known[device];
  if (!entry) entry = std::make_unique<DeviceProperties>(ask(device));
  return *entry;
}

size_t cudnn_version() { return cudnnGetVersion(); }

std::pair<size_t, size_t> memory_info(int device) {
  set_device(device);
  std::pair<size_t, size_t> info;
  check(cudaMemGetInfo(&info.first, &info.second), "mem_get_info");
  return info;
}

void* allocate(size_t bytes) {
  const Relaxed relaxed;
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaSuccess) return data;
  if (error != cudaErrorMemoryAllocation) fail("empty", error);
  (void)cudaGetLastError();
  return nullptr;
}

void release(void* data) noexcept {
  const Relaxed relaxed;
  if (cudaFree(data) != cudaSuccess) (void)cudaGetLastError();
}

void* allocate_pinned(size_t bytes) {
  const Relaxed relaxed;
  void* data = nullptr;
  const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocPortable | cudaHostAllocMapped);
  if (error == cudaSuccess) return data;
  if (error != cudaErrorMemoryAllocation) fail("pin_memory", error);
  (void)cudaGetLastError();
  return nullptr;
}

void release_pinned(void* data) noexcept {
  const Relaxed relaxed;
  if (cudaFreeHost(data) != cudaSuccess) (void)cudaGetLastError();
}

bool is_pinned(const void* data) noexcept {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    (void)cudaGetLastError();
    return false;
  }
  return attributes.type == cudaMemoryTypeHost;
}

void copy(void* to, const void* from, size_t bytes, Copy kind, Stream stream) {
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                       cudaMemcpyDeviceToDevice};
  check(cudaMemcpyAsync(to, from, bytes, kKinds[static_cast<int>(kind)], stream_of(stream)), "copy");
}

void copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, Stream stream) {
  check(cudaMemcpyPeerAsync(to, to_device, from, from_device, bytes, stream_of(stream)), "copy");
}

void fill(void* data, uint8_t value, size_t bytes, Stream stream) {
  check(cudaMemsetAsync(data, value, bytes, stream_of(stream)), "fill");
}

Stream create_stream(int priority) {
  const Relaxed relaxed;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), "Stream");
  return stream;
}

void destroy_stream(Stream stream) noexcept {
  if (cudaStreamDestroy(stream_of(stream)) != cudaSuccess) (void)cudaGetLastError();
}

void synchronize_stream(Stream stream) { check(cudaStreamSynchronize(stream_of(stream)), "synchronize"); }

bool query_stream(Stream stream) {
  const Relaxed relaxed;
  const cudaError_t error = cudaStreamQuery(stream_of(stream));
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  check(error, "query");
  return true;
}

void wait_event(Stream stream, Event event) {
  check(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "wait_event");
}

void synchronize_device() { check(cudaDeviceSynchronize(), "synchronize"); }

void priority_range(int& greatest, int& least) {
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priority_range");
}

Event create_event(bool timing) {
  const Relaxed relaxed;
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, timing ? cudaEventDefault : cudaEventDisableTiming), "Event");
  return event;
}

void destroy_event(Event event) noexcept {
  if (cudaEventDestroy(event_of(event)) != cudaSuccess) (void)cudaGetLastError();
}

void record_event(Event event, Stream stream) {
  check(cudaEventRecord(event_of(event), stream_of(stream)), "record");
}

void synchronize_event(Event event) { check(cudaEventSynchronize(event_of(event)), "synchronize"); }

bool query_event(Event event) {
  const Relaxed relaxed;
  const cudaError_t error = cudaEventQuery(event_of(event));
  if (error == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  check(error, "query");
  return true;
}

float elapsed_time(Event start, Event end) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, event_of(start), event_of(end)), "elapsed_time");
  return milliseconds;
}

void begin_capture(Stream stream, CaptureMode mode) {
  constexpr cudaStreamCaptureMode kModes[] = {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal,
                                              cudaStreamCaptureModeRelaxed};
  check(cudaStreamBeginCapture(stream_of(stream), kModes[static_cast<int>(mode)]), "capture_begin");
}

GraphExec end_capture(Stream stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream_of(stream), &graph), "capture_end");
  OPSIN_CHECK(Error, graph, "capture_end: the capture failed, and holds nothing");
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
  (void)cudaGraphDestroy(graph);
  check(error, "capture_end");
  return exec;
}

void abort_capture(Stream stream) noexcept {
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(stream_of(stream), &graph);
  if (graph) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();
}

void launch_graph(GraphExec graph, Stream stream) {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream)), "replay");
}

void destroy_graph(GraphExec graph) noexcept {
  if (cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)) != cudaSuccess) (void)cudaGetLastError();
}

}  // namespace opsin::cuda::api
