// Page-granular memory for the allocator: address ranges that are split, merged and given back to the system.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

namespace opsin::cpu {

/// A range of pages. Free ranges are `dirty` (they hold memory) or `clean` (address space only).
struct Span {
  enum class State : uint8_t { used, dirty, clean };

  char* begin;
  size_t bytes;
  State state;
  // Neighbours by address in the same region, null at its ends.
  Span* below;
  Span* above;
  // Neighbours in the list of its size while free.
  Span* previous;
  Span* next;
};

/// Free spans in lists by size, 16 steps per doubling; finding and changing takes constant time.
class SpanLists {
 public:
  void insert(Span* span);
  void remove(Span* span);
  /// A span of at least `bytes`, as small as the steps tell; `bytes` must be a result of `span_bytes`.
  Span* find(size_t bytes) const;
  /// A span of the highest step that is not empty.
  Span* largest() const;

 private:
  static constexpr size_t kWords = 9;
  std::array<Span*, kWords * 64> heads_{};
  std::array<uint64_t, kWords> filled_{};
};

/// Bytes of the span that serves a request: whole pages, at most 1/16 more for large ones.
size_t span_bytes(size_t bytes);

/// Best fit over reserved address space. Memory freed stays (dirty) until `purge` gives it back; both kinds
/// merge with neighbours of their kind, so that varying sizes cannot fragment memory for long: what no span
/// fits is purged, and address space is plentiful. Not thread-safe.
class PageHeap {
 public:
  /// With `huge_pages` the system is asked to back the memory with huge pages.
  PageHeap(bool huge_pages, size_t region_bytes) : huge_pages_(huge_pages), region_bytes_(region_bytes) {}
  /// Takes all memory away, also what is still in use.
  ~PageHeap();
  PageHeap(const PageHeap&) = delete;
  PageHeap& operator=(const PageHeap&) = delete;

  /// Memory from the dirty spans, null when none fits. `bytes` as from `span_bytes`, here and below.
  void* take_dirty(size_t bytes);
  /// Fresh memory from the system, null when it has none.
  void* take_clean(size_t bytes);
  /// Gives back what a `take` returned.
  void release(void* pointer) noexcept;
  /// Returns dirty memory to the system, largest spans first, until at most `keep` bytes are dirty.
  void purge(size_t keep) noexcept;

  size_t used_bytes() const { return used_; }
  size_t dirty_bytes() const { return dirty_bytes_; }

 private:
  /// Address space, and how far from its beginning it is readable and writable.
  struct Region {
    void* mapping;
    size_t mapping_bytes;
    char* begin;
    char* end;
    char* committed;
  };

  void* use(Span* span, size_t bytes);
  Span* new_span();
  void delete_span(Span* span);
  void insert_free(Span* span, Span::State state);
  void* take_from(SpanLists& lists, Span* span, size_t bytes);
  bool add_region(size_t bytes);
  bool commit(char* begin, size_t bytes);

  const bool huge_pages_;
  const size_t region_bytes_;
  size_t used_ = 0;
  size_t dirty_bytes_ = 0;
  SpanLists dirty_;
  SpanLists clean_;
  std::deque<Span> spans_;
  Span* spare_ = nullptr;
  std::unordered_map<void*, Span*> live_;
  std::vector<Region> regions_;
};

}  // namespace opsin::cpu
