// The tile registers of AMX as the kernels use them: blocks of 32 x 32 sums, two tiles high and two wide.
//
// A tile has 16 rows of 64 bytes. TDPBF16PS adds to 16 x 16 sums the products of 16 rows of A, 32 steps of k
// each, and of 32 rows of B, 16 columns each, of which two lie side by side as pairs: row q of the tile of B
// has column j of steps 2 q and 2 q + 1 in its elements 2 j and 2 j + 1. The sums of the even steps and those
// of the odd ones are added up from zero, then joined, and the sum of both is added to the tile. So a result
// depends on where k is cut into 32 steps, which is at multiples of 32 everywhere, and on nothing else.
//
// All shapes are whole tiles, filled up with zeros: the configuration is loaded once per call of a kernel and
// given back at its end, so that the system has no tiles to save when threads change. The blocks are those of
// a prototype that came to 3,430 GFLOP/s on two cores (a convolution of 256 to 256 channels, 3 x 3): four
// tiles of sums leave two for each operand, each of which is used twice. Its operands came from the
// second-level cache. A product of tiles takes 16 cycles where a core does the 1,024 operations per cycle
// that it is said to; all sizes here are reasoned from these two numbers. None of them is measured.
#pragma once

#include "gemm_vector.h"

#if defined(OPSIN_AMX_MODEL)
#include "tile_unit.h"
#endif

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

/// Rows of a tile, and columns of a tile of sums; steps of k in a row of a tile of A.
constexpr int tile_lines = 16, tile_depth = 32;
/// Rows and columns of the sums that are in registers.
constexpr int block_lines = 2 * tile_lines;

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

class Tiles {
 public:
  OPSIN_INLINE Tiles() {
    static constexpr TileConfig config;
    _tile_loadconfig(&config);
  }
  OPSIN_INLINE ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

/// GCC does not know that tile loads read memory: no store may move past those before or after this.
OPSIN_INLINE void keep_order() { asm volatile("" ::: "memory"); }

/// Rows of A, 16 of them `stride` bytes apart.
struct TileRows {
  const BFloat16* at;
  int64_t stride;
};

// Sums of M x N tiles, M and N being 1 or 2, are in tiles 0, 1 (the upper ones), 2 and 3.
template <int M, int N>
OPSIN_INLINE void clear_sums() {
  _tile_zero(0);
  if constexpr (N == 2) _tile_zero(1);
  if constexpr (M == 2) _tile_zero(2);
  if constexpr (M == 2 && N == 2) _tile_zero(3);
}

/// `stride` counts floats.
template <int M, int N>
OPSIN_INLINE void load_sums(const float* sums, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  keep_order();
  _tile_loadd(0, sums, bytes);
  if constexpr (N == 2) _tile_loadd(1, sums + tile_lines, bytes);
  if constexpr (M == 2) _tile_loadd(2, sums + tile_lines * stride, bytes);
  if constexpr (M == 2 && N == 2) _tile_loadd(3, sums + tile_lines * stride + tile_lines, bytes);
  keep_order();
}

template <int M, int N>
OPSIN_INLINE void store_sums(float* sums, int64_t stride) {
  const int64_t bytes = stride * static_cast<int64_t>(sizeof(float));
  _tile_stored(0, sums, bytes);
  if constexpr (N == 2) _tile_stored(1, sums + tile_lines, bytes);
  if constexpr (M == 2) _tile_stored(2, sums + tile_lines * stride, bytes);
  if constexpr (M == 2 && N == 2) _tile_stored(3, sums + tile_lines * stride + tile_lines, bytes);
}

/// Adds the products of `steps` times 32 steps of k. Rows of A go on `a_step` elements further each time; a
/// row of pairs of B has `width` of them.
template <int M, int N>
OPSIN_INLINE void add_products(TileRows upper, TileRows lower, int64_t a_step, const BFloat16* b,
                               int64_t width, int64_t steps) {
  const int64_t b_stride = 2 * width * static_cast<int64_t>(sizeof(BFloat16)), b_step = tile_depth * width;
  const BFloat16 *x = upper.at, *y = lower.at;
  keep_order();
#pragma GCC unroll 1
  for (int64_t s = steps; s > 0; --s) {
    _tile_loadd(6, b, b_stride);
    _tile_loadd(4, x, upper.stride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, b + 2 * tile_lines, b_stride);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M == 2) {
      _tile_loadd(5, y, lower.stride);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (N == 2) _tile_dpbf16ps(3, 5, 7);
    }
    x += a_step;
    y += a_step;
    b += b_step;
  }
  keep_order();
}

/// Calls run<M, N>() with the tiles that so many rows and columns take.
template <class Run>
OPSIN_INLINE void with_tiles(int64_t rows, int64_t columns, Run run) {
  if (rows > tile_lines) {
    columns > tile_lines ? run.template operator()<2, 2>() : run.template operator()<2, 1>();
  } else {
    columns > tile_lines ? run.template operator()<1, 2>() : run.template operator()<1, 1>();
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
