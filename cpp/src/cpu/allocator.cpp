#include "allocator.h"

#include "cpu_limits.h"
#include "page_heap.h"
#include "size_class.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdio>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <pthread.h>
#include <stdlib.h>

#include <opsin/error.h>

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
namespace {

constexpr bool kBypassCache = OPSIN_BYPASS_CACHE;

// From here on spans come from the heap that asks for huge pages.
constexpr size_t kHugeBytes = size_t{1} << 20;
// Room for the cache above a quarter of what was lately in use.
constexpr size_t kSlack = size_t{64} << 20;
// Span allocations after which an old peak of use no longer counts.
constexpr uint64_t kPeakWindow = 16384;
// Above it a size is the result of an overflow, and rounding it could overflow too.
constexpr size_t kMostBytes = size_t{1} << 46;

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

constinit std::atomic<size_t> allocated{0};
constinit std::atomic<size_t> peak_allocated{0};
constinit std::atomic<size_t> limit{0};

// Plain pointers, so that they outlive every destructor of the thread: tensors may die after this file's.
[[gnu::tls_model("initial-exec")]] constinit thread_local ThreadCache* thread_cache = nullptr;
[[gnu::tls_model("initial-exec")]] constinit thread_local bool thread_ended = false;

void bump(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void raise_to(std::atomic<size_t>& peak, size_t value) {
  size_t seen = peak.load(std::memory_order_relaxed);
  while (seen < value && !peak.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

void add_allocated(size_t bytes) {
  const size_t sum = allocated.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (sum > peak_allocated.load(std::memory_order_relaxed)) [[unlikely]]
    raise_to(peak_allocated, sum);
}

void subtract_allocated(size_t bytes) { allocated.fetch_sub(bytes, std::memory_order_relaxed); }

std::string readable(size_t bytes) {
  if (bytes < 1024) return detail::concat(bytes, " bytes");
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit < 5; ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %s", value, kUnits[unit]);
  return text;
}

/// Everything behind the per-thread lists, under one lock. Never destroyed.
class Store {
 public:
  Store()
      : machine_bytes_(usable_memory()),
        medium_(false, 2 * machine_bytes_),
        huge_(true, 2 * machine_bytes_) {}

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  void add_cache(ThreadCache* cache) {
    const std::lock_guard guard(mutex_);
    cache->next = caches_;
    if (caches_ != nullptr) caches_->previous = cache;
    caches_ = cache;
  }

  /// Takes the blocks and the counts of a thread that ends.
  void remove_cache(ThreadCache* cache) noexcept {
    const std::lock_guard guard(mutex_);
    for (size_t index = 0; index < kClasses; ++index)
      give(index, cache->lists[index], cache->lists[index].count);
    allocations_ += cache->allocations.load(std::memory_order_relaxed);
    hits_ += cache->hits.load(std::memory_order_relaxed);
    if (cache->next != nullptr) cache->next->previous = cache->previous;
    (cache->previous != nullptr ? cache->previous->next : caches_) = cache->next;
  }

  /// Fills `list` with a batch of blocks and hands out one more. `cached` says that none had to be made.
  void* refill(size_t index, List* list, bool& cached) {
    const std::lock_guard guard(mutex_);
    SmallPool& pool = small_[index];
    cached = pool.free.head != nullptr;
    if (!cached) add_slab(index);
    if (list != nullptr) {
      const uint32_t moved = std::min(batch_of(index), pool.free.count - 1);
      for (uint32_t i = 0; i < moved; ++i) list->push(pool.free.pop());
      small_free_bytes_ -= size_t{moved} * kClassBytes[index];
    } else {
      ++allocations_;
      hits_ += cached ? 1 : 0;
    }
    small_free_bytes_ -= kClassBytes[index];
    return pool.free.pop();
  }

  void drain(size_t index, List& list, uint32_t count) noexcept {
    const std::lock_guard guard(mutex_);
    give(index, list, count);
  }

  void* allocate_large(size_t bytes, size_t requested) {
    const std::lock_guard guard(mutex_);
    bool fresh = false;
    void* pointer = take_span(bytes, requested, fresh);
    ++allocations_;
    hits_ += fresh ? 0 : 1;
    return pointer;
  }

  void deallocate_large(void* pointer, size_t bytes) noexcept {
    const std::lock_guard guard(mutex_);
    heap(bytes).release(pointer);
  }

  /// The path of AddressSanitizer: one system block per request, so that every byte outside it is poisoned.
  void* allocate_uncached(size_t bytes, size_t requested) {
    const std::lock_guard guard(mutex_);
    check_limit(allocated.load(std::memory_order_relaxed), bytes, requested);
    void* pointer = nullptr;
    if (posix_memalign(&pointer, kAlignment, std::max<size_t>(requested, 1)) != 0) fail_system(requested);
    ++allocations_;
    ++system_allocations_;
    return pointer;
  }

  MemoryStats stats() {
    const std::lock_guard guard(mutex_);
    MemoryStats stats{};
    stats.allocated = allocated.load(std::memory_order_relaxed);
    stats.peak_allocated = peak_allocated.load(std::memory_order_relaxed);
    stats.reserved = kBypassCache ? stats.allocated : reserved();
    stats.peak_reserved = kBypassCache ? stats.peak_allocated : peak_reserved_;
    stats.allocations = allocations_;
    stats.cache_hits = hits_;
    for (const ThreadCache* cache = caches_; cache != nullptr; cache = cache->next) {
      stats.allocations += cache->allocations.load(std::memory_order_relaxed);
      stats.cache_hits += cache->hits.load(std::memory_order_relaxed);
    }
    stats.system_allocations = system_allocations_;
    return stats;
  }

  void reset_peaks() {
    const std::lock_guard guard(mutex_);
    peak_allocated.store(allocated.load(std::memory_order_relaxed), std::memory_order_relaxed);
    peak_reserved_ = reserved();
  }

  /// Applies a new limit: from now on the cache counts too.
  void set_limit(size_t bytes) {
    const std::lock_guard guard(mutex_);
    limit.store(bytes, std::memory_order_relaxed);
    if (reserved() > hard_limit()) drop_cache();
  }

  void empty(ThreadCache* own) {
    const std::lock_guard guard(mutex_);
    for (size_t index = 0; own != nullptr && index < kClasses; ++index)
      give(index, own->lists[index], own->lists[index].count);
    drop_cache();
  }

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
  PageHeap& heap(size_t bytes) { return bytes >= kHugeBytes ? huge_ : medium_; }

  static size_t slab_bytes(size_t index) { return kClassBytes[index] <= 4096 ? 65536 : 262144; }
  static uint32_t slab_blocks(size_t index) {
    return static_cast<uint32_t>(slab_bytes(index) / kClassBytes[index]);
  }

  void give(size_t index, List& list, uint32_t count) noexcept {
    for (uint32_t i = 0; i < count; ++i) small_[index].free.push(list.pop());
    small_free_bytes_ += size_t{count} * kClassBytes[index];
  }

  void add_slab(size_t index) {
    SmallPool& pool = small_[index];
    pool.slabs.reserve(pool.slabs.size() + 1);
    bool fresh = false;
    char* begin = static_cast<char*>(take_span(span_bytes(slab_bytes(index)), kClassBytes[index], fresh));
    pool.slabs.push_back({begin, 0});
    // From the back, so that blocks are handed out in rising order.
    for (uint32_t i = slab_blocks(index); i-- > 0;) pool.free.push(begin + size_t{i} * kClassBytes[index]);
    small_free_bytes_ += size_t{slab_blocks(index)} * kClassBytes[index];
  }

  /// Returns the slabs of which every block is in the shared pool to the page heap.
  void release_free_slabs() noexcept {
    for (size_t index = 0; index < kClasses; ++index) {
      SmallPool& pool = small_[index];
      if (pool.free.count < slab_blocks(index)) continue;
      std::sort(pool.slabs.begin(), pool.slabs.end(),
                [](const Slab& a, const Slab& b) { return a.begin < b.begin; });
      const auto slab_of = [&](void* block) -> Slab& {
        const auto above =
            std::upper_bound(pool.slabs.begin(), pool.slabs.end(), static_cast<char*>(block),
                             [](const char* address, const Slab& slab) { return address < slab.begin; });
        return *(above - 1);
      };
      for (Slab& slab : pool.slabs) slab.free = 0;
      for (FreeBlock* block = pool.free.head; block != nullptr; block = block->next) ++slab_of(block).free;
      List kept;
      while (pool.free.head != nullptr) {
        void* block = pool.free.pop();
        if (slab_of(block).free == slab_blocks(index)) {
          small_free_bytes_ -= kClassBytes[index];
        } else {
          kept.push(block);
        }
      }
      pool.free = kept;
      std::erase_if(pool.slabs, [&](const Slab& slab) {
        if (slab.free != slab_blocks(index)) return false;
        heap(slab_bytes(index)).release(slab.begin);
        return true;
      });
    }
  }

  void drop_cache() noexcept {
    release_free_slabs();
    medium_.purge(0);
    huge_.purge(0);
  }

  void* take_span(size_t bytes, size_t requested, bool& fresh) {
    PageHeap& pages = heap(bytes);
    check_limit(used(), bytes, requested);
    void* pointer = pages.take_dirty(bytes);
    fresh = pointer == nullptr;
    if (fresh) {
      if (reserved() + bytes > hard_limit()) drop_cache();
      pointer = pages.take_clean(bytes);
      if (pointer == nullptr) {
        drop_cache();
        pointer = pages.take_clean(bytes);
      }
      if (pointer == nullptr) fail_system(requested);
      ++system_allocations_;
    }
    recent_peak_ = std::max(recent_peak_, used());
    if (++span_allocations_ % kPeakWindow == 0) {
      older_peak_ = recent_peak_;
      recent_peak_ = used();
      bound_cache();
    } else if (fresh) {
      bound_cache();
    }
    peak_reserved_ = std::max(peak_reserved_, reserved());
    return pointer;
  }

  /// Keeps the cache in proportion to what was lately in use, whatever sizes come.
  void bound_cache() noexcept {
    const size_t peak = std::max(recent_peak_, older_peak_);
    const size_t most = peak + peak / 4 + kSlack;
    if (small_free_bytes_ > most / 4) release_free_slabs();
    if (reserved() <= most) return;
    const size_t keep = (most - used()) / 2;
    medium_.purge(keep / 4);
    huge_.purge(keep - keep / 4);
  }

  size_t hard_limit() const {
    const size_t chosen = limit.load(std::memory_order_relaxed);
    return chosen == 0 ? machine_bytes_ : std::min(chosen, machine_bytes_);
  }

  void check_limit(size_t in_use, size_t bytes, size_t requested) {
    if (bytes <= hard_limit() && in_use <= hard_limit() - bytes) [[likely]]
      return;
    drop_cache();
    // Slabs count as used, so dropping the cache can be what makes room.
    if (!kBypassCache && bytes <= hard_limit() && used() <= hard_limit() - bytes) return;
    const size_t chosen = limit.load(std::memory_order_relaxed);
    const bool own = chosen != 0 && chosen <= machine_bytes_;
    detail::raise<OutOfMemoryError>(
        "allocate: expected a size that fits the ", own ? "memory limit" : "memory of this machine", " of ",
        readable(hard_limit()), ", got ", readable(requested), " with ", report(),
        own ? " (release tensors, use a smaller batch or raise the limit with set_memory_limit)"
            : " (release tensors or use a smaller batch)");
  }

  [[noreturn]] void fail_system(size_t requested) {
    detail::raise<OutOfMemoryError>("allocate: the system has no more memory, got a request for ",
                                    readable(requested), " with ", report(),
                                    " (release tensors, use a smaller batch or free memory on this machine)");
  }

  std::string report() const {
    const size_t in_use = allocated.load(std::memory_order_relaxed);
    const size_t held = std::max(in_use, kBypassCache ? in_use : reserved());
    return detail::concat(readable(in_use), " in use, ", readable(held - in_use), " cached, ",
                          readable(peak_allocated.load(std::memory_order_relaxed)), " at the peak");
  }

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

Store& store() {
  static Store* const instance = [] {
    static Store* created = new Store;
    pthread_atfork([] { created->lock(); }, [] { created->unlock(); }, [] { created->unlock(); });
    return created;
  }();
  return *instance;
}

struct CacheOwner {
  ~CacheOwner() {
    ThreadCache* cache = thread_cache;
    thread_cache = nullptr;
    thread_ended = true;
    if (cache == nullptr) return;
    store().remove_cache(cache);
    delete cache;
  }
};

ThreadCache* make_thread_cache() {
  if (thread_ended) return nullptr;
  static thread_local CacheOwner owner;
  (void)&owner;
  auto* cache = new ThreadCache;
  store().add_cache(cache);
  thread_cache = cache;
  return cache;
}

[[noreturn]] void fail_bookkeeping(size_t requested) {
  detail::raise<OutOfMemoryError>("allocate: the system has no more memory, got a request for ",
                                  readable(requested), " (release tensors or use a smaller batch)");
}

[[gnu::noinline]] void* allocate_small_slow(size_t index, size_t requested) {
  try {
    ThreadCache* cache = thread_cache != nullptr ? thread_cache : make_thread_cache();
    bool cached = false;
    void* pointer = store().refill(index, cache == nullptr ? nullptr : &cache->lists[index], cached);
    if (cache != nullptr) {
      bump(cache->allocations);
      if (cached) bump(cache->hits);
    }
    add_allocated(kClassBytes[index]);
    return pointer;
  } catch (const std::bad_alloc&) {
    fail_bookkeeping(requested);
  }
}

size_t rounded(size_t bytes) {
  return bytes <= kSmallBytes ? kClassBytes[class_of(bytes)] : span_bytes(bytes);
}

[[gnu::noinline]] void* allocate_large(size_t bytes) {
  OPSIN_CHECK(OutOfMemoryError, bytes <= kMostBytes, "allocate: expected at most ", readable(kMostBytes),
              ", got ", bytes, " bytes (a size that overflowed?)");
  try {
    const size_t size = rounded(bytes);
    void* pointer =
        kBypassCache ? store().allocate_uncached(size, bytes) : store().allocate_large(size, bytes);
    add_allocated(size);
    return pointer;
  } catch (const std::bad_alloc&) {
    fail_bookkeeping(bytes);
  }
}

}  // namespace

void* allocate(size_t bytes) {
  if (kBypassCache || bytes > kSmallBytes) return allocate_large(bytes);
  const size_t index = class_of(bytes);
  ThreadCache* cache = thread_cache;
  if (cache == nullptr || cache->lists[index].head == nullptr) [[unlikely]]
    return allocate_small_slow(index, bytes);
  bump(cache->allocations);
  bump(cache->hits);
  add_allocated(kClassBytes[index]);
  return cache->lists[index].pop();
}

void deallocate(void* pointer, size_t bytes) noexcept {
  if (pointer == nullptr) return;
  if (kBypassCache) {
    subtract_allocated(rounded(bytes));
    free(pointer);
    return;
  }
  if (bytes > kSmallBytes) {
    const size_t size = span_bytes(bytes);
    subtract_allocated(size);
    store().deallocate_large(pointer, size);
    return;
  }
  const size_t index = class_of(bytes);
  subtract_allocated(kClassBytes[index]);
  ThreadCache* cache = thread_cache;
  if (cache == nullptr) [[unlikely]] {
    List one;
    one.push(pointer);
    store().drain(index, one, 1);
    return;
  }
  List& list = cache->lists[index];
  list.push(pointer);
  if (list.count > 2 * batch_of(index)) [[unlikely]]
    store().drain(index, list, batch_of(index));
}

MemoryStats memory_stats() { return store().stats(); }

void reset_peak_memory_stats() { store().reset_peaks(); }

void empty_cache() { store().empty(thread_cache); }

void set_memory_limit(size_t bytes) { store().set_limit(bytes); }

size_t memory_limit() { return limit.load(std::memory_order_relaxed); }

}  // namespace opsin::cpu
