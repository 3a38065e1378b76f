// The emulator itself: that kernels run as on a GPU, and that what a GPU would not survive is reported.
#include "emulated_orders.h"
#include "raises.h"

#include <atomic>
#include <cmath>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/error.h>

#include "cuda/launch.h"

namespace opsin::cuda {
namespace {

using emulated::Order;

OPSIN_IN_ALL_ORDERS(CudaEmulatorOrders);

std::vector<int> counting(std::size_t n) {
  std::vector<int> values(n);
  std::iota(values.begin(), values.end(), 1);
  return values;
}

// --- indices

__global__ void count_visits(int* visits, dim3 grid, dim3 block) {
  if (gridDim.x != grid.x || gridDim.y != grid.y || gridDim.z != grid.z || blockDim.x != block.x ||
      blockDim.y != block.y || blockDim.z != block.z)
    return;
  const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  ++visits[b * (block.x * block.y * block.z) + t];
}

TEST_P(CudaEmulatorOrders, EveryIndexRunsOnce) {
  for (const auto& [grid, block] : {std::pair(dim3(1), dim3(1)), std::pair(dim3(5, 3, 2), dim3(4, 3, 7)),
                                    std::pair(dim3(1000), dim3(33)), std::pair(dim3(7), dim3(16, 8, 8))}) {
    std::vector<int> visits(grid.x * grid.y * grid.z * block.x * block.y * block.z);
    OPSIN_LAUNCH(count_visits, grid, block, 0, visits.data(), grid, block);
    EXPECT_EQ(visits, std::vector<int>(visits.size(), 1));
  }
}

// --- shared memory and barriers

/// A tree in dynamic shared memory, for any number of threads.
__global__ void tree_sum(const int* x, int* y) {
  OPSIN_SHARED(int, partial);
  const unsigned t = threadIdx.x;
  partial[t] = x[blockIdx.x * blockDim.x + t];
  __syncthreads();
  for (unsigned n = blockDim.x; n > 1;) {
    const unsigned half = (n + 1) / 2;
    if (t < n / 2) partial[t] += partial[half + t];
    __syncthreads();
    n = half;
  }
  if (t == 0) y[blockIdx.x] = partial[0];
}

/// Warps by shuffles, their sums through static shared memory. The last warp may lack lanes.
__global__ void warp_sum(const int* x, int* y) {
  __shared__ int partial[32];
  const unsigned t = threadIdx.x;
  int sum = x[blockIdx.x * blockDim.x + t];
  for (unsigned delta = 16; delta > 0; delta /= 2) {
    const int other = __shfl_down_sync(0xffffffffu, sum, delta);
    if (t % 32 + delta < 32 && t + delta < blockDim.x) sum += other;
  }
  if (t % 32 == 0) partial[t / 32] = sum;
  __syncthreads();
  if (t == 0) {
    for (unsigned i = 1; i < (blockDim.x + 31) / 32; ++i) sum += partial[i];
    y[blockIdx.x] = sum;
  }
}

TEST_P(CudaEmulatorOrders, SumsOfBlocks) {
  constexpr unsigned kBlocks = 9;
  for (const unsigned threads : {1u, 64u, 256u, 1000u, 1024u}) {
    const std::vector<int> x = counting(kBlocks * threads);
    std::vector<int> expected(kBlocks);
    for (unsigned i = 0; i < kBlocks * threads; ++i) expected[i / threads] += x[i];
    std::vector<int> tree(kBlocks), warps(kBlocks);
    OPSIN_LAUNCH(tree_sum, kBlocks, threads, threads * sizeof(int), x.data(), tree.data());
    OPSIN_LAUNCH(warp_sum, kBlocks, threads, 0, x.data(), warps.data());
    EXPECT_EQ(tree, expected) << threads;
    EXPECT_EQ(warps, expected) << threads;
  }
}

__global__ void transpose_tile(const float* x, float* y, unsigned n) {
  __shared__ float tile[16][17];
  const unsigned column = blockIdx.x * 16, row = blockIdx.y * 16;
  tile[threadIdx.y][threadIdx.x] = x[(row + threadIdx.y) * n + column + threadIdx.x];
  __syncthreads();
  y[(column + threadIdx.y) * n + row + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}

TEST_P(CudaEmulatorOrders, TransposesInTiles) {
  constexpr unsigned kSize = 64;
  std::vector<float> x(kSize * kSize), y(kSize * kSize);
  std::iota(x.begin(), x.end(), 0.0f);
  OPSIN_LAUNCH(transpose_tile, dim3(4, 4), dim3(16, 16), 0, x.data(), y.data(), kSize);
  for (unsigned i = 0; i < kSize * kSize; ++i) ASSERT_EQ(y[i], x[i % kSize * kSize + i / kSize]);
}

__global__ void read_unset_shared(float* seen) {
  OPSIN_SHARED(float, data);
  seen[blockIdx.x * blockDim.x + threadIdx.x] = data[threadIdx.x];
  data[threadIdx.x] = 1;
}

TEST_P(CudaEmulatorOrders, DynamicSharedMemoryIsNaNAtTheStartOfEachBlock) {
  std::vector<float> seen(40 * 64);
  OPSIN_LAUNCH(read_unset_shared, 40, 64, 64 * sizeof(float), seen.data());
  for (const float value : seen) EXPECT_TRUE(std::isnan(value));
}

template <bool kBarrier>
__global__ void mirror(int* y) {
  OPSIN_SHARED(int, data);
  data[threadIdx.x] = static_cast<int>(threadIdx.x);
  if constexpr (kBarrier) __syncthreads();
  y[threadIdx.x] = data[blockDim.x - 1 - threadIdx.x];
}

template <bool kBarrier>
std::vector<int> mirrored(Order order) {
  const Order previous = emulated::order();
  emulated::set_order(order);
  std::vector<int> y(96);
  OPSIN_LAUNCH(mirror<kBarrier>, 1, 96, 96 * sizeof(int), y.data());
  emulated::set_order(previous);
  return y;
}

TEST(CudaEmulator, OrdersShowAMissingBarrier) {
  const std::vector<int> right = mirrored<true>(Order::kForward);
  for (int i = 0; i < 96; ++i) EXPECT_EQ(right[i], 95 - i);
  EXPECT_EQ(mirrored<true>(Order::kReversed), right);
  EXPECT_EQ(mirrored<true>(Order::kShuffled), right);
  EXPECT_NE(mirrored<false>(Order::kForward), mirrored<false>(Order::kReversed));
  EXPECT_NE(mirrored<false>(Order::kShuffled), right);
}

TEST(CudaEmulator, ShuffledOrdersDifferBetweenLaunchesAndStartAgain) {
  const Order previous = emulated::order();
  const auto run = [] {
    std::vector<int> y(96);
    OPSIN_LAUNCH(mirror<false>, 1, 96, 96 * sizeof(int), y.data());
    return y;
  };
  emulated::set_order(Order::kShuffled);
  const std::vector<int> first = run();
  EXPECT_NE(run(), first);
  emulated::set_order(Order::kShuffled);
  EXPECT_EQ(run(), first);
  emulated::set_order(previous);
}

TEST(CudaEmulator, OrdersHaveNames) {
  EXPECT_EQ(emulated::order_named(""), Order::kForward);
  EXPECT_EQ(emulated::order_named("forward"), Order::kForward);
  EXPECT_EQ(emulated::order_named("reversed"), Order::kReversed);
  EXPECT_EQ(emulated::order_named("shuffled"), Order::kShuffled);
  EXPECT_RAISES(emulated::order_named("random"), ValueError,
                "OPSIN_CUDA_ORDER: expected forward, reversed or shuffled, got \"random\"");
}

__global__ void leave_early(int* y) {
  if (threadIdx.x % 3 == 0) return;
  atomicAdd(y, 1);
  __syncthreads();
  if (threadIdx.x % 3 == 1) return;
  __syncthreads();
  atomicAdd(y, *y == 128 ? 1000 : 0);
  __syncthreads();
}

TEST_P(CudaEmulatorOrders, BarriersDoNotWaitForWhoEnded) {
  int y = 0;
  OPSIN_LAUNCH(leave_early, 1, 192, 0, &y);
  EXPECT_EQ(y, 1128);
}

// --- warp functions

enum class Shuffle { kIndex, kUp, kDown, kXor };

template <class T>
__global__ void shuffle_all(Shuffle kind, int by, int width, T* y) {
  const T value = static_cast<T>(threadIdx.x + 1);
  T result = 0;
  if (kind == Shuffle::kIndex) result = __shfl_sync(0xffffffffu, value, by, width);
  if (kind == Shuffle::kUp) result = __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(by), width);
  if (kind == Shuffle::kDown) result = __shfl_down_sync(0xffffffffu, value, static_cast<unsigned>(by), width);
  if (kind == Shuffle::kXor) result = __shfl_xor_sync(0xffffffffu, value, by, width);
  y[threadIdx.x] = result;
}

/// The lane that a shuffle reads, after the description of shfl.sync in the PTX manual.
int source_of(Shuffle kind, int lane, int by, int width) {
  const int first = lane / width * width, last = first + width - 1;
  int source = lane;
  if (kind == Shuffle::kIndex) source = first + by % width;
  if (kind == Shuffle::kUp) source = lane - by < first ? lane : lane - by;
  if (kind == Shuffle::kDown) source = lane + by > last ? lane : lane + by;
  if (kind == Shuffle::kXor) source = (lane ^ by) > last ? lane : lane ^ by;
  return source;
}

template <class T>
void check_shuffles() {
  for (const Shuffle kind : {Shuffle::kIndex, Shuffle::kUp, Shuffle::kDown, Shuffle::kXor}) {
    for (const int width : {1, 2, 4, 8, 16, 32}) {
      for (const int by : {0, 1, 3, 8, 21, 31}) {
        std::vector<T> y(96), expected(96);
        OPSIN_LAUNCH(shuffle_all<T>, 1, 96, 0, kind, by, width, y.data());
        for (int i = 0; i < 96; ++i)
          expected[i] = static_cast<T>(i / 32 * 32 + source_of(kind, i % 32, by, width) + 1);
        ASSERT_EQ(y, expected) << static_cast<int>(kind) << " by " << by << " width " << width;
      }
    }
  }
}

TEST_P(CudaEmulatorOrders, ShufflesReadTheRightLanes) {
  check_shuffles<int>();
  check_shuffles<double>();
}

__global__ void ballots(unsigned* y) {
  const unsigned lane = threadIdx.x;
  if (lane % 4 == 3) return;
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
  if (lane >= 16) return;
  const unsigned all = __ballot_sync(0xffffffffu, 1);
  const int any_high = __any_sync(0xffffffffu, lane > 12), any_left = __any_sync(0xffffffffu, lane >= 16);
  const int all_low = __all_sync(0xffffffffu, lane < 16), all_odd = __all_sync(0xffffffffu, lane % 2);
  y[lane] = odd ^ (all << 16) ^ static_cast<unsigned>(any_high | any_left << 1 | all_low << 2 | all_odd << 3);
}

TEST_P(CudaEmulatorOrders, VotesLeaveOutLanesThatEnded) {
  std::vector<unsigned> y(32);
  OPSIN_LAUNCH(ballots, 1, 32, 0, y.data());
  for (unsigned lane = 0; lane < 32; ++lane) {
    const bool votes = lane < 16 && lane % 4 != 3;
    EXPECT_EQ(y[lane], votes ? 0x22222222u ^ 0x77770000u ^ 5u : 0u) << lane;
  }
}

/// The halves of a warp take different branches, with different numbers of exchanges, and meet again.
__global__ void halves(int* y) {
  const unsigned lane = threadIdx.x % 32;
  int value = static_cast<int>(lane);
  if (lane < 16) {
    for (int i = 0; i < 5; ++i) value = __shfl_sync(0x0000ffffu, value, (static_cast<int>(lane) + 1) % 16);
  } else {
    value = __popc(__ballot_sync(0xffff0000u, lane % 3 == 0));
    __syncwarp(0xffff0000u);
  }
  const int other = __shfl_xor_sync(0xffffffffu, value, 16);
  y[threadIdx.x] = value * 100 + other;
}

TEST_P(CudaEmulatorOrders, PartsOfAWarpWorkAtTheSameTime) {
  std::vector<int> y(64);
  OPSIN_LAUNCH(halves, 1, 64, 0, y.data());
  for (int i = 0; i < 64; ++i) {
    const int low = (i % 16 + 5) % 16, high = 5;
    EXPECT_EQ(y[i], i % 32 < 16 ? low * 100 + high : high * 100 + low) << i;
  }
}

__global__ void read_absent(float* y) {
  if (threadIdx.x >= 16) return;
  y[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 20);
}

TEST_P(CudaEmulatorOrders, LanesThatEndedHaveNoValue) {
  std::vector<float> y(16);
  OPSIN_LAUNCH(read_absent, 1, 32, 0, y.data());
  for (const float value : y) EXPECT_TRUE(std::isnan(value));
}

// --- what cannot work

__global__ void barrier_in_one_branch() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __ballot_sync(0xffffffffu, 1);
    if (threadIdx.x < 40) __syncwarp();
    __syncthreads();
  }
}

__global__ void waits_for_each_other() {
  if (threadIdx.x % 2 == 0)
    __syncwarp(0xffffffffu);
  else
    __syncthreads();
}

__global__ void mask_without_caller() { __syncwarp(0x0000fffeu); }
__global__ void mixed_functions() {
  if (threadIdx.x % 2 == 0)
    __syncwarp();
  else
    __ballot_sync(0xffffffffu, 1);
}
__global__ void odd_width() { __shfl_sync(0xffffffffu, 1, 0, 12); }

TEST_P(CudaEmulatorOrders, WaitsThatNeverEndRaise) {
  for (int repeat = 0; repeat < 3; ++repeat) {
    EXPECT_RAISES(
        OPSIN_LAUNCH(waits_for_each_other, 1, 64, 0), Error,
        "waits_for_each_other: block [0, 0, 0]: a barrier that not all threads reach: of 64 threads these "
        "wait: 32 at __syncthreads, 16 of warp 0 in __syncwarp with mask 0xffffffff, 16 of warp 1 in "
        "__syncwarp with mask 0xffffffff; 0 have ended");
    EXPECT_RAISES(OPSIN_LAUNCH(barrier_in_one_branch, 100, 64, 0), Error, "barrier_in_one_branch: block [");
    EXPECT_RAISES(OPSIN_LAUNCH(mask_without_caller, 1, 1, 0), Error,
                  "mask_without_caller: block [0, 0, 0]: lane 0 calls __syncwarp with mask 0x0000fffe, which "
                  "leaves it out");
    EXPECT_RAISES(OPSIN_LAUNCH(mixed_functions, 1, 32, 0), Error, "wait in __");
    EXPECT_RAISES(OPSIN_LAUNCH(odd_width, 1, 32, 0), Error,
                  "a shuffle has width 12, expected a power of two");
    // What comes next is not disturbed.
    const std::vector<int> x = counting(4 * 256);
    std::vector<int> y(4);
    OPSIN_LAUNCH(warp_sum, 4, 256, 0, x.data(), y.data());
    EXPECT_EQ(y, (std::vector<int>{32896, 98432, 163968, 229504}));
  }
}

__global__ void nothing() {}

TEST(CudaEmulator, LaunchLimits) {
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, 1, 1025, 0), Error,
                "nothing: expected a block of 1 to 1024 threads, at most [1024, 1024, 64], got [1025, 1, 1]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, 1, dim3(32, 33), 0), Error, "got [32, 33, 1]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, 1, dim3(1, 1, 65), 0), Error, "got [1, 1, 65]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, 1, dim3(0), 0), Error, "got [0, 1, 1]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, dim3(1, 65536), 1, 0), Error, "got [1, 65536, 1]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, dim3(1, 1, 65536), 1, 0), Error, "got [1, 1, 65536]");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, dim3(0x80000000u), 1, 0), Error, "expected a grid of at most");
  EXPECT_RAISES(OPSIN_LAUNCH(nothing, 1, 1, 227 * 1024 + 1), Error,
                "nothing: expected at most 232448 bytes of dynamic shared memory, got 232449");
  OPSIN_LAUNCH(nothing, dim3(2, 65535), dim3(1, 1, 64), 0);
  OPSIN_LAUNCH(nothing, 1, 1024, 227 * 1024);
}

TEST(CudaEmulator, EmptyGridsDoNothing) {
  int visits = 0;
  OPSIN_LAUNCH(count_visits, dim3(0), 64, 0, &visits, dim3(0), dim3(64));
  OPSIN_LAUNCH(count_visits, dim3(4, 0), 0, 0, &visits, dim3(4, 0), dim3(0));
  EXPECT_EQ(visits, 0);
}

// --- recording

struct Step {
  int factor;
  int offset;
};

__global__ void affine(int* x, Step step) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  x[i] = x[i] * step.factor + step.offset;
}

TEST(CudaEmulator, RecordsAndReplays) {
  std::vector<int> x(128, 1);
  emulated::Recorder recorder;
  emulated::recorder() = &recorder;
  {
    Step step{3, 1};
    OPSIN_LAUNCH(affine, 2, 64, 0, x.data(), step);
    step = {2, 0};
    OPSIN_LAUNCH(affine, 2, 64, 0, x.data(), step);
    OPSIN_LAUNCH(affine, 0, 64, 0, x.data(), step);
    EXPECT_RAISES(OPSIN_LAUNCH(affine, 1, 2000, 0, x.data(), step), Error, "affine: expected a block");
  }
  std::thread([&] { EXPECT_EQ(emulated::recorder(), nullptr); }).join();
  emulated::recorder() = nullptr;
  EXPECT_EQ(x, std::vector<int>(128, 1));
  ASSERT_EQ(recorder.steps.size(), 2u);
  for (int replay = 0; replay < 2; ++replay) {
    for (const auto& step : recorder.steps) step();
  }
  EXPECT_EQ(x, std::vector<int>(128, 50));
}

// --- several threads of the host

TEST(CudaEmulator, ThreadsLaunchAtTheSameTime) {
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&failures] {
      const std::vector<int> x = counting(6 * 256);
      for (int repeat = 0; repeat < 5; ++repeat) {
        std::vector<int> tree(6), warps(6);
        OPSIN_LAUNCH(tree_sum, 6, 256, 256 * sizeof(int), x.data(), tree.data());
        OPSIN_LAUNCH(warp_sum, 6, 256, 0, x.data(), warps.data());
        for (int b = 0; b < 6; ++b) {
          const int expected = 256 * 256 * b + 256 * 257 / 2;
          failures += (tree[b] != expected) + (warps[b] != expected);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace opsin::cuda
