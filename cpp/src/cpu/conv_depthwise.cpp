// Depthwise convolution (one input channel per group) and convolution in groups of a few channels,
// is_narrow() or sums_narrow(), by rows of outputs. With a multiplier m (m output channels per group), the
// input is first repeated m times per channel, and the gradient of the input is summed over each m, so that
// the kernels see one channel in and one out.
#include "conv_depthwise_plan.h"

#include <algorithm>

#include "cpu/packed_cache.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

template <class T>
void repeat_channels(const T* in, int64_t count, int64_t times, T* out) {
  parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::fill(out + i * times, out + (i + 1) * times, in[i]);
  });
}

template <class T>
void sum_channels(const T* in, int64_t count, int64_t times, T* out) {
  parallel_for(count, 16384, [&](int64_t begin, int64_t end) {
    // The usual multiplier as a constant: a loop of vectors.
    if (times == 2) {
      for (int64_t i = begin; i < end; ++i) out[i] = in[2 * i] + in[2 * i + 1];
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      T sum = in[i * times];
      for (int64_t j = 1; j < times; ++j) sum += in[i * times + j];
      out[i] = sum;
    }
  });
}

// Outputs of a row of few channels that are computed at a time, times these.
constexpr int64_t joined_outputs = 4096;

// Fewer channels than fill vectors: this many pixels beside each other are one with as many times the
// channels.
constexpr int64_t joined_pixels = 16;
constexpr int64_t few_channels = 8;

// Of gradients of weights: pixels of a split for each tap, channels of a block.
constexpr int64_t split_pixels = 16, least_block = 64;

template <class S>
bool joins_pixels(int64_t channels, int64_t group) {
  return group == 1 && channels < std::max(few_channels, depthwise_kernels<S>().lanes);
}

template <class T>
void repeat(const T* in, int64_t count, int64_t times, T* out) {
  for (int64_t i = 0; i < times; ++i) out = std::copy(in, in + count, out);
}

// Weights and bias for joined pixels; none if `pixels` is 0.
template <class S>
struct Joined {
  int64_t pixels;
  const Compute<S>*weight, *bias;
};

template <class S>
struct Lists {
  std::vector<typename ConvDepthwise<S>::Row> rows, taps;
  std::vector<S> outputs;
};

template <class S>
void scatter(const S* in, int64_t in_step, int64_t count, int64_t channels, S* out, int64_t out_step) {
  const auto move = [&](int64_t some) {
    for (int64_t i = 0; i < count; ++i, in += in_step, out += out_step) {
      for (int64_t c = 0; c < some; ++c) out[c] = in[c];
    }
  };
  // Images: a constant count becomes a few moves.
  if (channels == 3) return move(3);
  if (channels == 1) return move(1);
  move(channels);
}

// A row of few channels. Where all taps are inside, each tap is a row of its own, of joined pixels; the last
// ones are computed with some before them once more. Outputs of a stride, or at one, are moved from a row of
// all outputs: to compute those between costs less than to leave lanes empty.
template <class S>
void run_joined(const ConvDepthwise<S>& a, const Joined<S>& joined, const Compute<S>* packed,
                Lists<S>& lists) {
  const auto& kernel = depthwise_kernels<S>();
  const int64_t reach = a.first + (a.taps - 1) * a.spacing, room = a.size - 1 - reach;
  const int64_t from = a.first >= 0 ? a.begin : std::clamp(ceil_div(-a.first, a.step), a.begin, a.end);
  const int64_t to = room < 0 ? from : std::clamp(room / a.step + 1, from, a.end);
  const int64_t pixels = to > from ? (to - from - 1) * a.step + 1 : 0;
  if (pixels < joined.pixels) return kernel.row(a);
  ConvDepthwise<S> part = a;
  part.end = from;
  kernel.row(part);
  part.begin = to;
  part.end = a.end;
  kernel.row(part);

  lists.taps.clear();
  for (int64_t r = 0; r < a.row_count; ++r) {
    const S* source = a.rows[r].source + (from * a.step + a.first) * a.channels;
    const Compute<S>* weight = joined.weight + (a.rows[r].weight - packed) * joined.pixels;
    for (int64_t t = 0; t < a.taps; ++t) {
      lists.taps.push_back({source + t * a.spacing * a.channels, weight + t * a.channels * joined.pixels});
    }
  }
  const bool moves = a.step != 1 || a.target_step != a.channels;
  if (moves) lists.outputs.resize(static_cast<size_t>(pixels * a.channels));
  part.rows = lists.taps.data();
  part.row_count = size(lists.taps);
  part.target = moves ? lists.outputs.data() : a.target + from * a.channels;
  part.bias = joined.bias;
  part.channels = part.source_step = part.target_step = a.channels * joined.pixels;
  part.taps = part.step = part.spacing = 1;
  part.first = part.begin = part.ahead_rows = 0;
  part.size = part.end = pixels / joined.pixels;
  kernel.row(part);
  if (const int64_t left = pixels % joined.pixels; left > 0) {
    const int64_t last = (pixels - joined.pixels) * a.channels;
    for (auto& tap : lists.taps) tap.source += last;
    part.target += last;
    part.size = part.end = 1;
    kernel.row(part);
  }
  if (!moves) return;
  scatter(lists.outputs.data(), a.step * a.channels, to - from, a.channels, a.target + from * a.target_step,
          a.target_step);
}

// Every so many pixels of a dilated row are a row without dilation.
template <class S>
void run_dilated(ConvDepthwise<S> a, std::vector<typename ConvDepthwise<S>::Row>& rows) {
  const int64_t every = a.spacing, begin = a.begin, end = a.end, size = a.size, first = begin + a.first;
  S* const target = a.target + begin * a.target_step;
  const int64_t target_step = a.target_step;
  int64_t moved = 0;
  const int64_t source_step = a.source_step;
  a.spacing = 1;
  a.source_step = every * source_step;
  a.target_step = every * target_step;
  a.begin = 0;
  for (int64_t i = 0; i < std::min(every, end - begin); ++i) {
    const int64_t pixel = (first + i) % every, from = pixel < 0 ? pixel + every : pixel;
    for (auto& row : rows) row.source += (from - moved) * source_step;
    moved = from;
    a.first = (first + i - from) / every;
    a.size = from < size ? ceil_div(size - from, every) : 0;
    a.end = ceil_div(end - begin - i, every);
    a.target = target + i * target_step;
    depthwise_kernels<S>().row(a);
  }
}

// One row of the targets of a phase, of a block of channels.
template <class S>
void run_row(const Phase& phase, const Row& row, const Blocks& blocks, int64_t kernel_taps,
             ConvDepthwise<S> a, const S* source, const Compute<S>* packed, S* target,
             const Joined<S>& joined, Lists<S>& lists) {
  const auto& axis = phase.axis;
  const int64_t channels = blocks.channels, begin = blocks.begin(row.block);
  a.taps = size(axis[2].shifts);
  a.channels = blocks.size(row.block);
  if (a.bias != nullptr) a.bias += begin;
  a.after = a.after.from(begin);
  lists.rows.clear();
  const Compute<S>* weight = packed + (begin * kernel_taps + phase.first_slot * a.channels) * a.group;
  for (int64_t shift0 : axis[0].shifts) {
    for (int64_t shift1 : axis[1].shifts) {
      const S* from = source_row(phase, source, channels, row, shift0, shift1);
      if (from != nullptr && a.taps > 0) lists.rows.push_back({from + begin, weight});
      weight += a.taps * a.group * a.channels;
    }
  }
  a.rows = lists.rows.data();
  a.row_count = size(lists.rows);
  a.size = axis[2].source_size;
  a.step = axis[2].step;
  a.first = a.taps > 0 ? axis[2].shifts.front() : 0;
  a.spacing = spacing(axis[2]);
  int64_t pixel = row.image;
  const int64_t index[3] = {row.depth, row.height, 0};
  for (int i = 0; i < 3; ++i) pixel = pixel * axis[i].target_size + axis[i].first + index[i] * axis[i].every;
  a.target = target + pixel * channels + begin;
  a.source_step = channels;
  a.target_step = axis[2].every * channels;
  a.begin = row.begin;
  a.end = std::min(row.end, axis[2].count);
  a.row_elements = a.size * channels;
  if (a.ahead_rows > 0 && !axis[1].shifts.empty()) {
    const int64_t left = axis[1].source_size - 1 - row.height * axis[1].step - axis[1].shifts.back();
    a.ahead_rows = std::clamp<int64_t>(left, 0, axis[1].step);
  }
  if (joined.pixels > 0 && a.row_count > 0) return run_joined(a, joined, packed, lists);
  // Tiles of four outputs at least.
  if (a.spacing > 1 && a.step == 1 && a.end - a.begin >= 4 * a.spacing) return run_dilated(a, lists.rows);
  depthwise_kernels<S>().row(a);
}

template <class S>
Ref<PackedBlock> packed_weight(const Phases& phases, const Blocks& blocks, int64_t group, bool transposed,
                               const KeptWeight* kept, const Compute<S>* weight) {
  PackKey key{key_of(&depthwise_kernels<S>()),
              key_of_weight(kept, weight),
              blocks.channels,
              blocks.width,
              group,
              transposed ? 1 : 0};
  key.insert(key.end(), phases.slot.begin(), phases.slot.end());
  const int64_t elements = phases.kernel_taps * group * blocks.channels;
  return cpu::packed_weight(
      kept, std::move(key), static_cast<size_t>(elements) * sizeof(Compute<S>),
      [&](void* out) { pack(phases, blocks, group, transposed, weight, static_cast<Compute<S>*>(out)); });
}

// `channels` is that of source and target alike.
template <class S>
void run(const Phases& phases, int64_t batch, int64_t channels, int64_t group, bool transposed,
         const S* source, const KeptWeight* kept, const Compute<S>* weight, const Compute<S>* bias,
         const ConvAfterSums<S>& after, S* target, int64_t wanted) {
  const int64_t weight_bytes = phases.kernel_taps * static_cast<int64_t>(sizeof(Compute<S>));
  const Blocks blocks = group == 1 ? Blocks(channels, weight_bytes) : Blocks(channels);
  const Ref<PackedBlock> block = packed_weight<S>(phases, blocks, group, transposed, kept, weight);
  const auto* const packed = static_cast<const Compute<S>*>(block->data());
  Joined<S> joined{};
  if (joins_pixels<S>(channels, group)) joined.pixels = depthwise_kernels<S>().lanes;
  const int64_t wide_channels = channels * joined.pixels;
  const Scratch<Compute<S>> wide((phases.kernel_taps + 1) * wide_channels);
  if (joined.pixels > 0) {
    for (int64_t t = 0; t < phases.kernel_taps; ++t)
      repeat(packed + t * channels, channels, joined.pixels, wide.get() + t * wide_channels);
    joined.weight = wide.get();
    if (bias != nullptr) {
      Compute<S>* const wide_bias = wide.get() + phases.kernel_taps * wide_channels;
      repeat(bias, channels, joined.pixels, wide_bias);
      joined.bias = wide_bias;
    }
  }
  // The first phase has the most rows. Those of the others beside them read the same source rows.
  const auto& axis = phases.phases.front().axis;
  const Rows rows({axis[0].count, axis[1].count, axis[2].count},
                  joined.pixels > 0 ? joined_outputs / channels : segment_outputs, blocks.count);
  const int64_t count = rows.all(batch);
  ConvDepthwise<S> a{};
  a.bias = bias;
  a.after = after;
  a.group = group;
  a.ahead_rows = fetches_ahead(phases, batch, channels, sizeof(S)) ? 1 : 0;
  parallel_for(count, std::max<int64_t>(1, count / wanted), [&](int64_t begin, int64_t end) {
    Lists<S> lists;
    for (int64_t i = begin; i < end; ++i) {
      const Row row(rows, i);
      for (const Phase& phase : phases.phases) {
        if (row.depth < phase.axis[0].count && row.height < phase.axis[1].count)
          run_row(phase, row, blocks, phases.kernel_taps, a, source, packed, target, joined, lists);
      }
    }
  });
}

// Chunks per region; depthwise work is bound by memory, so that one multiplication counts more than in a
// dense one.
int64_t wanted_chunks(const ConvGeometry& g) {
  return std::clamp<int64_t>(static_cast<int64_t>(work(g) / 1e5), 1, 32);
}

// The sums of few channels, tap by tap, over joined pixels.
template <class S>
void sum_joined(const ConvDepthwiseOuter<S>& a) {
  const auto& kernel = depthwise_kernels<S>();
  const int64_t wide = joined_pixels * a.channels;
  std::vector<const S*> sources(static_cast<size_t>(a.output_rows * a.kernel_rows)),
      grads(static_cast<size_t>(a.output_rows));
  std::vector<Compute<S>> sums(static_cast<size_t>(a.kernel_rows * wide));
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
      kernel.outer(part);
      for (int64_t r = 0; r < a.kernel_rows; ++r) {
        Compute<S>* out = a.out + (r * a.row_taps + t) * a.channels;
        for (int64_t i = 0; i < channels; ++i)
          out[i % a.channels] += sums[static_cast<size_t>(r * channels + i)];
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
  const int64_t channels = g.out_channels, part = (taps * group + 1) * channels;
  if (group > 1) return {choose_splits<S>(pixels, part, wanted_tasks(g)), Blocks(channels)};
  // Partial sums cost little beside the pixels of a split.
  const int64_t wanted = wanted_chunks(g), most = std::max<int64_t>(1, pixels / (split_pixels * taps));
  const int64_t splits = choose_splits<S>(pixels, part, std::min(wanted, most));
  const int64_t threads = num_threads(), parts = threads == 1 ? 1 : std::min(wanted, 4 * threads);
  const int64_t width = ceil_div(channels, ceil_div(parts, splits));
  return {splits, Blocks::of_width(channels, std::max(least_block, width))};
}

// A single long row of taps in parts for which the kernels have enough sums.
template <class S>
void sum_taps(const ConvDepthwiseOuter<S>& a) {
  const auto& kernel = depthwise_kernels<S>();
  if (a.group > 1) return kernel.narrow(a);
  if (a.channels < few_channels && a.step == 1) return sum_joined(a);
  if (a.kernel_rows > 1 || a.row_taps <= 7) return kernel.outer(a);
  ConvDepthwiseOuter<S> some = a;
  for (int64_t left = a.row_taps; left > 0; left -= some.row_taps) {
    some.row_taps = left >= 10 || left == 7 ? 7 : left == 8 || left == 5 ? 5 : std::min<int64_t>(left, 3);
    kernel.outer(some);
    some.first += some.row_taps * a.spacing;
    some.out += some.row_taps * a.channels;
  }
}

}  // namespace

template <class S>
void depthwise_forward(const ConvGeometry& g, const S* x, const Compute<S>* weight, const Compute<S>* bias,
                       S* y) {
  const int64_t group = g.in_channels / g.groups, multiplier = g.out_channels / g.in_channels;
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : count * multiplier);
  if (multiplier != 1) repeat_channels(x, count, multiplier, repeated.get());
  run(forward_phases(g), g.batch, g.out_channels, group, false, multiplier == 1 ? x : repeated.get(),
      g.weight, weight, bias, after_sums<S>(g, y), y, wanted_chunks(g));
}

template <class S>
void depthwise_backward_input(const ConvGeometry& g, const S* grad_y, const Compute<S>* weight, S* grad_x) {
  const int64_t group = g.in_channels / g.groups, multiplier = g.out_channels / g.in_channels;
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : count * multiplier);
  run<S>(backward_input_phases(g), g.batch, g.out_channels, group, true, grad_y, g.weight, weight, nullptr,
         {}, multiplier == 1 ? grad_x : repeated.get(), wanted_chunks(g));
  if constexpr (std::is_same_v<S, Compute<S>>) {
    if (multiplier != 1) sum_channels(repeated.get(), count, multiplier, grad_x);
  }
}

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
  // The sums of a block of rows stay in registers, its pixels in the first-level cache.
  const int64_t at_once = std::max<int64_t>(1, 64 / std::max<int64_t>(1, rows.length));
  // The last row of each part is the gradient of the bias.
  const int64_t sums = taps * group, part = (sums + 1) * channels;
  const SumTasks tasks = sum_tasks<S>(g, pixels, group, taps);
  const int64_t rows_each = ceil_div(count, tasks.splits);
  const Scratch<T> partial(tasks.splits * part);

  parallel_for(tasks.splits * tasks.blocks.count, 1, [&](int64_t task_begin, int64_t task_end) {
    const int64_t kernel_rows = g.kernel[0] * g.kernel[1];
    const Scratch<const S*> sources(at_once * kernel_rows), grads(at_once);
    for (int64_t task = task_begin; task < task_end; ++task) {
      const int64_t split = task / tasks.blocks.count, block = task % tasks.blocks.count;
      const int64_t channel = tasks.blocks.begin(block);
      ConvDepthwiseOuter<S> a{};
      a.source = sources.get();
      a.grad = grads.get();
      a.pixel_step = channels;
      a.kernel_rows = kernel_rows;
      a.row_taps = g.kernel[2];
      a.size = g.in[2];
      a.step = g.stride[2];
      a.first = -g.pad_begin[2];
      a.spacing = g.dilation[2];
      a.out = partial.get() + split * part + (sums + 1) * channel;
      a.channels = tasks.blocks.size(block);
      a.group = group;
      std::fill(a.out, a.out + (sums + 1) * a.channels, T{});
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
          if (grad_bias != nullptr) {
            kernel.sum_rows({grad + a.begin * channels, channels, a.end - a.begin, a.channels,
                             a.out + sums * a.channels, true});
          }
        }
        sum_taps(a);
      }
    }
  });

  parallel_for(part, std::max<int64_t>(1, 32768 / tasks.splits), [&](int64_t begin, int64_t end) {
    T* out = partial.get() + begin;
    depthwise_kernels<T>().sum_rows({out, part, tasks.splits, end - begin, out, false});
  });
  const auto put = [accumulate](T sum, T* out) { *out = accumulate ? *out + sum : sum; };
  parallel_for(tasks.blocks.count, std::max<int64_t>(1, 32768 / part), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = tasks.blocks.begin(block), some = tasks.blocks.size(block);
      const T* const from = partial.get() + (sums + 1) * first;
      for (int64_t c = 0; c < some; ++c) {
        T* out = grad_weight + (first + c) * sums;
        for (int64_t j = 0; j < group; ++j) {
          for (int64_t t = 0; t < taps; ++t) put(from[(t * group + j) * some + c], out++);
        }
        if (grad_bias != nullptr) put(from[sums * some + c], grad_bias + first + c);
      }
    }
  });
}

#define OPSIN_INSTANTIATE(S)                                                                                 \
  template void depthwise_forward(const ConvGeometry&, const S*, const Compute<S>*, const Compute<S>*, S*);  \
  template void depthwise_backward_input(const ConvGeometry&, const S*, const Compute<S>*, S*);              \
  template void depthwise_backward_weight(const ConvGeometry&, const S*, const S*, Compute<S>*, Compute<S>*, \
                                          bool);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
OPSIN_INSTANTIATE(BFloat16)
OPSIN_INSTANTIATE(Float16)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
