// GPUs: which there are, streams and events, memory, and graphs of whole steps. Everything here works without
// a GPU as far as it can: is_available() is false then, and what needs a device raises Error saying why.
//
// Work on a GPU runs in the order of a stream, behind the back of the calling thread. Each thread has a
// current device and, for each device, a current stream: at first CUDA's legacy default stream, so that
// tensors can be handed from thread to thread, and to other libraries, without further care.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <opsin/api.h>
#include <opsin/device.h>

namespace opsin {

class Tensor;

/// GPUs beyond these are not used.
inline constexpr int kMaxCudaDevices = 16;

namespace cuda {

/// Whether a GPU can be used; loads the plug-in at the first call.
OPSIN_API bool is_available();
/// What is missing where is_available() is false: the plug-in, a library, a driver, a device.
OPSIN_API std::string why_not();
OPSIN_API int device_count();

/// The device that "cuda" without a number stands for in this thread.
OPSIN_API int current_device();
/// Error where there is no such device.
OPSIN_API void set_device(int device);

/// Changes the current device until the end of a block.
class OPSIN_API DeviceGuard {
 public:
  explicit DeviceGuard(int device) : before_(current_device()) { set_device(device); }
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
};

struct DeviceProperties {
  std::string name;
  int major = 0;
  int minor = 0;
  size_t total_memory = 0;
  int multi_processor_count = 0;
  int max_threads_per_multi_processor = 0;
  int regs_per_multiprocessor = 0;
  size_t shared_memory_per_block = 0;
  size_t shared_memory_per_block_optin = 0;
  size_t shared_memory_per_multiprocessor = 0;
  size_t l2_cache_size = 0;
  int pci_bus_id = 0;
  int pci_device_id = 0;
  bool is_integrated = false;  ///< Shares its memory with the CPU.
  std::string uuid;
  /// The CUDA version that the driver serves and that of the runtime, as 1000 * major + 10 * minor.
  int driver_version = 0;
  int runtime_version = 0;
};
OPSIN_API const DeviceProperties& device_properties(int device);

/// Waits for all work on a device, by default the current one (-1).
OPSIN_API void synchronize(int device = -1);

// --- streams and events ---

class Stream;

/// A mark in a stream. Copies are the same event.
class OPSIN_API Event {
 public:
  /// With `timing`, elapsed_time() can be asked; without, marks cost less.
  explicit Event(bool timing = false) : timing_(timing) {}

  /// Marks what is enqueued on the stream so far, by default on the current one.
  void record();
  void record(const Stream& stream);
  /// Whether everything before the mark is done; true for an event that was never recorded.
  bool query() const;
  /// Waits until everything before the mark is done.
  void synchronize() const;
  /// Milliseconds from this mark to `end`; both must be made for timing, recorded and done.
  float elapsed_time(const Event& end) const;
  bool timing() const { return timing_; }
  /// The cudaEvent_t; null before the first record().
  void* handle() const;
  int device() const;

 private:
  struct State;
  friend class Stream;
  bool timing_;
  std::shared_ptr<State> state_;
};

/// A queue of work on one device. Streams come from a pool of 32 for each priority and live as long as the
/// process, so a Stream is a name that can be copied; the pool's streams repeat.
class OPSIN_API Stream {
 public:
  /// A stream of the pool, of the current device by default (-1); negative priorities go first.
  explicit Stream(int device = -1, int priority = 0);
  /// The stream that this thread's work on a device goes to.
  static Stream current(int device = -1);
  /// CUDA's legacy default stream.
  static Stream of_default(int device = -1);
  /// A cudaStream_t of another library, which keeps it alive.
  static Stream external(void* handle, int device = -1);

  /// Waits until all work of the stream is done.
  void synchronize() const;
  /// Whether all work of the stream is done.
  bool query() const;
  /// What is enqueued from here on runs after the mark.
  void wait_event(const Event& event) const;
  /// What is enqueued from here on runs after what `other` holds now.
  void wait_stream(const Stream& other) const;
  Event record_event() const;

  Device device() const { return device_; }
  int priority() const { return priority_; }
  /// The cudaStream_t; null is the legacy default stream.
  void* handle() const { return handle_; }
  bool operator==(const Stream& other) const { return device_ == other.device_ && handle_ == other.handle_; }

 private:
  Stream(Device device, void* handle, int priority) : device_(device), handle_(handle), priority_(priority) {}
  Device device_;
  void* handle_ = nullptr;
  int priority_ = 0;
};

/// Makes a stream, and its device, the current ones of this thread.
OPSIN_API void set_stream(const Stream& stream);

/// Changes the current stream, and the current device to the stream's, until the end of a block.
class OPSIN_API StreamGuard {
 public:
  explicit StreamGuard(const Stream& stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  int device_before_;
  Stream before_;
};

// --- memory ---

/// One quantity over time: now, its maximum, and the sums of what came and went.
struct Stat {
  int64_t current = 0;
  int64_t peak = 0;
  int64_t allocated = 0;
  int64_t freed = 0;

  void add(int64_t amount) {
    current += amount;
    if (current > peak) peak = current;
    if (amount > 0) allocated += amount;
    if (amount < 0) freed -= amount;
  }
};

/// A quantity of all pools, of small blocks (up to 1 MiB) and of large ones.
struct PoolStat {
  Stat all, small_pool, large_pool;
};

/// What the caching allocator of a device holds; PyTorch's names.
struct MemoryStats {
  PoolStat allocation;  ///< Blocks in use by tensors.
  PoolStat segment;     ///< Pieces of device memory taken from CUDA.
  PoolStat active;      ///< Blocks in use by tensors or still by another stream.
  PoolStat allocated_bytes;
  PoolStat reserved_bytes;  ///< Of all segments.
  PoolStat active_bytes;
  PoolStat requested_bytes;       ///< As asked for, before rounding.
  int64_t num_alloc_retries = 0;  ///< Times the cache was given back to satisfy a request.
  int64_t num_ooms = 0;
  int64_t num_device_alloc = 0;
  int64_t num_device_free = 0;
};
OPSIN_API MemoryStats memory_stats(int device = -1);
/// Bytes in use by tensors.
OPSIN_API int64_t memory_allocated(int device = -1);
OPSIN_API int64_t max_memory_allocated(int device = -1);
/// Bytes taken from the device, in use or cached.
OPSIN_API int64_t memory_reserved(int device = -1);
OPSIN_API int64_t max_memory_reserved(int device = -1);
OPSIN_API void reset_peak_memory_stats(int device = -1);
/// The sums of what came and went start again.
OPSIN_API void reset_accumulated_memory_stats(int device = -1);
/// Gives cached memory of all devices back to CUDA.
OPSIN_API void empty_cache();
/// Free and total bytes of a device, as CUDA sees it.
OPSIN_API std::pair<size_t, size_t> mem_get_info(int device = -1);
/// The allocator reserves at most `fraction` of the device's memory; more is an OutOfMemoryError.
OPSIN_API void set_per_process_memory_fraction(double fraction, int device = -1);

/// The memory of `tensor`, freed by its last owner, is not used again before what `stream` holds then is
/// done. Needed for tensors that are used on another stream than the one that was current when they were
/// made.
OPSIN_API void record_stream(const Tensor& tensor, const Stream& stream);

/// A copy in page-locked memory, from which copies to a GPU can run behind the calling thread's back
/// (`to(device, non_blocking=true)`); itself if it is already there.
OPSIN_API Tensor pin_memory(const Tensor& tensor);
OPSIN_API bool is_pinned(const Tensor& tensor);

// --- graphs ---

/// Whose calls that cannot be captured break a capture: those of all threads, of the capturing one, of none.
enum class CaptureMode { kGlobal, kThreadLocal, kRelaxed };

/// Memory that captured graphs share.
using MemoryPool = uint64_t;

/// Work that was captured once and runs again as a whole, for the price of one launch: the same kernels on
/// the same memory. Tensors made during the capture keep their memory, which every replay() fills anew;
/// inputs are changed by writing into the tensors that the capture read. Random numbers go on from replay to
/// replay. One graph captures at a time.
class OPSIN_API Graph {
 public:
  Graph();
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;

  /// What this thread enqueues on the current stream, which must not be the default stream, becomes part of
  /// the graph instead of running. `pool` is that of another graph to share memory with; graphs that share
  /// must be replayed in the order of their captures.
  void capture_begin(MemoryPool pool = 0, CaptureMode mode = CaptureMode::kThreadLocal);
  /// Ends the capture; Error where something was done that cannot be captured.
  void capture_end();
  /// Enqueues everything on the current stream.
  void replay();
  /// Lets go of the captured work and its memory.
  void reset();
  MemoryPool pool() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A name for memory that several graphs are to share.
OPSIN_API MemoryPool graph_pool_handle();
/// Whether this thread is capturing a graph.
OPSIN_API bool is_capturing();

}  // namespace cuda

}  // namespace opsin
