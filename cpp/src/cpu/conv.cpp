// Blocking of the dense convolution and of the gradient of its input.
//
// A direct convolution over channels-last pixels in the manner of Georganas et al., "Anatomy of
// High-Performance Deep Learning Convolutions on SIMD Architectures" (SC 2018), with the pixels of a register
// tile addressed through a list as in Dukhan, "The Indirect Convolution Algorithm" (2019):
//
//     for each block of target pixels, in parallel        addresses of all its taps are listed once
//       for each block of source channels                 so that a weight chunk [taps][block][2 vectors]
//       stays in L1
//         for each group and pair of vectors of target channels
//           for each tile of pixels: sum over taps and channels in registers, then add to the target
//
// Every target element is summed in the same order whatever the blocks of pixels are, so results depend
// neither on the number of threads nor on the batch. A 1x1 convolution is the same loop with one tap: a
// matrix product.
#include "conv.h"

#include "conv_plan.h"

#include <algorithm>
#include <cstring>

#include <opsin/error.h>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace conv {
namespace {

// Bytes of a weight chunk: most of a 32 KiB first-level cache, the rest is for pixels.
constexpr int64_t chunk_bytes = 20 * 1024;

template <class T>
struct Pass {
  Phases phases;
  int64_t batch, groups;
  const T* source;
  int64_t source_channels;  // of a group, as the next
  T* target;
  int64_t target_channels;
  const T* weight;
  int64_t lane_stride, channel_stride;  // of the weights, by target and by source channel
  const T* bias;
};

// Packed weights: [groups][ceil(target channels / width)][source channels / block][kernel
// taps][block][width].
struct Packing {
  int64_t width, blocks, block, units;

  template <class T>
  Packing(const Pass<T>& pass, int64_t lanes) {
    width = 2 * lanes;
    units = ceil_div(pass.target_channels, width);
    const int64_t taps = std::max<int64_t>(1, pass.phases.most_taps);
    const int64_t fitting = chunk_bytes / (taps * width * static_cast<int64_t>(sizeof(T)));
    blocks = ceil_div(pass.source_channels, std::max<int64_t>(fitting, 8));
    if (pass.source_channels < 16) blocks = 1;
    block = ceil_div(pass.source_channels, blocks);
    blocks = ceil_div(pass.source_channels, block);
  }
};

template <class T>
void pack(const Pass<T>& pass, const Packing& packing, int64_t lanes, T* packed) {
  const auto& kernel = kernels<T>();
  const int64_t taps = pass.phases.kernel_taps,
                group_size = pass.source_channels * pass.target_channels * taps;
  const int64_t chunk = taps * pass.source_channels * packing.width;
  const int64_t grain = std::max<int64_t>(1, 65536 / (taps * packing.block * packing.width));
  parallel_for(pass.groups * packing.units * packing.blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t unit = i / packing.blocks, channel = i % packing.blocks * packing.block;
      const int64_t lane = unit % packing.units * packing.width;
      const int64_t columns = std::min(packing.width, pass.target_channels - lane);
      ConvPack<T> a{};
      a.in = pass.weight + unit / packing.units * group_size + lane * pass.lane_stride +
             channel * pass.channel_stride;
      a.lane_stride = pass.lane_stride;
      a.channel_stride = pass.channel_stride;
      a.lanes = columns;
      a.channels = std::min(packing.block, pass.source_channels - channel);
      a.taps = taps;
      a.slot = pass.phases.slot.data();
      a.width = columns > lanes ? packing.width : lanes;
      a.out = packed + unit * chunk + channel * taps * a.width;
      kernel.pack(a);
    }
  });
}

// Pixels whose distance is a large power of two share a few sets of the first-level cache. A 1x1 convolution
// then copies the block of channels together first, which pays from a few pairs of vectors on.
template <class T>
bool copies_pixels(const Pass<T>& pass, const Phase& phase, int64_t units) {
  return phase.addresses() == 1 && units >= 4 &&
         pass.groups * pass.source_channels * static_cast<int64_t>(sizeof(T)) >= 2048;
}

// The scratch memory of the tasks that a thread runs one after the other.
template <class T>
struct Buffers {
  Scratch<const T*> sources, copied;
  Scratch<T*> targets;
  Scratch<T> patches, copies;

  Buffers(int64_t pixels, int64_t taps, int64_t most_patches, int64_t copied_channels)
      : sources(pixels * taps),
        copied(copied_channels > 0 ? pixels : 0),
        targets(pixels),
        patches(most_patches),
        copies(pixels * copied_channels) {}
};

// What one task does: some pixels of one phase, some of the (group, pair of vectors) units.
template <class T>
void run_block(const Pass<T>& pass, const Packing& packing, const T* packed, const T* zeros,
               const Phase& phase, int64_t begin, int64_t end, int64_t unit_begin, int64_t unit_end,
               const Buffers<T>& buffers) {
  const auto& kernel = kernels<T>();
  const int64_t all_channels = pass.groups * pass.source_channels;
  list_sources(phase, Source<T>{pass.source, all_channels, zeros}, begin, end, kernel.rows,
               buffers.sources.get(), buffers.patches.get());
  list_targets(phase, pass.target, pass.groups * pass.target_channels, begin, end, buffers.targets.get());
  const bool copied = copies_pixels(pass, phase, std::min(packing.units, unit_end - unit_begin));

  ConvTiles<T> a{};
  a.source = copied ? buffers.copied.get() : buffers.sources.get();
  a.target = buffers.targets.get();
  a.pixels = end - begin;
  a.taps = phase.addresses();
  for (int64_t unit = unit_begin; unit < unit_end;) {
    const int64_t group = unit / packing.units;
    const int64_t group_end = std::min(unit_end, (group + 1) * packing.units);
    for (int64_t channel = 0; channel < pass.source_channels; channel += packing.block) {
      const int64_t channels = std::min(packing.block, pass.source_channels - channel);
      a.source_offset = group * pass.source_channels + channel;
      a.channels = channels * phase.run;
      a.accumulate = channel > 0;
      if (copied) {
        T* copies = buffers.copies.get();
        kernel.gather({buffers.sources.get(), a.source_offset, a.pixels, a.channels, copies});
        for (int64_t p = 0; p < a.pixels; ++p) buffers.copied.get()[p] = copies + p * a.channels;
        a.source_offset = 0;
      }
      for (int64_t u = unit; u < group_end; ++u) {
        const int64_t column = u % packing.units * packing.width;
        a.columns = std::min(packing.width, pass.target_channels - column);
        const int64_t width = a.columns > kernel.lanes ? packing.width : kernel.lanes;
        a.weight = packed + u * pass.phases.kernel_taps * pass.source_channels * packing.width +
                   channel * pass.phases.kernel_taps * width + phase.first_slot * channels * width;
        a.target_offset = group * pass.target_channels + column;
        a.bias = pass.bias == nullptr ? nullptr : pass.bias + a.target_offset;
        kernel.tiles(a);
      }
    }
    unit = group_end;
  }
}

template <class T>
void run(const Pass<T>& pass, int64_t wanted) {
  const auto& kernel = kernels<T>();
  const auto& phases = pass.phases.phases;
  const Packing packing(pass, kernel.lanes);
  const int64_t all_units = pass.groups * packing.units;
  const int64_t taps = std::max<int64_t>(1, pass.phases.most_taps);

  // Sixteen tiles of pixels, so that a weight chunk is loaded for much work; fewer when the list outgrows the
  // cache. For more tasks the outputs are split first, as long as the list of addresses pays.
  int64_t tiles = std::clamp<int64_t>(256 * 1024 / (taps * kernel.rows * 8), 1, kernel.rows >= 8 ? 16 : 32);
  const auto count_blocks = [&](const Phase& phase) {
    return ceil_div(phase.pixels(pass.batch), tiles * kernel.rows);
  };
  const auto count_all = [&] {
    int64_t count = 0;
    for (const Phase& phase : phases) count += count_blocks(phase);
    return count;
  };
  wanted = std::min<int64_t>(wanted, 4 * num_threads());
  const int64_t few_units = std::min(all_units, ceil_div(128, pass.source_channels));
  const int64_t paying_splits = all_units / few_units;
  while (tiles > 4 && count_all() * paying_splits < wanted) tiles = (tiles + 1) / 2;
  const int64_t pixels = tiles * kernel.rows, blocks = count_all();
  if (blocks == 0) return;
  const int64_t unit_splits = std::clamp<int64_t>(ceil_div(wanted, blocks), 1, all_units);
  const int64_t units = ceil_div(all_units, unit_splits), splits = ceil_div(all_units, units);

  const Scratch<T> packed(all_units * pass.phases.kernel_taps * pass.source_channels * packing.width);
  pack(pass, packing, kernel.lanes, packed.get());

  int64_t most_patches = 0, longest = pass.groups * pass.source_channels, copied_channels = 0;
  for (const Phase& phase : phases) {
    most_patches = std::max(most_patches, patch_elements(phase, pixels, pass.source_channels));
    if (copies_pixels(pass, phase, std::min(packing.units, units))) copied_channels = packing.block;
    longest = std::max(longest, phase.run * pass.source_channels);
  }
  const Scratch<T> zeros(longest);
  std::fill(zeros.get(), zeros.get() + longest, T{0});

  parallel_for(blocks * splits, 1, [&](int64_t task_begin, int64_t task_end) {
    const Buffers<T> buffers(pixels, taps, most_patches, copied_channels);
    for (int64_t task = task_begin; task < task_end; ++task) {
      int64_t block = task / splits;
      const Phase* phase = phases.data();
      for (; block >= count_blocks(*phase); ++phase) block -= count_blocks(*phase);
      const int64_t begin = block * pixels, end = std::min(begin + pixels, phase->pixels(pass.batch));
      const int64_t unit = task % splits * units;
      run_block(pass, packing, packed.get(), zeros.get(), *phase, begin, end, unit,
                std::min(unit + units, all_units), buffers);
    }
  });
}

template <class T>
void forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y) {
  if (is_depthwise(g) || is_narrow<T>(g)) return depthwise_forward(g, x, weight, bias, y);
  const int64_t channels = g.in_channels / g.groups, taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  Pass<T> pass{forward_phases(g),         g.batch, g.groups,        x,    channels, y,
               g.out_channels / g.groups, weight,  channels * taps, taps, bias};
  merge_runs(pass.phases, channels, g.groups);
  run(pass, wanted_tasks(g));
}

template <class T>
void backward_input(const ConvGeometry& g, const T* grad_y, const T* weight, T* grad_x) {
  if (is_depthwise(g) || is_narrow<T>(g)) return depthwise_backward_input(g, grad_y, weight, grad_x);
  const int64_t channels = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  const int64_t taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  Pass<T> pass{backward_input_phases(g), g.batch, g.groups, grad_y, outputs, grad_x, channels, weight, taps,
               channels * taps,          nullptr};
  merge_runs(pass.phases, outputs, g.groups);
  run(pass, wanted_tasks(g));
}

int64_t pixels(const int64_t (&size)[3]) {
  return std::max<int64_t>(size[0], 0) * std::max<int64_t>(size[1], 0) * std::max<int64_t>(size[2], 0);
}

// float32 copies of 16-bit tensors, of a few images at a time.
class HalfCopies {
 public:
  HalfCopies(const ConvGeometry& g, DType dtype)
      : convert_(dtype == kFloat16 ? OPSIN_ISA_SELECT(conv_table).f16 : OPSIN_ISA_SELECT(conv_table).bf16),
        x_(pixels(g.in) * g.in_channels),
        y_(pixels(g.out) * g.out_channels),
        step_(std::clamp<int64_t>((int64_t{8} << 20) / std::max<int64_t>(1, x_ + y_), 1,
                                  std::max<int64_t>(1, g.batch))) {}

  int64_t x() const { return x_; }
  int64_t y() const { return y_; }
  int64_t step() const { return step_; }

  void widen(const void* in, int64_t first, int64_t count, float* out) const {
    const auto* from = static_cast<const uint16_t*>(in) + first;
    parallel_for(count, 32768,
                 [&](int64_t begin, int64_t end) { convert_.widen(from + begin, out + begin, end - begin); });
  }
  void narrow(const float* in, int64_t first, int64_t count, void* out) const {
    auto* to = static_cast<uint16_t*>(out) + first;
    parallel_for(count, 32768,
                 [&](int64_t begin, int64_t end) { convert_.narrow(in + begin, to + begin, end - begin); });
  }

 private:
  ConvConvert convert_;
  int64_t x_, y_, step_;
};

int64_t weight_elements(const ConvGeometry& g) {
  return g.out_channels * (g.in_channels / g.groups) * pixels(g.kernel);
}

// Calls run(images, first image) for runs of images.
template <class F>
void for_images(const ConvGeometry& g, const HalfCopies& half, F&& run) {
  ConvGeometry part = g;
  for (int64_t image = 0; image < g.batch; image += half.step()) {
    part.batch = std::min(half.step(), g.batch - image);
    run(part, image);
  }
}

void check_dtype(const char* op, DType dtype) {
  OPSIN_CHECK(TypeError, is_floating_point(dtype), op,
              ": expected a floating-point dtype (float32, float64, float16, bfloat16), got ", name(dtype));
}

}  // namespace
}  // namespace conv

void conv_forward(const ConvGeometry& g, DType dtype, const void* x, const void* weight, const void* bias,
                  void* y) {
  conv::check_dtype("conv", dtype);
  if (dtype == kFloat32) {
    return conv::forward(g, static_cast<const float*>(x), static_cast<const float*>(weight),
                         static_cast<const float*>(bias), static_cast<float*>(y));
  }
  if (dtype == kFloat64) {
    return conv::forward(g, static_cast<const double*>(x), static_cast<const double*>(weight),
                         static_cast<const double*>(bias), static_cast<double*>(y));
  }
  const conv::HalfCopies half(g, dtype);
  const Scratch<float> wide_weight(conv::weight_elements(g)), wide_bias(g.out_channels),
      wide_x(half.step() * half.x()), wide_y(half.step() * half.y());
  half.widen(weight, 0, conv::weight_elements(g), wide_weight.get());
  if (bias != nullptr) half.widen(bias, 0, g.out_channels, wide_bias.get());
  conv::for_images(g, half, [&](const ConvGeometry& part, int64_t image) {
    half.widen(x, image * half.x(), part.batch * half.x(), wide_x.get());
    conv::forward<float>(part, wide_x.get(), wide_weight.get(), bias == nullptr ? nullptr : wide_bias.get(),
                         wide_y.get());
    half.narrow(wide_y.get(), image * half.y(), part.batch * half.y(), y);
  });
}

void conv_backward_input(const ConvGeometry& g, DType dtype, const void* grad_y, const void* weight,
                         void* grad_x) {
  conv::check_dtype("conv_backward_input", dtype);
  if (dtype == kFloat32) {
    return conv::backward_input(g, static_cast<const float*>(grad_y), static_cast<const float*>(weight),
                                static_cast<float*>(grad_x));
  }
  if (dtype == kFloat64) {
    return conv::backward_input(g, static_cast<const double*>(grad_y), static_cast<const double*>(weight),
                                static_cast<double*>(grad_x));
  }
  const conv::HalfCopies half(g, dtype);
  const Scratch<float> wide_weight(conv::weight_elements(g)), wide_x(half.step() * half.x()),
      wide_y(half.step() * half.y());
  half.widen(weight, 0, conv::weight_elements(g), wide_weight.get());
  conv::for_images(g, half, [&](const ConvGeometry& part, int64_t image) {
    half.widen(grad_y, image * half.y(), part.batch * half.y(), wide_y.get());
    conv::backward_input<float>(part, wide_y.get(), wide_weight.get(), wide_x.get());
    half.narrow(wide_x.get(), image * half.x(), part.batch * half.x(), grad_x);
  });
}

void conv_backward_weight(const ConvGeometry& g, DType dtype, const void* x, const void* grad_y,
                          void* grad_weight, void* grad_bias) {
  conv::check_dtype("conv_backward_weight", dtype);
  if (dtype == kFloat32) {
    return conv::backward_weight(g, static_cast<const float*>(x), static_cast<const float*>(grad_y),
                                 static_cast<float*>(grad_weight), static_cast<float*>(grad_bias), false);
  }
  if (dtype == kFloat64) {
    return conv::backward_weight(g, static_cast<const double*>(x), static_cast<const double*>(grad_y),
                                 static_cast<double*>(grad_weight), static_cast<double*>(grad_bias), false);
  }
  const conv::HalfCopies half(g, dtype);
  const int64_t weights = conv::weight_elements(g);
  const Scratch<float> wide_weight(weights), wide_bias(g.out_channels), wide_x(half.step() * half.x()),
      wide_y(half.step() * half.y());
  std::fill(wide_weight.get(), wide_weight.get() + weights, 0.0f);
  std::fill(wide_bias.get(), wide_bias.get() + g.out_channels, 0.0f);
  conv::for_images(g, half, [&](const ConvGeometry& part, int64_t image) {
    half.widen(x, image * half.x(), part.batch * half.x(), wide_x.get());
    half.widen(grad_y, image * half.y(), part.batch * half.y(), wide_y.get());
    conv::backward_weight<float>(part, wide_x.get(), wide_y.get(), wide_weight.get(),
                                 grad_bias == nullptr ? nullptr : wide_bias.get(), true);
  });
  half.narrow(wide_weight.get(), 0, weights, grad_weight);
  if (grad_bias != nullptr) half.narrow(wide_bias.get(), 0, g.out_channels, grad_bias);
}

}  // namespace opsin::cpu
