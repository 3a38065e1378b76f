// The caching allocator of GPUs over a device that only counts.
#include "raises.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <opsin/error.h>

#include "cuda/allocator.h"

namespace opsin::cuda {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// Addresses from a counter: nobody writes there.
class FakeMemory final : public DeviceMemory {
 public:
  explicit FakeMemory(size_t capacity) : capacity_(capacity) {}

  void* allocate(size_t bytes) override {
    if (used + bytes > capacity_) return nullptr;
    ++allocations;
    used += bytes;
    void* const data = reinterpret_cast<void*>(next_);
    next_ += (bytes + 4095) / 4096 * 4096;
    blocks[data] = bytes;
    return data;
  }
  void release(void* data) noexcept override {
    used -= blocks.at(data);
    blocks.erase(data);
  }
  void synchronize() override { ++synchronizations; }
  std::pair<size_t, size_t> info() override { return {capacity_ - used, capacity_}; }
  Event record(Stream) override {
    ++events;
    return reinterpret_cast<Event>(++last_event_);
  }
  bool done(Event event) override { return reinterpret_cast<uintptr_t>(event) <= done_up_to; }
  void wait(Event event) override { done_up_to = std::max(done_up_to, reinterpret_cast<uintptr_t>(event)); }
  void drop(Event) noexcept override { --events; }

  size_t used = 0;
  int allocations = 0, synchronizations = 0, events = 0;
  uintptr_t done_up_to = 0;
  std::map<void*, size_t> blocks;

 private:
  size_t capacity_;
  uintptr_t next_ = size_t{1} << 30;
  uintptr_t last_event_ = 0;
};

DeviceMemory::Stream stream(int number) { return reinterpret_cast<void*>(static_cast<uintptr_t>(number)); }

struct CudaAllocator : testing::Test {
  FakeMemory memory{256 * kMiB};
  Allocator allocator{memory, "cuda:0"};

  /// From the stream that the block was made for.
  void deallocate(void* data) { allocator.deallocate(data, streams.at(data)); }
  void* allocate(size_t bytes, DeviceMemory::Stream on) {
    void* const data = allocator.allocate(bytes, on);
    streams[data] = on;
    return data;
  }

  std::map<void*, DeviceMemory::Stream> streams;
  int64_t allocated() { return allocator.stats().allocated_bytes.all.current; }
  int64_t reserved() { return allocator.stats().reserved_bytes.all.current; }
};

TEST_F(CudaAllocator, SmallBlocksShareASegment) {
  void* const a = allocate(1, nullptr);
  void* const b = allocate(513, nullptr);
  EXPECT_EQ(memory.allocations, 1);
  EXPECT_EQ(static_cast<char*>(b) - static_cast<char*>(a), 512);
  EXPECT_EQ(allocated(), 512 + 1024);
  EXPECT_EQ(reserved(), static_cast<int64_t>(2 * kMiB));
  EXPECT_EQ(allocator.stats().requested_bytes.all.current, 514);
  EXPECT_EQ(allocator.stats().allocation.small_pool.current, 2);
  deallocate(a);
  deallocate(b);
  EXPECT_EQ(allocated(), 0);
  EXPECT_EQ(reserved(), static_cast<int64_t>(2 * kMiB));
}

TEST_F(CudaAllocator, FreedBlocksAreUsedAgainOnTheirStreamOnly) {
  void* const a = allocate(1000, stream(1));
  deallocate(a);
  EXPECT_NE(allocate(1000, stream(2)), a);
  EXPECT_EQ(allocate(1000, stream(1)), a);
}

TEST_F(CudaAllocator, NeighboursJoin) {
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(allocate(kMiB / 2, nullptr));
  EXPECT_EQ(memory.allocations, 1);
  for (const int i : {1, 3, 2, 0}) deallocate(blocks[static_cast<size_t>(i)]);
  // Whole again: two blocks of 1 MiB fit.
  EXPECT_EQ(allocate(kMiB, nullptr), blocks[0]);
  EXPECT_EQ(allocate(kMiB, nullptr), blocks[2]);
  EXPECT_EQ(memory.allocations, 1);
}

TEST_F(CudaAllocator, TheSmallestBlockThatFitsIsTaken) {
  void* const large = allocate(16 * kMiB, nullptr);
  void* const medium = allocate(12 * kMiB, nullptr);
  deallocate(large);
  deallocate(medium);
  EXPECT_EQ(allocate(11 * kMiB + kMiB / 2, nullptr), medium);
}

TEST_F(CudaAllocator, SegmentsOfLargeBlocks) {
  (void)allocate(2 * kMiB, nullptr);
  EXPECT_EQ(reserved(), static_cast<int64_t>(20 * kMiB));
  (void)allocate(30 * kMiB + 1, nullptr);
  EXPECT_EQ(reserved(), static_cast<int64_t>(52 * kMiB));
}

TEST_F(CudaAllocator, AnotherStreamKeepsABlockUntilItsEventIsDone) {
  void* const a = allocate(1000, stream(1));
  allocator.record_stream(a, stream(2));
  allocator.record_stream(a, stream(2));
  deallocate(a);
  EXPECT_EQ(memory.events, 1);
  EXPECT_EQ(allocated(), 0);
  EXPECT_EQ(allocator.stats().active_bytes.all.current, 1024);
  EXPECT_NE(allocate(1000, stream(1)), a);
  memory.done_up_to = 1;
  EXPECT_EQ(allocate(1000, stream(1)), a);
  EXPECT_EQ(memory.events, 0);
}

TEST_F(CudaAllocator, FreedFromAnotherStreamABlockWaitsForIt) {
  void* const a = allocate(1000, stream(1));
  allocator.deallocate(a, stream(2));
  EXPECT_EQ(memory.events, 1);
  EXPECT_NE(allocate(1000, stream(1)), a);
  memory.done_up_to = 1;
  EXPECT_EQ(allocate(1000, stream(1)), a);
}

TEST_F(CudaAllocator, RecordingTheOwnStreamChangesNothing) {
  void* const a = allocate(1000, stream(1));
  allocator.record_stream(a, stream(1));
  deallocate(a);
  EXPECT_EQ(memory.events, 0);
  EXPECT_EQ(allocate(1000, stream(1)), a);
}

TEST_F(CudaAllocator, TheCacheIsGivenBackBeforeMemoryRunsOut) {
  for (int i = 0; i < 3; ++i) {
    void* const block = allocate(80 * kMiB, stream(i));
    deallocate(block);
  }
  (void)allocate(200 * kMiB, nullptr);
  EXPECT_EQ(allocator.stats().num_alloc_retries, 1);
  EXPECT_EQ(allocator.stats().num_ooms, 0);
}

TEST_F(CudaAllocator, BlocksThatWaitForEventsAreWaitedForBeforeMemoryRunsOut) {
  void* const a = allocate(200 * kMiB, stream(1));
  allocator.record_stream(a, stream(2));
  deallocate(a);
  EXPECT_EQ(allocate(200 * kMiB, stream(1)), a);
}

TEST_F(CudaAllocator, OutOfMemoryHasAReportAndStaysUsable) {
  void* const a = allocate(200 * kMiB, nullptr);
  EXPECT_RAISES(
      (void)allocate(100 * kMiB, nullptr), OutOfMemoryError,
      "CUDA out of memory: tried to allocate 100.00 MiB on cuda:0, which has 256.00 MiB and 56.00 MiB free; "
      "this process uses 200.00 MiB for tensors and caches 0.00 KiB");
  EXPECT_EQ(allocator.stats().num_ooms, 1);
  deallocate(a);
  EXPECT_NE(allocate(100 * kMiB, nullptr), nullptr);
  EXPECT_RAISES((void)allocate(SIZE_MAX - 10, nullptr), OutOfMemoryError, "out of memory");
}

TEST_F(CudaAllocator, ExactSizesWhenMemoryIsShort) {
  (void)allocate(250 * kMiB, nullptr);
  // No room for a segment of 20 MiB.
  EXPECT_NE(allocate(5 * kMiB, nullptr), nullptr);
}

TEST_F(CudaAllocator, ALimitHolds) {
  allocator.set_limit(64 * kMiB);
  EXPECT_RAISES((void)allocate(65 * kMiB, nullptr), OutOfMemoryError, "limited to 64.00 MiB");
  (void)allocate(60 * kMiB, nullptr);
  EXPECT_RAISES((void)allocate(5 * kMiB, nullptr), OutOfMemoryError, "limited to 64.00 MiB");
}

TEST_F(CudaAllocator, EmptyCacheKeepsWhatIsUsed) {
  void* const a = allocate(12 * kMiB, nullptr);
  void* const b = allocate(14 * kMiB, nullptr);
  deallocate(a);
  allocator.empty_cache();
  EXPECT_EQ(reserved(), static_cast<int64_t>(14 * kMiB));
  EXPECT_EQ(memory.used, 14 * kMiB);
  deallocate(b);
}

TEST_F(CudaAllocator, PeaksAndSums) {
  void* const a = allocate(1024, nullptr);
  void* const b = allocate(2048, nullptr);
  deallocate(b);
  EXPECT_EQ(allocator.stats().allocated_bytes.all.peak, 3072);
  EXPECT_EQ(allocator.stats().allocated_bytes.all.allocated, 3072);
  EXPECT_EQ(allocator.stats().allocated_bytes.all.freed, 2048);
  allocator.reset_peaks();
  EXPECT_EQ(allocator.stats().allocated_bytes.all.peak, 1024);
  allocator.reset_accumulated();
  EXPECT_EQ(allocator.stats().allocated_bytes.all.allocated, 0);
  deallocate(a);
}

TEST_F(CudaAllocator, AGraphKeepsItsMemory) {
  allocator.hold_pool(7);
  allocator.open_pool(7);
  void* const a = allocate(1000, stream(1));
  deallocate(a);
  void* const again = allocate(1000, stream(1));
  EXPECT_EQ(again, a);
  allocator.close_pool();
  deallocate(again);
  EXPECT_NE(allocate(1000, stream(1)), a);
  allocator.empty_cache();
  EXPECT_TRUE(memory.blocks.count(a));
  allocator.drop_pool(7);
  EXPECT_EQ(memory.synchronizations, 1);
  EXPECT_FALSE(memory.blocks.count(a));
}

TEST_F(CudaAllocator, TensorsThatOutliveTheirGraphMoveToTheCommonPool) {
  allocator.hold_pool(7);
  allocator.hold_pool(7);
  allocator.open_pool(7);
  void* const a = allocate(1000, stream(1));
  void* const b = allocate(1000, stream(1));
  allocator.close_pool();
  allocator.drop_pool(7);
  EXPECT_EQ(memory.synchronizations, 0);
  deallocate(b);
  allocator.drop_pool(7);
  EXPECT_EQ(allocate(1000, stream(1)), b);
  deallocate(a);
  deallocate(b);
  allocator.empty_cache();
  EXPECT_EQ(memory.used, 0U);
}

TEST_F(CudaAllocator, OtherThreadsAllocateAsUsualDuringACapture) {
  allocator.hold_pool(7);
  allocator.open_pool(7);
  void* elsewhere = nullptr;
  std::thread([&] { elsewhere = allocate(1000, stream(1)); }).join();
  void* const a = allocate(1000, stream(1));
  EXPECT_EQ(memory.allocations, 2);
  allocator.close_pool();
  deallocate(elsewhere);
  deallocate(a);
  EXPECT_EQ(allocate(1000, stream(1)), elsewhere);
  allocator.drop_pool(7);
}

TEST_F(CudaAllocator, NoEventsDuringACapture) {
  void* const a = allocate(1000, stream(1));
  allocator.record_stream(a, stream(2));
  allocator.hold_pool(7);
  allocator.open_pool(7);
  deallocate(a);
  EXPECT_EQ(memory.events, 0);
  allocator.close_pool();
  memory.done_up_to = 100;
  EXPECT_EQ(allocate(1000, stream(1)), a);
  allocator.drop_pool(7);
}

TEST_F(CudaAllocator, RandomUse) {
  std::mt19937 random(1);
  std::map<char*, size_t> used;
  for (int i = 0; i < 20000; ++i) {
    if (used.size() < 60 && random() % 2 == 0) {
      const size_t bytes = random() % 4 == 0 ? random() % (3 * kMiB) + 1 : random() % 9000 + 1;
      auto* const data = static_cast<char*>(allocate(bytes, stream(static_cast<int>(random() % 3))));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % 512, 0U);
      const auto after = used.lower_bound(data);
      ASSERT_TRUE(after == used.end() || data + bytes <= after->first);
      ASSERT_TRUE(after == used.begin() || std::prev(after)->first + std::prev(after)->second <= data);
      used[data] = bytes;
    } else if (!used.empty()) {
      const auto victim = std::next(used.begin(), static_cast<long>(random() % used.size()));
      if (random() % 8 == 0) allocator.record_stream(victim->first, stream(9));
      deallocate(victim->first);
      used.erase(victim);
      if (random() % 4 == 0) memory.done_up_to += 3;
    }
    if (i % 5000 == 0) allocator.empty_cache();
  }
  for (const auto& [data, bytes] : used) deallocate(data);
  memory.done_up_to = UINTPTR_MAX;
  allocator.empty_cache();
  EXPECT_EQ(memory.used, 0U);
  EXPECT_EQ(memory.events, 0);
  EXPECT_EQ(reserved(), 0);
  EXPECT_EQ(allocator.stats().active.all.current, 0);
}

}  // namespace
}  // namespace opsin::cuda
