// Fisher's and Yates' shuffle in parallel, with the result of the loop
//     for i = n - 1 ... 1: swap(data[i], data[target(i)]),  target(i) <= i.
// A step may run as soon as no earlier one (a larger i) is left that touches one of its two places. In each
// round every step that is left bids for both, the earliest bid wins a place, and steps that won both run
// (J. Shun et al., "Sequential random permutation, list contraction and tree contraction are highly
// parallel", SODA 2015). The longest chain of steps is a small multiple of log n, so that a fixed number of
// rounds leaves (almost certainly) nothing; what is left nevertheless, the last kernel finishes.
#include "random_functors.h"
#include "random_kernels.h"

#include <bit>

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256, kFinishThreads = 512;
/// Up to this length the last kernel does everything.
constexpr uint32_t kShort = 2048;
constexpr uint32_t kDone = 0xffffffffu;

struct Shuffle {
  int64_t* data;
  uint32_t* target;  ///< kDone for a step that ran.
  uint32_t* bid;     ///< By place: the earliest step that wants it, 0 for none.
  uint32_t* left;    ///< Whether steps are left after all rounds of the grid.
  uint32_t n;
};

__device__ __forceinline__ void start(const Shuffle& s, const PhiloxSeed& resolved, uint32_t i) {
  const philox::Block words = philox::block(resolved.seed, resolved.offset + i);
  s.data[i] = i;
  s.bid[i] = 0;
  // Step 0 swaps nothing.
  s.target[i] = i == 0 ? kDone
                       : static_cast<uint32_t>(philox::integer_in(words.word[0], words.word[1], 0,
                                                                  static_cast<uint64_t>(i) + 1));
}

/// Whether the step is left.
__device__ __forceinline__ bool bid(const Shuffle& s, uint32_t i) {
  const uint32_t j = s.target[i];
  if (j == kDone) return false;
  atomicMax(&s.bid[i], i);
  atomicMax(&s.bid[j], i);
  return true;
}

/// Other steps only compare these bids with their own numbers, so it is no matter to them when a bid is taken
/// back.
__device__ __forceinline__ void run(const Shuffle& s, uint32_t i) {
  const uint32_t j = s.target[i];
  if (j == kDone || s.bid[i] != i || s.bid[j] != i) return;
  const int64_t kept = s.data[i];
  s.data[i] = s.data[j];
  s.data[j] = kept;
  s.bid[i] = 0;
  s.bid[j] = 0;
  s.target[i] = kDone;
}

__global__ void __launch_bounds__(kThreads) start_kernel(Shuffle s, PhiloxSeed random) {
  random = resolve(random);
  if (thread_rank() == 0) *s.left = 0;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < s.n; i += thread_count()) start(s, random, static_cast<uint32_t>(i));
}
__global__ void __launch_bounds__(kThreads) bid_kernel(Shuffle s, bool is_last) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < s.n; i += thread_count()) {
    if (bid(s, static_cast<uint32_t>(i)) && is_last) *s.left = 1;
  }
}
__global__ void __launch_bounds__(kThreads) run_kernel(Shuffle s) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < s.n; i += thread_count()) run(s, static_cast<uint32_t>(i));
}

/// One block: rounds until no step is left.
__global__ void __launch_bounds__(kFinishThreads) finish_kernel(Shuffle s, PhiloxSeed random, bool is_first) {
  OPSIN_SHARED(int, left);
  if (!is_first && *s.left == 0) return;
  if (is_first) {
    random = resolve(random);
    for (uint32_t i = threadIdx.x; i < s.n; i += kFinishThreads) start(s, random, i);
  }
  for (;;) {
    if (threadIdx.x == 0) *left = 0;
    __syncthreads();
    bool mine = false;
    for (uint32_t i = threadIdx.x; i < s.n; i += kFinishThreads) mine |= bid(s, i);
    if (mine) *left = 1;
    __syncthreads();
    const bool any = *left != 0;
    for (uint32_t i = threadIdx.x; any && i < s.n; i += kFinishThreads) run(s, i);
    __syncthreads();
    if (!any) return;
  }
}

void fill_randperm(const FillParams& p) {
  OPSIN_CHECK(Error, p.count < int64_t{kDone}, "randperm: expected n below 2^32 - 1 on a GPU, got ", p.count);
  const auto n = static_cast<uint32_t>(p.count);
  if (n == 0) return;
  const Scratch<uint32_t> words(2 * p.count + 1);
  const Shuffle s{static_cast<int64_t*>(p.out), words.data(), words.data() + n, words.data() + 2 * p.count,
                  n};
  const bool is_short = n <= kShort;
  if (!is_short) {
    const unsigned grid = grid_for(n, kThreads);
    OPSIN_LAUNCH(start_kernel, grid, kThreads, 0, s, p.random);
    for (int round = 3 * std::bit_width(n); round > 0; --round) {
      OPSIN_LAUNCH(bid_kernel, grid, kThreads, 0, s, false);
      OPSIN_LAUNCH(run_kernel, grid, kThreads, 0, s);
    }
    OPSIN_LAUNCH(bid_kernel, grid, kThreads, 0, s, true);
  }
  OPSIN_LAUNCH(finish_kernel, 1, kFinishThreads, sizeof(int), s, p.random, is_short);
}

}  // namespace

void register_randperm_cuda();

void register_randperm_cuda() { randperm_fill.set(DeviceType::kCUDA, kInt64, fill_randperm); }

}  // namespace opsin
