// The caching allocator of one device. Memory comes from CUDA in segments, which are cut into blocks; a block
// belongs to the stream that its segment was made for, so that freeing it and using it again needs no
// waiting: work runs in the order of that stream. CUDA is asked only when the cache has nothing that fits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <opsin/cuda.h>

namespace opsin::cuda {

/// What the allocator needs of a device; its tests bring their own.
class DeviceMemory {
 public:
  using Stream = void*;
  using Event = void*;

  virtual ~DeviceMemory() = default;
  /// Null where there is no memory left.
  virtual void* allocate(size_t bytes) = 0;
  /// Waits for all work on the device.
  virtual void release(void* data) noexcept = 0;
  virtual void synchronize() = 0;
  /// Free and total bytes.
  virtual std::pair<size_t, size_t> info() = 0;
  /// A mark at the end of what a stream holds.
  virtual Event record(Stream stream) = 0;
  virtual bool done(Event event) = 0;
  virtual void wait(Event event) = 0;
  virtual void drop(Event event) noexcept = 0;
};

class Allocator {
 public:
  using Stream = DeviceMemory::Stream;

  /// `name` stands for the device in messages.
  Allocator(DeviceMemory& device, std::string name);
  /// Gives everything back, also what is in use.
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  /// At least `bytes` > 0, aligned to 512, for use on `stream`; OutOfMemoryError with a report.
  void* allocate(size_t bytes, Stream stream);
  /// `stream` is where the caller's work goes: if that is another one than the block was made for, it may
  /// still use the block (a backward pass on another stream than its forward pass does), which
  /// record_stream() then takes care of.
  void deallocate(void* data, Stream stream) noexcept;
  /// Once freed, the block at `data` waits for what `stream` holds then.
  void record_stream(const void* data, Stream stream);

  MemoryStats stats() const;
  void reset_peaks();
  void reset_accumulated();
  /// Gives back the segments that nobody uses.
  void empty_cache();
  /// Segments take at most `bytes` together.
  void set_limit(size_t bytes);

  // Captured graphs: their memory comes from segments of a pool, which nobody else gets while a graph holds
  // it.

  void hold_pool(MemoryPool pool);
  /// When nobody holds the pool any more, waits for the device; the memory then is like any other.
  void drop_pool(MemoryPool pool) noexcept;
  /// What this thread allocates until close_pool() comes from `pool`; no event is made or asked until then,
  /// because a capture does not allow it. One pool at a time.
  void open_pool(MemoryPool pool);
  void close_pool() noexcept;

 private:
  struct Block;
  struct BySize {
    bool operator()(const Block* a, const Block* b) const;
  };
  using FreeBlocks = std::set<Block*, BySize>;
  /// The free blocks up to 1 MiB, or the larger ones.
  struct Pool {
    bool small;
    FreeBlocks free;
  };
  struct Pools {
    Pool small{true, {}};
    Pool large{false, {}};
    int holders = 0;
  };
  /// Which half of a PoolStat counts a block.
  static void add(PoolStat& stat, bool small, int64_t amount);

  Block* take_free(Pool& pool, size_t size, Stream stream);
  Block* new_segment(Pool& pool, size_t size, Stream stream);
  Block* try_segment(Pool& pool, size_t bytes, Stream stream);
  void cut(Block* block, size_t size);
  /// Nobody uses the block any more: joins it with its free neighbours.
  void give_back(Block* block);
  void join(Block* block, Block* neighbour);
  size_t release_segments(Pool& pool);
  size_t release_all_segments();
  /// Gives back blocks whose events are done; with `wait`, waits for all.
  void process_events(bool wait);
  void record_events(Block* block);
  static void add_user(Block* block, Stream stream);
  [[noreturn]] void raise_out_of_memory(size_t bytes);

  DeviceMemory& device_;
  const std::string name_;
  mutable std::mutex mutex_;
  Pools shared_;
  std::map<MemoryPool, std::unique_ptr<Pools>> private_;
  Pools* open_ = nullptr;
  std::thread::id open_thread_;
  std::unordered_map<const void*, Block*> used_;
  std::map<Stream, std::deque<std::pair<DeviceMemory::Event, Block*>>> events_;
  std::vector<Block*> deferred_;  // freed while a pool is open, and used on other streams
  size_t limit_ = SIZE_MAX;
  MemoryStats stats_;
};

}  // namespace opsin::cuda
