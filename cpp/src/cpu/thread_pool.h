// The engine's own thread pool: fork-join regions over shares of chunks. No OpenMP, no allocation per region.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include <opsin/api.h>

namespace opsin::cpu {

/// Most threads that a region can have.
inline constexpr int kMaxThreads = 1024;

/// Threads that a region of this process may use, the caller included. Initially `OPSIN_NUM_THREADS`, else
/// the CPUs that the scheduler's affinity mask and the container's CPU quota leave to this process.
/// A bad `OPSIN_NUM_THREADS` raises ValueError here and in every region.
OPSIN_API int num_threads();

/// Sets `num_threads()`. Anything outside 1 to `kMaxThreads` raises ValueError.
OPSIN_API void set_num_threads(int threads);

/// Caps the regions that the calling thread starts while it lives; budgets nest, the tightest one holds.
/// A budget below 1 raises ValueError.
class OPSIN_API ThreadBudget {
 public:
  explicit ThreadBudget(int threads);
  ~ThreadBudget();
  ThreadBudget(const ThreadBudget&) = delete;
  ThreadBudget& operator=(const ThreadBudget&) = delete;

 private:
  int previous_;
};

namespace detail {
/// A body without its type: a pointer to it and the function that calls it.
struct Body {
  void* object;
  void (*call)(void* object, int64_t begin, int64_t end);
};

/// Threads that a region started here and now would get: 1 inside a region.
OPSIN_API int region_threads();

/// Runs `body` over the chunks of a region with up to `threads` threads. Needs count > grain >= 1.
OPSIN_API void run_region(int64_t count, int64_t grain, int threads, Body body);
}  // namespace detail

/// Calls `body(begin, end)` for the chunks [0, grain), [grain, 2 * grain), ... of [0, count), in any order
/// and on several threads; the boundaries depend on `count` and `grain` alone, so that results can be the
/// same for any number of threads. One chunk (count <= grain), one thread and nested regions run on the
/// caller. The caller takes part and waits only for threads that took a chunk. When bodies throw, the
/// chunks above the lowest that threw are skipped, as far as they have not begun, and its exception is
/// rethrown here. A grain below 1 counts as 1.
template <class F>
void parallel_for(int64_t count, int64_t grain, F&& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (count <= grain) {
    body(int64_t{0}, count);
    return;
  }
  const int threads = detail::region_threads();
  if (threads == 1) {
    for (int64_t begin = 0; begin < count;) {
      const int64_t end = count - begin > grain ? begin + grain : count;
      body(begin, end);
      begin = end;
    }
    return;
  }
  using Function = std::remove_reference_t<F>;
  detail::run_region(
      count, grain, threads,
      {const_cast<void*>(static_cast<const void*>(std::addressof(body))),
       [](void* object, int64_t begin, int64_t end) { (*static_cast<Function*>(object))(begin, end); }});
}

}  // namespace opsin::cpu
