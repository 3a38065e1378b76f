// Dense convolution of bfloat16 by tiles (TDPBF16PS), see amx_tiles.h.
//
// A block is 32 pixels times 32 output channels, whose sums stay in tiles from the first product to the last
// and are rounded once. The products of a pixel are one long row of k, tap after tap and channel after
// channel, cut into 32 steps; weights are packed in that order for every instruction set. Where channels fill
// the steps, and the 16 pixels of a tap are equally far apart as in the inside of an image, a tile of A is
// loaded from the image as it lies; elsewhere (edges, ends of rows, the end of the list) its rows are copied
// first, for as many steps as stay in the first-level cache. That takes a load and a store per row of 64
// bytes and each output block: at most half of the time of the products, beside which it can run.
#include "amx_tiles.h"
#include "bf16_lines.h"
#include "conv_pairs.h"
#include "conv_tile.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Steps of k whose rows are copied together: 16 KiB per tile of pixels.
constexpr int64_t run_depth = 512;
constexpr int64_t row_bytes = run_depth * static_cast<int64_t>(sizeof(BFloat16));

using Address = const BFloat16*;

// The distance of 16 addresses in bytes, or -1 if there is no one distance.
OPSIN_INLINE int64_t distance(const Address* pixels) {
  const int64_t first = reinterpret_cast<int64_t>(pixels[0]);
  const int64_t apart = reinterpret_cast<int64_t>(pixels[1]) - first;
  const __m512i lane = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
  const __m512i low =
      _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_mullo_epi64(lane, _mm512_set1_epi64(apart)));
  const __m512i high = _mm512_add_epi64(low, _mm512_set1_epi64(8 * apart));
  const bool even = _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(pixels), low) == 0 &&
                    _mm512_cmpneq_epi64_mask(_mm512_loadu_si512(pixels + 8), high) == 0;
  return even && apart >= 0 ? apart : -1;
}

OPSIN_INLINE void copy(const BFloat16* in, int64_t count, BFloat16* out) {
  for (int64_t c = 0; c < count; c += tile_depth) {
    store_elements(out + c, load_elements(in + c, count - c), count - c);
  }
}

OPSIN_INLINE void clear(BFloat16* out, int64_t count) {
  for (int64_t c = 0; c < count; c += tile_depth) {
    store_elements(out + c, _mm512_setzero_si512(), count - c);
  }
}

template <int N>
struct Blocks {
  const ConvTiles<BFloat16>& a;
  const int64_t depth = a.taps * a.channels, rest = depth % tile_depth;
  alignas(64) BFloat16 rows[2][tile_lines * run_depth];
  alignas(64) BFloat16 last_weights[tile_depth * N * tile_lines];
  alignas(64) float sums[block_lines * block_lines];

  explicit Blocks(const ConvTiles<BFloat16>& all) : a(all) {
    if (rest == 0) return;
    copy(a.weight + (depth - rest) * N * tile_lines, rest * N * tile_lines, last_weights);
    clear(last_weights + rest * N * tile_lines, (tile_depth - rest) * N * tile_lines);
  }

  // Pixels that fill a tile or, at the end, some of it: k from `begin` on, in all taps.
  void copy_run(const Address* source, int64_t pixels, int64_t begin, int64_t count, BFloat16* out) const {
    const int64_t whole = (count + tile_depth - 1) / tile_depth * tile_depth;
    for (int64_t i = 0; i < tile_lines; ++i, out += run_depth) {
      if (i >= pixels) {
        clear(out, whole);
        continue;
      }
      int64_t t = begin / a.channels, c = begin % a.channels;
      for (int64_t k = 0; k < count; ++t, c = 0) {
        const int64_t some = a.channels - c < count - k ? a.channels - c : count - k;
        copy(source[t * block_lines + i] + a.source_offset + c, some, out + k);
        k += some;
      }
      clear(out + count, whole - count);
    }
  }

  template <int M>
  void multiply(const Address* source, int64_t pixels) {
    clear_sums<M, N>();
    const bool fills = a.channels % tile_depth == 0;
    for (int64_t begin = 0; begin < depth;) {
      const int64_t t = begin / a.channels, c = begin % a.channels;
      const int64_t end = fills ? (t + 1) * a.channels : depth;
      const int64_t count = end - begin < run_depth ? end - begin : run_depth;
      TileRows tile[2] = {};
      for (int h = 0; h < M; ++h) {
        const Address* first = source + h * tile_lines;
        const int64_t some = pixels - h * tile_lines;
        const Address* tap = first + t * block_lines;
        const int64_t apart = fills && some >= tile_lines ? distance(tap) : -1;
        if (apart >= 0) {
          tile[h] = {*tap + a.source_offset + c, apart};
        } else {
          copy_run(first, some, begin, count, rows[h]);
          tile[h] = {rows[h], row_bytes};
        }
      }
      if (M == 1) tile[1] = tile[0];
      const int64_t steps = count / tile_depth, done = steps * tile_depth;
      add_products<M, N>(tile[0], tile[1], tile_depth, a.weight + begin * N * tile_lines, N * tile_lines,
                         steps);
      if (done < count) {
        add_products<M, N>({tile[0].at + done, tile[0].stride}, {tile[1].at + done, tile[1].stride}, 0,
                           last_weights, N * tile_lines, 1);
      }
      begin += count;
    }
    store_sums<M, N>(sums, block_lines);
  }

  void finish(BFloat16* const* target, int64_t pixels) const {
    constexpr int lanes = lanes_of<float>;
    Float bias[N] = {};
    for (int v = 0; v < N; ++v) {
      if (a.bias != nullptr) bias[v] = load_some<float>(a.bias + v * lanes, a.columns - v * lanes);
    }
    for (int64_t p = 0; p < pixels; ++p) {
      BFloat16* const out = target[p] + a.target_offset;
#pragma GCC unroll 2
      for (int v = 0; v < N; ++v) {
        Float sum = load(sums + p * block_lines + v * lanes) + bias[v];
        if (a.after.numbers != nullptr) {
          sum = after_sum<BFloat16>(a.after, sum, v * lanes, out + v * lanes, [&](const auto* from) {
            return load_some<float>(from, a.columns - v * lanes);
          });
        }
        if (a.stream) {
          stream(out + v * lanes, sum);
        } else {
          store_some(out + v * lanes, sum, a.columns - v * lanes);
        }
      }
    }
  }

  void run() {
    const Address* source = a.source;
    for (int64_t p = 0; p < a.pixels; p += block_lines, source += a.taps * block_lines) {
      const int64_t pixels = a.pixels - p < block_lines ? a.pixels - p : block_lines;
      pixels > tile_lines ? multiply<2>(source, pixels) : multiply<1>(source, pixels);
      finish(a.target + p, pixels);
    }
    if (a.stream) stream_fence();
  }
};

void multiply_pixels(const ConvTiles<BFloat16>& a) {
  const Tiles tiles;
  a.columns > tile_lines ? Blocks<2>(a).run() : Blocks<1>(a).run();
}

void gather_lines(const ConvGather<BFloat16>& a) {
  for (int64_t p = 0; p < a.pixels; p += tile_depth) {
    for (int64_t c = 0; c < a.channels; c += tile_lines) {
      turn_rows([&](int64_t i) { return a.source[p + i] + a.source_offset + c; }, a.pixels - p,
                a.channels - c, a.out + p * a.channels + c * tile_depth);
    }
  }
}

void panel_lines(const ConvPanels<BFloat16>& a) {
  panel_pairs(a);
  const int64_t begin = (a.rows + 1) / 2 * 2, end = (a.rows + tile_depth - 1) / tile_depth * tile_depth;
  for (int64_t first = 0; first < a.columns; first += a.width) {
    const int64_t width = a.columns - first > tile_lines ? a.width : tile_lines;
    clear(a.out + first / a.width * a.panel + begin * width, (end - begin) * width);
  }
}

// Sums go on from those that are there; pixels fill whole steps.
void multiply_outer(const ConvOuter<BFloat16>& a) {
  const Tiles tiles;
  alignas(64) float buffer[block_lines * block_lines];
  for (int64_t c = 0; c < a.channels; c += block_lines) {
    const int64_t rows = a.channels - c < block_lines ? a.channels - c : block_lines;
    with_tiles(rows, a.width, [&]<int M, int N>() {
      const bool whole = rows == M * tile_lines;
      float* const out = a.out + c * a.out_stride;
      const auto move = [&](const float* from, int64_t from_stride, float* to, int64_t to_stride) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int v = 0; v < N; ++v) {
            store(to + r * to_stride + v * tile_lines, load(from + r * from_stride + v * tile_lines));
          }
        }
      };
      float* const sums = whole ? out : buffer;
      const int64_t stride = whole ? a.out_stride : block_lines;
      if (a.accumulate) {
        if (!whole) move(out, a.out_stride, buffer, block_lines);
        load_sums<M, N>(sums, stride);
      } else {
        clear_sums<M, N>();
      }
      const BFloat16* source = a.source + c * tile_depth;
      const int64_t line = tile_depth * static_cast<int64_t>(sizeof(BFloat16));
      add_products<M, N>({source, line}, {source + tile_lines * tile_depth, line},
                         a.source_stride * tile_depth, a.grad, N * tile_lines,
                         (a.pixels + tile_depth - 1) / tile_depth);
      store_sums<M, N>(sums, stride);
      if (!whole) move(buffer, block_lines, out, a.out_stride);
    });
  }
}

}  // namespace

const ConvKernels<BFloat16>& conv_kernels() {
  static constexpr ConvKernels<BFloat16> kernels = {lanes_of<float>,
                                                    block_lines,
                                                    Dot<BFloat16>::step,
                                                    tile_depth,
                                                    fetch_steps * Dot<BFloat16>::step,
                                                    multiply_pixels,
                                                    nullptr,
                                                    conv_pack<BFloat16>,
                                                    conv_unpack<BFloat16>,
                                                    gather_rows,
                                                    gather_lines,
                                                    multiply_outer,
                                                    panel_lines,
                                                    sum_rows<BFloat16>};
  return kernels;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
