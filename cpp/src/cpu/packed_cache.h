// What kernels make of a weight before they multiply with it (panels, transforms), kept from call to call
// where nobody writes the weight between them. Training, which does, keeps nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <opsin/api.h>
#include <opsin/ref.h>

namespace opsin::cpu {

/// Memory that a weight was packed into.
class PackedBlock final : public RefCounted {
 public:
  explicit PackedBlock(size_t bytes);
  static void destroy(PackedBlock* block) { delete block; }
  void* data() const { return data_; }

 private:
  ~PackedBlock();

  size_t bytes_;
  void* data_;
};

/// All that the content of a block depends on, but for the elements of the weight: where it lies, its
/// geometry, and by which kernel it was packed.
using PackKey = std::vector<int64_t>;

/// The blocks of the weights in one storage, for all threads.
class PackedCache {
 public:
  /// `filled` is set in `state` as long as there are blocks.
  PackedCache(std::atomic<uint8_t>& state, uint8_t filled);
  ~PackedCache();
  PackedCache(const PackedCache&) = delete;
  PackedCache& operator=(const PackedCache&) = delete;

  /// Null unless it was kept for that version of the elements.
  Ref<PackedBlock> find(const PackKey& key, uint32_t version);
  void keep(PackKey key, uint32_t version, const Ref<PackedBlock>& block);
  void clear();
  /// For all storages; whether there was anything.
  static bool clear_all();

  /// Whether what a convolution made with the weight went into a batch norm with fixed numbers.
  std::atomic<bool> normalised = false;

 private:
  struct Entry {
    PackKey key;
    Ref<PackedBlock> block;
  };

  std::atomic<uint8_t>& state_;
  const uint8_t filled_;
  uint32_t version_ = 0;  // of all entries
  std::vector<Entry> entries_;
  PackedCache* next_ = nullptr;
  PackedCache* previous_ = nullptr;
};

/// The weight of one call whose packed form may be kept.
struct KeptWeight {
  PackedCache* cache;
  /// From before it was read, so that what was packed during a write is never found.
  uint32_t version;
  /// Part of the key: which weight the kernel is given a copy of, 0 if it is the weight itself.
  int64_t copied = 0;
};

/// The packed form of a weight: what was kept for `key`, or what `pack(void* out)` writes. `weight` is null
/// where nothing may be kept.
template <class Pack>
Ref<PackedBlock> packed_weight(const KeptWeight* weight, PackKey key, size_t bytes, Pack&& pack) {
  if (weight != nullptr) {
    if (Ref<PackedBlock> kept = weight->cache->find(key, weight->version)) return kept;
  }
  const Ref<PackedBlock> block = make_ref<PackedBlock>(bytes);
  pack(block->data());
  if (weight != nullptr) weight->cache->keep(std::move(key), weight->version, block);
  return block;
}

/// A pointer, to data or to the kernels of an instruction set, as part of a key.
template <class T>
int64_t key_of(const T* pointer) {
  return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer));
}

/// The elements that a kernel packs, as part of a key: those of the weight, which a copy does not outlive.
template <class T>
int64_t key_of_weight(const KeptWeight* kept, const T* elements) {
  return kept != nullptr && kept->copied != 0 ? kept->copied : key_of(elements);
}

}  // namespace opsin::cpu
