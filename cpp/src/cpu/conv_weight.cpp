// The gradient of the weights of a dense convolution.
//
// Block by block of pixels, a task packs its columns of grad_y, gathers the source channels of one tap after
// the other (edges become zeros, strides disappear), and adds the outer products of the two, a register tile
// of rows x two vectors at a time. Outputs are divided among tasks and so are pixels; the number of pixel
// splits depends on the shape alone and their partial sums, under 8 MB together, are added in order.
//
// Few pixels make few products per weight: all taps of some source channels are gathered at once, and the
// sums leave for their places while they are in the cache. A 1x1 convolution needs none of this, see
// conv_weight_pointwise.cpp, or is the product of the two tensors where these have few channels.
#include "conv_algorithm.h"
#include "conv_fetch_ahead.h"
#include "conv_plan.h"

#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// out (+)= sum over the rows.
template <class S>
void sum_columns(const S* in, int64_t stride, int64_t rows, int64_t columns, Compute<S>* out,
                 bool accumulate) {
  kernels<S>().sum_rows({in, stride, rows, columns, out, accumulate});
}

// How the work is divided: pixels into splits; outputs into units (pairs of vectors of one group) and chunks
// (a range of source channels of one tap).
struct Division {
  int64_t splits, block, blocks_each;
  int64_t ranges, chunks, chunks_each, chunk_tasks;
  int64_t units_each, unit_tasks;
};

template <class S>
Division divide(int64_t pixels, int64_t addresses, int64_t run, int64_t units, int64_t elements,
                int64_t wanted, int64_t tile_rows) {
  Division d{};
  d.ranges = ceil_div(run, 5 * tile_rows);
  d.chunks = addresses * d.ranges;
  // A part of the outputs should repay the panels that it makes of grad_y, or the sources that it gathers.
  // Only the splits change a sum: they depend on the shape alone, and the rest on what runs beside them.
  const int64_t chunk_parts = ceil_div(d.chunks, 3), unit_parts = ceil_div(units, 2);
  d.splits = choose_splits<S>(pixels, elements, ceil_div(wanted, chunk_parts * unit_parts));
  d.block = weight_block<S>(elements);
  d.blocks_each = ceil_div(ceil_div(pixels, d.block), d.splits);
  const int64_t threads = num_threads();
  const int64_t parts = threads == 1 ? 1 : ceil_div(std::min(wanted, 4 * threads), d.splits);
  d.chunks_each = ceil_div(d.chunks, std::min(chunk_parts, parts));
  d.chunk_tasks = ceil_div(d.chunks, d.chunks_each);
  d.units_each = ceil_div(units, std::min(unit_parts, ceil_div(parts, d.chunk_tasks)));
  d.unit_tasks = ceil_div(units, d.units_each);
  return d;
}

// Gathered pixels, and sums, of a range of source channels in all taps: a part of the second-level cache.
constexpr int64_t range_bytes = 384 * 1024;
// Source channels of a range, whose sums of all taps are whole lines of the cache.
template <class S>
int64_t range_channels() {
  return 8 * kernels<S>().rows;
}

template <class S>
int64_t weight_bytes(const ConvGeometry& g) {
  return g.out_channels * (g.in_channels / g.groups) * volume(g.kernel) * static_cast<int64_t>(sizeof(S));
}

template <class S>
bool has_few_pixels(const ConvGeometry& g, const Phase& phase, int64_t pixels) {
  const auto& kernel = kernels<S>();
  const int64_t sums = 2 * kernel.lanes * static_cast<int64_t>(sizeof(Compute<S>));
  const int64_t sources = pixels * static_cast<int64_t>(sizeof(S));
  return g.groups == 1 && phase.run == 1 && pixels > 0 && pixels < 4 * weight_block_pixels<S> &&
         phase.taps * range_channels<S>() * std::max(sums, sources) <= range_bytes;
}

template <class S>
void few_pixels_backward_weight(const ConvGeometry& g, const Phase& phase, const S* x, const S* grad_y,
                                S* grad_weight, Compute<S>* grad_bias, bool accumulate) {
  const auto& kernel = kernels<S>();
  constexpr int64_t block_pixels = weight_block_pixels<S>;
  const int64_t channels = g.in_channels, outputs = g.out_channels, taps = phase.taps;
  const int64_t pixels = phase.pixels(g.batch), width = 2 * kernel.lanes;
  const int64_t padded = ceil_div(pixels, kernel.pixel_step) * kernel.pixel_step;
  const int64_t units = ceil_div(outputs, width), ranges = ceil_div(channels, range_channels<S>());
  const int64_t range_tasks = std::min(ranges, wanted_tasks(g));
  const int64_t unit_tasks = std::clamp<int64_t>(ceil_div(wanted_tasks(g), range_tasks), 1, units);
  const Scratch<S> zeros(channels), grads(units * padded * width);
  const Scratch<const S*> sources(pixels * taps);
  const bool streams = weight_bytes<S>(g) >= stream_bytes;
  std::fill(zeros.get(), zeros.get() + channels, S{});
  list_sources<S>(phase, {x, channels, zeros.get()}, 0, pixels, pixels, sources.get(), nullptr);
  kernel.panels({grad_y, outputs, pixels, outputs, grads.get(), width, padded * width});
  if (grad_bias != nullptr) sum_columns(grad_y, outputs, pixels, outputs, grad_bias, accumulate);

  parallel_for(ranges * unit_tasks, ceil_div(ranges, range_tasks), [&](int64_t begin, int64_t end) {
    const int64_t most = range_channels<S>();
    const Scratch<S> gathered(taps * padded * most);
    const Scratch<Compute<S>> sums(taps * most * width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t range = task / unit_tasks, part = task % unit_tasks;
      const int64_t channel = range * most, some = std::min(most, channels - channel);
      for (int64_t t = 0; t < taps; ++t) {
        kernel.gather_steps(
            {sources.get() + t * pixels, channel, pixels, some, gathered.get() + t * padded * some, some});
      }
      for (int64_t unit = units * part / unit_tasks; unit < units * (part + 1) / unit_tasks; ++unit) {
        const int64_t lanes = std::min(width, outputs - unit * width);
        ConvOuter<S> a{};
        a.source_stride = a.channels = some;
        a.width = lanes > kernel.lanes ? width : kernel.lanes;
        a.grad_stride = a.width * kernel.step;
        a.ahead = grads.get();
        for (int64_t t = 0; t < taps; ++t) {
          a.out = sums.get() + t * some * a.width;
          a.out_stride = a.width;
          for (int64_t first = 0; first < pixels; first += block_pixels) {
            a.source = gathered.get() + (t * padded + first) * some;
            a.grad = grads.get() + unit * padded * width + first * a.width;
            a.pixels = std::min(block_pixels, pixels - first);
            a.accumulate = first > 0;
            kernel.outer(a);
          }
        }
        ConvUnpack<S> u{};
        u.in = sums.get();
        u.splits = 1;
        u.lanes = lanes;
        u.channels = some;
        u.taps = taps;
        u.width = a.width;
        u.lane_stride = channels * taps;
        u.out = grad_weight + unit * width * u.lane_stride + channel * taps;
        u.accumulate = accumulate;
        u.stream = streams;
        kernel.unpack(u);
      }
    }
  });
}

bool is_zero(const int64_t (&pad)[3]) {
  return std::all_of(std::begin(pad), std::end(pad), [](int64_t p) { return p == 0; });
}

// No windows: a pixel of the output is that of the input where it begins.
bool has_no_windows(const ConvGeometry& g) {
  return g.groups == 1 && volume(g.kernel) == 1 && is_zero(g.pad_begin);
}

// Channels enough to fill the panels of the product.
bool is_pointwise(const ConvGeometry& g) {
  return has_no_windows(g) && is_zero(g.pad_end) && g.batch * volume(g.out) > 0 && g.in_channels >= 16 &&
         g.out_channels >= 16;
}

// Every pixel of the input is that of the output.
bool is_product(const ConvGeometry& g) {
  return has_no_windows(g) && volume(g.stride) == 1 && std::equal(std::begin(g.in), std::end(g.in), g.out);
}

template <class T>
void product_backward_weight(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                             bool accumulate) {
  GemmParams p;
  p.m = g.out_channels;
  p.n = g.in_channels;
  p.k = g.batch * volume(g.out);
  p.a = grad_y;
  p.a_row = 1;
  p.a_col = g.out_channels;
  p.b = x;
  p.b_row = g.in_channels;
  p.b_col = 1;
  p.c = grad_weight;
  p.c_row = g.in_channels;
  p.accumulate = accumulate;
  if constexpr (std::is_same_v<T, float>) {
    gemm_f32(p);
  } else {
    gemm_f64(p);
  }
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

}  // namespace

template <class S>
void backward_weight(const ConvGeometry& g, const S* x, const S* grad_y, S* grad_weight,
                     Compute<S>* grad_bias, bool accumulate) {
  using T = Compute<S>;
  if constexpr (std::is_same_v<S, T>) {
    if (is_pointwise(g)) return pointwise_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
    if (is_product(g)) return product_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
  }
  const auto& kernel = kernels<S>();
  const int64_t channels = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  Phases phases = forward_phases(g);
  merge_runs(phases, channels, g.groups);
  const Phase& phase = phases.phases.front();
  const int64_t all_pixels = phase.pixels(g.batch);
  if (has_few_pixels<S>(g, phase, all_pixels)) {
    return few_pixels_backward_weight(g, phase, x, grad_y, grad_weight, grad_bias, accumulate);
  }
  const int64_t taps = phases.kernel_taps, addresses = phase.addresses(), run = phase.run * channels;
  const int64_t width = 2 * kernel.lanes, group_units = ceil_div(outputs, width),
                units = g.groups * group_units;
  const int64_t unit_size = taps * channels * width;
  const Division d =
      divide<S>(all_pixels, addresses, run, units, units * unit_size, wanted_tasks(g), kernel.rows);

  const int64_t block_pixels = d.block;
  // From panel to panel a line of the cache more than they fill, so that they are no power of two apart.
  const int64_t panel = block_pixels * width + line<S>;

  // Source pixels lie as target pixels do.
  const bool pointwise =
      addresses == 1 && run == channels && std::equal(std::begin(g.in), std::end(g.in), std::begin(g.out));
  // Small groups are gathered together; they have one range, so that their channels are adjacent.
  const int64_t groups_at_once = std::max<int64_t>(1, 5 * kernel.rows / run);

  const Scratch<T> partial(d.splits * units * unit_size), partial_bias(d.splits * g.out_channels);
  const Scratch<S> zeros(std::max(run, g.in_channels));
  std::fill(zeros.get(), zeros.get() + std::max(run, g.in_channels), S{});

  parallel_for(d.splits * d.chunk_tasks * d.unit_tasks, 1, [&](int64_t task_begin, int64_t task_end) {
    const Scratch<const S*> sources(block_pixels * addresses);
    const Scratch<S> patches(patch_elements(phase, block_pixels, channels));
    const Scratch<S> grads(d.units_each * panel), gathered(block_pixels * 5 * kernel.rows);
    for (int64_t task = task_begin; task < task_end; ++task) {
      const int64_t unit_begin = task % d.unit_tasks * d.units_each;
      const int64_t unit_end = std::min(unit_begin + d.units_each, units);
      const int64_t chunk_begin = task / d.unit_tasks % d.chunk_tasks * d.chunks_each;
      const int64_t chunk_end = std::min(chunk_begin + d.chunks_each, d.chunks);
      const int64_t split = task / d.unit_tasks / d.chunk_tasks;
      const int64_t first = split * d.blocks_each * block_pixels;
      const int64_t last = std::min((split + 1) * d.blocks_each * block_pixels, all_pixels);
      // Runs once even without pixels, to set the sums to zero.
      for (int64_t begin = first; begin == first || begin < last; begin += block_pixels) {
        const int64_t count = std::max<int64_t>(0, std::min(block_pixels, last - begin));
        list_sources(phase, Source<S>{x, g.in_channels, zeros.get()}, begin, begin + count, count,
                     sources.get(), patches.get());
        for (int64_t unit = unit_begin; unit < unit_end;) {
          const int64_t lane = unit % group_units * width, column = unit / group_units * outputs + lane;
          const int64_t some = std::min(unit_end - unit, group_units - unit % group_units);
          const int64_t columns = std::min(some * width, outputs - lane);
          const S* grad = grad_y + begin * g.out_channels + column;
          kernel.panels({grad, g.out_channels, count, columns, grads.get() + (unit - unit_begin) * panel,
                         width, panel});
          if (grad_bias != nullptr && chunk_begin == 0) {
            sum_columns(grad, g.out_channels, count, columns,
                        partial_bias.get() + split * g.out_channels + column, begin > first);
          }
          unit += some;
        }
        // Where tasks share the rows, each of them would fetch those of all.
        FetchAhead<S> ahead(grads.get());
        if (const int64_t next = begin + block_pixels; next + block_pixels <= last && d.unit_tasks == 1) {
          ahead.add(grad_y + next * g.out_channels, block_pixels * g.out_channels);
          if (pointwise) ahead.add(x + next * g.in_channels, block_pixels * g.in_channels);
        }
        for (int64_t unit = unit_begin; unit < unit_end;) {
          const int64_t group = unit / group_units;
          const int64_t group_end = std::min(unit_end, (group + groups_at_once) * group_units);
          for (int64_t chunk = chunk_begin; chunk < chunk_end; ++chunk) {
            const int64_t t = chunk / d.ranges, range = chunk % d.ranges;
            const int64_t channel = run * range / d.ranges, channel_end = run * (range + 1) / d.ranges;
            ConvOuter<S> a{};
            a.channels = channel_end - channel;
            a.source_stride = a.channels * (ceil_div(group_end, group_units) - group);
            a.pixels = count;
            a.accumulate = begin > first;
            kernel.gather_steps({sources.get() + t * count, group * channels + channel, count,
                                 a.source_stride, gathered.get(), a.source_stride});
            for (int64_t u = unit; u < group_end; ++u) {
              ahead.next(ceil_div(a.channels, kernel.rows), kernel.fetch_pixels, a);
              a.source = gathered.get() + (u / group_units - group) * a.channels * kernel.pixel_step;
              a.width = outputs - u % group_units * width > kernel.lanes ? width : kernel.lanes;
              a.grad_stride = a.width * kernel.step;
              a.grad = grads.get() + (u - unit_begin) * panel;
              a.out = partial.get() + (split * units + u) * unit_size + (t * run + channel) * a.width;
              a.out_stride = a.width;
              kernel.outer(a);
            }
          }
          unit = group_end;
        }
      }
    }
  });

  parallel_for(units, std::max<int64_t>(1, 16384 / unit_size), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit / group_units, lane = unit % group_units * width;
      ConvUnpack<S> a{};
      a.in = partial.get() + unit * unit_size;
      a.splits = d.splits;
      a.split_stride = units * unit_size;
      a.lanes = std::min(width, outputs - lane);
      a.channels = channels;
      a.taps = taps;
      a.width = a.lanes > kernel.lanes ? width : kernel.lanes;
      a.lane_stride = channels * taps;
      a.out = grad_weight + (group * outputs + lane) * a.lane_stride;
      a.accumulate = accumulate;
      a.stream = weight_bytes<S>(g) >= stream_bytes;
      kernel.unpack(a);
    }
  });
  if (grad_bias != nullptr) {
    sum_columns<T>(partial_bias.get(), g.out_channels, d.splits, g.out_channels, grad_bias, accumulate);
  }
}

template void backward_weight(const ConvGeometry&, const float*, const float*, float*, float*, bool);
template void backward_weight(const ConvGeometry&, const double*, const double*, double*, double*, bool);
#if defined(__x86_64__)
template void backward_weight(const ConvGeometry&, const BFloat16*, const BFloat16*, BFloat16*, float*, bool);
#endif

}  // namespace opsin::cpu::conv
