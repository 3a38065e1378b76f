#include "ops/random/random_kernels.h"
#include "raises.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/error.h>
#include <opsin/random.h>

#include "core/philox.h"

namespace opsin {
namespace {

using Words = std::vector<uint32_t>;

Words words(const philox::Block& block) { return {block.word, block.word + 4}; }

// The known answers that the authors publish with the algorithm.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(words(philox::block({{0, 0, 0, 0}}, 0, 0)),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(words(philox::block({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff, 0xffffffff)),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(words(philox::block({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0)),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, IsAConstantExpression) {
  constexpr philox::Block block = philox::block(0, 0);
  static_assert(block.word[0] == 0x6627e8d5);
  static_assert(philox::uniform_float(0xffffffff) < 1.0f && philox::uniform_float(0) == 0.0f);
  static_assert(philox::uniform_double(~uint64_t{0}) < 1.0);
}

TEST(Philox, SeedOffsetAndStreamFillKeyAndCounter) {
  EXPECT_EQ(words(philox::block(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e)),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, IntegersStayInRange) {
  EXPECT_EQ(philox::uniform_integer(~uint64_t{0}, 10), 9u);
  EXPECT_EQ(philox::uniform_integer(0, 10), 0u);
  EXPECT_EQ(philox::uniform_integer(~uint64_t{0}, ~uint64_t{0}), ~uint64_t{0} - 1);
  EXPECT_EQ(philox::uniform_integer(0x0123456789abcdef, 0xfedcba9876543210), 0x0121fa00ad77d742u);
  EXPECT_EQ(philox::uniform_integer(0xdeadbeefdeadbeef, 1), 0u);
}

TEST(Philox, LogarithmIsAccurate) {
  double worst_float = 0;
  double worst_double = 0;
  for (uint64_t i = 0; i < 200000; ++i) {
    const philox::Block b = philox::block(7, i);
    const float x = static_cast<float>(b.word[0]) * 0x1p-32f + 0x1p-33f;
    const double exact = std::log(static_cast<double>(x));
    if (exact != 0) worst_float = std::max(worst_float, std::fabs(philox::log_unit(x) / exact - 1));
    const double y = philox::uniform_double(philox::join(b.word[1], b.word[2])) + 0x1p-54;
    const double reference = std::log(y);
    if (reference != 0) worst_double = std::max(worst_double, std::fabs(philox::log_unit(y) / reference - 1));
  }
  EXPECT_LT(worst_float, 2.5e-7);
  EXPECT_LT(worst_double, 5e-16);
  EXPECT_EQ(philox::log_unit(1.0f), 0.0f);
  EXPECT_EQ(philox::log_unit(1.0), 0.0);
}

TEST(Philox, CosineAndSineAreAccurate) {
  constexpr double kTwoPi = 6.283185307179586477;
  double worst_float = 0;
  double worst_double = 0;
  for (uint64_t i = 0; i < 200000; ++i) {
    const philox::Block b = philox::block(8, i);
    const auto f = philox::cos_sin(b.word[0]);
    const double angle = kTwoPi * (b.word[0] * 0x1p-32);
    worst_float =
        std::max({worst_float, std::fabs(f.first - std::cos(angle)), std::fabs(f.second - std::sin(angle))});
    // Words with 53 leading bits, so that the angle of the reference is exact up to its product with 2 pi.
    const uint64_t word = philox::join(b.word[1], b.word[2]) & ~uint64_t{0x7ff};
    const auto d = philox::cos_sin(word);
    const double turns = static_cast<double>(word) * 0x1p-64;
    worst_double = std::max({worst_double, std::fabs(d.first - std::cos(kTwoPi * turns)),
                             std::fabs(d.second - std::sin(kTwoPi * turns))});
  }
  EXPECT_LT(worst_float, 1.2e-7);
  EXPECT_LT(worst_double, 1.2e-15);
  const auto quarter = philox::cos_sin(uint32_t{0x40000000});
  EXPECT_EQ(quarter.first, 0.0f);
  EXPECT_EQ(quarter.second, 1.0f);
  const auto half = philox::cos_sin(uint64_t{1} << 63);
  EXPECT_EQ(half.first, -1.0);
  EXPECT_EQ(half.second, 0.0);
}

TEST(Philox, NormalsAreFiniteAtTheEnds) {
  for (uint32_t first : {0u, 1u, 0x7fffffffu, 0xfffffffeu, 0xffffffffu}) {
    const auto pair = philox::normal_pair(first, 0u);
    EXPECT_TRUE(std::isfinite(pair.first) && std::fabs(pair.first) < 6.8f) << first;
  }
  for (uint64_t first : {uint64_t{0}, uint64_t{1} << 63, ~uint64_t{0}}) {
    const auto pair = philox::normal_pair(first, uint64_t{0});
    EXPECT_TRUE(std::isfinite(pair.first) && std::fabs(pair.first) < 8.7) << first;
  }
}

TEST(Philox, NormalsHaveTheMomentsOfTheDistribution) {
  constexpr int kPairs = 500000;
  double sums[5] = {};
  double cross = 0;
  double below_minus_one = 0;
  for (uint64_t i = 0; i < kPairs; ++i) {
    const philox::Block b = philox::block(123, i);
    const auto pair = philox::normal_pair(b.word[0], b.word[1]);
    for (const double x : {pair.first, pair.second}) {
      double power = 1;
      for (double& sum : sums) {
        sum += power;
        power *= x;
      }
      below_minus_one += x < -1 ? 1 : 0;
    }
    cross += double{pair.first} * pair.second;
  }
  const double n = 2.0 * kPairs;
  EXPECT_NEAR(sums[1] / n, 0, 0.004);
  EXPECT_NEAR(sums[2] / n, 1, 0.006);
  EXPECT_NEAR(sums[3] / n, 0, 0.016);
  EXPECT_NEAR(sums[4] / n, 3, 0.04);
  EXPECT_NEAR(cross / kPairs, 0, 0.006);
  EXPECT_NEAR(below_minus_one / n, 0.158655, 0.0015);
}

template <class Bits, class T>
uint64_t mix(uint64_t hash, T value) {
  return (hash ^ __builtin_bit_cast(Bits, value)) * 0x100000001b3ull;
}

// The bits themselves: they must not change with the compiler, its flags, the instruction set or the version.
TEST(Philox, NormalsHaveTheSameBitsEverywhere) {
  uint64_t floats = 0xcbf29ce484222325;
  uint64_t doubles = floats;
  for (uint64_t i = 0; i < 10000; ++i) {
    const philox::Block b = philox::block(42, i);
    const auto f = philox::normal_pair(b.word[0], b.word[1]);
    floats = mix<uint32_t>(mix<uint32_t>(floats, f.first), f.second);
    const auto d =
        philox::normal_pair(philox::join(b.word[0], b.word[1]), philox::join(b.word[2], b.word[3]));
    doubles = mix<uint64_t>(mix<uint64_t>(doubles, d.first), d.second);
  }
  EXPECT_EQ(floats, 0xf81bf9664f540906u);
  EXPECT_EQ(doubles, 0x1b006791667dcd66u);
}

// Vectors of blocks, the blocks left over and the carry into the upper half of the counter.
TEST(RandomKernels, WordsAreThoseOfPhilox) {
  constexpr int64_t kBlocks = 37;
  constexpr uint64_t kSeed = 0x0123456789abcdef, kOffset = 0xfffffff0;
  Words found(4 * kBlocks);
  OPSIN_ISA_SELECT(cpu::random_table).words(kSeed, kOffset, kBlocks, found.data());
  Words expected;
  for (uint64_t i = 0; i < kBlocks; ++i) {
    for (const uint32_t word : philox::block(kSeed, kOffset + i).word) expected.push_back(word);
  }
  EXPECT_EQ(found, expected);
}

TEST(RandomKernels, NormalsHaveTheSameBitsEverywhere) {
  constexpr int64_t kCount = 20001;
  Words draws(4 * kCount);
  const cpu::RandomTable& kernels = OPSIN_ISA_SELECT(cpu::random_table);
  kernels.words(42, 0, kCount, draws.data());
  std::vector<float> floats(kCount);
  std::vector<double> doubles(kCount);
  kernels.normal_float(draws.data(), kCount, 0, 1, floats.data());
  kernels.normal_double(draws.data(), kCount, 0, 1, doubles.data());
  for (size_t i = 0; i < kCount; i += 2) {
    const uint32_t* w = &draws[i];
    ASSERT_EQ(floats[i], philox::normal_pair(w[0], w[1]).first) << i;
    const uint32_t* v = &draws[2 * i];
    ASSERT_EQ(doubles[i], philox::normal_pair(philox::join(v[0], v[1]), philox::join(v[2], v[3])).first) << i;
  }
}

TEST(Generator, ReservesConsecutiveOffsets) {
  Generator generator(5);
  EXPECT_EQ(generator.reserve(10).offset, 0u);
  const RandomState state = generator.reserve(3);
  EXPECT_EQ(state.seed, 5u);
  EXPECT_EQ(state.offset, 10u);
  EXPECT_EQ(generator.offset(), 13u);
  generator.manual_seed(6);
  EXPECT_EQ(generator.initial_seed(), 6u);
  EXPECT_EQ(generator.offset(), 0u);
}

TEST(Generator, ThreadsNeverShareAnOffset) {
  Generator generator;
  std::vector<std::vector<uint64_t>> starts(4);
  std::vector<std::thread> threads;
  for (auto& own : starts) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) own.push_back(generator.reserve(3).offset);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint64_t> all;
  for (const auto& own : starts) all.insert(own.begin(), own.end());
  EXPECT_EQ(all.size(), 4000u);
  EXPECT_EQ(*all.rbegin(), 3u * 3999);
}

TEST(Generator, StateRoundTrips) {
  Generator generator(0x0123456789abcdef);
  generator.reserve(77);
  const std::vector<uint8_t> state = generator.get_state();
  EXPECT_EQ(state.size(), Generator::kStateBytes);
  generator.manual_seed(1);
  generator.set_state(state.data(), state.size());
  EXPECT_EQ(generator.initial_seed(), 0x0123456789abcdefu);
  EXPECT_EQ(generator.offset(), 77u);
}

TEST(Generator, ForeignStatesRaiseAndChangeNothing) {
  Generator generator(9);
  std::vector<uint8_t> state = generator.get_state();
  EXPECT_RAISES(generator.set_state(state.data(), 5), ValueError,
                "Generator.set_state: expected 24 bytes, got 5");
  EXPECT_RAISES(generator.set_state(nullptr, 0), ValueError, "got 0");
  state[0] ^= 1;
  EXPECT_RAISES(generator.set_state(state.data(), state.size()), ValueError,
                "begins with the tag of this version");
  EXPECT_EQ(generator.initial_seed(), 9u);
}

TEST(Generator, TheDefaultOneCanBeSeeded) {
  EXPECT_EQ(&manual_seed(11), &default_generator());
  EXPECT_EQ(default_generator().initial_seed(), 11u);
  const uint64_t seed = default_generator().seed();
  EXPECT_EQ(default_generator().initial_seed(), seed);
}

}  // namespace
}  // namespace opsin
