// Unshared convolution, compiled once per instruction set. The weight is the large operand, so each position
// is a product of its own that reads its part of the weight once for every four images: vectors run along a
// filter, channels and taps alike.
#include "conv_local_kernels.h"

#include <cstdint>

#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/lanes.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int most_images = 4;
constexpr int most_filters = 4;

/// Sizes of a geometry that all loops need.
struct Sizes {
  int64_t taps, in, out, channels, filters, length;

  OPSIN_INLINE explicit Sizes(const ConvGeometry& g)
      : taps(g.kernel[0] * g.kernel[1] * g.kernel[2]),
        in(g.in[0] * g.in[1] * g.in[2]),
        out(g.out[0] * g.out[1] * g.out[2]),
        channels(g.in_channels / g.groups),
        filters(g.out_channels / g.groups),
        length(channels * taps) {}
};

/// pixels[t] = the pixel under tap t of position `o`, or -1.
OPSIN_INLINE void find_pixels(const ConvGeometry& g, int64_t o, int64_t* pixels) {
  const int64_t at[3] = {o / (g.out[1] * g.out[2]), o / g.out[2] % g.out[1], o % g.out[2]};
  const auto place = [&](int axis, int64_t tap) {
    const int64_t i = at[axis] * g.stride[axis] - g.pad_begin[axis] + tap * g.dilation[axis];
    return i >= 0 && i < g.in[axis] ? i : -1;
  };
  for (int64_t a = 0; a < g.kernel[0]; ++a) {
    const int64_t i = place(0, a);
    for (int64_t b = 0; b < g.kernel[1]; ++b) {
      const int64_t j = place(1, b);
      for (int64_t c = 0; c < g.kernel[2]; ++c) {
        const int64_t k = place(2, c);
        *pixels++ = i < 0 || j < 0 || k < 0 ? -1 : (i * g.in[1] + j) * g.in[2] + k;
      }
    }
  }
}

/// What a filter of `group` sees of an image: [C / groups, taps].
template <class S>
OPSIN_INLINE void pack(const ConvGeometry& g, const Sizes& s, const int64_t* pixels, const S* image,
                       int64_t group, Compute<S>* to) {
  for (int64_t t = 0; t < s.taps; ++t) {
    if (pixels[t] < 0) {
      for (int64_t c = 0; c < s.channels; ++c) to[c * s.taps + t] = 0;
      continue;
    }
    const S* from = image + pixels[t] * g.in_channels + group * s.channels;
    for (int64_t c = 0; c < s.channels; ++c) to[c * s.taps + t] = widen(from[c]);
  }
}

/// Products of kFilters filters with what kImages images have under them.
template <class S, int kFilters, int kImages>
OPSIN_INLINE void dot(const S* filter, const Compute<S>* seen, int64_t n,
                      Compute<S> (&sums)[most_filters][most_images]) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[kFilters][kImages] = {};
  int64_t l = 0;
  for (; l + lanes <= n; l += lanes) {
    Vector<T> x[kImages];
#pragma GCC unroll 4
    for (int i = 0; i < kImages; ++i) x[i] = load(seen + i * n + l);
#pragma GCC unroll 4
    for (int k = 0; k < kFilters; ++k) {
      const Vector<T> w = load_wide(filter + k * n + l);
#pragma GCC unroll 4
      for (int i = 0; i < kImages; ++i) sum[k][i] = fma(w, x[i], sum[k][i]);
    }
  }
  if (l < n) {
#pragma GCC unroll 4
    for (int k = 0; k < kFilters; ++k) {
      const Vector<T> w = load_some<T>(filter + k * n + l, n - l);
#pragma GCC unroll 4
      for (int i = 0; i < kImages; ++i) sum[k][i] = fma(w, load_some<T>(seen + i * n + l, n - l), sum[k][i]);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kFilters; ++k) {
#pragma GCC unroll 4
    for (int i = 0; i < kImages; ++i) sums[k][i] = sum_of_lanes<T>(sum[k][i]);
  }
}

template <class S, int kImages>
OPSIN_INLINE void forward_images(const Sizes& s, const S* weight, const Compute<S>* seen, S* y,
                                 int64_t step) {
  Compute<S> sums[most_filters][most_images];
  const auto write = [&](int64_t first, int filters) {
    for (int k = 0; k < filters; ++k) {
      for (int i = 0; i < kImages; ++i) narrow(sums[k][i], y + i * step + first + k);
    }
  };
  int64_t k = 0;
  for (; k + most_filters <= s.filters; k += most_filters) {
    dot<S, most_filters, kImages>(weight + k * s.length, seen, s.length, sums);
    write(k, most_filters);
  }
  for (; k < s.filters; ++k) {
    dot<S, 1, kImages>(weight + k * s.length, seen, s.length, sums);
    write(k, 1);
  }
}

template <class S>
void forward(const LocalConv& conv, int64_t begin, int64_t end, const LocalScratch& scratch) {
  const ConvGeometry& g = conv.geometry;
  const Sizes s(g);
  auto* seen = static_cast<Compute<S>*>(scratch.values);
  const S* x = static_cast<const S*>(conv.x);
  for (int64_t o = begin; o < end; ++o) {
    find_pixels(g, o, scratch.pixels);
    for (int64_t group = 0; group < g.groups; ++group) {
      const int64_t first = group * s.filters;
      const S* weight = static_cast<const S*>(conv.weight) + (o * g.out_channels + first) * s.length;
      for (int64_t n = 0; n < g.batch;) {
        const int images = g.batch - n >= most_images ? most_images : 1;
        for (int i = 0; i < images; ++i) {
          pack(g, s, scratch.pixels, x + (n + i) * s.in * g.in_channels, group, seen + i * s.length);
        }
        S* y = static_cast<S*>(conv.result) + (n * s.out + o) * g.out_channels + first;
        if (images == most_images) {
          forward_images<S, most_images>(s, weight, seen, y, s.out * g.out_channels);
        } else {
          forward_images<S, 1>(s, weight, seen, y, 0);
        }
        n += images;
      }
    }
  }
}

template <class S, int kFilters>
OPSIN_INLINE void weight_rows(const Compute<S>* seen, int64_t n, int64_t images, const S* y, int64_t step,
                              S* to) {
  using T = Compute<S>;
  for (int64_t l = 0; l < n; l += lanes_of<T>) {
    Vector<T> sum[kFilters] = {};
    for (int64_t i = 0; i < images; ++i) {
      const Vector<T> x = load_some<T>(seen + i * n + l, n - l);
#pragma GCC unroll 4
      for (int k = 0; k < kFilters; ++k) sum[k] = fma(broadcast(widen(y[i * step + k])), x, sum[k]);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kFilters; ++k) store_some(to + k * n + l, sum[k], n - l);
  }
}

template <class S>
void backward_weight(const LocalConv& conv, int64_t begin, int64_t end, const LocalScratch& scratch) {
  const ConvGeometry& g = conv.geometry;
  const Sizes s(g);
  auto* seen = static_cast<Compute<S>*>(scratch.values);
  const S* x = static_cast<const S*>(conv.x);
  for (int64_t o = begin; o < end; ++o) {
    find_pixels(g, o, scratch.pixels);
    for (int64_t group = 0; group < g.groups; ++group) {
      for (int64_t n = 0; n < g.batch; ++n) {
        pack(g, s, scratch.pixels, x + n * s.in * g.in_channels, group, seen + n * s.length);
      }
      const int64_t first = o * g.out_channels + group * s.filters, step = s.out * g.out_channels;
      const S* y = static_cast<const S*>(conv.y) + first;
      S* to = static_cast<S*>(conv.result) + first * s.length;
      int64_t k = 0;
      for (; k + most_filters <= s.filters; k += most_filters) {
        weight_rows<S, most_filters>(seen, s.length, g.batch, y + k, step, to + k * s.length);
      }
      for (; k < s.filters; ++k) weight_rows<S, 1>(seen, s.length, g.batch, y + k, step, to + k * s.length);
    }
  }
}

/// to[i] = the sum over filters of y[i] * weight, for `n` neighbours of a filter, whose filters are `length`
/// apart.
template <class S, int kImages>
OPSIN_INLINE void spread_filters(const S* weight, int64_t n, int64_t length, int64_t filters, const S* y,
                                 int64_t step, Compute<S>* to) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  for (int64_t l = 0; l < n; l += 2 * lanes) {
    Vector<T> sum[kImages][2] = {};
    for (int64_t k = 0; k < filters; ++k) {
      const S* from = weight + k * length + l;
      const Vector<T> w[2] = {load_some<T>(from, n - l),
                              n - l > lanes ? load_some<T>(from + lanes, n - l - lanes) : Vector<T>{}};
#pragma GCC unroll 4
      for (int i = 0; i < kImages; ++i) {
        const Vector<T> by = broadcast(widen(y[i * step + k]));
        sum[i][0] = fma(by, w[0], sum[i][0]);
        sum[i][1] = fma(by, w[1], sum[i][1]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kImages; ++i) {
      store_some(to + i * n + l, sum[i][0], n - l);
      store_some(to + i * n + l + lanes, sum[i][1], n - l - lanes);
    }
  }
}

template <class S>
void backward_input(const LocalConv& conv, int64_t image, int64_t images, int64_t group, int64_t from,
                    int64_t to, const LocalScratch& scratch) {
  using T = Compute<S>;
  const ConvGeometry& g = conv.geometry;
  const Sizes s(g);
  const int64_t width = to - from, part = width * s.taps;
  T* const sums = static_cast<T*>(scratch.values);
  T* const parts = sums + images * s.in * width;
  for (int64_t i = 0; i < images * s.in * width; ++i) sums[i] = 0;
  for (int64_t o = 0; o < s.out; ++o) {
    find_pixels(g, o, scratch.pixels);
    const int64_t first = o * g.out_channels + group * s.filters, step = s.out * g.out_channels;
    const S* weight = static_cast<const S*>(conv.weight) + first * s.length + from * s.taps;
    const S* y = static_cast<const S*>(conv.y) + image * step + first;
    if (images == most_images) {
      spread_filters<S, most_images>(weight, part, s.length, s.filters, y, step, parts);
    } else {
      for (int64_t i = 0; i < images; ++i) {
        spread_filters<S, 1>(weight, part, s.length, s.filters, y + i * step, step, parts + i * part);
      }
    }
    for (int64_t i = 0; i < images; ++i) {
      for (int64_t t = 0; t < s.taps; ++t) {
        if (scratch.pixels[t] < 0) continue;
        T* sum = sums + (i * s.in + scratch.pixels[t]) * width;
        const T* add = parts + i * part + t;
        for (int64_t c = 0; c < width; ++c) sum[c] += add[c * s.taps];
      }
    }
  }
  for (int64_t i = 0; i < images * s.in; ++i) {
    S* x = static_cast<S*>(conv.result) + (image * s.in + i) * g.in_channels + group * s.channels + from;
    for (int64_t c = 0; c < width; ++c) narrow(sums[i * width + c], x + c);
  }
}

constexpr LocalConvTable kTable{
    {forward<float>, forward<double>, forward<Float16>, forward<BFloat16>},
    {backward_weight<float>, backward_weight<double>, backward_weight<Float16>, backward_weight<BFloat16>},
    {backward_input<float>, backward_input<double>, backward_input<Float16>, backward_input<BFloat16>},
};

}  // namespace

const LocalConvTable& local_conv_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
