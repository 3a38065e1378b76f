#include "conv_plan.h"

#include <algorithm>
#include <cstring>

namespace opsin::cpu::conv {
namespace {

int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

// The axis of a forward convolution: o reads o * stride - pad + t * dilation.
Axis forward_axis(const ConvGeometry& g, int a) {
  Axis axis{g.in[a], g.out[a], 0, 1, std::max<int64_t>(g.out[a], 0), g.stride[a], {}, {}};
  for (int64_t t = 0; t < g.kernel[a]; ++t) {
    axis.taps.push_back(t);
    axis.shifts.push_back(t * g.dilation[a] - g.pad_begin[a]);
  }
  return axis;
}

// Inputs r, r + stride, r + 2 * stride, ... receive, through tap t, from outputs o with
// o * stride = r + i * stride + pad - t * dilation, that is o = i + (r + pad - t * dilation) / stride for
// those t where the division is exact.
Axis backward_axis(const ConvGeometry& g, int a, int64_t residue) {
  const int64_t stride = g.stride[a];
  Axis axis{std::max<int64_t>(g.out[a], 0),      g.in[a], residue, stride,
            ceil_div(g.in[a] - residue, stride), 1,       {},      {}};
  for (int64_t t = g.kernel[a] - 1; t >= 0; --t) {
    const int64_t distance = residue + g.pad_begin[a] - t * g.dilation[a];
    if (floor_mod(distance, stride) != 0) continue;
    axis.taps.push_back(t);
    axis.shifts.push_back((distance - floor_mod(distance, stride)) / stride);
  }
  return axis;
}

void add_phase(Phases& all, const ConvGeometry& g, Phase phase) {
  const auto& axis = phase.axis;
  phase.first_slot = all.phases.empty() ? 0 : all.phases.back().first_slot + all.phases.back().taps;
  phase.taps = 0;
  for (int64_t t0 : axis[0].taps) {
    for (int64_t t1 : axis[1].taps) {
      for (int64_t t2 : axis[2].taps) {
        all.slot[static_cast<size_t>((t0 * g.kernel[1] + t1) * g.kernel[2] + t2)] =
            phase.first_slot + phase.taps++;
      }
    }
  }
  all.most_taps = std::max(all.most_taps, phase.taps);
  all.phases.push_back(std::move(phase));
}

Phases no_phases(const ConvGeometry& g) {
  Phases all;
  all.kernel_taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  all.slot.assign(static_cast<size_t>(all.kernel_taps), -1);
  all.most_taps = 0;
  return all;
}

// Walks over the pixels of a phase in the order of memory.
struct PixelWalk {
  const Phase& phase;
  int64_t image, index[3];

  PixelWalk(const Phase& p, int64_t pixel) : phase(p), image(0), index{0, 0, 0} {
    for (int a = 2; a >= 0; --a) {
      index[a] = pixel % p.axis[a].count;
      pixel /= p.axis[a].count;
    }
    image = pixel;
  }
  // `steps` must not go past the end of the row.
  void advance(int64_t steps) {
    index[2] += steps;
    for (int a = 2; a >= 0; --a) {
      if (index[a] < phase.axis[a].count) return;
      index[a] = 0;
      ++(a > 0 ? index[a - 1] : image);
    }
  }
};

// Pixels in the order of memory.
template <class T>
void list_all(T* data, int64_t channels, int64_t begin, int64_t end, T** out) {
  for (int64_t p = begin; p < end; ++p) *out++ = data + p * channels;
}

}  // namespace

const ConvDepthwiseKernels<BFloat16>& bf16_depthwise_kernels() {
  const ConvDepthwiseTable& all = OPSIN_ISA_SELECT(conv_depthwise_table);
#if defined(__x86_64__)
  if (has_bf16_kernels()) {
    static const ConvDepthwiseKernels<BFloat16> kernels = [&] {
      ConvDepthwiseKernels<BFloat16> some = all.bf16;
      some.row = avx512_bf16::conv_depthwise_row;
      return some;
    }();
    return kernels;
  }
#endif
  return all.bf16;
}

Phases forward_phases(const ConvGeometry& g) {
  Phases all = no_phases(g);
  add_phase(all, g, Phase{{forward_axis(g, 0), forward_axis(g, 1), forward_axis(g, 2)}, 0, 0});
  return all;
}

Phases backward_input_phases(const ConvGeometry& g) {
  Phases all = no_phases(g);
  const auto residues = [&](int a) { return std::min(g.stride[a], g.in[a]); };
  for (int64_t r0 = 0; r0 < residues(0); ++r0) {
    for (int64_t r1 = 0; r1 < residues(1); ++r1) {
      for (int64_t r2 = 0; r2 < residues(2); ++r2) {
        add_phase(all, g,
                  Phase{{backward_axis(g, 0, r0), backward_axis(g, 1, r1), backward_axis(g, 2, r2)}, 0, 0});
      }
    }
  }
  // Taps that reach no pixel of a small image still need a place in the packed weights.
  int64_t next = all.phases.back().first_slot + all.phases.back().taps;
  for (int64_t& slot : all.slot) {
    if (slot < 0) slot = next++;
  }
  return all;
}

void merge_runs(Phases& all, int64_t channels, int64_t groups) {
  if (groups != 1 || channels >= 8) return;
  for (Phase& phase : all.phases) {
    const auto& shifts = phase.axis[2].shifts;
    const auto run = static_cast<int64_t>(shifts.size());
    const bool adjacent = run > 1 && shifts.back() - shifts.front() == run - 1;
    // Patches of wide kernels would not stay in the cache.
    if (adjacent && phase.taps * channels <= 1024) phase.run = run;
  }
}

template <class T>
void list_sources(const Phase& phase, const Source<T>& source, int64_t begin, int64_t end, int64_t tile,
                  const T** out, T* patches) {
  const auto& axis = phase.axis;
  const int64_t taps = phase.addresses();
  if (taps == 0 || begin >= end) return;
  if (taps == 1 && phase.run == 1 && std::ranges::all_of(axis, [](const Axis& a) {
        return a.step == 1 && a.shifts.front() == 0 && a.source_size == a.count;
      })) {
    return list_all(source.data, source.channels, begin, end, out);
  }
  const int64_t unit[3] = {axis[1].source_size * axis[2].source_size * source.channels,
                           axis[2].source_size * source.channels, source.channels};
  const int64_t image = axis[0].source_size * unit[0];
  const auto n0 = static_cast<int64_t>(axis[0].shifts.size()),
             n1 = static_cast<int64_t>(axis[1].shifts.size()),
             n2 = phase.run == 1 ? static_cast<int64_t>(axis[2].shifts.size()) : 1;
  const int64_t last_run = phase.run - 1;

  std::vector<int64_t> offsets;
  offsets.reserve(static_cast<size_t>(taps));
  for (int64_t s0 : axis[0].shifts) {
    for (int64_t s1 : axis[1].shifts) {
      for (int64_t t = 0; t < n2; ++t) {
        offsets.push_back(s0 * unit[0] + s1 * unit[1] + axis[2].shifts[static_cast<size_t>(t)] * unit[2]);
      }
    }
  }

  // Target indices along the width whose taps all lie inside the width.
  const Axis& width = axis[2];
  const int64_t from =
      std::min(width.count, std::max<int64_t>(0, ceil_div(-width.shifts.front(), width.step)));
  const int64_t past = width.source_size - width.shifts.back();
  const int64_t to = past <= 0 ? 0 : std::min(width.count, ceil_div(past, width.step));
  const int64_t step = width.step * unit[2];

  PixelWalk walk(phase, begin);
  for (int64_t p = 0; p < end - begin;) {
    const int64_t at[3] = {walk.index[0] * axis[0].step, walk.index[1] * axis[1].step,
                           walk.index[2] * width.step};
    const int64_t base = walk.image * image + at[0] * unit[0] + at[1] * unit[1] + at[2] * unit[2];
    const T** row = out + p / tile * taps * tile + p % tile;
    bool inside = walk.index[2] >= from && walk.index[2] < to;
    for (int a = 0; a < 2; ++a) {
      inside = inside && at[a] + axis[a].shifts.front() >= 0 &&
               at[a] + axis[a].shifts.back() < axis[a].source_size;
    }
    if (inside) {
      const int64_t count = std::min({to - walk.index[2], tile - p % tile, end - begin - p});
      for (int64_t t = 0; t < taps; ++t, row += tile) {
        const T* pixel = source.data + (base + offsets[static_cast<size_t>(t)]);
        for (int64_t i = 0; i < count; ++i) row[i] = pixel + i * step;
      }
      p += count;
      walk.advance(count);
      continue;
    }
    const int64_t* offset = offsets.data();
    for (int64_t t0 = 0; t0 < n0; ++t0) {
      const int64_t i0 = at[0] + axis[0].shifts[static_cast<size_t>(t0)];
      for (int64_t t1 = 0; t1 < n1; ++t1) {
        const int64_t i1 = at[1] + axis[1].shifts[static_cast<size_t>(t1)];
        const bool row_inside = i0 >= 0 && i0 < axis[0].source_size && i1 >= 0 && i1 < axis[1].source_size;
        for (int64_t t2 = 0; t2 < n2; ++t2, ++offset, row += tile) {
          const int64_t i2 = at[2] + axis[2].shifts[static_cast<size_t>(t2)];
          if (!row_inside || i2 + last_run < 0 || i2 >= axis[2].source_size) {
            *row = source.zeros;
          } else if (i2 >= 0 && i2 + last_run < axis[2].source_size) {
            *row = source.data + (base + *offset);
          } else {
            const int64_t first = std::max<int64_t>(0, -i2),
                          last = std::min(phase.run, axis[2].source_size - i2);
            const int64_t c = source.channels;
            std::fill(patches, patches + first * c, T{});
            const T* pixel = source.data + (base + *offset + first * c);
            std::copy(pixel, pixel + (last - first) * c, patches + first * c);
            std::fill(patches + last * c, patches + phase.run * c, T{});
            *row = patches;
            patches += phase.run * c;
          }
        }
      }
    }
    ++p;
    walk.advance(1);
  }
}

template <class T>
void list_targets(const Phase& phase, T* data, int64_t channels, int64_t begin, int64_t end, T** out) {
  if (begin >= end) return;
  const auto& axis = phase.axis;
  if (std::ranges::all_of(
          axis, [](const Axis& a) { return a.every == 1 && a.first == 0 && a.target_size == a.count; })) {
    return list_all(data, channels, begin, end, out);
  }
  const int64_t step = axis[2].every * channels;
  PixelWalk walk(phase, begin);
  for (int64_t p = begin; p < end;) {
    int64_t offset = walk.image;
    for (int a = 0; a < 3; ++a)
      offset = offset * axis[a].target_size + axis[a].first + walk.index[a] * axis[a].every;
    const int64_t count = std::min(axis[2].count - walk.index[2], end - p);
    T* pixel = data + offset * channels;
    for (int64_t i = 0; i < count; ++i) *out++ = pixel + i * step;
    p += count;
    walk.advance(count);
  }
}

#define OPSIN_INSTANTIATE(S)                                                                            \
  template void list_sources(const Phase&, const Source<S>&, int64_t, int64_t, int64_t, const S**, S*); \
  template void list_targets(const Phase&, S*, int64_t, int64_t, int64_t, S**);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
#if defined(__x86_64__)
OPSIN_INSTANTIATE(BFloat16)
#endif
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
