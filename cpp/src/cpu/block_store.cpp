#include "block_store.h"

#include "cpu_limits.h"

#include <algorithm>
#include <cstdio>

#include <stdlib.h>

#include <opsin/error.h>

namespace opsin::cpu {

namespace {

// From here on spans come from the heap that asks for huge pages.
constexpr size_t kHugeBytes = size_t{1} << 20;
// Room for the cache above a quarter of what was lately in use.
constexpr size_t kSlack = size_t{64} << 20;
// Span allocations after which an old peak of use no longer counts.
constexpr uint64_t kPeakWindow = 16384;

}  // namespace

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

BlockStore::BlockStore()
    : machine_bytes_(usable_memory()), medium_(false, 2 * machine_bytes_), huge_(true, 2 * machine_bytes_) {}

void BlockStore::add_cache(ThreadCache* cache) {
  const std::lock_guard guard(mutex_);
  cache->next = caches_;
  if (caches_ != nullptr) caches_->previous = cache;
  caches_ = cache;
}

void BlockStore::remove_cache(ThreadCache* cache) noexcept {
  const std::lock_guard guard(mutex_);
  for (size_t index = 0; index < kClasses; ++index)
    give(index, cache->lists[index], cache->lists[index].count);
  allocations_ += cache->allocations.load(std::memory_order_relaxed);
  hits_ += cache->hits.load(std::memory_order_relaxed);
  if (cache->next != nullptr) cache->next->previous = cache->previous;
  (cache->previous != nullptr ? cache->previous->next : caches_) = cache->next;
}

void* BlockStore::refill(size_t index, List* list, bool& cached) {
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

void BlockStore::drain(size_t index, List& list, uint32_t count) noexcept {
  const std::lock_guard guard(mutex_);
  give(index, list, count);
}

void* BlockStore::allocate_large(size_t bytes, size_t requested) {
  const std::lock_guard guard(mutex_);
  bool fresh = false;
  void* pointer = take_span(bytes, requested, fresh);
  ++allocations_;
  hits_ += fresh ? 0 : 1;
  return pointer;
}

void BlockStore::deallocate_large(void* pointer, size_t bytes) noexcept {
  const std::lock_guard guard(mutex_);
  heap(bytes).release(pointer);
}

void* BlockStore::allocate_uncached(size_t bytes, size_t requested) {
  const std::lock_guard guard(mutex_);
  check_limit(allocated.load(std::memory_order_relaxed), bytes, requested);
  void* pointer = nullptr;
  if (posix_memalign(&pointer, kAlignment, std::max<size_t>(requested, 1)) != 0) fail_system(requested);
  ++allocations_;
  ++system_allocations_;
  return pointer;
}

MemoryStats BlockStore::stats() {
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

void BlockStore::reset_peaks() {
  const std::lock_guard guard(mutex_);
  peak_allocated.store(allocated.load(std::memory_order_relaxed), std::memory_order_relaxed);
  peak_reserved_ = reserved();
}

void BlockStore::set_limit(size_t bytes) {
  const std::lock_guard guard(mutex_);
  limit.store(bytes, std::memory_order_relaxed);
  if (reserved() > hard_limit()) drop_cache();
}

void BlockStore::empty(ThreadCache* own) {
  const std::lock_guard guard(mutex_);
  for (size_t index = 0; own != nullptr && index < kClasses; ++index)
    give(index, own->lists[index], own->lists[index].count);
  drop_cache();
}

PageHeap& BlockStore::heap(size_t bytes) { return bytes >= kHugeBytes ? huge_ : medium_; }

uint32_t BlockStore::slab_blocks(size_t index) {
  return static_cast<uint32_t>(slab_bytes(index) / kClassBytes[index]);
}

void BlockStore::give(size_t index, List& list, uint32_t count) noexcept {
  for (uint32_t i = 0; i < count; ++i) small_[index].free.push(list.pop());
  small_free_bytes_ += size_t{count} * kClassBytes[index];
}

void BlockStore::add_slab(size_t index) {
  SmallPool& pool = small_[index];
  pool.slabs.reserve(pool.slabs.size() + 1);
  bool fresh = false;
  char* begin = static_cast<char*>(take_span(span_bytes(slab_bytes(index)), kClassBytes[index], fresh));
  pool.slabs.push_back({begin, 0});
  // From the back, so that blocks are handed out in rising order.
  for (uint32_t i = slab_blocks(index); i-- > 0;) pool.free.push(begin + size_t{i} * kClassBytes[index]);
  small_free_bytes_ += size_t{slab_blocks(index)} * kClassBytes[index];
}

void BlockStore::release_free_slabs() noexcept {
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

void BlockStore::drop_cache() noexcept {
  release_free_slabs();
  medium_.purge(0);
  huge_.purge(0);
}

void* BlockStore::take_span(size_t bytes, size_t requested, bool& fresh) {
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

void BlockStore::bound_cache() noexcept {
  const size_t peak = std::max(recent_peak_, older_peak_);
  const size_t most = peak + peak / 4 + kSlack;
  if (small_free_bytes_ > most / 4) release_free_slabs();
  if (reserved() <= most) return;
  const size_t keep = (most - used()) / 2;
  medium_.purge(keep / 4);
  huge_.purge(keep - keep / 4);
}

size_t BlockStore::hard_limit() const {
  const size_t chosen = limit.load(std::memory_order_relaxed);
  return chosen == 0 ? machine_bytes_ : std::min(chosen, machine_bytes_);
}

void BlockStore::check_limit(size_t in_use, size_t bytes, size_t requested) {
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

void BlockStore::fail_system(size_t requested) {
  detail::raise<OutOfMemoryError>("allocate: the system has no more memory, got a request for ",
                                  readable(requested), " with ", report(),
                                  " (release tensors, use a smaller batch or free memory on this machine)");
}

std::string BlockStore::report() const {
  const size_t in_use = allocated.load(std::memory_order_relaxed);
  const size_t held = std::max(in_use, kBypassCache ? in_use : reserved());
  return detail::concat(readable(in_use), " in use, ", readable(held - in_use), " cached, ",
                        readable(peak_allocated.load(std::memory_order_relaxed)), " at the peak");
}

}  // namespace opsin::cpu
