// A pass of Winograd's convolution, its tiles and the steps of its product; conv_winograd.cpp says how they
// make it up.
#pragma once

#include "conv_plan.h"
#include "conv_winograd_tiles.h"

#include <algorithm>
#include <vector>

#include "cpu/packed_cache.h"
#include "cpu/scratch.h"

namespace opsin::cpu::conv {

/// A forward convolution, or the gradient of an input seen as one:
///     target(o) = sum over t of source(o - pad + t) * weight(t)
template <class S>
struct WinogradPass {
  int64_t batch, groups, depth_taps;
  const S* source;
  int64_t source_size[3], source_channels;  // of a group
  S* target;
  int64_t target_size[3], target_channels;  // of a group
  int64_t pad[3];
  const S* weight;
  int64_t lane_stride, channel_stride;  // of the weights, by target and by source channel
  bool flipped;                         // weight(t) is their last tap but t
  const KeptWeight* kept;
  const float* bias;
};

/// Tiles are of m x m outputs and m + 2 pixels of the source along each edge. Target channels come in units
/// of two vectors.
template <class S>
class WinogradSteps {
 public:
  // Elements that set the transforms of a tile apart, so that they fall on different lines of the cache.
  static constexpr int64_t gap = 16;
  // Of a tile of the source.
  static constexpr int64_t most_elements = 64;

  const WinogradPass<S>& pass;
  const WinogradKernels<S>& transforms;
  const int64_t m, elements;           // elements: of a transformed tile
  const int64_t lanes, width;          // width: of a unit
  const int64_t rows, columns, tiles;  // of tiles in a plane; tiles of a plane of all images
  const int64_t units;                 // of a group

  WinogradSteps(const WinogradPass<S>& p, const WinogradKernels<S>& of_m)
      : pass(p),
        transforms(of_m),
        m(of_m.m),
        elements((m + 2) * (m + 2)),
        lanes(kernels<float>().lanes),
        width(2 * lanes),
        rows(ceil_div(p.target_size[1], m)),
        columns(ceil_div(p.target_size[2], m)),
        tiles(p.batch * rows * columns),
        units(ceil_div(p.target_channels, width)),
        zeros_(p.groups * p.source_channels),
        unused_(p.groups * p.target_channels),
        slot_(static_cast<size_t>(9 * p.depth_taps)) {
    std::fill(zeros_.get(), zeros_.get() + p.groups * p.source_channels, S{});
    const int64_t last = 9 * p.depth_taps - 1;
    for (int64_t t = 0; t <= last; ++t) slot_[static_cast<size_t>(t)] = p.flipped ? last - t : t;
  }

  int64_t target_columns(int64_t unit) const { return std::min(width, pass.target_channels - unit * width); }
  /// Columns of the transformed weights of a unit.
  int64_t weight_columns(int64_t unit) const { return target_columns(unit) > lanes ? width : lanes; }

  /// Elements of the scratch memory of transform_weights().
  int64_t chunk(int64_t taps) const { return 9 * taps * chunk_channels(taps) * width; }

  /// The weights of a unit for taps [tap, tap + taps) of the depth and source channels [begin, end):
  /// [elements][taps][end - begin][weight_columns(unit)], the elements `stride` apart.
  void transform_weights(int64_t group, int64_t unit, int64_t tap, int64_t taps, int64_t begin, int64_t end,
                         float* chunk, float* out, int64_t stride) const {
    const int64_t all = 9 * pass.depth_taps, channels = end - begin, most = chunk_channels(taps);
    const S* weight = pass.weight + group * pass.source_channels * pass.target_channels * all +
                      unit * width * pass.lane_stride +
                      9 * (pass.flipped ? pass.depth_taps - tap - taps : tap);
    ConvPack<float, S> a{};
    a.lane_stride = pass.lane_stride;
    a.channel_stride = pass.channel_stride;
    a.lanes = target_columns(unit);
    a.taps = 9 * taps;
    a.slot = slot_.data() + (pass.flipped ? all - a.taps : 0);
    a.out = chunk;
    a.width = weight_columns(unit);
    for (int64_t c = begin; c < end; c += most) {
      a.in = weight + c * pass.channel_stride;
      a.channels = std::min(most, end - c);
      transforms.pack(a);
      const int64_t some = a.channels * a.width;
      for (int64_t d = 0; d < taps; ++d) {
        transforms.weight({chunk + d * 9 * some, some, out + (d * channels + c - begin) * a.width, stride});
      }
    }
  }

  /// The pixels of a tile of the source, at channel 0 of a group.
  void list_source(int64_t tile, int64_t depth, int64_t group, const S** out) const {
    const int64_t channels = pass.groups * pass.source_channels, height = pass.source_size[1];
    const Place p = place(tile);
    const S* plane = pass.source +
                     (p.image * pass.source_size[0] + depth) * height * pass.source_size[2] * channels +
                     group * pass.source_channels;
    list_pixels(plane, p.y - pass.pad[1], p.x - pass.pad[2], m + 2, height, pass.source_size[2], channels,
                static_cast<const S*>(zeros_.get()), out);
  }

  /// The targets of tiles [begin, end) of a plane, for channels [channel, channel + channels) of all groups,
  /// from products of which a tile's are `row` and the elements `stride` apart.
  void transform_products(int64_t begin, int64_t end, int64_t depth, int64_t channel, int64_t channels,
                          const float* products, int64_t row, int64_t stride) const {
    const int64_t all = pass.groups * pass.target_channels;
    const int64_t height = pass.target_size[1], width_of_plane = pass.target_size[2];
    const float* bias = pass.bias == nullptr ? nullptr : pass.bias + channel;
    S* target[most_elements];
    for (int64_t tile = begin; tile < end; ++tile, products += row) {
      const Place p = place(tile);
      S* plane = pass.target + (p.image * pass.target_size[0] + depth) * height * width_of_plane * all;
      list_pixels(plane, p.y, p.x, m, height, width_of_plane, all, unused_.get(), target);
      transforms.output({products, stride, channels, bias, target, channel});
    }
  }

 private:
  // The image of a tile and its first target pixel.
  struct Place {
    int64_t image, y, x;
  };
  Place place(int64_t tile) const {
    return {tile / (rows * columns), tile / columns % rows * m, tile % columns * m};
  }

  int64_t chunk_channels(int64_t taps) const {
    return std::min(pass.source_channels, std::max<int64_t>(8, 4096 / (9 * taps * width)));
  }

  const Scratch<S> zeros_, unused_;
  std::vector<int64_t> slot_;
};

/// Transforms the weights of a few target channels at a time, where they are multiplied. For those that would
/// not stay in the cache.
template <class S>
void winograd_of_large_weights(const WinogradSteps<S>& steps);

}  // namespace opsin::cpu::conv
