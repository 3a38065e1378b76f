// What the plug-in asks of the CUDA runtime: thin, with CUDA's errors raised as opsin::Error. The plug-in for
// GPUs has it over the runtime API, the emulated one over the computer's own memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include <opsin/cuda.h>

namespace opsin::cuda::api {

/// A cudaStream_t; null is the legacy default stream of the current device.
using Stream = void*;
/// A cudaEvent_t.
using Event = void*;
/// A cudaGraphExec_t.
using GraphExec = void*;

using opsin::cuda::CaptureMode;
using opsin::cuda::DeviceProperties;
inline constexpr int kMaxDevices = kMaxCudaDevices;

/// How many devices there are; when there are none, `why_not` says what is missing. Never raises.
int device_count(std::string& why_not) noexcept;

/// Makes `device` the one that this thread's other calls are about; cheap where it already is.
void set_device(int device);

/// Asked once for each device.
const DeviceProperties& properties(int device);

/// 0 where there is none.
size_t cudnn_version();

/// Free and total bytes.
std::pair<size_t, size_t> memory_info(int device);

/// Memory of the current device; null where there is none left.
void* allocate(size_t bytes);
void release(void* data) noexcept;

/// Page-locked memory of the computer, which the devices reach at the same address; null where there is none.
void* allocate_pinned(size_t bytes);
void release_pinned(void* data) noexcept;
/// Whether `data` lies in page-locked memory.
bool is_pinned(const void* data) noexcept;

/// Where the two ends of a copy lie.
enum class Copy { kToDevice, kToHost, kWithin };
void copy(void* to, const void* from, size_t bytes, Copy kind, Stream stream);
void copy_peer(void* to, int to_device, const void* from, int from_device, size_t bytes, Stream stream);
void fill(void* data, uint8_t value, size_t bytes, Stream stream);

/// A stream of the current device that doesn't wait for the default stream; lower numbers go first.
Stream create_stream(int priority);
void destroy_stream(Stream stream) noexcept;
void synchronize_stream(Stream stream);
/// Whether all work of the stream is done.
bool query_stream(Stream stream);
void wait_event(Stream stream, Event event);
void synchronize_device();
/// The priorities that streams can have: greatest (a negative number) and least (0).
void priority_range(int& greatest, int& least);

Event create_event(bool timing);
void destroy_event(Event event) noexcept;
void record_event(Event event, Stream stream);
void synchronize_event(Event event);
bool query_event(Event event);
/// Milliseconds between two events that were made for timing and are done.
float elapsed_time(Event start, Event end);

/// What is enqueued on `stream` from here on becomes a graph instead of running.
void begin_capture(Stream stream, CaptureMode mode);
/// Ends the capture and makes it executable; an Error says what was done that cannot be captured.
GraphExec end_capture(Stream stream);
/// Ends a capture that failed.
void abort_capture(Stream stream) noexcept;
void launch_graph(GraphExec graph, Stream stream);
void destroy_graph(GraphExec graph) noexcept;

}  // namespace opsin::cuda::api
