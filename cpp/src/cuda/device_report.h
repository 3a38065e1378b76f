// The host's side of cuda/device_error.h.
#pragma once

#include <cstdint>

namespace opsin::cuda {

/// Page-locked memory that a device and the host both see; one for each device. The first report stays until
/// it was raised.
struct DeviceError {
  int claimed;   ///< By the thread of a kernel that writes the rest.
  int complete;  ///< Everything is written.
  const char* op;
  /// Of a value that breaks a rule: what was expected; null for an index out of range.
  const char* rule;
  double value;
  int64_t index, low, high;
};

/// Of the active device, for kernels.
DeviceError* device_error();

/// Whether a kernel on `device` reported something that the host can see by now: a read of memory, no call.
bool has_device_error(int device);
/// Raises it as IndexError, once; does nothing where another thread did.
void raise_device_error(int device);

}  // namespace opsin::cuda
