#include "page_heap.h"

#include <algorithm>
#include <bit>

#include <sys/mman.h>
#include <unistd.h>

namespace opsin::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t page_bytes() {
  static const size_t bytes = std::max<size_t>(4096, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  return bytes;
}

int log2_floor(size_t value) { return 63 - std::countl_zero(value); }

size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }

/// The list of a span: one per page count below 32 pages, then 16 per doubling.
size_t list_of(size_t bytes) {
  const size_t pages = bytes / page_bytes();
  if (pages < 32) return pages;
  const int log = log2_floor(pages);
  return 32 + static_cast<size_t>(log - 5) * 16 + ((pages >> (log - 4)) & 15);
}

}  // namespace

size_t span_bytes(size_t bytes) {
  const size_t pages = std::max<size_t>(1, round_up(bytes, page_bytes()) / page_bytes());
  if (pages < 32) return pages * page_bytes();
  return round_up(pages, size_t{1} << (log2_floor(pages) - 4)) * page_bytes();
}

void SpanLists::insert(Span* span) {
  const size_t list = list_of(span->bytes);
  span->previous = nullptr;
  span->next = heads_[list];
  if (span->next != nullptr) span->next->previous = span;
  heads_[list] = span;
  filled_[list / 64] |= uint64_t{1} << (list % 64);
}

void SpanLists::remove(Span* span) {
  if (span->next != nullptr) span->next->previous = span->previous;
  if (span->previous != nullptr) {
    span->previous->next = span->next;
    return;
  }
  const size_t list = list_of(span->bytes);
  heads_[list] = span->next;
  if (span->next == nullptr) filled_[list / 64] &= ~(uint64_t{1} << (list % 64));
}

Span* SpanLists::find(size_t bytes) const {
  const size_t list = list_of(bytes);
  uint64_t mask = ~uint64_t{0} << (list % 64);
  for (size_t word = list / 64; word < kWords; ++word, mask = ~uint64_t{0}) {
    const uint64_t bits = filled_[word] & mask;
    if (bits != 0) return heads_[word * 64 + static_cast<size_t>(std::countr_zero(bits))];
  }
  return nullptr;
}

Span* SpanLists::largest() const {
  for (size_t word = kWords; word-- > 0;) {
    if (filled_[word] != 0)
      return heads_[word * 64 + 63 - static_cast<size_t>(std::countl_zero(filled_[word]))];
  }
  return nullptr;
}

PageHeap::~PageHeap() {
  for (const Region& region : regions_) munmap(region.mapping, region.mapping_bytes);
}

Span* PageHeap::new_span() {
  if (spare_ == nullptr) return &spans_.emplace_back();
  Span* span = spare_;
  spare_ = span->next;
  return span;
}

void PageHeap::delete_span(Span* span) {
  span->next = spare_;
  spare_ = span;
}

/// Frees a span that is in no list, merging it with free neighbours of the same state.
void PageHeap::insert_free(Span* span, Span::State state) {
  SpanLists& lists = state == Span::State::dirty ? dirty_ : clean_;
  if (Span* below = span->below; below != nullptr && below->state == state) {
    lists.remove(below);
    span->begin = below->begin;
    span->bytes += below->bytes;
    span->below = below->below;
    if (span->below != nullptr) span->below->above = span;
    delete_span(below);
  }
  if (Span* above = span->above; above != nullptr && above->state == state) {
    lists.remove(above);
    span->bytes += above->bytes;
    span->above = above->above;
    if (span->above != nullptr) span->above->below = span;
    delete_span(above);
  }
  span->state = state;
  lists.insert(span);
}

/// Turns the front of a free span that is in no list into used memory; a worthwhile rest stays free.
void* PageHeap::use(Span* span, size_t bytes) {
  const Span::State state = span->state;
  if (span->bytes - bytes >= std::max(bytes / 16, page_bytes())) {
    Span* rest = new_span();
    rest->begin = span->begin + bytes;
    rest->bytes = span->bytes - bytes;
    rest->below = span;
    rest->above = span->above;
    if (rest->above != nullptr) rest->above->below = rest;
    span->above = rest;
    span->bytes = bytes;
    span->state = Span::State::used;
    insert_free(rest, state);
  }
  span->state = Span::State::used;
  used_ += span->bytes;
  if (state == Span::State::dirty) dirty_bytes_ -= span->bytes;
  return span->begin;
}

/// Takes a free span out of its list for use. What can throw comes before anything changes: the entry in the
/// table and a spare for the rest of a split.
void* PageHeap::take_from(SpanLists& lists, Span* span, size_t bytes) {
  delete_span(new_span());
  live_.emplace(span->begin, span);
  lists.remove(span);
  return use(span, bytes);
}

void* PageHeap::take_dirty(size_t bytes) {
  Span* span = dirty_.find(bytes);
  return span == nullptr ? nullptr : take_from(dirty_, span, bytes);
}

void* PageHeap::take_clean(size_t bytes) {
  Span* span = clean_.find(bytes);
  if (span == nullptr) {
    if (!add_region(bytes)) return nullptr;
    span = clean_.find(bytes);
  }
  // A rest too small to be split off belongs to the block, and later to a dirty span.
  if (!commit(span->begin, std::min(span->bytes, bytes + bytes / 16 + page_bytes()))) return nullptr;
  return take_from(clean_, span, bytes);
}

void PageHeap::release(void* pointer) noexcept {
  const auto found = live_.find(pointer);
  Span* span = found->second;
  live_.erase(found);
  used_ -= span->bytes;
  dirty_bytes_ += span->bytes;
  insert_free(span, Span::State::dirty);
}

void PageHeap::purge(size_t keep) noexcept {
  while (dirty_bytes_ > keep) {
    Span* span = dirty_.largest();
    dirty_.remove(span);
    dirty_bytes_ -= span->bytes;
    madvise(span->begin, span->bytes, MADV_DONTNEED);
    insert_free(span, Span::State::clean);
  }
}

/// Reserves address space without memory. A system that limits address space gets smaller regions.
bool PageHeap::add_region(size_t bytes) {
  const size_t least = round_up(bytes, kHugePage);
  regions_.reserve(regions_.size() + 1);
  Span* span = new_span();
  for (size_t size = std::max(least, region_bytes_);; size = std::max(least, size / 2)) {
    void* mapped = mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      if (size > least) continue;
      delete_span(span);
      return false;
    }
    char* begin = static_cast<char*>(mapped);
    begin += (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
    if (huge_pages_) madvise(begin, size, MADV_HUGEPAGE);
    regions_.push_back({mapped, size + kHugePage, begin, begin + size, begin});
    *span = Span{begin, size, Span::State::used, nullptr, nullptr, nullptr, nullptr};
    insert_free(span, Span::State::clean);
    return true;
  }
}

/// Makes a range readable and writable; in large steps, for each is a call of the system.
bool PageHeap::commit(char* begin, size_t bytes) {
  Region& region = *std::find_if(regions_.begin(), regions_.end(),
                                 [&](const Region& r) { return r.begin <= begin && begin < r.end; });
  const char* end = begin + bytes;
  if (end <= region.committed) return true;
  const size_t missing = static_cast<size_t>(end - region.committed);
  const size_t left = static_cast<size_t>(region.end - region.committed);
  for (const size_t size : {std::min(left, round_up(missing, 16 * kHugePage)), missing}) {
    if (mprotect(region.committed, size, PROT_READ | PROT_WRITE) == 0) {
      region.committed += size;
      return true;
    }
  }
  return false;
}

}  // namespace opsin::cpu
