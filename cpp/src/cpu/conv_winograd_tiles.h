// What Winograd's convolution and its gradient of weights share: the transforms of a type and the addresses
// of the pixels of a tile.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/dispatch.h"
#include "cpu/kernels/conv_winograd_table.h"

namespace opsin::cpu::conv {

template <class S>
const WinogradTable<S>& winograd_table() {
  const WinogradTables& all = OPSIN_ISA_SELECT(winograd_tables);
  if constexpr (std::is_same_v<S, float>) return all.f32;
  if constexpr (std::is_same_v<S, BFloat16>) return all.bf16;
  if constexpr (std::is_same_v<S, Float16>) return all.f16;
}

/// The addresses of size x size pixels from (y, x) on of an image [height][width][channels]; of those that
/// lie outside, `outside`.
template <class P>
void list_pixels(P* image, int64_t y, int64_t x, int64_t size, int64_t height, int64_t width,
                 int64_t channels, P* outside, P** out) {
  if (y >= 0 && x >= 0 && y + size <= height && x + size <= width) {
    P* row = image + (y * width + x) * channels;
    for (int64_t i = 0; i < size; ++i, row += width * channels) {
      for (int64_t j = 0; j < size; ++j) *out++ = row + j * channels;
    }
    return;
  }
  for (int64_t i = 0; i < size; ++i) {
    const bool row = y + i >= 0 && y + i < height;
    for (int64_t j = 0; j < size; ++j) {
      const bool inside = row && x + j >= 0 && x + j < width;
      *out++ = inside ? image + ((y + i) * width + x + j) * channels : outside;
    }
  }
}

}  // namespace opsin::cpu::conv
