// Depthwise convolution: one input channel per group. Vectors run over the channels and every weight vector
// serves several pixels. With a multiplier m (m output channels per group), the input is first repeated m
// times per channel, and the gradient of the input is summed over each m, so that the kernels see one channel
// in and one out.
#include "conv_plan.h"

#include <algorithm>

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
    for (int64_t i = begin; i < end; ++i) {
      T sum = in[i * times];
      for (int64_t j = 1; j < times; ++j) sum += in[i * times + j];
      out[i] = sum;
    }
  });
}

// `channels` is that of source and target alike. Weights are [channels][group][taps]; `transposed` exchanges
// the roles of the two channels inside each group.
template <class S>
void run(const Phases& phases, int64_t batch, int64_t channels, int64_t group, bool transposed,
         const S* source, const Compute<S>* weight, const Compute<S>* bias, S* target, int64_t wanted) {
  const auto& kernel = depthwise_kernels<S>();
  const int64_t taps = phases.kernel_taps;
  const Scratch<Compute<S>> packed(taps * group * channels);
  const Scratch<S> zeros(channels);
  std::fill(zeros.get(), zeros.get() + channels, S{});
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < group; ++j) {
      const int64_t from = transposed ? (c - c % group + j) * group + c % group : c * group + j;
      for (int64_t t = 0; t < taps; ++t) {
        packed.get()[(phases.slot[static_cast<size_t>(t)] * group + j) * channels + c] =
            weight[from * taps + t];
      }
    }
  }

  const int64_t pixels = 8 * kernel.rows, most_taps = std::max<int64_t>(1, phases.most_taps);
  const auto count_blocks = [&](const Phase& phase) { return ceil_div(phase.pixels(batch), pixels); };
  int64_t blocks = 0;
  for (const Phase& phase : phases.phases) blocks += count_blocks(phase);
  parallel_for(blocks, std::max<int64_t>(1, blocks / wanted), [&](int64_t task_begin, int64_t task_end) {
    const Scratch<const S*> sources(pixels * most_taps);
    const Scratch<S*> targets(pixels);
    for (int64_t task = task_begin; task < task_end; ++task) {
      int64_t block = task;
      const Phase* phase = phases.phases.data();
      for (; block >= count_blocks(*phase); ++phase) block -= count_blocks(*phase);
      const int64_t begin = block * pixels, end = std::min(begin + pixels, phase->pixels(batch));
      list_sources<S>(*phase, {source, channels, zeros.get()}, begin, end, kernel.rows, sources.get(),
                      nullptr);
      list_targets<S>(*phase, target, channels, begin, end, targets.get());
      ConvDepthwise<S> a{};
      a.source = sources.get();
      a.target = targets.get();
      a.weight = packed.get() + phase->first_slot * group * channels;
      a.weight_stride = channels;
      a.group = group;
      a.bias = bias;
      a.taps = phase->taps;
      a.channels = channels;
      a.pixels = end - begin;
      group == 1 ? kernel.forward(a) : kernel.grouped(a);
    }
  });
}

// Chunks per region; depthwise work is bound by memory, so that one multiplication counts more than in a
// dense one.
int64_t wanted_chunks(const ConvGeometry& g) {
  return std::clamp<int64_t>(static_cast<int64_t>(work(g) / 1e5), 1, 32);
}

}  // namespace

template <class S>
void depthwise_forward(const ConvGeometry& g, const S* x, const Compute<S>* weight, const Compute<S>* bias,
                       S* y) {
  const int64_t group = g.in_channels / g.groups, multiplier = g.out_channels / g.in_channels;
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : count * multiplier);
  if (multiplier != 1) repeat_channels(x, count, multiplier, repeated.get());
  run(forward_phases(g), g.batch, g.out_channels, group, false, multiplier == 1 ? x : repeated.get(), weight,
      bias, y, wanted_chunks(g));
}

template <class S>
void depthwise_backward_input(const ConvGeometry& g, const S* grad_y, const Compute<S>* weight, S* grad_x) {
  const int64_t group = g.in_channels / g.groups, multiplier = g.out_channels / g.in_channels;
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : count * multiplier);
  run<S>(backward_input_phases(g), g.batch, g.out_channels, group, true, grad_y, weight, nullptr,
         multiplier == 1 ? grad_x : repeated.get(), wanted_chunks(g));
  if constexpr (std::is_same_v<S, Compute<S>>) {
    if (multiplier != 1) sum_channels(repeated.get(), count, multiplier, grad_x);
  }
}

template <class S>
void depthwise_backward_weight(const ConvGeometry& g, const S* x, const S* grad_y, Compute<S>* grad_weight,
                               Compute<S>* grad_bias, bool accumulate) {
  using T = Compute<S>;
  constexpr int64_t block_pixels = weight_block_pixels<S>;
  const auto& kernel = depthwise_kernels<S>();
  const int64_t channels = g.out_channels, multiplier = channels / g.groups;
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<S> repeated(multiplier == 1 ? 0 : count * multiplier), zeros(channels);
  if (multiplier != 1) repeat_channels(x, count, multiplier, repeated.get());
  std::fill(zeros.get(), zeros.get() + channels, S{});
  const Source<S> source{multiplier == 1 ? x : repeated.get(), channels, zeros.get()};

  const Phases phases = forward_phases(g);
  const Phase& phase = phases.phases.front();
  const int64_t taps = phases.kernel_taps, pixels = phase.pixels(g.batch);
  const int64_t splits = choose_splits<S>(pixels, (taps + 1) * channels, wanted_chunks(g));
  const int64_t blocks_each = ceil_div(ceil_div(pixels, block_pixels), splits);
  // The last row of each part is the gradient of the bias.
  const int64_t part = (taps + 1) * channels;
  const Scratch<T> partial(splits * part);

  parallel_for(splits, 1, [&](int64_t split_begin, int64_t split_end) {
    const Scratch<const S*> sources(block_pixels * taps);
    for (int64_t split = split_begin; split < split_end; ++split) {
      const int64_t first = split * blocks_each * block_pixels;
      const int64_t last = std::min((split + 1) * blocks_each * block_pixels, pixels);
      for (int64_t begin = first; begin == first || begin < last; begin += block_pixels) {
        const int64_t rows = std::max<int64_t>(0, std::min(block_pixels, last - begin));
        list_sources<S>(phase, source, begin, begin + rows, rows, sources.get(), nullptr);
        ConvDepthwiseOuter<S> a{};
        a.source = sources.get();
        a.grad = grad_y + begin * channels;
        a.grad_stride = channels;
        a.out = partial.get() + split * part;
        a.out_stride = channels;
        a.taps = taps;
        a.channels = channels;
        a.pixels = rows;
        a.accumulate = begin > first;
        kernel.outer(a);
        if (grad_bias != nullptr) {
          kernel.sum_rows({a.grad, channels, rows, channels, a.out + taps * channels, a.accumulate});
        }
      }
    }
  });

  const auto merge = [&](int64_t index, T* out) {
    T sum = partial.get()[index];
    for (int64_t s = 1; s < splits; ++s) sum += partial.get()[s * part + index];
    *out = accumulate ? *out + sum : sum;
  };
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < taps; ++t) merge(t * channels + c, grad_weight + c * taps + t);
    if (grad_bias != nullptr) merge(taps * channels + c, grad_bias + c);
  }
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
