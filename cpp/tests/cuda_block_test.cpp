// What the kernels of the ops share: reductions over warps and blocks, division by constants.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "cuda/block.h"

namespace opsin::cuda {
namespace {

template <class Op, class T>
__global__ void reduce_blocks(const T* x, T* warps, T* blocks) {
  __shared__ T scratch[kBlockWarps];
  const unsigned i = blockIdx.x * block_threads() + block_rank();
  warps[i] = warp_reduce<Op>(x[i]);
  blocks[i] = block_reduce<Op>(x[i], scratch);
  // At once again with the same memory: nothing of the first time may be left over.
  const T again = block_reduce<Op>(blocks[i], scratch);
  const T all = block_reduce<Op>(x[i], scratch);
  if (__builtin_memcmp(&all, &blocks[i], sizeof(T)) != 0) blocks[i] = again;
}

template <class T>
struct Reduced {
  std::vector<T> warps;
  std::vector<T> blocks;
};

template <class Op, class T>
Reduced<T> reduce(const std::vector<T>& x, dim3 block) {
  Reduced<T> result{std::vector<T>(x.size()), std::vector<T>(x.size())};
  const unsigned threads = block.x * block.y * block.z;
  OPSIN_LAUNCH((reduce_blocks<Op, T>), static_cast<unsigned>(x.size()) / threads, block, 0, x.data(),
               result.warps.data(), result.blocks.data());
  return result;
}

/// x -> x * factor + offset in the numbers modulo 2^32: merging depends on the order but not on the grouping.
struct Affine {
  std::uint32_t factor;
  std::uint32_t offset;
  bool operator==(const Affine&) const = default;
};

struct Compose {
  OPSIN_FN Affine operator()(Affine first, Affine then) const {
    return {first.factor * then.factor, first.offset * then.factor + then.offset};
  }
};

TEST(CudaBlock, MergesInOrder) {
  const emulated::Order previous = emulated::order();
  for (const auto order :
       {emulated::Order::kForward, emulated::Order::kReversed, emulated::Order::kShuffled}) {
    emulated::set_order(order);
    for (const dim3 block : {dim3(32), dim3(64), dim3(256), dim3(16, 8, 3), dim3(992), dim3(1024)}) {
      const unsigned threads = block.x * block.y * block.z;
      std::mt19937 random(threads);
      std::vector<Affine> x(3 * threads);
      for (Affine& step : x)
        step = {static_cast<std::uint32_t>(random()), static_cast<std::uint32_t>(random())};
      const Reduced<Affine> reduced = reduce<Compose>(x, block);
      for (unsigned i = 0; i < x.size(); ++i) {
        const unsigned warp = i / kWarpThreads * kWarpThreads, first = i / threads * threads;
        Affine expected = x[warp];
        for (unsigned k = 1; k < kWarpThreads; ++k) expected = Compose{}(expected, x[warp + k]);
        ASSERT_EQ(reduced.warps[i], expected) << threads << " " << i;
        if (i != first) {
          ASSERT_EQ(reduced.blocks[i], reduced.blocks[first]);
          continue;
        }
        expected = x[first];
        for (unsigned k = 1; k < threads; ++k) expected = Compose{}(expected, x[first + k]);
        ASSERT_EQ(reduced.blocks[i], expected) << threads << " " << i;
      }
    }
  }
  emulated::set_order(previous);
}

TEST(CudaBlock, SumsAreTheSameEverywhere) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<Pair<float>> x(512);
  for (Pair<float>& pair : x) {
    pair.first = uniform(random);
    pair.second = pair.first * pair.first;
  }
  const emulated::Order previous = emulated::order();
  emulated::set_order(emulated::Order::kForward);
  const Reduced<Pair<float>> forward = reduce<Sum>(x, dim3(256));
  emulated::set_order(emulated::Order::kShuffled);
  const Reduced<Pair<float>> shuffled = reduce<Sum>(x, dim3(256));
  emulated::set_order(previous);
  for (unsigned i = 0; i < x.size(); ++i) {
    const Pair<float> first = forward.blocks[i / 256 * 256];
    EXPECT_EQ(forward.blocks[i].first, first.first);
    EXPECT_EQ(forward.blocks[i].second, first.second);
    EXPECT_EQ(shuffled.blocks[i].first, first.first);
    EXPECT_EQ(shuffled.blocks[i].second, first.second);
  }
  double sum = 0;
  for (unsigned i = 0; i < 256; ++i) sum += x[i].first;
  EXPECT_NEAR(forward.blocks[0].first, sum, 1e-4);
}

TEST(CudaBlock, ExtremesAndTheirPlaces) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> x(64, 1.0);
  x[10] = x[40] = 7.0;
  x[20] = x[50] = -7.0;
  std::vector<Indexed<double>> places(64);
  const auto place = [&] {
    for (int i = 0; i < 64; ++i) places[i] = {x[i], i};
  };
  place();
  EXPECT_EQ(reduce<Max>(x, dim3(64)).blocks[3], 7.0);
  EXPECT_EQ(reduce<Min>(x, dim3(64)).blocks[3], -7.0);
  EXPECT_EQ(reduce<ArgMax>(places, dim3(64)).blocks[63].index, 10);
  EXPECT_EQ(reduce<ArgMin>(places, dim3(64)).blocks[63].index, 20);
  EXPECT_EQ(reduce<ArgMax>(places, dim3(64)).warps[63].index, 40);
  x[33] = x[60] = nan;
  place();
  EXPECT_TRUE(std::isnan(reduce<Max>(x, dim3(64)).blocks[3]));
  EXPECT_TRUE(std::isnan(reduce<Min>(x, dim3(64)).blocks[3]));
  EXPECT_EQ(reduce<ArgMax>(places, dim3(64)).blocks[0].index, 33);
  EXPECT_EQ(reduce<ArgMin>(places, dim3(64)).blocks[0].index, 33);
  EXPECT_EQ(reduce<Product>(std::vector<int>(32, -1), dim3(32)).blocks[0], 1);
}

__global__ void visit(std::int64_t n, int* visits) {
  for (std::int64_t i = thread_rank(); i < n; i += thread_count()) ++visits[i];
}

TEST(CudaBlock, GridsCoverAllWork) {
  EXPECT_EQ(grid_for(0, 256), 0u);
  EXPECT_EQ(grid_for(1, 256), 1u);
  EXPECT_EQ(grid_for(256, 256), 1u);
  EXPECT_EQ(grid_for(257, 256), 2u);
  EXPECT_EQ(grid_for(std::int64_t{1} << 40, 256), kMaxGridBlocks);
  EXPECT_EQ(grid_for(1000, 32, 5), 5u);
  std::vector<int> visits(1000);
  OPSIN_LAUNCH(visit, grid_for(1000, 64, 3), 64, 0, 1000, visits.data());
  EXPECT_EQ(visits, std::vector<int>(1000, 1));
}

TEST(CudaBlock, DividesExactly) {
  constexpr std::uint32_t kMax = 0xffffffffu;
  std::mt19937 random(7);
  std::vector<std::uint32_t> divisors;
  for (std::uint32_t d = 1; d <= 2000; ++d) divisors.push_back(d);
  for (int bit = 11; bit < 32; ++bit) {
    for (const std::uint32_t near : {-1u, 0u, 1u}) divisors.push_back((1u << bit) + near);
  }
  for (std::uint32_t d = 0; d < 100; ++d) divisors.push_back(kMax - d);
  for (int i = 0; i < 2000; ++i) divisors.push_back(static_cast<std::uint32_t>(random()) >> i % 20 | 1u);
  for (const std::uint32_t d : divisors) {
    const Divider divider(d);
    EXPECT_EQ(divider.divisor(), d);
    const auto check = [&](std::uint32_t n) {
      const Divider::Result result = divider.divmod(n);
      return divider.divide(n) == n / d && divider.modulo(n) == n % d && result.quotient == n / d &&
             result.remainder == n % d;
    };
    // The quotient changes at multiples of the divisor: errors would show there first.
    const std::uint32_t last = kMax / d * d;
    for (const std::uint32_t n : {0u, 1u, d - 1, d, d + 1, last - 1, last, last + 1, kMax - 1, kMax})
      ASSERT_TRUE(check(n)) << n << " / " << d;
    for (int i = 0; i < 50; ++i) {
      const auto n = static_cast<std::uint32_t>(random());
      const std::uint32_t multiple = n / d * d;
      ASSERT_TRUE(check(n) && check(multiple) && check(multiple - 1)) << n << " / " << d;
    }
  }
  EXPECT_EQ(Divider().divide(kMax), kMax);
  EXPECT_EQ(Divider(0).divide(17), 17u);
  static_assert(Divider(7).divmod(50).remainder == 1);
}

}  // namespace
}  // namespace opsin::cuda
