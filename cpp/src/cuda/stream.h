// The streams of this thread, and what waiting for one means.
#pragma once

#include "cuda/api.h"
#include "cuda/current_stream.h"

namespace opsin::cuda {

/// The stream that this thread's work on `device` goes to; at first the legacy default stream, as in PyTorch:
/// one order for all threads and libraries of the process, so that tensors can be handed around without
/// events. Captures and overlap need another one.
api::Stream stream_of(int device);
void set_stream_of(int device, api::Stream stream);

/// One of 32 streams of each priority, in turn; they live as long as the process, because the allocator has
/// blocks for each. `priority` becomes what the device has.
api::Stream stream_from_pool(int device, int& priority);

/// Waits for a stream of `device` and raises what its kernels reported. Error during a capture.
void synchronize(int device, api::Stream stream, const char* op);

}  // namespace opsin::cuda
