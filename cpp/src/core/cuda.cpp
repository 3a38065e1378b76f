// The public face of GPUs: arguments are checked here, and the plug-in does the work.
#include <atomic>
#include <cmath>

#include <opsin/cuda.h>
#include <opsin/error.h>
#include <opsin/ops/copy.h>
#include <opsin/tensor.h>

#include "core/backend.h"
#include "core/tail.h"

namespace opsin::cuda {

namespace {

thread_local int current = 0;

Device cuda_device(int device) {
  OPSIN_CHECK(Error, device >= -1 && device < kMaxCudaDevices, "device: invalid device ordinal ", device);
  return {DeviceType::kCUDA, static_cast<int8_t>(device < 0 ? current : device)};
}

/// The plug-in, after a check that `device` exists; -1 becomes the current one.
Backend& backend_of(int& device) {
  const Device resolved = cuda_device(device);
  device = resolved.index;
  return backend(resolved);
}

}  // namespace

bool is_available() { return backend_state().devices > 0; }
std::string why_not() { return backend_state().why_not; }
int device_count() { return backend_state().devices; }

int current_device() { return current; }

void set_device(int device) {
  OPSIN_CHECK(Error, device >= 0, "set_device: expected a device of at least 0, got ", device);
  (void)backend_of(device);
  current = device;
}

DeviceGuard::~DeviceGuard() { current = before_; }

const DeviceProperties& device_properties(int device) { return backend_of(device).properties(device); }

void synchronize(int device) {
  Backend& backend = backend_of(device);
  Tails::compute_all();
  backend.synchronize(device);
}

// --- streams and events ---

struct Event::State {
  State(int device_, bool timing) : device(device_), handle(backend_of(device).new_event(device, timing)) {}
  ~State() { backend_of(device).drop_event(device, handle); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  int device;
  void* handle;
};

void Event::record() { record(Stream::current()); }

void Event::record(const Stream& stream) {
  const int device = stream.device().index;
  if (!state_) state_ = std::make_shared<State>(device, timing_);
  OPSIN_CHECK(Error, state_->device == device, "Event.record: expected a stream of cuda:", state_->device,
              ", where the event was recorded first, got one of cuda:", device);
  Tails::compute_all(stream.device(), stream.handle());
  backend(stream.device()).record_event(device, state_->handle, stream.handle());
}

bool Event::query() const {
  return !state_ || backend_of(state_->device).query_event(state_->device, state_->handle);
}

void Event::synchronize() const {
  if (state_) backend_of(state_->device).synchronize_event(state_->device, state_->handle);
}

float Event::elapsed_time(const Event& end) const {
  OPSIN_CHECK(ValueError, timing_ && end.timing_,
              "Event.elapsed_time: both events must be created with argument 'enable_timing=True'");
  OPSIN_CHECK(ValueError, state_ && end.state_,
              "Event.elapsed_time: both events must be recorded before calculating elapsed time");
  OPSIN_CHECK(Error, query() && end.query(),
              "Event.elapsed_time: both events must be completed before calculating elapsed time (call "
              "synchronize() first)");
  return backend_of(state_->device).elapsed_time(state_->device, state_->handle, end.state_->handle);
}

void* Event::handle() const { return state_ ? state_->handle : nullptr; }
int Event::device() const { return state_ ? state_->device : current; }

Stream::Stream(int device, int priority) : device_(cuda_device(device)), priority_(priority) {
  handle_ = backend(device_).new_stream(device_.index, priority_);
}

Stream Stream::current(int device) {
  const Device place = cuda_device(device);
  return {place, backend(place).current_stream(place.index), 0};
}

Stream Stream::of_default(int device) {
  const Device place = cuda_device(device);
  (void)backend(place);
  return {place, nullptr, 0};
}

Stream Stream::external(void* handle, int device) {
  const Device place = cuda_device(device);
  (void)backend(place);
  return {place, handle, 0};
}

void Stream::synchronize() const {
  Tails::compute_all(device_, handle_);
  backend(device_).synchronize_stream(device_.index, handle_);
}
bool Stream::query() const {
  Tails::compute_all(device_, handle_);
  return backend(device_).query_stream(device_.index, handle_);
}

void Stream::wait_event(const Event& event) const {
  if (event.handle()) backend(device_).wait_event(device_.index, handle_, event.handle());
}

void Stream::wait_stream(const Stream& other) const { wait_event(other.record_event()); }

Event Stream::record_event() const {
  Event event;
  event.record(*this);
  return event;
}

void set_stream(const Stream& stream) {
  backend(stream.device()).set_current_stream(stream.device().index, stream.handle());
  current = stream.device().index;
}

StreamGuard::StreamGuard(const Stream& stream)
    : device_before_(current), before_(Stream::current(stream.device().index)) {
  set_stream(stream);
}

StreamGuard::~StreamGuard() {
  set_stream(before_);
  current = device_before_;
}

// --- memory ---

MemoryStats memory_stats(int device) { return backend_of(device).memory_stats(device); }
int64_t memory_allocated(int device) { return memory_stats(device).allocated_bytes.all.current; }
int64_t max_memory_allocated(int device) { return memory_stats(device).allocated_bytes.all.peak; }
int64_t memory_reserved(int device) { return memory_stats(device).reserved_bytes.all.current; }
int64_t max_memory_reserved(int device) { return memory_stats(device).reserved_bytes.all.peak; }
void reset_peak_memory_stats(int device) { backend_of(device).reset_peak_memory_stats(device); }
void reset_accumulated_memory_stats(int device) { backend_of(device).reset_accumulated_memory_stats(device); }

void empty_cache() {
  // Nothing is cached where nothing was loaded; PyTorch's is harmless without a GPU, too.
  if (Backend* backend = backend_state().backend; backend && is_available()) backend->empty_cache();
}

std::pair<size_t, size_t> mem_get_info(int device) { return backend_of(device).memory_info(device); }

void set_per_process_memory_fraction(double fraction, int device) {
  OPSIN_CHECK(ValueError, fraction >= 0 && fraction <= 1,
              "set_per_process_memory_fraction: expected a fraction in [0, 1], got ", fraction);
  Backend& backend = backend_of(device);
  const auto total = static_cast<double>(backend.properties(device).total_memory);
  backend.set_memory_limit(device, fraction == 1 ? SIZE_MAX : static_cast<size_t>(fraction * total));
}

void record_stream(const Tensor& tensor, const Stream& stream) {
  const Device device = tensor.device();
  OPSIN_CHECK(Error, device.is_cuda(), "record_stream: expected a tensor on a GPU, got one on ",
              device.str());
  // Makes sure that there is memory.
  (void)tensor.impl()->physical_data();
  backend(device).record_stream(tensor.impl()->storage->data, device.index, stream.handle());
}

Tensor pin_memory(const Tensor& tensor) {
  OPSIN_CHECK(Error, tensor.device().is_cpu(), "pin_memory: expected a tensor on the CPU, got one on ",
              tensor.device().str(), " (only dense CPU tensors can be pinned)");
  if (is_pinned(tensor)) return tensor;
  int device = -1;
  Backend& backend = backend_of(device);
  const size_t bytes = static_cast<size_t>(tensor.numel()) * item_size(tensor.dtype());
  void* const data = bytes > 0 ? backend.allocate_pinned(bytes) : nullptr;
  const auto release = [](void* context, void* block, size_t) {
    if (block) static_cast<Backend*>(context)->deallocate_pinned(block);
  };
  const Tensor pinned = from_blob(data, tensor.sizes(), contiguous_strides(tensor.sizes()), tensor.dtype(),
                                  kCPU, release, &backend);
  // Nobody else knows the address.
  pinned.impl()->storage->escaped = false;
  if (bytes > 0) copy_(pinned, tensor.detach());
  return pinned;
}

bool is_pinned(const Tensor& tensor) {
  if (!tensor.device().is_cpu() || !is_available()) return false;
  const void* const data = tensor.impl()->storage->data;
  return data && backend_state().backend->is_pinned(data);
}

// --- graphs ---

struct Graph::Impl {
  std::unique_ptr<BackendGraph> graph;
  MemoryPool pool = 0;
};

Graph::Graph() : impl_(std::make_unique<Impl>()) {}
Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

void Graph::capture_begin(MemoryPool pool, CaptureMode mode) {
  int device = -1;
  Backend& backend = backend_of(device);
  OPSIN_CHECK(Error, !impl_->graph, "capture_begin: the graph holds a capture already (call reset() first)");
  auto graph = backend.new_graph();
  Tails::compute_all();
  impl_->pool = pool ? pool : graph_pool_handle();
  graph->capture_begin(device, impl_->pool, mode);
  impl_->graph = std::move(graph);
}

void Graph::capture_end() {
  OPSIN_CHECK(Error, impl_->graph, "capture_end: no capture was begun");
  try {
    const Stream stream = Stream::current();
    Tails::compute_all(stream.device(), stream.handle());
    impl_->graph->capture_end();
  } catch (...) {
    impl_->graph.reset();
    throw;
  }
}

void Graph::replay() {
  OPSIN_CHECK(Error, impl_->graph, "replay: the graph holds no capture");
  impl_->graph->replay();
}

void Graph::reset() { impl_->graph.reset(); }

MemoryPool Graph::pool() const {
  OPSIN_CHECK(Error, impl_->graph, "pool: the graph holds no capture");
  return impl_->pool;
}

MemoryPool graph_pool_handle() {
  static std::atomic<MemoryPool> next{1};
  return next++;
}

bool is_capturing() {
  // Does not load the plug-in.
  return is_available() && backend_state().backend->is_capturing();
}

}  // namespace opsin::cuda
