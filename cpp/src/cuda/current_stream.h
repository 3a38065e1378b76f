// What a kernel launch asks of the device that is active in the calling thread.
#pragma once

namespace opsin::cuda {

/// The cudaStream_t that kernels of this thread go to on the active device; nothing under the emulator.
void* current_stream();

/// Called before each launch: makes the active device current and raises an error that an earlier kernel
/// left behind.
void before_launch();

}  // namespace opsin::cuda
