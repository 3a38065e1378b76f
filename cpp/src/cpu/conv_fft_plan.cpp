// Problems, tiles and tables of FFT convolution.
//
// Tiles overlap as in the overlap-save method: a transform of n cells of x gives n - R + 1 outputs of a
// kernel of R cells. One tile for a whole axis needs less: its padding may wrap around, because both ends of
// it are zeros.
#include "conv_fft_plan.h"

#include "conv_algorithm.h"
#include "conv_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace opsin::cpu::conv {
namespace {

template <class T>
FftField<T> channels_last(const T* data, const int64_t (&size)[3], int64_t channels,
                          const int64_t (&every)[3]) {
  return {const_cast<T*>(data),
          {size[1] * size[2] * channels, size[2] * channels, channels},
          {size[0], size[1], size[2]},
          {every[0], every[1], every[2]}};
}

template <class T>
FftField<T> taps_of(const T* data, const ConvGeometry& g) {
  return {const_cast<T*>(data),
          {g.kernel[1] * g.kernel[2], g.kernel[2], 1},
          {g.kernel[0], g.kernel[1], g.kernel[2]},
          {g.dilation[0], g.dilation[1], g.dilation[2]}};
}

constexpr int64_t kOnes[3] = {1, 1, 1};

/// Largest spectrum of a vector of tiles, where a smaller tile is possible.
constexpr int64_t kMostTileBytes = int64_t{4} << 20;

/// Sums over the batch apart, tiles do not depend on it, so that an image has the same bits in any batch.
constexpr double kNominalBatch = 2;

bool has_plan(int64_t n) {
  for (const int64_t radix : {2, 3, 5}) {
    while (n % radix == 0) n /= radix;
  }
  return n == 1;
}

struct AxisTiles {
  int64_t n, block, count;
};

/// Transform lengths worth a look, the last one for the whole axis.
template <class T>
std::vector<AxisTiles> axis_choices(const FftProblem<T>& p, int axis) {
  const int64_t out = p.y.length(axis), in = p.x.length(axis), reach = p.w.length(axis), pad = p.pad[axis];
  // Reads are [-pad, most]; of these, elements are [max(0, -pad), min(in - 1, most)].
  const int64_t most = out - 1 - pad + reach - 1;
  const int64_t whole =
      std::max({reach, out, std::min(in - 1, most) + pad + 1, most - std::max<int64_t>(0, -pad) + 1});
  std::vector<AxisTiles> choices;
  int64_t last = 0;
  for (int64_t n = reach;; ++n) {
    if (!(axis == 2 ? n % 2 == 0 && has_plan(n / 2) : has_plan(n))) continue;
    if (n >= whole) {
      choices.push_back({n, out, 1});
      return choices;
    }
    if (n * 10 < last * 11) continue;
    last = n;
    const int64_t block = n - reach + 1;
    choices.push_back({n, block, ceil_div(out, block)});
  }
}

}  // namespace

template <class T>
FftProblem<T> fft_forward_problem(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y) {
  FftProblem<T> p{};
  p.batch = g.batch;
  p.groups = g.groups;
  p.inputs = g.in_channels / g.groups;
  p.outputs = g.out_channels / g.groups;
  p.x = channels_last(x, g.in, g.in_channels, kOnes);
  p.y = channels_last<T>(y, g.out, g.out_channels, g.stride);
  p.w = taps_of(weight, g);
  p.x_image = volume(g.in) * g.in_channels;
  p.y_image = volume(g.out) * g.out_channels;
  p.w_input = volume(g.kernel);
  p.w_output = p.inputs * p.w_input;
  p.w_group = p.outputs * p.w_output;
  std::copy_n(g.pad_begin, 3, p.pad);
  p.bias = bias;
  return p;
}

template <class T>
FftProblem<T> fft_backward_input_problem(const ConvGeometry& g, const T* grad_y, const T* weight, T* grad_x) {
  FftProblem<T> p = fft_forward_problem<T>(g, grad_x, weight, nullptr, const_cast<T*>(grad_y));
  std::swap(p.inputs, p.outputs);
  std::swap(p.x, p.y);
  std::swap(p.x_image, p.y_image);
  std::swap(p.w_input, p.w_output);
  for (int a = 0; a < 3; ++a) {
    p.pad[a] = p.w.length(a) - 1 - p.pad[a];
    // Null where only the cost is asked for.
    if (p.w.data != nullptr) p.w.data += (p.w.size[a] - 1) * p.w.stride[a];
    p.w.stride[a] = -p.w.stride[a];
  }
  return p;
}

template <class T>
FftProblem<T> fft_backward_weight_problem(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight,
                                          bool accumulate) {
  FftProblem<T> p = fft_forward_problem<T>(g, x, grad_weight, nullptr, const_cast<T*>(grad_y));
  p.makes_weight = true;
  p.accumulate = accumulate;
  return p;
}

int64_t fft_tiles_at_once(int64_t frequencies, int64_t lanes, int64_t element, int64_t channels) {
  const int64_t bytes = frequencies * 2 * element;
  return std::max<int64_t>(
      1, std::min(fft_shared_bytes / (bytes * channels), fft_thread_bytes / 2 / (bytes * lanes)));
}

template <class T>
bool is_lanewise(const FftProblem<T>& p, int64_t lanes) {
  // Transforms of activations per tile.
  const int64_t all = p.groups * p.outputs;
  const double vectors =
      all >= lanes ? static_cast<double>(ceil_div(all, lanes)) : 1.0 / static_cast<double>(lanes / all);
  return vectors * static_cast<double>(1 + p.inputs) <=
         static_cast<double>(p.groups * (ceil_div(p.inputs, lanes) + ceil_div(p.outputs, lanes)));
}

namespace {

/// Vector instructions, by count of what the loops do; radix passes cost about 6 per doubling of the length.
template <class T>
double count_instructions(const FftProblem<T>& p, const FftTiles& t, int64_t lanes, double batch) {
  const auto up = [&](int64_t value) { return static_cast<double>(ceil_div(value, lanes)); };
  const double groups = static_cast<double>(p.groups), inputs = static_cast<double>(p.inputs);
  const double f = static_cast<double>(t.frequencies), images = batch * static_cast<double>(t.tiles());
  const double bytes = f * static_cast<double>(2 * lanes) * sizeof(T);
  double transforms, products, weights;
  if (is_lanewise(p, lanes)) {
    const int64_t all = p.groups * p.outputs;
    const double vectors =
        all >= lanes ? images * up(all) : std::ceil(images / static_cast<double>(lanes / all));
    products = vectors * inputs;
    weights = inputs * up(all);
    transforms = vectors * (1 + inputs) + weights;
  } else {
    const int64_t channels = p.groups * ceil_div(p.inputs, lanes) * lanes;
    const double chunks =
        std::ceil(images / static_cast<double>(fft_tiles_at_once(t.frequencies, lanes, sizeof(T), channels)));
    products = images * groups * inputs * up(p.outputs);
    weights = chunks * groups * inputs * up(p.outputs);
    transforms = groups * images * (up(p.inputs) + up(p.outputs)) + weights;
  }
  // Beyond the caches.
  const double slow = bytes <= 256e3 ? 1 : bytes <= 1e6 ? 1.15 : 1.4;
  const double gathers = weights * static_cast<double>(lanes * volume(p.w.size)) * 2;
  return f * (transforms * slow * (15 + 6 * std::log2(2 * f)) + products * 5) + gathers;
}

}  // namespace

template <class T>
FftTiles choose_tiles(const FftProblem<T>& p, int64_t lanes) {
  std::vector<AxisTiles> choices[3];
  for (int a = 0; a < 3; ++a) choices[a] = axis_choices(p, a);
  FftTiles best{};
  double least_bytes = std::numeric_limits<double>::infinity();
  const double batch = p.makes_weight ? static_cast<double>(p.batch) : kNominalBatch;
  for (const AxisTiles& d : choices[0]) {
    for (const AxisTiles& h : choices[1]) {
      for (const AxisTiles& w : choices[2]) {
        FftTiles t{{d.n, h.n, w.n}, {d.block, h.block, w.block}, {d.count, h.count, w.count}, 0, 0, 0};
        t.frequencies = d.n * h.n * (w.n / 2 + 1);
        const double bytes = static_cast<double>(t.frequencies * 2 * lanes) * sizeof(T);
        const bool fits = bytes <= kMostTileBytes;
        if (!fits && bytes >= least_bytes) continue;
        t.cost = count_instructions(p, t, lanes, batch);
        if (!fits || least_bytes > kMostTileBytes || t.cost < best.cost) best = t;
        least_bytes = std::min(least_bytes, bytes);
      }
    }
  }
  best.image_cost = count_instructions(p, best, lanes, 1);
  return best;
}

void FftPlanes::add(int64_t at, const int64_t (&first)[3]) {
  offset[count] = at;
  std::copy_n(first, 3, origin[count++]);
}

void FftPlanes::finish() {
  adjacent = true;
  for (int64_t l = 1; l < count; ++l) {
    adjacent &= offset[l] == offset[0] + l && std::equal(origin[l], origin[l] + 3, origin[0]);
  }
}

template <class T>
FftTables<T>::FftTables(int64_t n) : plan_{n, 0, {}, nullptr} {
  const auto turn = [&](double part) {
    const double angle = -2 * std::numbers::pi * part;
    values_.push_back(static_cast<T>(std::cos(angle)));
    values_.push_back(static_cast<T>(std::sin(angle)));
  };
  size_t offsets[40];
  int64_t left = n, stride = 1;
  while (left > 1) {
    const int64_t radix = left % 4 == 0 ? 4 : left % 2 == 0 ? 2 : left % 3 == 0 ? 3 : 5;
    const int64_t parts = left / radix;
    offsets[plan_.passes] = values_.size();
    plan_.pass[plan_.passes++] = {radix, parts, stride, nullptr};
    for (int64_t i = 0; i < parts; ++i) {
      for (int64_t j = 1; j < radix; ++j) turn(static_cast<double>(i * j) / static_cast<double>(left));
    }
    left = parts;
    stride *= radix;
  }
  const size_t half = values_.size();
  for (int64_t f = 0; f <= n / 2; ++f) turn(static_cast<double>(f) / static_cast<double>(2 * n));
  for (int64_t i = 0; i < plan_.passes; ++i) plan_.pass[i].twiddle = values_.data() + offsets[i];
  plan_.half = values_.data() + half;
}

template <class T>
FftTransforms<T>::FftTransforms(const FftTiles& tiles, const FftTileTables<T>& tables,
                                const FftKernels<T>& kernels)
    : tiles_(tiles),
      tables_(tables),
      kernels_(kernels),
      pair_(2 * kernels.lanes),
      tile_(tiles.n[0] * tiles.n[1] > 1 ? tiles.frequencies * pair_ : 0),
      row_(tiles.n[2] * kernels.lanes),
      lines_(3 * std::max({tiles.n[0], tiles.n[1], tiles.n[2]}) * pair_) {
  access_.row = row_.get();
  access_.memory = memory_;
  access_.first = first_;
  access_.count = count_;
}

template <class T>
bool FftTransforms<T>::locate(const FftField<T>& f, const FftPlanes& planes, const int64_t (&limit)[3],
                              int64_t d, int64_t h) {
  bool any = false;
  const int64_t place[2] = {d, h};
  access_.every = f.every[2];
  access_.stride = f.stride[2];
  access_.lanes = planes.count;
  access_.adjacent = planes.adjacent;
  for (int64_t l = 0; l < (planes.adjacent ? 1 : planes.count); ++l) {
    T* at = f.data + planes.offset[l];
    count_[l] = first_[l] = 0;
    bool inside = true;
    for (int a = 0; a < 2 && inside; ++a) {
      const int64_t coordinate = planes.origin[l][a] + place[a];
      inside = coordinate >= 0 && coordinate < f.length(a) && coordinate % f.every[a] == 0;
      at += coordinate / f.every[a] * f.stride[a];
    }
    if (!inside) continue;
    const int64_t origin = planes.origin[l][2], every = f.every[2];
    const int64_t begin = ceil_div(std::max<int64_t>(origin, 0), every);
    const int64_t end = std::min(f.size[2], ceil_div(std::max<int64_t>(origin + limit[2], 0), every));
    if (begin >= end) continue;
    memory_[l] = at + begin * f.stride[2];
    first_[l] = begin * every - origin;
    count_[l] = end - begin;
    any = true;
  }
  return any;
}

template <class T>
void FftTransforms<T>::forward(const FftField<T>& f, const FftPlanes& planes, const int64_t (&limit)[3],
                               T* re, T* im, int64_t step) {
  const int64_t lanes = kernels_.lanes, *n = tiles_.n, row = tiles_.row_frequencies();
  int64_t low[2], high[2];
  for (int a = 0; a < 2; ++a) {
    low[a] = limit[a];
    high[a] = 0;
    for (int64_t l = 0; l < planes.count; ++l) {
      low[a] = std::min(low[a], std::max<int64_t>(0, -planes.origin[l][a]));
      high[a] = std::max(high[a], std::min(limit[a], f.length(a) - planes.origin[l][a]));
    }
    if (low[a] >= high[a]) low[a] = high[a] = 0;
  }
  const bool flat = n[0] * n[1] == 1;
  T* const tile = tile_.get();
  for (int64_t d = low[0]; d < high[0]; ++d) {
    for (int64_t h = low[1]; h < high[1]; ++h) {
      T* const to = flat ? re : tile + (d * n[1] + h) * row * pair_;
      T* const to_im = flat ? im : to + lanes;
      const int64_t apart = flat ? step : pair_;
      std::fill_n(row_.get(), n[2] * lanes, T{});
      if (locate(f, planes, limit, d, h))
        kernels_.load(access_);
      else if (!flat) {
        std::fill_n(to, row * pair_, T{});
        continue;
      }
      kernels_.row_forward({&tables_.axis[2].plan(), row_.get(), to, to_im, apart, lines_.get()});
    }
  }
  if (flat) {
    if (high[0] == 0 || high[1] == 0) {
      for (int64_t i = 0; i < row; ++i) {
        std::fill_n(re + i * step, lanes, T{});
        std::fill_n(im + i * step, lanes, T{});
      }
    }
    return;
  }
  FftLines<T> a{};
  a.in_re = tile;
  a.in_im = tile + lanes;
  a.scratch = lines_.get();
  if (n[1] > 1) {
    a.plan = &tables_.axis[1].plan();
    a.in_stride = row * pair_;
    a.in_step = pair_;
    a.first = low[1];
    a.count = high[1] - low[1];
    a.columns = row;
    for (int64_t d = n[0] == 1 ? 0 : low[0]; d < (n[0] == 1 ? 1 : high[0]); ++d) {
      FftLines<T> b = a;
      const int64_t at = d * n[1] * row * pair_;
      b.in_re += at;
      b.in_im += at;
      if (high[0] == 0) b.count = 0;
      b.out_re = n[0] == 1 ? re : tile + at;
      b.out_im = n[0] == 1 ? im : tile + at + lanes;
      b.out_stride = n[0] == 1 ? row * step : row * pair_;
      b.out_step = n[0] == 1 ? step : pair_;
      kernels_.lines(b);
    }
  }
  if (n[0] > 1) {
    a.plan = &tables_.axis[0].plan();
    a.in_stride = n[1] * row * pair_;
    a.in_step = pair_;
    a.first = low[0];
    a.count = high[1] == 0 ? 0 : high[0] - low[0];
    a.columns = n[1] * row;
    a.out_re = re;
    a.out_im = im;
    a.out_stride = n[1] * row * step;
    a.out_step = step;
    kernels_.lines(a);
  }
}

template <class T>
void FftTransforms<T>::inverse(const T* re, const T* im, int64_t step, const FftField<T>& f,
                               const FftPlanes& planes, const int64_t (&limit)[3], const T* bias,
                               bool accumulate) {
  const int64_t lanes = kernels_.lanes, *n = tiles_.n, row = tiles_.row_frequencies();
  T* const tile = tile_.get();
  FftLines<T> a{};
  a.scratch = lines_.get();
  a.first = 0;
  // An inverse transform is one with real and imaginary parts exchanged.
  if (n[0] > 1) {
    a.plan = &tables_.axis[0].plan();
    a.in_re = im;
    a.in_im = re;
    a.in_stride = n[1] * row * step;
    a.in_step = step;
    a.count = n[0];
    a.columns = n[1] * row;
    a.out_re = tile + lanes;
    a.out_im = tile;
    a.out_stride = n[1] * row * pair_;
    a.out_step = pair_;
    kernels_.lines(a);
    re = tile;
    im = tile + lanes;
    step = pair_;
  }
  access_.scale = T(1) / static_cast<T>(n[0] * n[1] * n[2]);
  access_.bias = bias;
  access_.accumulate = accumulate;
  for (int64_t d = 0; d < limit[0]; ++d) {
    const T *plane_re = re + d * n[1] * row * step, *plane_im = im + d * n[1] * row * step;
    int64_t apart = step;
    if (n[1] > 1) {
      T* const to = tile + d * n[1] * row * pair_;
      a.plan = &tables_.axis[1].plan();
      a.in_re = plane_im;
      a.in_im = plane_re;
      a.in_stride = row * step;
      a.in_step = step;
      a.count = n[1];
      a.columns = row;
      a.out_re = to + lanes;
      a.out_im = to;
      a.out_stride = row * pair_;
      a.out_step = pair_;
      kernels_.lines(a);
      plane_re = to;
      plane_im = to + lanes;
      apart = pair_;
    }
    for (int64_t h = 0; h < limit[1]; ++h) {
      if (!locate(f, planes, limit, d, h)) continue;
      const int64_t at = h * row * apart;
      kernels_.row_inverse({&tables_.axis[2].plan(), row_.get(), const_cast<T*>(plane_re + at),
                            const_cast<T*>(plane_im + at), apart, lines_.get()});
      kernels_.store(access_);
    }
  }
}

#define OPSIN_INSTANTIATE(T)                                                                             \
  template FftProblem<T> fft_forward_problem(const ConvGeometry&, const T*, const T*, const T*, T*);     \
  template FftProblem<T> fft_backward_input_problem(const ConvGeometry&, const T*, const T*, T*);        \
  template FftProblem<T> fft_backward_weight_problem(const ConvGeometry&, const T*, const T*, T*, bool); \
  template bool is_lanewise(const FftProblem<T>&, int64_t);                                              \
  template FftTiles choose_tiles(const FftProblem<T>&, int64_t);                                         \
  template class FftTables<T>;                                                                           \
  template class FftTransforms<T>;
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
