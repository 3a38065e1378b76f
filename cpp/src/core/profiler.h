// The engine's side of the profiler: scopes around ops and nodes, and samples of memory.
#pragma once

#include <atomic>
#include <span>

#include <opsin/profiler.h>
#include <opsin/tensor.h>

namespace opsin::profiler {

enum Flag : uint8_t { kOn = 1, kShapes = 2, kMemory = 4, kFlops = 8 };

/// What the running profile wants; 0 without one. The one test that everything costs when nothing is
/// profiled.
extern std::atomic<uint8_t> flags;
inline bool wants(Flag flag) { return flags.load(std::memory_order_relaxed) & flag; }

/// One event from start() to the end of the scope. `name` must outlive the profile. Until start() only the
/// null name is set: every op has one of these.
class Scope {
 public:
  Scope() = default;
  ~Scope() {
    if (name_) [[unlikely]]
      finish();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  void start(const char* name, ProfilerEvent::Kind kind);
  void add_flops(int64_t flops) { flops_ += flops; }
  void add_shapes(const Tensor& tensor) { add_shapes({&tensor, 1}); }
  void add_shapes(std::span<const Tensor> tensors);

 private:
  void finish() noexcept;

  const char* name_ = nullptr;
  ProfilerEvent::Kind kind_;
  int thread_;
  int depth_;
  uint64_t session_;
  int64_t start_ns_, start_bytes_, flops_;
  std::vector<Dims>* shapes_;  // Owned between start() and finish().
};

/// Called after `allocated_bytes` changed by `change_bytes`, while wants(kMemory).
void record_memory(int64_t change_bytes, int64_t allocated_bytes) noexcept;

/// "MulBackward" for the node of the op "mul"; the end of the graph at a leaf is "AccumulateGrad".
OPSIN_API std::string node_name(std::string_view op);

}  // namespace opsin::profiler
