// The channels-last order of memory that convolution networks run in.
#pragma once

#include <cstddef>

#include <opsin/device.h>
#include <opsin/shape.h>

namespace opsin {

/// Strides of logical `[N, C, spatial...]` when memory is ordered `[N, spatial..., C]`.
Dims channels_last_strides(IntSpan sizes);
/// Whether row-major and channels-last are the same order (C == 1 or one spatial position).
bool is_same_order(IntSpan sizes);
/// Copies `[N, spatial..., C]` memory to `[N, C, spatial...]`.
void relay_to_row_major(const void* from, void* to, IntSpan sizes, size_t item_size, Device device = kCPU);
/// Copies `[N, C, spatial...]` memory to `[N, spatial..., C]`.
void relay_to_channels_last(const void* from, void* to, IntSpan sizes, size_t item_size,
                            Device device = kCPU);

}  // namespace opsin
