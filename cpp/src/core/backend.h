// What the core asks of a device other than the CPU. The plug-in of a device gives one object of this class;
// everything else it does by filling kernel slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <opsin/api.h>
#include <opsin/device.h>

namespace opsin {

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

/// What a plug-in must agree with: the version and a hash of the headers that it shares with the core.
OPSIN_API const char* build_id();

/// Names of what `libopsin_cuda.so` exports: the build id it was compiled with, and the function that fills
/// its slots and gives its backend, which lives as long as the process.
inline constexpr const char* kPluginBuildId = "opsin_cuda_build_id";
inline constexpr const char* kPluginEntry = "opsin_cuda_plugin";
using PluginEntry = Backend* (*)();

}  // namespace opsin
