// What is behind the lists of free blocks that each thread keeps: slabs of small blocks, large blocks, limits
// and statistics.
#pragma once

#include "allocator.h"
#include "page_heap.h"
#include "size_class.h"

#include <array>
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

// AddressSanitizer finds a use after free only while freed memory is not handed out again, so the cache is
// bypassed under it.
#if defined(__SANITIZE_ADDRESS__)
#define OPSIN_BYPASS_CACHE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OPSIN_BYPASS_CACHE 1
#endif
#endif
#ifndef OPSIN_BYPASS_CACHE
#define OPSIN_BYPASS_CACHE 0
#endif

namespace opsin::cpu {

inline constexpr bool kBypassCache = OPSIN_BYPASS_CACHE;

struct FreeBlock {
  FreeBlock* next;
};

struct List {
  FreeBlock* head = nullptr;
  uint32_t count = 0;

  void push(void* pointer) {
    FreeBlock* block = static_cast<FreeBlock*>(pointer);
    block->next = head;
    head = block;
    ++count;
  }
  void* pop() {
    FreeBlock* block = head;
    head = block->next;
    --count;
    return block;
  }
};

/// What one thread keeps for itself. The counters have one writer; `memory_stats` reads them from outside.
struct ThreadCache {
  std::array<List, kClasses> lists;
  std::atomic<uint64_t> allocations{0};
  std::atomic<uint64_t> hits{0};
  ThreadCache* previous = nullptr;
  ThreadCache* next = nullptr;
};

/// "1.50 MiB".
std::string readable(size_t bytes);

/// Everything behind the per-thread lists, under one lock. Never destroyed.
class BlockStore {
 public:
  /// In use: counted by the callers, outside the lock. `limit` is 0 when there is none.
  static inline constinit std::atomic<size_t> allocated{0};
  static inline constinit std::atomic<size_t> peak_allocated{0};
  static inline constinit std::atomic<size_t> limit{0};

  BlockStore();

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  void add_cache(ThreadCache* cache);
  /// Takes the blocks and the counts of a thread that ends.
  void remove_cache(ThreadCache* cache) noexcept;
  /// Fills `list` with a batch of blocks and hands out one more. `cached` says that none had to be made.
  void* refill(size_t index, List* list, bool& cached);
  void drain(size_t index, List& list, uint32_t count) noexcept;
  void* allocate_large(size_t bytes, size_t requested);
  void deallocate_large(void* pointer, size_t bytes) noexcept;
  /// The path of AddressSanitizer: one system block per request, so that every byte outside it is poisoned.
  void* allocate_uncached(size_t bytes, size_t requested);
  MemoryStats stats();
  void reset_peaks();
  /// Applies a new limit: from now on the cache counts too.
  void set_limit(size_t bytes);
  void empty(ThreadCache* own);

 private:
  struct Slab {
    char* begin;
    uint32_t free;
  };
  struct SmallPool {
    List free;
    std::vector<Slab> slabs;
  };

  size_t used() const { return medium_.used_bytes() + huge_.used_bytes(); }
  size_t reserved() const { return used() + medium_.dirty_bytes() + huge_.dirty_bytes(); }
  PageHeap& heap(size_t bytes);

  static size_t slab_bytes(size_t index) { return kClassBytes[index] <= 4096 ? 65536 : 262144; }
  static uint32_t slab_blocks(size_t index);

  void give(size_t index, List& list, uint32_t count) noexcept;
  void add_slab(size_t index);
  /// Returns the slabs of which every block is in the shared pool to the page heap.
  void release_free_slabs() noexcept;
  void drop_cache() noexcept;
  void* take_span(size_t bytes, size_t requested, bool& fresh);
  /// Keeps the cache in proportion to what was lately in use, whatever sizes come.
  void bound_cache() noexcept;
  size_t hard_limit() const;
  void check_limit(size_t in_use, size_t bytes, size_t requested);
  [[noreturn]] void fail_system(size_t requested);
  std::string report() const;

  std::mutex mutex_;
  const size_t machine_bytes_;
  PageHeap medium_;
  PageHeap huge_;
  std::array<SmallPool, kClasses> small_;
  size_t small_free_bytes_ = 0;
  size_t recent_peak_ = 0;
  size_t older_peak_ = 0;
  size_t peak_reserved_ = 0;
  uint64_t span_allocations_ = 0;
  uint64_t system_allocations_ = 0;
  uint64_t allocations_ = 0;
  uint64_t hits_ = 0;
  ThreadCache* caches_ = nullptr;
};

}  // namespace opsin::cpu
