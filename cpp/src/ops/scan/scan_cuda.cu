// Scans on a GPU. Where lines lie side by side (inner > 1) a thread runs along a line; where they lie one
// after the other, threads share a row, or several rows share a block. Few long lines are cut into chunks:
// one launch finds the chunks' totals, a second one starts each chunk from the totals before it. All of this
// depends on the shape alone, so results are the same in every run.
#include "scan_ops.h"

#include <algorithm>
#include <cmath>

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;
using scan::Source;

constexpr unsigned kThreads = 256, kWarps = kThreads / kWarpThreads;
/// Blocks that keep a GPU busy, and threads that do.
constexpr int64_t kBusyBlocks = 1024, kBusyThreads = int64_t{1} << 17;

/// Elements of a thread: an odd number of states, which then lie in different banks of shared memory.
template <class State>
constexpr unsigned kItems = sizeof(State) <= 8    ? 7
                            : sizeof(State) <= 16 ? 5
                                                  : 3;

template <class State>
struct ScanArgs {
  Source source;
  State* totals;     ///< By line and chunk; null for a single chunk.
  bool is_final;     ///< Writes results; else finds totals.
  int64_t chunk;     ///< Elements of a chunk.
  int64_t chunks;    ///< Of a line.
  unsigned threads;  ///< Threads that share a row: a power of two.
  Divider row_length;
};

/// What the lane `distance` below has; lanes without one get something.
template <class T>
__device__ __forceinline__ T shuffle_up(T value, unsigned distance) {
  using Word = unsigned long long;
  static_assert(sizeof(T) % sizeof(Word) == 0);
  Word words[sizeof(T) / sizeof(Word)];
  memcpy(words, &value, sizeof(T));
  OPSIN_UNROLL
  for (Word& word : words) word = __shfl_up_sync(kAllLanes, word, distance);
  memcpy(&value, words, sizeof(T));
  return value;
}

/// Merges what the threads before this one in its row have; `all` becomes the merge of all threads of the row
/// if a row has the whole block. `shared` has kWarps states.
template <class Op, class State>
__device__ __forceinline__ State threads_before(const Source& s, State value, unsigned threads, State* shared,
                                                State& all) {
  const unsigned lane = threadIdx.x % kWarpThreads, warp = threadIdx.x / kWarpThreads;
  const unsigned width = threads < kWarpThreads ? threads : kWarpThreads;
  const unsigned rank = lane % width;
  for (unsigned d = 1; d < width; d *= 2) {
    const State other = shuffle_up(value, d);
    if (rank >= d) value = Op::merge(s, other, value);
  }
  State before = shuffle_up(value, 1);
  if (rank == 0) before = Op::identity();
  if (threads <= kWarpThreads) return before;
  if (lane == kWarpThreads - 1) shared[warp] = value;
  __syncthreads();
  const unsigned row_warps = threads / kWarpThreads, first = warp / row_warps * row_warps;
  State sum = Op::identity();
  all = sum;
  for (unsigned w = first; w < first + row_warps; ++w) {
    if (w == warp) sum = all;
    all = Op::merge(s, all, shared[w]);
  }
  __syncthreads();
  return Op::merge(s, sum, before);
}

/// Rows one after the other. Either a block has several whole rows, or a chunk of one row, tile by tile.
template <class Op>
__global__ void __launch_bounds__(kThreads) scan_rows(ScanArgs<typename Op::State> args) {
  using State = typename Op::State;
  constexpr unsigned kEach = kItems<State>;
  OPSIN_SHARED(State, slots);
  State* const shared = slots + kThreads * kEach;
  const Source& s = args.source;
  const int64_t n = s.p.n, rows = s.p.outer;
  const unsigned threads = args.threads, block_rows = kThreads / threads, tile = threads * kEach;
  const unsigned row = threadIdx.x / threads, rank = threadIdx.x % threads;

  const int64_t row0 = blockIdx.x / args.chunks * block_rows, chunk = blockIdx.x % args.chunks;
  const auto here = static_cast<unsigned>(min(static_cast<int64_t>(block_rows), rows - row0));
  State carry = Op::identity();
  if (args.totals && args.is_final) {
    // Each thread merges neighbouring chunks that come before this one.
    const int64_t each = (args.chunks + kThreads - 1) / kThreads;
    const State* totals = args.totals + row0 * args.chunks;
    State sum = Op::identity();
    OPSIN_NO_UNROLL
    for (int64_t c = threadIdx.x * each; c < min((threadIdx.x + 1) * each, chunk); ++c) {
      sum = Op::merge(s, sum, totals[c]);
    }
    threads_before<Op>(s, sum, kThreads, shared, carry);
  }

  const int64_t end = min(n, (chunk + 1) * args.chunk);
  for (int64_t base = chunk * args.chunk; base < end; base += tile) {
    // Elements of the tile lie side by side in memory.
    const auto length = static_cast<unsigned>(min(static_cast<int64_t>(tile), end - base));
    const unsigned count = here * length;
    const int64_t first = row0 * n + (s.p.reverse ? n - base - length : base);
    for (unsigned e = threadIdx.x; e < count; e += kThreads) {
      const unsigned r = block_rows == 1 ? 0 : args.row_length.divide(e);
      const unsigned i = e - r * length, q = s.p.reverse ? length - 1 - i : i;
      slots[r * tile + q] = Op::load(s, first + e, base + q);
    }
    __syncthreads();

    const unsigned mine = row * tile + rank * kEach;
    const unsigned left = row < here && rank * kEach < length ? min(kEach, length - rank * kEach) : 0;
    State states[kEach], sum = Op::identity();
    OPSIN_UNROLL
    for (unsigned i = 0; i < kEach; ++i) {
      if (i < left) sum = Op::merge(s, sum, slots[mine + i]);
      states[i] = sum;
    }
    State all = sum;
    const State before = Op::merge(s, carry, threads_before<Op>(s, sum, threads, shared, all));
    if (block_rows == 1) carry = Op::merge(s, carry, all);

    if (args.is_final) {
      OPSIN_UNROLL
      for (unsigned i = 0; i < kEach; ++i) {
        if (i < left) slots[mine + i] = Op::merge(s, before, states[i]);
      }
      __syncthreads();
      OPSIN_NO_UNROLL
      for (unsigned e = threadIdx.x; e < count; e += kThreads) {
        const unsigned r = block_rows == 1 ? 0 : args.row_length.divide(e);
        const unsigned i = e - r * length, q = s.p.reverse ? length - 1 - i : i;
        Op::store(s, first + e, slots[r * tile + q]);
      }
    }
    __syncthreads();
  }
  if (!args.is_final && threadIdx.x == 0) args.totals[blockIdx.x] = carry;
}

/// Lines side by side: a thread for each chunk of a line.
template <class Op>
__global__ void __launch_bounds__(kThreads) scan_lines(ScanArgs<typename Op::State> args) {
  using State = typename Op::State;
  constexpr int kAhead = 4;  // loads on their way at once
  const Source& s = args.source;
  const int64_t n = s.p.n, inner = s.p.inner;
  OPSIN_NO_UNROLL
  for (int64_t t = thread_rank(); t < s.p.outer * args.chunks * inner; t += thread_count()) {
    const int64_t i = t % inner, chunk = t / inner % args.chunks, outer = t / inner / args.chunks;
    State state = Op::identity();
    if (args.totals && args.is_final) {
      OPSIN_NO_UNROLL
      for (int64_t c = 0; c < chunk; ++c) {
        state = Op::merge(s, state, args.totals[(outer * args.chunks + c) * inner + i]);
      }
    }
    const int64_t end = min(n, (chunk + 1) * args.chunk);
    const int64_t step = s.p.reverse ? -inner : inner;
    int64_t q = chunk * args.chunk;
    int64_t at = (outer * n + (s.p.reverse ? n - 1 - q : q)) * inner + i;
    for (; q < end; q += kAhead, at += kAhead * step) {
      State next[kAhead];
      OPSIN_UNROLL
      for (int k = 0; k < kAhead; ++k) {
        next[k] = q + k < end ? Op::load(s, at + k * step, q + k) : Op::identity();
      }
      OPSIN_UNROLL
      for (int k = 0; k < kAhead; ++k) {
        state = Op::merge(s, state, next[k]);
        if (args.is_final && q + k < end) Op::store(s, at + k * step, state);
      }
    }
    if (!args.is_final) args.totals[t] = state;
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Launches `pass(args)` once, or for the totals and then for the results.
template <class State, class Pass>
void run_passes(ScanArgs<State>& args, Pass pass) {
  args.is_final = true;
  if (args.chunks == 1) return pass(args);
  const ScanParams& p = args.source.p;
  const Scratch<State> totals(p.outer * p.inner * args.chunks);
  args.totals = totals.data();
  args.is_final = false;
  pass(args);
  args.is_final = true;
  pass(args);
}

template <class Op>
void launch(const ScanParams& p, bool flag) {
  using State = typename Op::State;
  ScanArgs<State> args{};
  args.source = {p, static_cast<unsigned>(item_size(p.dtype)), flag};
  if (p.inner > 1) {
    // Adding up the totals before a chunk must not take longer than the chunk.
    const auto most = static_cast<int64_t>(std::sqrt(static_cast<double>(p.n)));
    args.chunk = divide_up(
        p.n, std::clamp<int64_t>(kBusyThreads / (p.outer * p.inner), 1, std::max<int64_t>(most, 1)));
    args.chunks = divide_up(p.n, args.chunk);
    run_passes(args, [&](const ScanArgs<State>& now) {
      OPSIN_LAUNCH(scan_lines<Op>, grid_for(p.outer * args.chunks * p.inner, kThreads, 0x7fffffff), kThreads,
                   0, now);
    });
    return;
  }
  constexpr unsigned kEach = kItems<State>;
  constexpr int64_t kTile = int64_t{kThreads} * kEach;
  args.threads = 1;
  while (args.threads < kThreads && int64_t{args.threads} * kEach < p.n) args.threads *= 2;
  args.chunk = divide_up(divide_up(p.n, std::max<int64_t>(1, kBusyBlocks / p.outer)), kTile) * kTile;
  args.chunks = divide_up(p.n, args.chunk);
  if (args.threads < kThreads) args.row_length = Divider(static_cast<uint32_t>(p.n));
  const int64_t blocks = divide_up(p.outer, kThreads / args.threads) * args.chunks;
  run_passes(args, [&](const ScanArgs<State>& now) {
    OPSIN_LAUNCH(scan_rows<Op>, static_cast<unsigned>(blocks), kThreads, (kTile + kWarps) * sizeof(State),
                 now);
  });
}

void sum(const ScanParams& p) {
  if (is_complex(p.dtype)) return launch<scan::Sum<Complex<double>>>(p, false);
  if (is_floating_point(p.dtype)) return launch<scan::Sum<double>>(p, false);
  launch<scan::Sum<int64_t>>(p, false);
}

template <bool kProduct>
void affine(const ScanParams& p) {
  if (is_complex(p.dtype)) return launch<scan::Affine<Complex<double>>>(p, kProduct);
  if (is_floating_point(p.dtype)) return launch<scan::Affine<double>>(p, kProduct);
  launch<scan::Affine<int64_t>>(p, kProduct);
}

void log_sum_exp(const ScanParams& p) { launch<scan::LogSumExp>(p, false); }

template <bool kMax>
void extremum(const ScanParams& p) {
  if (is_floating_point(p.dtype)) return launch<scan::Extremum<double>>(p, kMax);
  launch<scan::Extremum<int64_t>>(p, kMax);
}

}  // namespace

void register_scan_cuda();

void register_scan_cuda() {
  constexpr auto kDevice = DeviceType::kCUDA;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    cumsum_forward.set(kDevice, dtype, sum);
    cumprod_forward.set(kDevice, dtype, affine<true>);
    linear_scan_forward.set(kDevice, dtype, affine<false>);
    if (is_floating_point(dtype)) logcumsumexp_forward.set(kDevice, dtype, log_sum_exp);
    if (is_complex(dtype)) continue;
    cummax_forward.set(kDevice, dtype, extremum<true>);
    cummin_forward.set(kDevice, dtype, extremum<false>);
  }
}

}  // namespace opsin
