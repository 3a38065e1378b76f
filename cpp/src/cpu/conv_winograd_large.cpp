// Winograd's convolution with weights whose transforms, four times as large, would go through memory: deep
// layers of few pixels, in training. They are transformed where they are multiplied, a few channels at a
// time, and stay in the second-level cache of their thread; what all threads share, and may lie further away,
// is the transformed source of a block of tiles:
//
//     for each block of tiles and planes of the depth
//       transform its source, in parallel
//       for each unit (pair of vectors) of target channels, in parallel
//         for each tap of the depth and some source channels
//           transform the weights
//           for each element: products of all tiles of all planes, added to the sums
//         transform the sums, add the bias
//
// The sums continue from one part of the channels to the next as if they had stayed in registers, in the
// order of conv_winograd.cpp: results are the same bits.
#include "conv_winograd_pass.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// The sums of a unit; its transformed weights of some channels.
constexpr int64_t sums_bytes = int64_t{640} << 10, weights_bytes = int64_t{640} << 10;
// The transformed source of a block.
constexpr int64_t source_bytes = int64_t{8} << 20;
constexpr int64_t least_tiles = 4;  // of a block, in register tiles

// Of a block: tiles of a plane and planes of the target and of the source.
struct Shape {
  int64_t tiles, depths, planes;
  int64_t tile_blocks, depth_blocks;
  int64_t channels, parts;  // source channels that go together
  int64_t source_stride, source_part, source_plane;
  int64_t sums_stride, weight_stride;
};

template <class S>
Shape shape_of(const WinogradSteps<S>& steps) {
  const WinogradPass<S>& pass = steps.pass;
  const auto& kernel = kernels<float>();
  constexpr int64_t item = sizeof(float);
  Shape s{};
  const int64_t most =
      std::clamp<int64_t>(weights_bytes / (steps.elements * steps.width * item), kernel.lanes,
                          std::max<int64_t>(kernel.lanes, pass.source_channels));
  s.channels = most / kernel.lanes * kernel.lanes;
  s.parts = ceil_div(pass.source_channels, s.channels);
  const int64_t most_tiles = std::max(
      least_tiles, std::min(sums_bytes / (steps.width * item), source_bytes / (s.parts * s.channels * item)) /
                       steps.elements / kernel.rows);
  const int64_t depths = pass.target_size[0];
  s.depth_blocks = ceil_div(depths, most_tiles);
  s.depths = ceil_div(depths, s.depth_blocks);
  s.planes = std::min(s.depths + pass.depth_taps - 1, pass.source_size[0]);
  s.tile_blocks = ceil_div(steps.tiles, most_tiles / s.depths * kernel.rows);
  s.tiles = ceil_div(steps.tiles, s.tile_blocks);
  if (s.tile_blocks > 1) s.tiles = ceil_div(s.tiles, kernel.rows) * kernel.rows;
  s.tile_blocks = ceil_div(steps.tiles, s.tiles);
  s.source_stride = s.tiles * s.channels + steps.gap;
  s.source_part = steps.elements * s.source_stride;
  s.source_plane = s.parts * s.source_part;
  s.sums_stride = s.depths * s.tiles * steps.width + steps.gap;
  s.weight_stride = s.channels * steps.width + steps.gap;
  return s;
}

template <class S>
class Blocks {
 public:
  explicit Blocks(const WinogradSteps<S>& steps) : steps_(steps), pass_(steps.pass), s_(shape_of(steps)) {}

  void run() const {
    const int64_t blocks = pass_.groups * s_.tile_blocks * s_.depth_blocks;
    // Of one block unless its units are too few for all threads.
    const int64_t together = std::clamp<int64_t>(ceil_div(2 * num_threads(), steps_.units), 1, blocks);
    const int64_t size = s_.planes * s_.source_plane, items = s_.planes * s_.tiles;
    const Scratch<float> sources(together * size);
    for (int64_t first = 0; first < blocks; first += together) {
      const int64_t count = std::min(together, blocks - first);
      parallel_for(count * items, 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t b = i / items;
          transform_source(block(first + b), i % items / s_.tiles, i % s_.tiles, sources.get() + b * size);
        }
      });
      parallel_for(count * steps_.units, 1, [&](int64_t begin, int64_t end) {
        const Buffers buffers(steps_, s_);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t b = i / steps_.units;
          multiply(block(first + b), i % steps_.units, sources.get() + b * size, buffers);
        }
      });
    }
  }

 private:
  struct Block {
    int64_t group, tile, tile_end, depth, depth_end;
    int64_t plane, plane_end;  // of the source
  };

  struct Buffers {
    Scratch<float> sums, weights, chunk;
    Scratch<const float*> sources;
    Scratch<float*> targets;

    Buffers(const WinogradSteps<S>& steps, const Shape& s)
        : sums(steps.elements * s.sums_stride),
          weights(steps.elements * s.weight_stride),
          chunk(steps.chunk(1)),
          sources(s.depths * s.tiles + kernels<float>().rows),
          targets(s.depths * s.tiles) {}
  };

  Block block(int64_t i) const {
    Block b{};
    b.group = i / (s_.tile_blocks * s_.depth_blocks);
    b.tile = i / s_.depth_blocks % s_.tile_blocks * s_.tiles;
    b.tile_end = std::min(b.tile + s_.tiles, steps_.tiles);
    b.depth = i % s_.depth_blocks * s_.depths;
    b.depth_end = std::min(b.depth + s_.depths, pass_.target_size[0]);
    b.plane = std::max<int64_t>(b.depth - pass_.pad[0], 0);
    b.plane_end = std::min(b.depth_end - pass_.pad[0] + pass_.depth_taps - 1, pass_.source_size[0]);
    return b;
  }

  // Source plane `plane` and tile `tile` of a block: [planes][parts][elements][tiles][channels].
  void transform_source(const Block& b, int64_t plane, int64_t tile, float* out) const {
    if (b.plane + plane >= b.plane_end || b.tile + tile >= b.tile_end) return;
    const S* pixels[WinogradSteps<S>::most_elements];
    steps_.list_source(b.tile + tile, b.plane + plane, b.group, pixels);
    out += plane * s_.source_plane + tile * s_.channels;
    for (int64_t c = 0; c < pass_.source_channels; c += s_.channels, out += s_.source_part) {
      steps_.transforms.input(
          {pixels, c, std::min(s_.channels, pass_.source_channels - c), out, s_.source_stride});
    }
  }

  void multiply(const Block& b, int64_t unit, const float* source, const Buffers& buffers) const {
    const int64_t width = steps_.width, tiles = b.tile_end - b.tile, rows = kernels<float>().rows;
    float* sums = buffers.sums.get();
    // Whether one tap reaches every target, each in a plane of the source.
    const bool whole = pass_.depth_taps == 1 && b.plane_end - b.plane == b.depth_end - b.depth;
    if (!whole) std::fill(sums, sums + steps_.elements * s_.sums_stride, 0.0f);
    ConvTiles<float> a{};
    a.source = buffers.sources.get();
    a.target = buffers.targets.get();
    a.taps = 1;
    a.columns = steps_.weight_columns(unit);
    a.ahead_pixel = s_.channels;
    for (int64_t tap = 0; tap < pass_.depth_taps; ++tap) {
      const int64_t shift = tap - pass_.pad[0];
      const int64_t begin = std::max(b.depth, b.plane - shift),
                    end = std::min(b.depth_end, b.plane_end - shift);
      if (begin >= end) continue;
      a.pixels = 0;
      for (int64_t depth = begin; depth < end; ++depth) {
        const float* plane = source + (depth + shift - b.plane) * s_.source_plane;
        for (int64_t i = 0; i < tiles; ++i, ++a.pixels) {
          buffers.sources.get()[a.pixels] = plane + i * s_.channels;
          buffers.targets.get()[a.pixels] = sums + ((depth - b.depth) * tiles + i) * width;
        }
      }
      for (int64_t part = 0; part < s_.parts; ++part) {
        const int64_t channel = part * s_.channels;
        a.channels = std::min(s_.channels, pass_.source_channels - channel);
        a.continues = channel > 0 || !whole;
        steps_.transform_weights(b.group, unit, tap, 1, channel, channel + a.channels, buffers.chunk.get(),
                                 buffers.weights.get(), s_.weight_stride);
        for (int64_t e = 0; e < steps_.elements; ++e) {
          a.source_offset = part * s_.source_part + e * s_.source_stride;
          a.target_offset = e * s_.sums_stride;
          a.weight = buffers.weights.get() + e * s_.weight_stride;
          // The pixels of the next register tile.
          a.ahead = a.source[0] + a.source_offset + rows * s_.channels;
          kernels<float>().tiles(a);
        }
      }
    }
    for (int64_t depth = b.depth; depth < b.depth_end; ++depth) {
      steps_.transform_products(b.tile, b.tile_end, depth, b.group * pass_.target_channels + unit * width,
                                steps_.target_columns(unit), sums + (depth - b.depth) * tiles * width, width,
                                s_.sums_stride);
    }
  }

  const WinogradSteps<S>& steps_;
  const WinogradPass<S>& pass_;
  const Shape s_;
};

}  // namespace

template <class S>
void winograd_of_large_weights(const WinogradSteps<S>& steps) {
  Blocks(steps).run();
}

template void winograd_of_large_weights(const WinogradSteps<float>&);
template void winograd_of_large_weights(const WinogradSteps<BFloat16>&);
template void winograd_of_large_weights(const WinogradSteps<Float16>&);

}  // namespace opsin::cpu::conv
