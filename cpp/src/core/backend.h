// What the core asks of a device other than the CPU. The plug-in of a device gives one object of this class;
// everything else it does by filling kernel slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <opsin/api.h>
#include <opsin/cuda.h>
#include <opsin/device.h>

namespace opsin {

class Generator;
struct PhiloxSeed;

/// The captured work of a cuda::Graph.
class OPSIN_API BackendGraph {
 public:
  virtual ~BackendGraph();
  virtual void capture_begin(int device, cuda::MemoryPool pool, cuda::CaptureMode mode) = 0;
  virtual void capture_end() = 0;
  virtual void replay() = 0;
  virtual void reset() noexcept = 0;
};

/// Streams and events are handles of the device's own kind; a null stream is its default stream.
class OPSIN_API Backend {
 public:
  virtual ~Backend();

  /// How many devices there are; when there are none, `why_not` says what is missing.
  virtual int device_count(std::string& why_not) = 0;

  /// At least `bytes` > 0 bytes on `device`, in the order of its current stream; OutOfMemoryError with a
  /// report where there are none, after which the process stays usable.
  virtual void* allocate(size_t bytes, Device device) = 0;
  /// Gives back what `allocate` returned. Work that was enqueued before on the same stream may still use it.
  virtual void deallocate(void* data, size_t bytes, Device device) noexcept = 0;
  /// Copies between the CPU and a device, within a device or between two, in the order of the current stream.
  /// On return a target on the CPU is filled, and the source may be changed, unless `non_blocking` is set and
  /// the CPU's side is pinned.
  virtual void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes,
                    bool non_blocking) = 0;
  virtual void fill_zero(void* data, size_t bytes, Device device) = 0;
  /// to[n][j][i] = from[n][i][j] for elements of `item_size` bytes (1, 2, 4, 8 or 16), i < rows, j < cols.
  virtual void transpose(const void* from, void* to, int64_t batch, int64_t rows, int64_t cols,
                         size_t item_size, Device device) = 0;

  virtual const cuda::DeviceProperties& properties(int device) = 0;
  /// Waits for all work on a device. This and every other call that waits raises what kernels reported.
  virtual void synchronize(int device) = 0;

  /// A stream of the pool; sets `priority` to what it got.
  virtual void* new_stream(int device, int& priority) = 0;
  /// The stream that this thread's work on `device` goes to.
  virtual void* current_stream(int device) = 0;
  virtual void set_current_stream(int device, void* stream) = 0;
  virtual void synchronize_stream(int device, void* stream) = 0;
  virtual bool query_stream(int device, void* stream) = 0;
  virtual void wait_event(int device, void* stream, void* event) = 0;

  virtual void* new_event(int device, bool timing) = 0;
  virtual void drop_event(int device, void* event) noexcept = 0;
  virtual void record_event(int device, void* event, void* stream) = 0;
  virtual void synchronize_event(int device, void* event) = 0;
  virtual bool query_event(int device, void* event) = 0;
  virtual float elapsed_time(int device, void* start, void* end) = 0;

  virtual cuda::MemoryStats memory_stats(int device) = 0;
  virtual void reset_peak_memory_stats(int device) = 0;
  virtual void reset_accumulated_memory_stats(int device) = 0;
  virtual void empty_cache() = 0;
  /// Free and total bytes.
  virtual std::pair<size_t, size_t> memory_info(int device) = 0;
  virtual void set_memory_limit(int device, size_t bytes) = 0;
  /// The block that `allocate` gave for `data`, once freed, waits for what `stream` holds then.
  virtual void record_stream(const void* data, int device, void* stream) = 0;

  /// Page-locked memory; OutOfMemoryError where there is none.
  virtual void* allocate_pinned(size_t bytes) = 0;
  virtual void deallocate_pinned(void* data) noexcept = 0;
  virtual bool is_pinned(const void* data) = 0;

  /// 0 where there is none.
  virtual size_t cudnn_version() = 0;

  virtual std::unique_ptr<BackendGraph> new_graph() = 0;
  /// Whether this thread captures a graph.
  virtual bool is_capturing() = 0;
  /// What reserve_philox() gives during a capture.
  virtual PhiloxSeed capture_random(Generator& generator, uint64_t count) = 0;
};

/// The backend of a device that is not the CPU; loads its plug-in at the first call. Raises Error, saying
/// what is missing, where there is none or `device` does not exist.
OPSIN_API Backend& backend(Device device);

/// What there is of one type of device; nothing here raises.
struct BackendState {
  Backend* backend = nullptr;  ///< Null where no plug-in could be loaded.
  int devices = 0;
  std::string why_not;  ///< Why `devices` is 0.
};
/// Loads the plug-in at the first call.
OPSIN_API const BackendState& backend_state();

/// The GPU that kernels launched by this thread run on: set by KernelSlot::get().
OPSIN_API int& active_device();

/// Called before the plug-in is loaded, possibly by several threads at once: makes libraries known to the
/// loader that lie where only the caller knows. What it throws becomes `why_not`, and nothing is loaded.
OPSIN_API void set_plugin_hook(void (*hook)());

/// What a plug-in must agree with: the version and a hash of the headers that it shares with the core.
OPSIN_API const char* build_id();

/// Names of what `libopsin_cuda.so` exports: the build id it was compiled with, and the function that fills
/// its slots and gives its backend, which lives as long as the process.
inline constexpr const char* kPluginBuildId = "opsin_cuda_build_id";
inline constexpr const char* kPluginEntry = "opsin_cuda_plugin";
using PluginEntry = Backend* (*)();

}  // namespace opsin
