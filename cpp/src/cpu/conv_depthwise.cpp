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

#define OPSIN_INSTANTIATE(S)                                                                                \
  template void depthwise_forward(const ConvGeometry&, const S*, const Compute<S>*, const Compute<S>*, S*); \
  template void depthwise_backward_input(const ConvGeometry&, const S*, const Compute<S>*, S*);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
OPSIN_INSTANTIATE(BFloat16)
OPSIN_INSTANTIATE(Float16)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
