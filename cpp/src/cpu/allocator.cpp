#include "allocator.h"

#include "block_store.h"
#include "packed_cache.h"
#include "size_class.h"

#include <atomic>
#include <new>

#include <pthread.h>
#include <stdlib.h>

#include <opsin/error.h>

#include "core/profiler.h"

namespace opsin::cpu {
namespace {

// Above it a size is the result of an overflow, and rounding it could overflow too.
constexpr size_t kMostBytes = size_t{1} << 46;

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
  const size_t sum = BlockStore::allocated.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  if (sum > BlockStore::peak_allocated.load(std::memory_order_relaxed)) [[unlikely]]
    raise_to(BlockStore::peak_allocated, sum);
  if (profiler::wants(profiler::kMemory)) [[unlikely]]
    profiler::record_memory(static_cast<int64_t>(bytes), static_cast<int64_t>(sum));
}

void subtract_allocated(size_t bytes) {
  const size_t before = BlockStore::allocated.fetch_sub(bytes, std::memory_order_relaxed);
  if (profiler::wants(profiler::kMemory)) [[unlikely]]
    profiler::record_memory(-static_cast<int64_t>(bytes), static_cast<int64_t>(before - bytes));
}

BlockStore& store() {
  static BlockStore* const instance = [] {
    static BlockStore* created = new BlockStore;
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
  if (kBypassCache || bytes > kSmallBytes) {
    try {
      return allocate_large(bytes);
    } catch (const OutOfMemoryError&) {
      if (!PackedCache::clear_all()) throw;
    }
    return allocate_large(bytes);
  }
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

void empty_cache() {
  PackedCache::clear_all();
  store().empty(thread_cache);
}

void set_memory_limit(size_t bytes) { store().set_limit(bytes); }

size_t memory_limit() { return BlockStore::limit.load(std::memory_order_relaxed); }

}  // namespace opsin::cpu
