// How a depthwise or narrow convolution is divided: rows of outputs, and blocks of channels with their packed
// weights.
#pragma once

#include "conv_plan.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {

// Outputs of a row that are computed at a time: long rows are tasks of several threads too.
constexpr int64_t segment_outputs = 128;
// Of the weights of a block of channels, about, and what it is a multiple of.
constexpr int64_t block_bytes = 8192;
constexpr int64_t block_channels = 16;

// Rows of outputs, cut into segments of even length. Consecutive indices are rows below each other, so that
// they find most of their source rows in the cache.
struct Rows {
  int64_t count[3], blocks, segments, length;

  explicit Rows(const int64_t (&outputs)[3], int64_t longest = segment_outputs, int64_t channel_blocks = 1)
      : count{outputs[0], outputs[1], outputs[2]},
        blocks(channel_blocks),
        segments(std::max<int64_t>(1, ceil_div(outputs[2], longest))),
        length(ceil_div(outputs[2], segments)) {}

  int64_t all(int64_t batch) const { return batch * count[0] * segments * blocks * count[1]; }
};

struct Row {
  int64_t image, depth, block, height, begin, end;

  Row(const Rows& rows, int64_t index) {
    height = index % rows.count[1];
    index /= rows.count[1];
    block = index % rows.blocks;
    index /= rows.blocks;
    begin = index % rows.segments * rows.length;
    end = std::min(begin + rows.length, rows.count[2]);
    index /= rows.segments;
    depth = index % rows.count[0];
    image = index / rows.count[0];
  }
};

// Fewer channels than fill vectors: this many pixels beside each other are one with as many times the
// channels.
constexpr int64_t joined_pixels = 16;
constexpr int64_t few_channels = 8;

template <class T>
int64_t size(const std::vector<T>& list) {
  return static_cast<int64_t>(list.size());
}

// The distance between neighbouring taps along the width.
inline int64_t spacing(const Axis& axis) {
  return size(axis.shifts) > 1 ? axis.shifts[1] - axis.shifts[0] : 1;
}

// The source row that a row of taps reads, null outside.
template <class S>
const S* source_row(const Phase& phase, const S* source, int64_t channels, const Row& row, int64_t shift0,
                    int64_t shift1) {
  const auto& axis = phase.axis;
  const int64_t i0 = row.depth * axis[0].step + shift0, i1 = row.height * axis[1].step + shift1;
  if (i0 < 0 || i0 >= axis[0].source_size || i1 < 0 || i1 >= axis[1].source_size) return nullptr;
  return source +
         ((row.image * axis[0].source_size + i0) * axis[1].source_size + i1) * axis[2].source_size * channels;
}

// Channels in blocks whose weights stay in the first-level cache, from row to row. Whole lines of pixels. Not
// for groups of several channels: with their many weights, blocks are so narrow that the pixels come slower.
struct Blocks {
  int64_t channels, count, width;

  explicit Blocks(int64_t all) : channels(all), count(1), width(all) {}
  Blocks(int64_t all, int64_t bytes_each) : channels(all) {
    const int64_t lines = (block_bytes / bytes_each + block_channels / 2) / block_channels;
    count = std::max<int64_t>(1, all / (std::max<int64_t>(1, lines) * block_channels));
    width = count == 1 ? all : all / count / block_channels * block_channels;
  }

  static Blocks of_width(int64_t all, int64_t width) {
    Blocks some(all);
    some.width = ceil_div(width, block_channels) * block_channels;
    // A last block is no less than a vector.
    some.count = std::max<int64_t>(1, (all + some.width - block_channels) / some.width);
    if (some.count == 1) some.width = all;
    return some;
  }

  int64_t begin(int64_t block) const { return block * width; }
  int64_t size(int64_t block) const { return block + 1 < count ? width : channels - begin(block); }
};

// Weights [channels][group][taps] as [slots][group][channels], block after block; `transposed` exchanges the
// roles of the two channels inside each group.
template <class T>
void pack(const Phases& phases, const Blocks& blocks, int64_t group, bool transposed, const T* weight,
          T* packed) {
  const int64_t taps = phases.kernel_taps;
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t begin = blocks.begin(block), channels = blocks.size(block);
    T* const first = packed + begin * group * taps;
    for (int64_t t = 0; t < taps; ++t) {
      for (int64_t j = 0; j < group; ++j) {
        T* out = first + (phases.slot[static_cast<size_t>(t)] * group + j) * channels;
        for (int64_t c = begin; c < begin + channels; ++c) {
          const int64_t from = transposed ? (c - c % group + j) * group + c % group : c * group + j;
          *out++ = weight[from * taps + t];
        }
      }
    }
  }
}

// Whether rows are fetched before they are read. Not what the caches hold, nor small pixels, which the
// processor fetches by itself: measured with AVX2, that takes up to 1.3 times as long; elsewhere 0.6 times.
inline bool fetches_ahead(const Phases& phases, int64_t batch, int64_t channels, size_t element) {
  const auto& axis = phases.phases.front().axis;
  int64_t sources = batch * channels, targets = sources;
  for (const Axis& one : axis) {
    sources *= one.source_size;
    targets *= one.target_size;
  }
  const auto bytes = static_cast<int64_t>(element);
  return (sources + targets) * bytes >= stream_bytes && axis[2].step * channels * bytes >= 256;
}

// Chunks per region; depthwise work is bound by memory, so that one multiplication counts more than in a
// dense one.
inline int64_t wanted_chunks(const ConvGeometry& g) {
  return std::clamp<int64_t>(static_cast<int64_t>(work(g) / 1e5), 1, 32);
}

template <class T>
void repeat_channels(const T* in, int64_t count, int64_t times, T* out) {
  parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::fill(out + i * times, out + (i + 1) * times, in[i]);
  });
}

}  // namespace opsin::cpu::conv
