// Captured work: the plug-in's side of cuda::Graph.
#pragma once

#include <cstddef>
#include <memory>

#include "core/backend.h"
#include "core/philox_state.h"

namespace opsin::cuda {

std::unique_ptr<BackendGraph> new_graph();

/// What the plug-in's Backend says of this thread.
bool is_capturing_here();
PhiloxSeed capture_random(Generator& generator, uint64_t count);

/// Error during a capture: `op` waits for the device.
void check_not_capturing(const char* op);

/// A copy of `bytes` of the host's memory that lives as long as the graph that this thread captures, so that
/// every replay finds what was there at the capture.
const void* keep_for_replays(const void* data, size_t bytes);

}  // namespace opsin::cuda
