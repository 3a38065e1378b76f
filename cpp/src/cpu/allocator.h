// The memory of CPU tensors: 64-byte aligned, size-classed, cached, with huge pages for large blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include <opsin/api.h>

namespace opsin::cpu {

/// Alignment of every block.
inline constexpr size_t kAlignment = 64;

/// What the allocator holds. Bytes count blocks as handed out: a request rounded up to its size class,
/// which adds less than 64 bytes or 12.5 %, whichever is more.
struct MemoryStats {
  size_t allocated;             ///< bytes in use
  size_t peak_allocated;        ///< most bytes ever in use since the last reset
  size_t reserved;              ///< bytes in use or cached
  size_t peak_reserved;         ///< most bytes ever in use or cached since the last reset
  uint64_t allocations;         ///< calls of allocate that succeeded
  uint64_t cache_hits;          ///< those of them that were served from cached memory
  uint64_t system_allocations;  ///< times that fresh memory was taken from the system
};

/// Returns at least `bytes` bytes of uninitialised memory, never null, also for 0 bytes. Raises
/// OutOfMemoryError, with a report of what is in use, when the size is impossible, when the limit would be
/// exceeded or when the system has no more; the cache is dropped before that.
OPSIN_API void* allocate(size_t bytes);

/// Gives back what `allocate(bytes)` returned, in any thread; `bytes` must be the same number. Null is
/// ignored.
OPSIN_API void deallocate(void* pointer, size_t bytes) noexcept;

OPSIN_API MemoryStats memory_stats();

/// Restarts both peaks from what is held now.
OPSIN_API void reset_peak_memory_stats();

/// Gives cached memory and packed weights (packed_cache.h) back to the system, but for the few MiB of small
/// blocks that each other thread keeps for itself until it ends.
OPSIN_API void empty_cache();

/// Limits what is reserved: memory in use and cached; 0 takes the limit away. Small blocks that a thread has
/// cached are handed out without asking again. What no machine could give stays refused: more than its memory
/// and swap, or more than the container's limit.
OPSIN_API void set_memory_limit(size_t bytes);

/// The limit of `set_memory_limit`, 0 when there is none.
OPSIN_API size_t memory_limit();

}  // namespace opsin::cpu
