// The object through which the core uses GPUs.
#pragma once

#include "core/backend.h"
#include "cuda/allocator.h"

namespace opsin::cuda {

/// Lives as long as the process.
Backend& backend();

/// The allocator of a device.
Allocator& allocator(int device);

}  // namespace opsin::cuda
