// Gradients of the weights of depthwise convolution and of convolution in groups of a few channels.
#include "conv_depthwise_plan.h"

#include <algorithm>
#include <vector>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// Of gradients of weights: pixels of a split for each tap, channels of a block.
constexpr int64_t split_pixels = 16, least_block = 64;

// Of both images, from where on rows are fetched ahead: where that pays, which is before nothing of them is
// left in the caches. With less it takes up to 1.3 times as long.
constexpr int64_t fetched_bytes = stream_bytes / 2;

// From where on pixels are read in the order of memory, fetched ahead. Below, kernels with 512 bits keep the
// sums of 3x3 taps in registers.
template <class S>
int64_t bytes_in_order(const ConvDepthwiseOuter<S>& a) {
  const bool registers = depthwise_kernels<S>().lanes == 16 && a.row_taps == 3 && a.kernel_rows % 3 == 0;
  return registers ? 3 * stream_bytes / 4 : fetched_bytes;
}

// Where a channel has its sum, see ConvDepthwiseOuter.
int64_t sum_slot(int64_t channel, int64_t channels, int64_t lanes) {
  const int64_t whole = channels / lanes * lanes;
  return whole == 0 || channel < whole ? channel : whole + channel - (channels - lanes);
}

int64_t sum_step(int64_t channels, int64_t group = 1) {
  return group == 1 ? ceil_div(channels, block_channels) * block_channels : channels;
}

// The sums of few channels, tap by tap, over joined pixels.
template <class S>
void sum_joined(const ConvDepthwiseOuter<S>& a) {
  const auto& kernel = depthwise_kernels<S>();
  const int64_t wide = joined_pixels * a.channels;
  std::vector<const S*> sources(static_cast<size_t>(a.output_rows * a.kernel_rows)),
      grads(static_cast<size_t>(a.output_rows));
  std::vector<Compute<S>> sums(static_cast<size_t>(a.kernel_rows * sum_step(wide)));
  for (int64_t t = 0; t < a.row_taps; ++t) {
    const int64_t first = a.first + t * a.spacing;
    const int64_t from = std::min(a.end, std::max(a.begin, -first));
    const int64_t to = std::max(from, std::min(a.end, a.size - first));
    const int64_t count = (to - from) / joined_pixels;
    ConvDepthwiseOuter<S> part = a;
    part.row_taps = part.step = part.spacing = 1;
    part.out = sums.data();
    const auto add = [&](int64_t channels) {
      std::fill(sums.begin(), sums.end(), Compute<S>{});
      part.channels = part.pixel_step = channels;
      part.sum_step = sum_step(channels);
      kernel.outer(part);
      for (int64_t r = 0; r < a.kernel_rows; ++r) {
        Compute<S>* out = a.out + (r * a.row_taps + t) * a.sum_step;
        const Compute<S>* some = sums.data() + r * part.sum_step;
        for (int64_t i = 0; i < channels; ++i)
          out[sum_slot(i % a.channels, a.channels, kernel.lanes)] +=
              some[sum_slot(i, channels, kernel.lanes)];
      }
    };
    part.first = first;
    part.begin = from + count * joined_pixels;
    part.end = to;
    if (part.begin < part.end) add(a.channels);
    if (count == 0) continue;
    for (size_t i = 0; i < sources.size(); ++i)
      sources[i] = a.source[i] == nullptr ? nullptr : a.source[i] + (from + first) * a.channels;
    for (size_t i = 0; i < grads.size(); ++i) grads[i] = a.grad[i] + from * a.channels;
    part.source = sources.data();
    part.grad = grads.data();
    part.first = part.begin = 0;
    part.end = part.size = count;
    add(wide);
  }
}

// How the sums are divided among tasks: pixels into splits, by the shape alone, and channels into blocks.
struct SumTasks {
  int64_t splits;
  Blocks blocks;
};

template <class S>
SumTasks sum_tasks(const ConvGeometry& g, int64_t pixels, int64_t group, int64_t taps) {
  const int64_t channels = g.out_channels, part = (taps * group + 1) * sum_step(channels, group);
  if (group > 1) return {choose_splits<S>(pixels, part, wanted_tasks(g)), Blocks(channels)};
  // Partial sums cost little beside the pixels of a split.
  const int64_t wanted = wanted_chunks(g), most = std::max<int64_t>(1, pixels / (split_pixels * taps));
  const int64_t splits = choose_splits<S>(pixels, part, std::min(wanted, most));
  const int64_t threads = num_threads(), parts = threads == 1 ? 1 : std::min(wanted, 2 * threads);
  const int64_t width = ceil_div(channels, ceil_div(parts, splits));
  return {splits, Blocks::of_width(channels, std::max(least_block, width))};
}

// Whether ConvDepthwiseKernels::outer_rows takes a row of so many taps.
template <class S>
bool sums_rows(const ConvDepthwiseOuter<S>& a) {
  const auto& kernel = depthwise_kernels<S>();
  const bool taps = a.row_taps == 3 || a.row_taps == 5 || (a.row_taps == 7 && a.step == 1);
  return kernel.outer_rows != nullptr && a.group == 1 && taps && a.spacing == 1 && a.step <= 2 &&
         a.channels >= kernel.lanes;
}

// A single long row of taps in parts for which there are kernels.
template <class S>
void sum_taps(const ConvDepthwiseOuter<S>& a) {
  const auto& kernel = depthwise_kernels<S>();
  if (a.group > 1) return kernel.narrow(a);
  if (sums_rows(a)) return kernel.outer_rows(a);
  if (a.channels < few_channels && a.step == 1) return sum_joined(a);
  if (a.kernel_rows > 1 || a.row_taps <= 7) return kernel.outer(a);
  ConvDepthwiseOuter<S> some = a;
  for (int64_t left = a.row_taps; left > 0; left -= some.row_taps) {
    some.row_taps = left >= 10 || left == 7 ? 7 : left == 8 || left == 5 ? 5 : std::min<int64_t>(left, 3);
    sums_rows(some) ? kernel.outer_rows(some) : kernel.outer(some);
    some.first += some.row_taps * a.spacing;
    some.out += some.row_taps * a.sum_step;
  }
}

}  // namespace

template <class S>
void depthwise_backward_weight(const ConvGeometry& g, const S* x, const S* grad_y, Compute<S>* grad_weight,
                               Compute<S>* grad_bias, bool accumulate) {
  using T = Compute<S>;
  const auto& kernel = depthwise_kernels<S>();
  const int64_t group = g.in_channels / g.groups;
  const int64_t channels = g.out_channels, multiplier = channels / g.in_channels;
  const int64_t elements = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : elements * multiplier);
  if (multiplier != 1) repeat_channels(x, elements, multiplier, repeated.get());
  const S* source = multiplier == 1 ? x : repeated.get();

  const Phases phases = forward_phases(g);
  const Phase& phase = phases.phases.front();
  const auto& axis = phase.axis;
  const int64_t taps = phases.kernel_taps, pixels = phase.pixels(g.batch);
  const Rows rows({axis[0].count, axis[1].count, axis[2].count});
  const int64_t count = pixels == 0 ? 0 : rows.all(g.batch);
  ConvDepthwiseOuter<S> all{};
  all.pixel_step = all.channels = channels;
  all.kernel_rows = g.kernel[0] * g.kernel[1];
  all.row_taps = g.kernel[2];
  all.size = g.in[2];
  all.step = g.stride[2];
  all.first = -g.pad_begin[2];
  all.spacing = g.dilation[2];
  all.group = group;
  all.ahead =
      (elements * multiplier + pixels * channels) * static_cast<int64_t>(sizeof(S)) >= bytes_in_order(all);
  const bool by_rows = sums_rows(all);
  // The last row of each part is the gradient of the bias.
  const int64_t sums = taps * group, part = (sums + 1) * sum_step(channels, group);
  const SumTasks tasks = sum_tasks<S>(g, pixels, group, taps);
  const int64_t rows_each = ceil_div(count, tasks.splits);
  // Elsewhere, the sums of a block of rows stay in registers, its pixels in the first-level cache.
  const int64_t at_once = by_rows ? rows_each : std::max<int64_t>(1, 64 / std::max<int64_t>(1, rows.length));
  // Vectors of sums are read, also of less channels.
  const Scratch<T> partial(tasks.splits * part + block_channels);

  parallel_for(tasks.splits * tasks.blocks.count, 1, [&](int64_t task_begin, int64_t task_end) {
    const Scratch<const S*> sources(at_once * all.kernel_rows), grads(at_once);
    for (int64_t task = task_begin; task < task_end; ++task) {
      const int64_t split = task / tasks.blocks.count, block = task % tasks.blocks.count;
      const int64_t channel = tasks.blocks.begin(block);
      ConvDepthwiseOuter<S> a = all;
      a.source = sources.get();
      a.grad = grads.get();
      a.out = partial.get() + split * part + (sums + 1) * channel;
      a.channels = tasks.blocks.size(block);
      a.sum_step = sum_step(a.channels, group);
      T* const grad_sum = a.out + sums * a.sum_step;
      if (by_rows && grad_bias != nullptr) a.grad_sum = grad_sum;
      std::fill(a.out, grad_sum + a.sum_step, T{});
      const int64_t last = std::min((split + 1) * rows_each, count);
      for (int64_t i = split * rows_each; i < last;) {
        // Rows of one segment.
        const Row first(rows, i);
        a.begin = first.begin;
        a.end = first.end;
        a.output_rows = 0;
        const S** list = sources.get();
        for (; i < last && a.output_rows < at_once; ++i, ++a.output_rows) {
          const Row row(rows, i);
          if (row.begin != first.begin) break;
          for (int64_t shift0 : axis[0].shifts) {
            for (int64_t shift1 : axis[1].shifts) {
              const S* from = source_row(phase, source, channels, row, shift0, shift1);
              *list++ = from == nullptr ? nullptr : from + channel;
            }
          }
          const int64_t line = (row.image * g.out[0] + row.depth) * g.out[1] + row.height;
          const S* grad = grads.get()[a.output_rows] = grad_y + line * g.out[2] * channels + channel;
          if (grad_bias != nullptr && !by_rows) {
            kernel.sum_rows(
                {grad + a.begin * channels, channels, a.end - a.begin, a.channels, grad_sum, true});
          }
        }
        sum_taps(a);
      }
    }
  });

  // By as many channels as blocks are multiples of, of which some may have sums of their own at the end.
  const auto put = [&](int64_t block, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const int64_t first = tasks.blocks.begin(block), step = sum_step(tasks.blocks.size(block), group);
    const int64_t slot = group == 1 ? sum_slot(begin, tasks.blocks.size(block), kernel.lanes) : begin;
    const T* const from = partial.get() + (sums + 1) * first;
    T* const out = grad_weight + (first + begin) * sums;
    kernels<T>().unpack(
        {from + slot, tasks.splits, part, end - begin, group, taps, step, out, sums, accumulate, false});
    if (grad_bias == nullptr) return;
    depthwise_kernels<T>().sum_rows({from + sums * step + (by_rows ? slot : begin), part, tasks.splits,
                                     end - begin, grad_bias + first + begin, accumulate});
  };
  const int64_t grain = std::max<int64_t>(1, 32768 / (tasks.splits * (sums + 1) * block_channels));
  parallel_for(ceil_div(channels, block_channels), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = std::min(i * block_channels / tasks.blocks.width, tasks.blocks.count - 1);
      const int64_t some = tasks.blocks.size(block), from = i * block_channels - tasks.blocks.begin(block);
      const int64_t to = std::min(from + block_channels, some), whole = some / kernel.lanes * kernel.lanes;
      put(block, from, std::min(to, whole));
      put(block, std::max(from, whole), to);
    }
  });
}

#define OPSIN_INSTANTIATE(S)                                                                                 \
  template void depthwise_backward_weight(const ConvGeometry&, const S*, const S*, Compute<S>*, Compute<S>*, \
                                          bool);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
OPSIN_INSTANTIATE(BFloat16)
OPSIN_INSTANTIATE(Float16)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
