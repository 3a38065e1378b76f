#include "cpu/packed_cache.h"

#include <algorithm>
#include <mutex>

#include "cpu/allocator.h"

namespace opsin::cpu {
namespace {

/// A weight has one form for each algorithm that its inputs' sizes choose, a storage a few weights.
constexpr size_t kMostEntries = 8;

PackedCache* first = nullptr;

std::mutex& mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

}  // namespace

PackedBlock::PackedBlock(size_t bytes) : bytes_(bytes), data_(allocate(bytes)) {}
PackedBlock::~PackedBlock() { deallocate(data_, bytes_); }

PackedCache::PackedCache(std::atomic<uint8_t>& state, uint8_t filled) : state_(state), filled_(filled) {
  const std::lock_guard lock(mutex());
  next_ = first;
  if (first) first->previous_ = this;
  first = this;
}

PackedCache::~PackedCache() {
  const std::lock_guard lock(mutex());
  (previous_ ? previous_->next_ : first) = next_;
  if (next_) next_->previous_ = previous_;
}

Ref<PackedBlock> PackedCache::find(const PackKey& key, uint32_t version) {
  const std::lock_guard lock(mutex());
  if (version != version_) return {};
  for (const Entry& entry : entries_) {
    if (entry.key == key) return entry.block;
  }
  return {};
}

void PackedCache::keep(PackKey key, uint32_t version, const Ref<PackedBlock>& block) {
  std::vector<Entry> dropped;  // dies after the lock
  const std::lock_guard lock(mutex());
  if (version != version_) dropped.swap(entries_);
  version_ = version;
  // Another thread may have packed it meanwhile.
  for (const Entry& entry : entries_) {
    if (entry.key == key) return;
  }
  if (entries_.size() == kMostEntries) {
    dropped.push_back(std::move(entries_.front()));
    entries_.erase(entries_.begin());
  }
  entries_.push_back({std::move(key), block});
  state_.fetch_or(filled_, std::memory_order_release);
}

void PackedCache::clear() {
  std::vector<Entry> dropped;
  const std::lock_guard lock(mutex());
  dropped.swap(entries_);
  state_.fetch_and(static_cast<uint8_t>(~filled_), std::memory_order_release);
}

bool PackedCache::clear_all() {
  std::vector<Entry> dropped;
  const std::lock_guard lock(mutex());
  for (PackedCache* cache = first; cache; cache = cache->next_) {
    std::move(cache->entries_.begin(), cache->entries_.end(), std::back_inserter(dropped));
    cache->entries_.clear();
    cache->state_.fetch_and(static_cast<uint8_t>(~cache->filled_), std::memory_order_release);
  }
  return !dropped.empty();
}

}  // namespace opsin::cpu
