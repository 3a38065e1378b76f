// A map of bounded size that forgets what was not used for longest. For keys whose bytes are their value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace opsin::cuda {

/// Hashes all bytes of a key without padding, eight at a time.
template <class Key>
struct HashBytes {
  static_assert(std::has_unique_object_representations_v<Key>);
  size_t operator()(const Key& key) const {
    constexpr uint64_t kFactor = 0x9e3779b97f4a7c15u;
    const auto* bytes = reinterpret_cast<const char*>(&key);
    uint64_t hash = sizeof(Key);
    for (size_t at = 0; at < sizeof(Key); at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + at, sizeof(Key) - at < 8 ? sizeof(Key) - at : 8);
      hash = (hash ^ word) * kFactor;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

template <class Key, class Value>
class LruCache {
 public:
  explicit LruCache(size_t capacity) : capacity_(capacity) {}

  /// Null where the key is not known; valid until the next insert().
  Value* find(const Key& key) {
    const auto found = where_.find(key);
    if (found == where_.end()) return nullptr;
    if (found->second != entries_.begin()) entries_.splice(entries_.begin(), entries_, found->second);
    return &found->second->second;
  }
  /// For a key that is not known.
  Value& insert(const Key& key, Value value) {
    if (entries_.size() == capacity_) {
      where_.erase(entries_.back().first);
      entries_.pop_back();
    }
    entries_.emplace_front(key, std::move(value));
    where_.emplace(key, entries_.begin());
    return entries_.front().second;
  }
  size_t size() const { return entries_.size(); }

 private:
  using Entries = std::list<std::pair<const Key, Value>>;

  size_t capacity_;
  Entries entries_;  ///< Used last comes first.
  std::unordered_map<Key, typename Entries::iterator, HashBytes<Key>> where_;
};

}  // namespace opsin::cuda
