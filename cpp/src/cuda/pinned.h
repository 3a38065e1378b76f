// Page-locked memory of the host, cached: asking CUDA for it takes milliseconds.
#pragma once

#include <cstddef>

#include "cuda/api.h"

namespace opsin::cuda {

/// OutOfMemoryError where there is none.
void* allocate_pinned(size_t bytes);
void deallocate_pinned(void* data) noexcept;
/// Whether `data` is page-locked, by whomever.
bool is_pinned(const void* data);
/// A copy on `stream` reads or writes the block that holds `data`: once freed, nobody gets it before the copy
/// is done. Nothing for foreign memory.
void note_pinned_use(const void* data, int device, api::Stream stream);
/// Gives back what is cached and idle.
void empty_pinned_cache();

}  // namespace opsin::cuda
