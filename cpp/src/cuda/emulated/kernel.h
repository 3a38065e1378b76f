// CUDA kernel sources on the CPU: the language's keywords, the threads of a block, launches. Included through
// cuda/launch.h by a compiler other than nvcc; no CUDA header is needed.
//
// The blocks of a launch are spread over the engine's thread pool. The threads of a block run one after
// another on one thread of the machine, without a switch until one of them waits for the others; such threads
// have stacks of their own. A kernel without barriers and warp functions costs a loop.
//
// What CUDA leaves undefined is made visible where that is cheap: dynamic shared memory starts as 0xff bytes
// (NaN) in each block, so does what a shuffle gets from a lane that takes no part; a wait that can never end
// raises Error; set_order() changes the order of threads and blocks, and a result that changes with it lacks
// a barrier. Speed, registers and bank conflicts are not modelled. Blocks may not wait for each other.
// Kernels do not throw: when one of their threads has to be given up, the stacks of the waiting ones are not
// unwound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cuda/current_stream.h"
#include "cuda/emulated/intrinsics.h"
#include "cuda/emulated/vector_types.h"
#include "cuda/launch_check.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
// A block stays on one thread of the machine from its first to its last instruction. Unlike dynamic shared
// memory such variables keep what the last block there left in them.
#define __shared__ static thread_local

#define OPSIN_SHARED(T, name) T* name = static_cast<T*>(::opsin::cuda::emulated::context.shared)

#define OPSIN_NOINLINE __attribute__((noinline))
#define OPSIN_UNROLL
#define OPSIN_NO_UNROLL

constexpr int warpSize = 32;

#define threadIdx (::opsin::cuda::emulated::thread_index())
#define blockIdx (::opsin::cuda::emulated::block_index())
#define blockDim (::opsin::cuda::emulated::block_size())
#define gridDim (::opsin::cuda::emulated::grid_size())

namespace opsin::cuda::emulated {

/// The order in which the threads of a block and the blocks of a grid run.
enum class Order { kForward, kReversed, kShuffled };

/// forward (also if `name` is empty), reversed or shuffled; ValueError for another name.
Order order_named(std::string_view name);
/// Initially the one that the environment variable OPSIN_CUDA_ORDER names.
Order order();
/// Sets `order()`. Shuffled orders differ from launch to launch; they start again from the same one.
void set_order(Order order);

/// Launches that are to run later, as often as wanted, with the arguments that they had.
struct Recorder {
  std::vector<std::function<void()>> steps;
};
/// Where the launches of this thread are recorded instead of run; null when they run.
Recorder*& recorder();

class Worker;

/// What the running thread of a kernel knows about itself.
struct Context {
  uint3 thread{};
  uint3 block{};
  dim3 block_size;
  dim3 grid_size;
  unsigned linear = 0;  // index of the thread in its block
  void* shared = nullptr;
  Worker* worker = nullptr;
};
extern constinit thread_local Context context;

inline const uint3& thread_index() { return context.thread; }
inline const uint3& block_index() { return context.block; }
inline const dim3& block_size() { return context.block_size; }
inline const dim3& grid_size() { return context.grid_size; }
inline unsigned lane() { return context.linear % 32; }

enum class WarpFunction : std::uint8_t {
  kSyncwarp,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
};

/// Waits for all threads of the block that have not ended.
void barrier();

/// Waits for all lanes in `mask` that have not ended. For shuffles each lane gets the value of its `source`,
/// all bits set if that lane takes no part; for a ballot the lanes whose value is not 0.
std::uint64_t exchange(WarpFunction function, unsigned mask, std::uint64_t value, unsigned source);

[[noreturn, gnu::cold]] void fail_width(int width);

/// The first lane of the caller's section of `width` lanes: a power of two up to 32.
inline unsigned section(int width) {
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) fail_width(width);
  return lane() & ~static_cast<unsigned>(width - 1);
}

template <WarpValue T>
T shuffle(WarpFunction function, unsigned mask, T value, unsigned source) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(function, mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

/// A launch after its checks; `body(arguments)` is one thread.
struct Launch {
  const char* name;
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  void (*body)(const void* arguments);
  const void* arguments;
};
void run(const Launch& launch);

}  // namespace opsin::cuda::emulated

namespace opsin::cuda {

template <class... P>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
            std::type_identity_t<P>... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied byte by byte");
  if (!check_launch(name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes)) return;
  before_launch();
  const auto thread = [kernel, arguments...] { kernel(arguments...); };
  const auto step = [name, grid, block, shared_bytes, thread] {
    const auto body = [](const void* call) { (*static_cast<decltype(&thread)>(call))(); };
    emulated::run({name, grid, block, shared_bytes, body, &thread});
  };
  if (emulated::Recorder* recorder = emulated::recorder()) {
    recorder->steps.emplace_back(step);
  } else {
    step();
  }
}

}  // namespace opsin::cuda

inline void __syncthreads() { opsin::cuda::emulated::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  opsin::cuda::emulated::exchange(opsin::cuda::emulated::WarpFunction::kSyncwarp, mask, 0, 0);
}

// The hardware looks at the five lowest bits of a lane, a distance or a lane mask.
template <opsin::cuda::emulated::WarpValue T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  using namespace opsin::cuda::emulated;
  return shuffle(WarpFunction::kShuffle, mask, value,
                 section(width) + (static_cast<unsigned>(source) & static_cast<unsigned>(width - 1)));
}
template <opsin::cuda::emulated::WarpValue T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  using namespace opsin::cuda::emulated;
  delta %= 32;
  return shuffle(WarpFunction::kShuffleUp, mask, value,
                 lane() >= section(width) + delta ? lane() - delta : lane());
}
template <opsin::cuda::emulated::WarpValue T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  using namespace opsin::cuda::emulated;
  const unsigned source = lane() + delta % 32;
  return shuffle(WarpFunction::kShuffleDown, mask, value,
                 source < section(width) + static_cast<unsigned>(width) ? source : lane());
}
// Lanes of an earlier section can be read, those of a later one cannot.
template <opsin::cuda::emulated::WarpValue T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  using namespace opsin::cuda::emulated;
  const unsigned source = lane() ^ (static_cast<unsigned>(lane_mask) % 32);
  return shuffle(WarpFunction::kShuffleXor, mask, value,
                 source < section(width) + static_cast<unsigned>(width) ? source : lane());
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(
      opsin::cuda::emulated::exchange(opsin::cuda::emulated::WarpFunction::kBallot, mask, predicate != 0, 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate == 0) == 0; }
