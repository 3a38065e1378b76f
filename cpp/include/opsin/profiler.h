// What the engine spends its time, memory and arithmetic on, op by op.
//
//   opsin::Profiler profiler({.with_flops = true});
//   loss.backward();
//   for (const auto& event : profiler.stop().events) { ... }
//
// Recorded are the ops of all threads, backward passes by the names that their nodes have in Python
// ("ConvBackward", with the ops that they call inside), and the scopes of RecordFunction.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <opsin/api.h>
#include <opsin/shape.h>

namespace opsin {

namespace profiler {
class Scope;
}

struct ProfilerOptions {
  bool record_shapes = false;   ///< Keep the sizes of the tensor arguments of each op.
  bool profile_memory = false;  ///< Keep every change of the memory in use.
  bool with_flops = false;      ///< Count the arithmetic of convolutions and matrix products.
};

struct ProfilerEvent {
  enum class Kind : uint8_t { kOp, kBackward, kUser };

  std::string name;
  Kind kind;
  int thread;        ///< A small number for each thread of the process.
  int64_t start_ns;  ///< Since the start of the profile.
  int64_t duration_ns;
  int64_t parent;  ///< The event of the same thread inside which this one ran; -1 if there is none.
  int64_t flops;   ///< A multiplication and an addition count 2; those of inner events are not included.
  int64_t memory_bytes;      ///< What the thread allocated less what it freed meanwhile.
  std::vector<Dims> shapes;  ///< Of the tensor arguments, empty for absent ones.
};

struct MemorySample {
  int64_t time_ns;
  int thread;
  int64_t change_bytes;
  int64_t allocated_bytes;  ///< By all threads, after the change; as cpu::memory_stats().
};

struct ProfilerResult {
  int64_t duration_ns;
  std::vector<ProfilerEvent> events;  ///< In the order in which they began.
  std::vector<MemorySample> memory;
};

/// Records from its construction to stop(). One may run at a time: Error for a second one. What was begun
/// before the start or has not ended at the stop is left out.
class OPSIN_API Profiler {
 public:
  explicit Profiler(const ProfilerOptions& options = {});
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  /// Error when it was stopped before.
  ProfilerResult stop();

 private:
  bool running_ = true;
};

/// Scope that shows up as an event of its own: `RecordFunction scope("data loading");`.
class OPSIN_API RecordFunction {
 public:
  explicit RecordFunction(std::string_view name);
  ~RecordFunction();
  RecordFunction(const RecordFunction&) = delete;
  RecordFunction& operator=(const RecordFunction&) = delete;

 private:
  std::unique_ptr<profiler::Scope> scope_;
};

}  // namespace opsin
