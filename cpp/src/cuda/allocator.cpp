#include "cuda/allocator.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include <opsin/error.h>

namespace opsin::cuda {

namespace {

constexpr size_t kAlignment = 512;
constexpr size_t kKiB = 1024, kMiB = kKiB * kKiB;
/// Up to here blocks are cut from segments of kSmallSegment, so that they don't break up the large ones.
constexpr size_t kSmallLimit = kMiB;
constexpr size_t kSmallSegment = 2 * kMiB;
/// Up to here blocks share segments of kLargeSegment; above, a segment fits its block.
constexpr size_t kMediumLimit = 10 * kMiB;
constexpr size_t kLargeSegment = 20 * kMiB;
constexpr size_t kSegmentStep = 2 * kMiB;

size_t round_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

std::string text(size_t bytes) {
  char buffer[32];
  const auto value = static_cast<double>(bytes);
  if (bytes >= kMiB * kKiB) {
    std::snprintf(buffer, sizeof buffer, "%.2f GiB", value / static_cast<double>(kMiB * kKiB));
  } else if (bytes >= kMiB) {
    std::snprintf(buffer, sizeof buffer, "%.2f MiB", value / static_cast<double>(kMiB));
  } else {
    std::snprintf(buffer, sizeof buffer, "%.2f KiB", value / static_cast<double>(kKiB));
  }
  return buffer;
}

}  // namespace

struct Allocator::Block {
  char* data = nullptr;
  size_t size = 0;
  size_t requested = 0;
  Stream stream = nullptr;
  Pool* pool = nullptr;
  Block* before = nullptr;  // neighbours in the segment
  Block* after = nullptr;
  bool used = false;
  int events = 0;  // that must be done before anybody gets the block
  std::vector<Stream> users;

  bool is_segment() const { return !before && !after; }
  bool is_free() const { return !used && events == 0; }
};

bool Allocator::BySize::operator()(const Block* a, const Block* b) const {
  if (a->stream != b->stream) return std::less<>()(a->stream, b->stream);
  if (a->size != b->size) return a->size < b->size;
  return std::less<>()(a->data, b->data);
}

void Allocator::add(PoolStat& stat, bool small, int64_t amount) {
  stat.all.add(amount);
  (small ? stat.small_pool : stat.large_pool).add(amount);
}

Allocator::Allocator(DeviceMemory& device, std::string name) : device_(device), name_(std::move(name)) {}

Allocator::~Allocator() {
  process_events(true);
  while (!used_.empty()) deallocate(used_.begin()->second->data, used_.begin()->second->stream);
  release_all_segments();
}

void* Allocator::allocate(size_t bytes, Stream stream) {
  const std::lock_guard lock(mutex_);
  OPSIN_CHECK(OutOfMemoryError, bytes <= SIZE_MAX / 2, "CUDA out of memory: tried to allocate ", bytes,
              " bytes on ", name_);
  if (!open_ && !(events_.empty() && deferred_.empty())) process_events(false);
  const size_t size = round_up(std::max<size_t>(bytes, 1), kAlignment);
  Pools& pools = open_ && open_thread_ == std::this_thread::get_id() ? *open_ : shared_;
  Pool& pool = size <= kSmallLimit ? pools.small : pools.large;
  Block* block = take_free(pool, size, stream);
  if (!block) block = new_segment(pool, size, stream);
  if (!block) raise_out_of_memory(bytes);
  if (const size_t rest = block->size - size; rest > (pool.small ? kAlignment - 1 : kSmallLimit)) {
    cut(block, size);
  }
  block->used = true;
  block->requested = bytes;
  used_.emplace(block->data, block);
  const auto held = static_cast<int64_t>(block->size);
  add(stats_.allocation, pool.small, 1);
  add(stats_.active, pool.small, 1);
  add(stats_.allocated_bytes, pool.small, held);
  add(stats_.active_bytes, pool.small, held);
  add(stats_.requested_bytes, pool.small, static_cast<int64_t>(bytes));
  return block->data;
}

void Allocator::deallocate(void* data, Stream stream) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(data);
  if (found == used_.end()) return;
  Block* const block = found->second;
  add_user(block, stream);
  used_.erase(found);
  block->used = false;
  const bool small = block->pool->small;
  add(stats_.allocation, small, -1);
  add(stats_.allocated_bytes, small, -static_cast<int64_t>(block->size));
  add(stats_.requested_bytes, small, -static_cast<int64_t>(block->requested));
  if (block->users.empty()) {
    give_back(block);
  } else if (open_) {
    ++block->events;
    deferred_.push_back(block);
  } else {
    record_events(block);
  }
}

void Allocator::record_stream(const void* data, Stream stream) {
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(data);
  if (found != used_.end()) add_user(found->second, stream);
}

void Allocator::add_user(Block* block, Stream stream) {
  if (__builtin_expect(block->stream == stream, 1)) return;
  std::vector<Stream>& users = block->users;
  if (std::find(users.begin(), users.end(), stream) == users.end()) users.push_back(stream);
}

/// The smallest block that fits, of the same stream.
Allocator::Block* Allocator::take_free(Pool& pool, size_t size, Stream stream) {
  Block key;
  key.stream = stream;
  key.size = size;
  const auto found = pool.free.lower_bound(&key);
  if (found == pool.free.end() || (*found)->stream != stream) return nullptr;
  Block* const block = *found;
  pool.free.erase(found);
  return block;
}

Allocator::Block* Allocator::try_segment(Pool& pool, size_t bytes, Stream stream) {
  const auto reserved = static_cast<size_t>(stats_.reserved_bytes.all.current);
  if (reserved > limit_ || bytes > limit_ - reserved) return nullptr;
  void* const data = device_.allocate(bytes);
  if (!data) return nullptr;
  auto* const block = new Block;
  block->data = static_cast<char*>(data);
  block->size = bytes;
  block->stream = stream;
  block->pool = &pool;
  add(stats_.segment, pool.small, 1);
  add(stats_.reserved_bytes, pool.small, static_cast<int64_t>(bytes));
  ++stats_.num_device_alloc;
  return block;
}

Allocator::Block* Allocator::new_segment(Pool& pool, size_t size, Stream stream) {
  const size_t wanted = pool.small            ? kSmallSegment
                        : size < kMediumLimit ? kLargeSegment
                                              : round_up(size, kSegmentStep);
  if (Block* block = try_segment(pool, wanted, stream)) return block;
  // When memory is short, what fits exactly may still be there.
  if (Block* block = wanted > size ? try_segment(pool, size, stream) : nullptr) return block;
  if (!open_) process_events(true);
  if (Block* block = take_free(pool, size, stream)) return block;
  if (release_all_segments() == 0) return nullptr;
  ++stats_.num_alloc_retries;
  if (Block* block = try_segment(pool, wanted, stream)) return block;
  return wanted > size ? try_segment(pool, size, stream) : nullptr;
}

void Allocator::cut(Block* block, size_t size) {
  auto* const rest = new Block;
  rest->data = block->data + size;
  rest->size = block->size - size;
  rest->stream = block->stream;
  rest->pool = block->pool;
  rest->before = block;
  rest->after = block->after;
  if (rest->after) rest->after->before = rest;
  block->after = rest;
  block->size = size;
  block->pool->free.insert(rest);
}

void Allocator::join(Block* block, Block* neighbour) {
  if (!neighbour || !neighbour->is_free()) return;
  block->pool->free.erase(neighbour);
  if (neighbour == block->before) {
    block->data = neighbour->data;
    block->before = neighbour->before;
    if (block->before) block->before->after = block;
  } else {
    block->after = neighbour->after;
    if (block->after) block->after->before = block;
  }
  block->size += neighbour->size;
  delete neighbour;
}

void Allocator::give_back(Block* block) {
  add(stats_.active, block->pool->small, -1);
  add(stats_.active_bytes, block->pool->small, -static_cast<int64_t>(block->size));
  block->users.clear();
  join(block, block->before);
  join(block, block->after);
  block->pool->free.insert(block);
}

size_t Allocator::release_segments(Pool& pool) {
  size_t bytes = 0;
  for (auto next = pool.free.begin(); next != pool.free.end();) {
    Block* const block = *next;
    if (!block->is_segment()) {
      ++next;
      continue;
    }
    next = pool.free.erase(next);
    device_.release(block->data);
    bytes += block->size;
    add(stats_.segment, pool.small, -1);
    add(stats_.reserved_bytes, pool.small, -static_cast<int64_t>(block->size));
    ++stats_.num_device_free;
    delete block;
  }
  return bytes;
}

size_t Allocator::release_all_segments() {
  // The segments of graphs stay: their replays write to them.
  return release_segments(shared_.small) + release_segments(shared_.large);
}

void Allocator::record_events(Block* block) {
  try {
    for (const Stream stream : block->users) {
      events_[stream].emplace_back(device_.record(stream), block);
      ++block->events;
    }
  } catch (const Error&) {
    // A device that can do nothing any more: the block is lost with it.
    ++block->events;
    return;
  }
  block->users.clear();
}

void Allocator::process_events(bool wait) {
  for (Block* block : std::exchange(deferred_, {})) {
    --block->events;
    record_events(block);
  }
  for (auto queue = events_.begin(); queue != events_.end();) {
    auto& waiting = queue->second;
    while (!waiting.empty()) {
      const auto [event, block] = waiting.front();
      if (wait) device_.wait(event);
      if (!wait && !device_.done(event)) break;
      waiting.pop_front();
      device_.drop(event);
      if (--block->events == 0) give_back(block);
    }
    queue = waiting.empty() ? events_.erase(queue) : std::next(queue);
  }
}

void Allocator::raise_out_of_memory(size_t bytes) {
  ++stats_.num_ooms;
  const auto [free, total] = device_.info();
  const auto used = static_cast<size_t>(stats_.allocated_bytes.all.current);
  const auto reserved = static_cast<size_t>(stats_.reserved_bytes.all.current);
  size_t largest = 0;
  for (const Pool* pool : {&shared_.small, &shared_.large}) {
    for (const Block* block : pool->free) largest = std::max(largest, block->size);
  }
  std::string limit;
  if (limit_ < total) limit = ", limited to " + text(limit_) + " by set_per_process_memory_fraction";
  detail::raise<OutOfMemoryError>(
      "CUDA out of memory: tried to allocate ", text(bytes), " on ", name_, ", which has ", text(total),
      " and ", text(free), " free", limit, "; this process uses ", text(used), " for tensors and caches ",
      text(reserved - std::min(reserved, used)), ", largest free block ", text(largest),
      " (a smaller batch, autocast or checkpointing need less; no_grad() does for inference)");
}

MemoryStats Allocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

namespace {

std::array<PoolStat*, 7> all_stats(MemoryStats& stats) {
  return {&stats.allocation,     &stats.segment,      &stats.active,         &stats.allocated_bytes,
          &stats.reserved_bytes, &stats.active_bytes, &stats.requested_bytes};
}

}  // namespace

void Allocator::reset_peaks() {
  const std::lock_guard lock(mutex_);
  for (PoolStat* stat : all_stats(stats_)) {
    for (Stat* part : {&stat->all, &stat->small_pool, &stat->large_pool}) part->peak = part->current;
  }
}

void Allocator::reset_accumulated() {
  const std::lock_guard lock(mutex_);
  for (PoolStat* stat : all_stats(stats_)) {
    for (Stat* part : {&stat->all, &stat->small_pool, &stat->large_pool}) part->allocated = part->freed = 0;
  }
  stats_.num_alloc_retries = stats_.num_ooms = stats_.num_device_alloc = stats_.num_device_free = 0;
}

void Allocator::empty_cache() {
  const std::lock_guard lock(mutex_);
  if (!open_) process_events(true);
  release_all_segments();
}

void Allocator::set_limit(size_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
}

void Allocator::hold_pool(MemoryPool pool) {
  const std::lock_guard lock(mutex_);
  auto& pools = private_[pool];
  if (!pools) pools = std::make_unique<Pools>();
  ++pools->holders;
}

void Allocator::drop_pool(MemoryPool pool) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = private_.find(pool);
  if (found == private_.end() || --found->second->holders > 0) return;
  Pools& pools = *found->second;
  // A replay may still be running, on any stream.
  try {
    device_.synchronize();
  } catch (const Error&) {
    // Nothing runs any more on a device that is lost.
  }
  const auto move = [&](Block* block) {
    if (block->pool == &pools.small) block->pool = &shared_.small;
    if (block->pool == &pools.large) block->pool = &shared_.large;
  };
  for (Pool* from : {&pools.small, &pools.large}) {
    release_segments(*from);
    Pool& to = from->small ? shared_.small : shared_.large;
    for (Block* block : from->free) move(block);
    to.free.merge(from->free);
  }
  for (const auto& [data, block] : used_) move(block);
  for (Block* block : deferred_) move(block);
  for (const auto& [stream, waiting] : events_) {
    for (const auto& [event, block] : waiting) move(block);
  }
  private_.erase(found);
}

void Allocator::open_pool(MemoryPool pool) {
  const std::lock_guard lock(mutex_);
  process_events(false);
  open_ = private_.at(pool).get();
  open_thread_ = std::this_thread::get_id();
}

void Allocator::close_pool() noexcept {
  const std::lock_guard lock(mutex_);
  open_ = nullptr;
}

}  // namespace opsin::cuda
