// Blocking of the dense convolution and of the gradient of its input.
//
// A direct convolution over channels-last pixels in the manner of Georganas et al., "Anatomy of
// High-Performance Deep Learning Convolutions on SIMD Architectures" (SC 2018), with the pixels of a register
// tile addressed through a list as in Dukhan, "The Indirect Convolution Algorithm" (2019):
//
//     for each block of target pixels, in parallel        addresses of all its taps are listed once
//       for each block of source channels                 a weight chunk [taps][block][2 vectors] stays in L2
//         for each group and pair of vectors of target channels
//           for each tile of pixels: sum over taps and channels in registers, then add to the target
//
// Most convolutions have one block of channels: the weights stream from the second-level cache, which costs
// less than to add to the targets once per block.
//
// Every target element is summed in the same order whatever the blocks of pixels are, so results depend
// neither on the number of threads nor on the batch. A 1x1 convolution is the same loop with one tap: a
// matrix product.
#include "conv_plan.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/packed_cache.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// Bytes of a weight chunk: a part of the second-level cache, the rest is for pixels; less for the 1x1
// convolutions whose pixels are copied beside it.
constexpr int64_t chunk_bytes = 320 * 1024;
constexpr int64_t copied_chunk_bytes = 64 * 1024;
// Copied pixels of a task, and what sets their rows apart: no large power of two.
constexpr int64_t copied_bytes = 256 * 1024;
constexpr int64_t copied_gap = 64;

template <class S>
struct Pass {
  Phases phases;
  int64_t batch, groups;
  const S* source;
  int64_t source_channels;  // of a group, as the next two
  int64_t real_channels;    // those that have weights, the last may be there to fill a step
  S* target;
  int64_t target_channels;
  const S* weight;
  int64_t lane_stride, channel_stride;  // of the weights, by target and by source channel
  const KeptWeight* kept;
  const Compute<S>* bias;
  ConvAfterSums<S> after;
  int64_t ahead;  // farthest source pixel that a target pixel reads, counted from its own; -1: not so simple
};

// Packed weights: [groups][ceil(target channels / width)][source channels / block][kernel taps][chunk of
// conv_table.h].
struct Packing {
  int64_t width, blocks, block, units;
  bool thin;

  template <class S>
  Packing(const Pass<S>& pass, int64_t lanes) {
    width = 2 * lanes;
    thin = kernels<S>().thin != nullptr && pass.target_channels <= thin_columns &&
           pass.source_channels >= 8 && pass.source_channels % (lanes * kernels<S>().step) == 0;
    units = ceil_div(pass.target_channels, width);
    const int64_t taps = std::max<int64_t>(1, pass.phases.most_taps);
    const int64_t bytes = pass.phases.kernel_taps == 1 ? copied_chunk_bytes : chunk_bytes;
    const int64_t fitting = bytes / (taps * width * static_cast<int64_t>(sizeof(S)));
    blocks = ceil_div(pass.source_channels, std::max<int64_t>(fitting, 8));
    // Sums of another type than the targets stay in registers.
    if (pass.source_channels < 16 || !std::is_same_v<S, Compute<S>> || thin) blocks = 1;
    block = ceil_div(pass.source_channels, blocks);
    blocks = ceil_div(pass.source_channels, block);
  }
};

// Weights [groups][kernel taps][target channels][source channels] of thin outputs.
template <class S>
void pack_thin(const Pass<S>& pass, const Packing& packing, S* packed) {
  const int64_t taps = pass.phases.kernel_taps, channels = pass.source_channels;
  const S* in = pass.weight;
  for (int64_t group = 0; group < pass.groups; ++group) {
    S* const out = packed + group * taps * channels * packing.width;
    for (int64_t n = 0; n < pass.target_channels; ++n) {
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t slot = pass.phases.slot[static_cast<size_t>(t)];
        const S* from = in + n * pass.lane_stride + t;
        S* to = out + (slot * pass.target_channels + n) * channels;
        for (int64_t c = 0; c < channels; ++c) to[c] = from[c * pass.channel_stride];
      }
    }
    in += channels * pass.target_channels * taps;
  }
}

template <class S>
void pack(const Pass<S>& pass, const Packing& packing, int64_t lanes, S* packed) {
  if (packing.thin) return pack_thin(pass, packing, packed);
  const auto& kernel = kernels<S>();
  const int64_t taps = pass.phases.kernel_taps, group_size = pass.real_channels * pass.target_channels * taps;
  const int64_t chunk = taps * pass.source_channels * packing.width;
  const int64_t grain = std::max<int64_t>(1, 65536 / (taps * packing.block * packing.width));
  parallel_for(pass.groups * packing.units * packing.blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t unit = i / packing.blocks, channel = i % packing.blocks * packing.block;
      const int64_t lane = unit % packing.units * packing.width;
      const int64_t columns = std::min(packing.width, pass.target_channels - lane);
      ConvPack<S> a{};
      a.in = pass.weight + unit / packing.units * group_size + lane * pass.lane_stride +
             channel * pass.channel_stride;
      a.lane_stride = pass.lane_stride;
      a.channel_stride = pass.channel_stride;
      a.lanes = columns;
      a.channels = std::min(packing.block, pass.real_channels - channel);
      a.taps = taps;
      a.slot = pass.phases.slot.data();
      a.width = columns > lanes ? packing.width : lanes;
      a.out = packed + unit * chunk + channel * taps * a.width;
      kernel.pack(a);
    }
  });
}

template <class S>
Ref<PackedBlock> packed_weight(const Pass<S>& pass, const Packing& packing, int64_t lanes) {
  PackKey key{key_of(&kernels<S>()), key_of_weight(pass.kept, pass.weight),
              pass.lane_stride,      pass.channel_stride,
              pass.groups,           pass.source_channels,
              pass.target_channels,  pass.real_channels,
              packing.block};
  key.insert(key.end(), pass.phases.slot.begin(), pass.phases.slot.end());
  const int64_t elements =
      pass.groups * packing.units * pass.phases.kernel_taps * pass.source_channels * packing.width;
  return cpu::packed_weight(pass.kept, std::move(key), static_cast<size_t>(elements) * sizeof(S),
                            [&](void* out) { pack(pass, packing, lanes, static_cast<S*>(out)); });
}

// Pixels whose distance is a large power of two share a few sets of the first-level cache. A 1x1 convolution
// then copies the block of channels together first, which pays from a few pairs of vectors on.
constexpr int64_t copying_units = 4;

template <class S>
bool copies_pixels(const Pass<S>& pass, const Phase& phase, int64_t units) {
  return phase.addresses() == 1 && units >= copying_units &&
         pass.groups * pass.source_channels * static_cast<int64_t>(sizeof(S)) >= 2048;
}

template <class S>
int64_t copy_stride(int64_t channels) {
  return channels + copied_gap / static_cast<int64_t>(sizeof(S));
}

// The scratch memory of the tasks that a thread runs one after the other.
template <class S>
struct Buffers {
  Scratch<const S*> sources, copied;
  Scratch<S*> targets;
  Scratch<S> patches, copies;

  Buffers(int64_t pixels, int64_t taps, int64_t most_patches, int64_t copied_channels)
      : sources(pixels * taps),
        copied(copied_channels > 0 ? pixels : 0),
        targets(pixels),
        patches(most_patches),
        copies(pixels * copied_channels) {}
};

template <class S>
int64_t target_pixels(const Pass<S>& pass) {
  int64_t pixels = 0;
  for (const Phase& phase : pass.phases.phases) pixels += phase.pixels(pass.batch);
  return pixels;
}

template <class S>
bool streams(const Pass<S>& pass, const Packing& packing) {
  const int64_t channels = pass.groups * pass.target_channels * static_cast<int64_t>(sizeof(S));
  return target_pixels(pass) * channels >= stream_bytes && packing.blocks == 1 &&
         pass.target_channels % packing.width == 0 && channels % 64 == 0 &&
         reinterpret_cast<uintptr_t>(pass.target) % 64 == 0;
}

// What one task does: some pixels of one phase, some of the (group, pair of vectors) units.
template <class S>
void run_block(const Pass<S>& pass, const Packing& packing, const S* packed, const S* zeros,
               const Phase& phase, int64_t begin, int64_t end, int64_t unit_begin, int64_t unit_end,
               bool stream, const Buffers<S>& buffers) {
  const auto& kernel = kernels<S>();
  const int64_t all_channels = pass.groups * pass.source_channels;
  list_sources(phase, Source<S>{pass.source, all_channels, zeros}, begin, end, kernel.rows,
               buffers.sources.get(), buffers.patches.get());
  list_targets(phase, pass.target, pass.groups * pass.target_channels, begin, end, buffers.targets.get());
  const bool copied = copies_pixels(pass, phase, std::min(packing.units, unit_end - unit_begin));

  ConvTiles<S> a{};
  a.source = copied ? buffers.copied.get() : buffers.sources.get();
  a.target = buffers.targets.get();
  a.pixels = end - begin;
  a.taps = phase.addresses();
  a.stream = stream;
  for (int64_t unit = unit_begin; unit < unit_end;) {
    const int64_t group = unit / packing.units;
    const int64_t group_end = std::min(unit_end, (group + 1) * packing.units);
    for (int64_t channel = 0; channel < pass.source_channels; channel += packing.block) {
      const int64_t channels = std::min(packing.block, pass.source_channels - channel);
      a.source_offset = group * pass.source_channels + channel;
      a.channels = channels * phase.run;
      a.accumulate = channel > 0;
      a.after = {};
      if (copied) {
        S* copies = buffers.copies.get();
        const int64_t stride = copy_stride<S>(a.channels);
        kernel.gather({buffers.sources.get(), a.source_offset, a.pixels, a.channels, copies, stride});
        for (int64_t p = 0; p < a.pixels; ++p) buffers.copied.get()[p] = copies + p * stride;
        a.source_offset = 0;
      }
      for (int64_t u = unit; u < group_end; ++u) {
        const int64_t column = u % packing.units * packing.width;
        a.columns = std::min(packing.width, pass.target_channels - column);
        const int64_t width = packing.thin               ? a.columns
                              : a.columns > kernel.lanes ? packing.width
                                                         : kernel.lanes;
        a.weight = packed + u * pass.phases.kernel_taps * pass.source_channels * packing.width +
                   channel * pass.phases.kernel_taps * width + phase.first_slot * channels * width;
        a.target_offset = group * pass.target_channels + column;
        // What the next block reads first, where source pixels lie as target pixels do: the first units fetch
        // all channels of the pixels of a tile.
        const int64_t fetched =
            (u - unit_begin) * channels / kernel.step * (64 / static_cast<int64_t>(sizeof(S)));
        const bool more = pass.ahead >= 0 && fetched < kernel.rows * all_channels &&
                          end + pass.ahead + a.pixels <= phase.pixels(pass.batch);
        a.ahead = more ? pass.source + (end + pass.ahead) * all_channels + fetched : packed;
        a.ahead_pixel = more ? all_channels : 0;
        a.bias = pass.bias == nullptr ? nullptr : pass.bias + a.target_offset;
        if (channel + channels == pass.source_channels) a.after = pass.after.from(a.target_offset);
        packing.thin ? kernel.thin(a) : kernel.tiles(a);
      }
    }
    unit = group_end;
  }
}

template <class S>
void run(const Pass<S>& pass, int64_t source_pixels, int64_t wanted) {
  const auto& kernel = kernels<S>();
  const auto& phases = pass.phases.phases;
  const Packing packing(pass, kernel.lanes);
  const int64_t all_units = pass.groups * packing.units;
  const int64_t taps = std::max<int64_t>(1, pass.phases.most_taps);

  // Sixteen tiles of pixels, so that a weight chunk is loaded for much work; fewer when the list outgrows the
  // cache. For more tasks the outputs are split first, as long as the list of addresses pays.
  int64_t tiles = std::clamp<int64_t>(256 * 1024 / (taps * kernel.rows * 8), 1, kernel.rows >= 8 ? 16 : 32);
  if (pass.phases.kernel_taps == 1) {
    const int64_t tile_bytes = kernel.rows * copy_stride<S>(packing.block) * static_cast<int64_t>(sizeof(S));
    tiles = std::clamp<int64_t>(copied_bytes / tile_bytes, std::min<int64_t>(tiles, 4), tiles);
  }
  const auto count_blocks = [&](const Phase& phase) {
    return ceil_div(phase.pixels(pass.batch), tiles * kernel.rows);
  };
  const auto count_all = [&] {
    int64_t count = 0;
    for (const Phase& phase : phases) count += count_blocks(phase);
    return count;
  };
  wanted = std::min<int64_t>(wanted, 4 * num_threads());
  int64_t few_units = std::min(all_units, ceil_div(128, pass.source_channels));
  const bool copies = std::all_of(phases.begin(), phases.end(), [&](const Phase& phase) {
    return copies_pixels(pass, phase, packing.units);
  });
  if (copies) few_units = std::max(few_units, std::min(all_units, copying_units));
  const int64_t paying_splits = all_units / few_units;
  while (tiles > 4 && count_all() * paying_splits < wanted) tiles = (tiles + 1) / 2;
  const int64_t pixels = tiles * kernel.rows, blocks = count_all();
  if (blocks == 0) return;
  const int64_t most_splits = copies && blocks * paying_splits >= num_threads() ? paying_splits : all_units;
  const int64_t unit_splits = std::clamp<int64_t>(ceil_div(wanted, blocks), 1, most_splits);
  const int64_t units = ceil_div(all_units, unit_splits), splits = ceil_div(all_units, units);

  const Ref<PackedBlock> packed = packed_weight(pass, packing, kernel.lanes);

  int64_t most_patches = 0, longest = pass.groups * pass.source_channels, copied_channels = 0;
  for (const Phase& phase : phases) {
    most_patches = std::max(most_patches, patch_elements(phase, pixels, pass.source_channels));
    if (copies_pixels(pass, phase, std::min(packing.units, units)))
      copied_channels = copy_stride<S>(packing.block);
    longest = std::max(longest, phase.run * pass.source_channels);
  }
  const Scratch<S> zeros(longest);
  std::fill(zeros.get(), zeros.get() + longest, S{});

  const bool stream = streams(pass, packing);
  // Neighbouring tasks tend to be one thread's: they share the larger of weights and pixels.
  const bool by_units =
      all_units * packing.width * pass.phases.kernel_taps * pass.source_channels >
      pass.groups * (source_pixels * pass.source_channels + target_pixels(pass) * pass.target_channels);
  parallel_for(blocks * splits, 1, [&](int64_t task_begin, int64_t task_end) {
    const Buffers<S> buffers(pixels, taps, most_patches, copied_channels);
    for (int64_t task = task_begin; task < task_end; ++task) {
      int64_t block = by_units ? task % blocks : task / splits;
      const Phase* phase = phases.data();
      for (; block >= count_blocks(*phase); ++phase) block -= count_blocks(*phase);
      const int64_t begin = block * pixels, end = std::min(begin + pixels, phase->pixels(pass.batch));
      const int64_t unit = (by_units ? task / blocks : task % splits) * units;
      run_block(pass, packing, static_cast<const S*>(packed->data()), zeros.get(), *phase, begin, end, unit,
                std::min(unit + units, all_units), stream, buffers);
    }
  });
}

// Copies the source with one more channel per group, zero, so that the channels of a group fill steps of two.
template <class S>
void fill_steps(const Pass<S>& pass, int64_t pixels, S* out) {
  const auto fill = [&](int64_t begin, int64_t end, int64_t channels) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < channels; ++c) out[i * (channels + 1) + c] = pass.source[i * channels + c];
      out[i * (channels + 1) + channels] = S{};
    }
  };
  // Images, a pixel in one piece: what is read beyond it is not of the last.
  const auto fill_three = [&](int64_t begin, int64_t end) {
    if constexpr (sizeof(S) == 2 && std::endian::native == std::endian::little) {
      for (; begin + 1 < end; ++begin) {
        uint64_t pixel;
        std::memcpy(&pixel, pass.source + 3 * begin, sizeof pixel);
        pixel &= (uint64_t{1} << 48) - 1;
        std::memcpy(out + 4 * begin, &pixel, sizeof pixel);
      }
    }
    fill(begin, end, 3);
  };
  parallel_for(pixels * pass.groups, 4096, [&](int64_t begin, int64_t end) {
    if (pass.real_channels == 3) return fill_three(begin, end);
    if (pass.real_channels == 1) return fill(begin, end, 1);
    fill(begin, end, pass.real_channels);
  });
}

// See Pass::ahead.
int64_t reach(const std::vector<Phase>& phases) {
  if (phases.size() != 1 || phases.front().run > 1) return -1;
  int64_t pixels = 0;
  for (const Axis& axis : phases.front().axis) {
    if (axis.step != 1 || axis.source_size != axis.count || axis.shifts.empty()) return -1;
    pixels = pixels * axis.source_size + axis.shifts.back();
  }
  return pixels;
}

template <class S>
void run_filled(Pass<S> pass, int64_t source_pixels, int64_t wanted) {
  const int64_t step = kernels<S>().step;
  pass.source_channels = ceil_div(pass.real_channels, step) * step;
  const bool fills = pass.source_channels == pass.real_channels;
  const Scratch<S> filled(fills ? 0 : source_pixels * pass.groups * pass.source_channels);
  if (!fills) {
    fill_steps(pass, source_pixels, filled.get());
    pass.source = filled.get();
  }
  merge_runs(pass.phases, pass.source_channels, pass.groups);
  pass.ahead = reach(pass.phases.phases);
  run(pass, source_pixels, wanted);
}

// Where the kernel is as wide as its stride, neighbours along the width of the target read the same source
// pixel: they are one pixel with as many times the channels, which pays where these do not fill the vectors.
template <class S>
bool joins_targets(const ConvGeometry& g) {
  return g.groups == 1 && g.in_channels < 2 * kernels<S>().lanes && g.kernel[2] > 1 &&
         g.stride[2] == g.kernel[2] && g.dilation[2] == 1 && g.pad_begin[2] == 0 &&
         g.in[2] == g.out[2] * g.stride[2];
}

// Weights [out channels][in channels][rows of taps][width] as [out channels][width][in channels][rows of
// taps].
template <class S>
void join_weights(const ConvGeometry& g, const S* weight, S* joined) {
  const int64_t width = g.kernel[2], rows = g.in_channels * g.kernel[0] * g.kernel[1], each = rows * width;
  parallel_for(g.out_channels, std::max<int64_t>(1, 16384 / each), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * each; i < end * each; i += each) {
      for (int64_t w = 0; w < width; ++w) {
        for (int64_t r = 0; r < rows; ++r) joined[i + w * rows + r] = weight[i + r * width + w];
      }
    }
  });
}

}  // namespace

template <class S>
void dense_forward(const ConvGeometry& g, const S* x, const S* weight, const Compute<S>* bias, S* y) {
  const int64_t channels = g.in_channels / g.groups, taps = volume(g.kernel);
  Pass<S> pass{};
  pass.phases = forward_phases(g);
  pass.batch = g.batch;
  pass.groups = g.groups;
  pass.source = x;
  pass.real_channels = channels;
  pass.target = y;
  pass.target_channels = g.out_channels / g.groups;
  pass.weight = weight;
  pass.lane_stride = channels * taps;
  pass.channel_stride = taps;
  pass.kept = g.weight;
  pass.bias = bias;
  pass.after = after_sums<S>(g, y);
  run_filled(std::move(pass), g.batch * volume(g.in), wanted_tasks(g));
}

template <class S>
void dense_backward_input(const ConvGeometry& geometry, const S* grad_y, const S* weight, S* grad_x) {
  ConvGeometry g = geometry;
  const bool joins = joins_targets<S>(g);
  const Scratch<S> joined(joins ? g.out_channels * g.in_channels * volume(g.kernel) : 0);
  if (joins) {
    join_weights(g, weight, joined.get());
    weight = joined.get();
    g.weight = nullptr;  // reads a copy
    g.in_channels *= g.kernel[2];
    g.in[2] = g.out[2];
    g.kernel[2] = g.stride[2] = 1;
  }
  const int64_t channels = g.in_channels / g.groups, taps = volume(g.kernel);
  Pass<S> pass{};
  pass.phases = backward_input_phases(g);
  pass.batch = g.batch;
  pass.groups = g.groups;
  pass.source = grad_y;
  pass.real_channels = g.out_channels / g.groups;
  pass.target = grad_x;
  pass.target_channels = channels;
  pass.weight = weight;
  pass.lane_stride = taps;
  pass.channel_stride = channels * taps;
  pass.kept = g.weight;
  run_filled(std::move(pass), g.batch * volume(g.out), wanted_tasks(g));
}

#define OPSIN_INSTANTIATE(S)                                                                   \
  template void dense_forward(const ConvGeometry&, const S*, const S*, const Compute<S>*, S*); \
  template void dense_backward_input(const ConvGeometry&, const S*, const S*, S*);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
#if defined(__x86_64__)
OPSIN_INSTANTIATE(BFloat16)
#endif
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
