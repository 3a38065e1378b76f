#include "cpu/allocator.h"

#include "raises.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <opsin/error.h>

#include "cpu/cpu_limits.h"
#include "cpu/page_heap.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define OPSIN_TEST_ASAN 1
#else
#define OPSIN_TEST_ASAN 0
#endif

namespace opsin::cpu {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

struct Allocation {
  void* pointer;
  size_t bytes;
};

Allocation take(size_t bytes) { return {allocate(bytes), bytes}; }
void give(const Allocation& block) { deallocate(block.pointer, block.bytes); }

/// Starts every test with an empty cache and ends it without a limit.
class Allocator : public testing::Test {
 protected:
  void SetUp() override {
    empty_cache();
    reset_peak_memory_stats();
    before_ = memory_stats();
  }
  void TearDown() override {
    set_memory_limit(0);
    EXPECT_EQ(memory_stats().allocated, before_.allocated);
    empty_cache();
  }
  size_t in_use() const { return memory_stats().allocated - before_.allocated; }

  MemoryStats before_;
};

TEST_F(Allocator, BlocksAreAlignedAndTheirOwn) {
  std::vector<std::pair<Allocation, int>> blocks;
  int tag = 0;
  for (size_t bytes : {0, 1, 63, 64, 65, 511, 512, 513, 4096, 5000, 32767, 32768, 32769, 65536, 1000000,
                       1048576, 1048577, 3000000}) {
    for (int copy = 0; copy < 5; ++copy) {
      const Allocation block = take(bytes);
      ASSERT_NE(block.pointer, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(block.pointer) % kAlignment, 0u) << bytes;
      std::memset(block.pointer, ++tag, bytes);
      blocks.emplace_back(block, tag);
    }
  }
  for (const auto& [block, value] : blocks) {
    const auto* bytes = static_cast<const unsigned char*>(block.pointer);
    EXPECT_TRUE(
        std::all_of(bytes, bytes + block.bytes, [&, v = value](unsigned char b) { return b == (v & 255); }));
    give(block);
  }
}

TEST_F(Allocator, RoundingWastesLittle) {
  for (size_t bytes = 1; bytes < 64 * kMiB; bytes += 1 + bytes / 7) {
    const Allocation block = take(bytes);
    const size_t waste = in_use() - bytes;
    EXPECT_LE(waste, std::max<size_t>(63, bytes / 8)) << bytes;
    give(block);
  }
}

TEST_F(Allocator, CountsWhatIsInUse) {
  const Allocation a = take(1024);
  const Allocation b = take(8 * kMiB);
  EXPECT_EQ(in_use(), 1024 + 8 * kMiB);
  EXPECT_EQ(memory_stats().allocations - before_.allocations, 2u);
  give(b);
  EXPECT_EQ(in_use(), 1024u);
  EXPECT_EQ(memory_stats().peak_allocated - before_.allocated, 1024 + 8 * kMiB);
  reset_peak_memory_stats();
  EXPECT_EQ(memory_stats().peak_allocated - before_.allocated, 1024u);
  give(a);
}

TEST_F(Allocator, NullIsIgnored) { deallocate(nullptr, 100); }

TEST_F(Allocator, ImpossibleSizesRaise) {
  constexpr size_t kMost = std::numeric_limits<size_t>::max();
  for (size_t bytes : {kMost, kMost - 63, kMost - 4095, kMost / 2 + 1, kMost / 2, size_t{1} << 47}) {
    EXPECT_RAISES(allocate(bytes), OutOfMemoryError,
                  "allocate: expected at most 64.00 TiB, got " + std::to_string(bytes) +
                      " bytes (a size that overflowed?)");
  }
}

TEST_F(Allocator, MoreThanTheMachineHasRaises) {
  EXPECT_RAISES(allocate(usable_memory() + kMiB), OutOfMemoryError,
                "allocate: expected a size that fits the memory of this machine of ");
  EXPECT_RAISES(allocate(size_t{1} << 46), OutOfMemoryError, "got 64.00 TiB with ");
}

TEST_F(Allocator, TheLimitHoldsAndReports) {
  const Allocation kept = take(4 * kMiB);
  set_memory_limit(before_.reserved + 16 * kMiB);
  EXPECT_EQ(memory_limit(), before_.reserved + 16 * kMiB);
  EXPECT_RAISES(allocate(13 * kMiB), OutOfMemoryError,
                "allocate: expected a size that fits the memory limit of ");
  EXPECT_RAISES(allocate(13 * kMiB), OutOfMemoryError, ", got 13.00 MiB with ");
  EXPECT_RAISES(
      allocate(13 * kMiB), OutOfMemoryError,
      "at the peak (release tensors, use a smaller batch or raise the limit with set_memory_limit)");
  // What failed left nothing behind, and what fits still works.
  const Allocation fits = take(11 * kMiB);
  give(fits);
  give(kept);
}

TEST_F(Allocator, TheCacheIsDroppedBeforeTheLimitFails) {
  set_memory_limit(before_.reserved + 16 * kMiB);
  for (size_t bytes : {15 * kMiB, 9 * kMiB, 14 * kMiB, kMiB / 2, 15 * kMiB}) give(take(bytes));
  EXPECT_LE(memory_stats().peak_reserved, before_.reserved + 16 * kMiB);
}

TEST_F(Allocator, ManySmallBlocksReachTheLimitToo) {
  set_memory_limit(before_.reserved + 16 * kMiB);
  std::vector<Allocation> blocks;
  EXPECT_RAISES(for (int i = 0; i < 40000; ++i) blocks.push_back(take(1000)), OutOfMemoryError,
                "memory limit");
  EXPECT_GT(blocks.size(), 8 * kMiB / 1024);
  for (const Allocation& block : blocks) give(block);
  // The freed small blocks make room for a large one.
  give(take(12 * kMiB));
}

// The sanitizers need the memory that this test takes away.
#if !OPSIN_TEST_ASAN && !defined(__SANITIZE_THREAD__)
TEST_F(Allocator, ARefusalOfTheSystemRaises) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    rlimit most{};
    most.rlim_cur = most.rlim_max = size_t{128} << 20;
    if (setrlimit(RLIMIT_DATA, &most) != 0) _exit(3);
    std::vector<Allocation> blocks;
    try {
      for (int i = 0; i < 64; ++i) blocks.push_back(take(8 * kMiB + 1));
    } catch (const OutOfMemoryError& error) {
      const bool told =
          std::strstr(error.what(), "allocate: the system has no more memory, got a request for") != nullptr;
      // Memory given back can be had again.
      for (const Allocation& block : blocks) give(block);
      give(take(8 * kMiB + 1));
      _exit(told && !blocks.empty() ? 0 : 2);
    }
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

#endif

// AddressSanitizer bypasses the cache.
#if !OPSIN_TEST_ASAN
TEST_F(Allocator, FreedMemoryIsReused) {
  for (size_t bytes : {size_t{100}, size_t{20000}, size_t{200000}, 5 * kMiB}) {
    const Allocation first = take(bytes);
    give(first);
    const uint64_t fresh = memory_stats().system_allocations;
    const uint64_t hits = memory_stats().cache_hits;
    const Allocation second = take(bytes);
    EXPECT_EQ(second.pointer, first.pointer);
    EXPECT_EQ(memory_stats().system_allocations, fresh);
    EXPECT_EQ(memory_stats().cache_hits, hits + 1);
    give(second);
  }
}

TEST_F(Allocator, ThePeakOfLongAgoIsForgotten) {
  give(take(1024 * kMiB));
  EXPECT_GE(memory_stats().reserved, 1024 * kMiB);
  for (int i = 0; i < 40000; ++i) give(take(kMiB));
  EXPECT_LT(memory_stats().reserved - before_.reserved, 128 * kMiB);
}

#endif

TEST_F(Allocator, EmptyCacheGivesEverythingBack) {
  std::vector<Allocation> blocks;
  for (size_t bytes : {size_t{64}, size_t{1000}, size_t{30000}, size_t{100000}, 2 * kMiB, 40 * kMiB}) {
    for (int i = 0; i < 20; ++i) blocks.push_back(take(bytes));
    if (bytes > kMiB) std::memset(blocks.back().pointer, 1, bytes);
  }
  for (const Allocation& block : blocks) give(block);
  EXPECT_EQ(in_use(), 0u);
  empty_cache();
  EXPECT_LE(memory_stats().reserved, before_.reserved);
}

TEST_F(Allocator, MemoryStaysFlatOverVaryingSizes) {
  std::mt19937_64 random(1);
  std::vector<Allocation> live;
  size_t most_in_use = 0;
  for (int step = 0; step < (OPSIN_TEST_ASAN ? 1000 : 30000); ++step) {
    const int log = static_cast<int>(random() % 17) + 7;
    live.push_back(take((size_t{1} << log) + random() % (size_t{1} << log)));
    most_in_use = std::max(most_in_use, in_use());
    while (live.size() > 40) {
      const size_t victim = random() % live.size();
      give(live[victim]);
      live[victim] = live.back();
      live.pop_back();
    }
  }
  const MemoryStats stats = memory_stats();
  EXPECT_LE(stats.peak_reserved - before_.reserved, most_in_use + most_in_use / 2 + 96 * kMiB);
  for (const Allocation& block : live) give(block);
}

TEST_F(Allocator, BlocksMayBeFreedInAnotherThread) {
  constexpr int kBlocks = 20000;
  const uint64_t fresh = memory_stats().system_allocations;
  for (int round = 0; round < 4; ++round) {
    std::vector<std::atomic<void*>> mail(kBlocks);
    const auto size_of = [](int i) { return static_cast<size_t>(1 + (i * 37) % 3000); };
    std::thread consumer([&] {
      for (int i = 0; i < kBlocks; ++i) {
        void* pointer = nullptr;
        while ((pointer = mail[static_cast<size_t>(i)].load()) == nullptr) std::this_thread::yield();
        ASSERT_EQ(*static_cast<unsigned char*>(pointer), i & 255);
        deallocate(pointer, size_of(i));
      }
    });
    for (int i = 0; i < kBlocks; ++i) {
      void* pointer = allocate(size_of(i));
      *static_cast<unsigned char*>(pointer) = static_cast<unsigned char>(i);
      mail[static_cast<size_t>(i)].store(pointer);
    }
    consumer.join();
  }
  EXPECT_EQ(in_use(), 0u);
  if (!OPSIN_TEST_ASAN) {
    EXPECT_LT(memory_stats().system_allocations - fresh, 1500u);
  }
}

TEST_F(Allocator, ThreadsKeepTheirBlocksApart) {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      std::mt19937_64 random(static_cast<uint64_t>(id));
      std::vector<Allocation> live;
      for (int step = 0; step < 4000; ++step) {
        live.push_back(take(16 + random() % (step % 50 == 0 ? 300000 : 5000)));
        std::memset(live.back().pointer, id, live.back().bytes);
        if (live.size() < 30) continue;
        std::swap(live[random() % live.size()], live.back());
        const auto* bytes = static_cast<const unsigned char*>(live.back().pointer);
        if (std::count(bytes, bytes + live.back().bytes, id) !=
            static_cast<std::ptrdiff_t>(live.back().bytes))
          ++wrong;
        give(live.back());
        live.pop_back();
      }
      for (const Allocation& block : live) give(block);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

thread_local struct LateUser {
  Allocation block{nullptr, 0};
  ~LateUser() {
    if (block.pointer == nullptr) return;
    give(block);
    // Allocating while the thread ends works too.
    give(take(500));
    give(take(500000));
  }
} late_user;

TEST_F(Allocator, DestructorsOfAThreadMayFree) {
  const uint64_t calls = memory_stats().allocations;
  std::thread([] { late_user.block = take(200); }).join();
  EXPECT_EQ(memory_stats().allocations, calls + 3);
}

TEST_F(Allocator, AForkedChildCanAllocate) {
  const Allocation kept = take(5000);
  std::memset(kept.pointer, 7, kept.bytes);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) give(take(700000));
  });
  for (int round = 0; round < 10; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      const bool same = *static_cast<const unsigned char*>(kept.pointer) == 7;
      give(kept);
      give(take(100));
      give(take(700000));
      empty_cache();
      _exit(same ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  busy.join();
  give(kept);
}

#if OPSIN_TEST_ASAN
TEST_F(Allocator, SanitizerSeesEveryByteOutsideABlock) {
  const Allocation block = take(100);
  auto* bytes = static_cast<char*>(block.pointer);
  EXPECT_FALSE(__asan_address_is_poisoned(bytes + 99));
  EXPECT_TRUE(__asan_address_is_poisoned(bytes + 100));
  give(block);
  EXPECT_TRUE(__asan_address_is_poisoned(bytes));
}
#endif

TEST(PageHeap, SplitsAndMergesWithoutLoss) {
  PageHeap heap(false, 64 * kMiB);
  std::mt19937_64 random(3);
  std::map<char*, size_t> live;
  for (int step = 0; step < 20000; ++step) {
    if (live.size() < 60 && random() % 2 == 0) {
      const size_t bytes = span_bytes(1 + random() % (kMiB / 4));
      void* pointer = heap.take_dirty(bytes);
      if (pointer == nullptr) pointer = heap.take_clean(bytes);
      ASSERT_NE(pointer, nullptr);
      char* begin = static_cast<char*>(pointer);
      const auto above = live.lower_bound(begin);
      ASSERT_TRUE(above == live.end() || begin + bytes <= above->first);
      ASSERT_TRUE(above == live.begin() || std::prev(above)->first + std::prev(above)->second <= begin);
      begin[0] = begin[bytes - 1] = 1;
      live.emplace(begin, bytes);
    } else if (!live.empty()) {
      const auto victim = std::next(live.begin(), static_cast<std::ptrdiff_t>(random() % live.size()));
      heap.release(victim->first);
      live.erase(victim);
    }
    if (step % 1000 == 999) {
      heap.purge(kMiB);
      ASSERT_LE(heap.dirty_bytes(), kMiB);
    }
  }
  size_t sum = 0;
  for (const auto& [begin, bytes] : live) sum += bytes;
  EXPECT_GE(heap.used_bytes(), sum);
  EXPECT_LE(heap.used_bytes(), sum + sum / 8);
  for (const auto& [begin, bytes] : live) heap.release(begin);
  EXPECT_EQ(heap.used_bytes(), 0u);
  heap.purge(0);
  EXPECT_EQ(heap.dirty_bytes(), 0u);
  // Everything has merged back: one span as large as the region can be had.
  void* all = heap.take_clean(span_bytes(60 * kMiB));
  EXPECT_NE(all, nullptr);
  heap.release(all);
}

TEST(PageHeap, PurgedMemoryIsZeroAgain) {
  PageHeap heap(true, 64 * kMiB);
  const size_t bytes = span_bytes(5 * kMiB);
  auto* first = static_cast<char*>(heap.take_clean(bytes));
  std::memset(first, 1, bytes);
  heap.release(first);
  EXPECT_EQ(heap.dirty_bytes(), bytes);
  heap.purge(0);
  auto* second = static_cast<char*>(heap.take_clean(bytes));
  EXPECT_TRUE(std::all_of(second, second + bytes, [](char byte) { return byte == 0; }));
  heap.release(second);
}

}  // namespace
}  // namespace opsin::cpu
