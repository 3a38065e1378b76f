// The gradient of the weights of 3x3 taps by Winograd's minimal filtering, F(3x3, 2x2): the transpose of the
// F(2x2, 3x3) of conv_winograd.cpp, where the literature is named. Per axis, a tile of two outputs with
// gradients d reads four source pixels x, and adds to the gradient of the three taps
//
//     G^T [ (B^T x) * (A d) ]      B^T x = (x0 - x2, x1 + x2, x2 - x1, x3 - x1)
//                                  A d   = (d0, d0 + d1, d0 - d1, d1)
//                                  G^T s = (s0 + (s1 + s2) / 2, (s1 - s2) / 2, (s1 + s2) / 2 + s3)
//
// and the two axes nest: 16 products instead of 36. G^T waits for the sums over all tiles, each of whose 16
// elements is a matrix product [C, tiles] x [tiles, K] by the kernel of the direct gradient:
//
//     for each block of tiles
//       transform the gradients of the outputs (A) and,
//         for each tap of the depth, the source pixels that it reads (B)     in parallel over tiles
//       for each element and tap of the depth
//         add the products of all tiles to the sums                          in parallel over C and K
//     transform the sums (G)                                                 in parallel over C and K
//
// Every sum is added up in an order that depends on the shape alone.
//
// Accuracy. Transformed tiles are rounded to S, products are summed in float32. With u the relative error of
// S, 2^-9 for bfloat16, the error is to first order at most 2 u kappa times the sum over tiles of max |x| max
// |d|, where kappa = (max over taps t of the sum over i, j, k of |G_it| |B_ji| |A_ik|)^2 = 36. On random
// operands its root mean square is 2.4 times that of the rounding of the result to bfloat16.
#include "conv_weight_winograd.h"

#include "conv_algorithm.h"
#include "conv_fetch_ahead.h"
#include "conv_plan.h"

#include <algorithm>
#include <array>

#include "cpu/kernels/conv_weight_winograd_table.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

constexpr int64_t elements = 16;
// Transformed tiles of a block, unless these are less than `least_tiles`.
constexpr int64_t block_bytes = int64_t{2} << 20, least_tiles = 256;
// Source channels whose products are summed together: whole vectors.
constexpr int64_t most_channels = 128;

#if defined(__x86_64__)
const WinogradWeightKernels<BFloat16>& transforms(BFloat16) { return avx512_bf16::winograd_weight_kernels(); }
#endif

template <class S>
class WinogradWeight {
  using T = Compute<S>;

 public:
  WinogradWeight(const ConvGeometry& g, const S* x, const S* grad_y)
      : g_(g),
        kernel_(kernels<S>()),
        transforms_(transforms(S{})),
        x_(x),
        grad_y_(grad_y),
        width_(2 * kernel_.lanes),
        units_(ceil_div(g.out_channels, width_)),
        ranges_(ceil_div(g.in_channels, most_channels)),
        range_(ceil_div(ceil_div(g.in_channels, ranges_), kernel_.lanes) * kernel_.lanes),
        rows_(ceil_div(g.out[1], 2)),
        columns_(ceil_div(g.out[2], 2)),
        tiles_(g.batch * g.out[0] * rows_ * columns_) {
    ranges_ = ceil_div(g.in_channels, range_);
    const int64_t tile_bytes =
        elements * (g.kernel[0] * ranges_ * range_ + units_ * width_) * static_cast<int64_t>(sizeof(S));
    blocks_ = ceil_div(tiles_, std::max(least_tiles, block_bytes / tile_bytes));
    block_ = ceil_div(ceil_div(tiles_, blocks_), kernel_.step) * kernel_.step;
    blocks_ = ceil_div(tiles_, block_);
    // A line of the cache more than they fill, so that they are no power of two apart.
    grad_panel_ = block_ * width_ + line<S>;
    source_panel_ = block_ * range_ + line<S>;
  }

  void run(S* grad_weight, bool accumulate) const {
    const Scratch<S> zeros(std::max(g_.in_channels, g_.out_channels));
    std::fill(zeros.get(), zeros.get() + std::max(g_.in_channels, g_.out_channels), S{});
    const Scratch<S> source(g_.kernel[0] * elements * ranges_ * source_panel_),
        grads(elements * units_ * grad_panel_);
    const int64_t pieces = ranges_ * units_;
    // Parts of the elements, where the pieces are too few for the threads.
    const int64_t threads = num_threads();
    const int64_t parts = threads == 1 ? 1 : std::clamp<int64_t>(4 * threads / pieces, 1, elements);
    const bool keeps = blocks_ * parts > 1;
    const Scratch<T> sums(keeps ? pieces * piece() : 0);
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t begin = block * block_, count = std::min(block_, tiles_ - begin);
      parallel_for(ceil_div(count, kernel_.step), 8, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) transform(begin, i, zeros.get(), source.get(), grads.get());
      });
      parallel_for(pieces * parts, 1, [&](int64_t first, int64_t last) {
        const Scratch<T> own(keeps ? 0 : piece());
        for (int64_t i = first; i < last; ++i) {
          const int64_t index = i / parts, part = i % parts;
          const Range some{elements * part / parts, elements * (part + 1) / parts};
          T* const to = keeps ? sums.get() + index * piece() : own.get();
          multiply(index, some, count, source.get(), grads.get(), to, block > 0);
          if (!keeps) finish(index, to, grad_weight, accumulate);
        }
      });
    }
    if (!keeps) return;
    parallel_for(pieces, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        finish(i, sums.get() + i * piece(), grad_weight, accumulate);
      }
    });
  }

 private:
  struct Range {
    int64_t begin, end;
  };
  struct Place {
    int64_t image, depth, y, x;
  };
  Place place(int64_t tile) const {
    const int64_t plane = tile / (rows_ * columns_);
    return {plane / g_.out[0], plane % g_.out[0], tile / columns_ % rows_ * 2, tile % columns_ * 2};
  }
  int64_t piece() const { return g_.kernel[0] * elements * range_ * width_; }

  // The addresses of size x size pixels from (y, x) on of an image [height, width, channels].
  template <int size>
  static void list(const S* image, int64_t y, int64_t x, int64_t height, int64_t width, int64_t channels,
                   const S* zeros, const S** out) {
    if (y >= 0 && x >= 0 && y + size <= height && x + size <= width) {
      const S* row = image + (y * width + x) * channels;
      for (int i = 0; i < size; ++i, row += width * channels) {
        for (int j = 0; j < size; ++j) out[i * size + j] = row + j * channels;
      }
      return;
    }
    for (int i = 0; i < size; ++i) {
      for (int j = 0; j < size; ++j) {
        const bool inside = y + i >= 0 && y + i < height && x + j >= 0 && x + j < width;
        out[i * size + j] = inside ? image + ((y + i) * width + x + j) * channels : zeros;
      }
    }
  }

  // Tiles begin + [index, index + 1) * step: of the source that each tap of the depth reads, and of the
  // gradients of the outputs.
  void transform(int64_t begin, int64_t index, const S* zeros, S* source, S* grads) const {
    std::array<const S*, 2 * 16> pixels;
    std::array<const S*, 2 * 4> outputs;
    std::array<Place, 2> places{};
    const int64_t first = begin + index * kernel_.step, end = std::min(begin + block_, tiles_);
    const int64_t count = std::min(kernel_.step, end - first);
    std::fill(pixels.begin(), pixels.end(), zeros);
    std::fill(outputs.begin(), outputs.end(), zeros);
    for (int64_t s = 0; s < count; ++s) {
      const Place& p = places[static_cast<size_t>(s)] = place(first + s);
      list<2>(grad_y_ + (p.image * g_.out[0] + p.depth) * g_.out[1] * g_.out[2] * g_.out_channels, p.y, p.x,
              g_.out[1], g_.out[2], g_.out_channels, zeros, outputs.data() + s * 4);
    }
    for (int64_t unit = 0; unit < units_; ++unit) {
      transforms_.grad({outputs.data(), unit * width_, outputs_of(unit),
                        grads + unit * grad_panel_ + index * unit_width(unit) * kernel_.step,
                        units_ * grad_panel_});
    }
    for (int64_t depth = 0; depth < g_.kernel[0]; ++depth, source += elements * ranges_ * source_panel_) {
      for (int64_t s = 0; s < count; ++s) {
        const Place& p = places[static_cast<size_t>(s)];
        const int64_t plane = p.depth + depth - g_.pad_begin[0];
        const S** const to = pixels.data() + s * 16;
        if (plane < 0 || plane >= g_.in[0]) {
          std::fill_n(to, 16, zeros);
          continue;
        }
        list<4>(x_ + (p.image * g_.in[0] + plane) * g_.in[1] * g_.in[2] * g_.in_channels,
                p.y - g_.pad_begin[1], p.x - g_.pad_begin[2], g_.in[1], g_.in[2], g_.in_channels, zeros, to);
      }
      for (int64_t range = 0; range < ranges_; ++range) {
        transforms_.source({pixels.data(), range * range_, channels(range),
                            source + range * source_panel_ + index * range_ * kernel_.step,
                            ranges_ * source_panel_});
      }
    }
  }

  int64_t channels(int64_t range) const { return std::min(range_, g_.in_channels - range * range_); }
  int64_t outputs_of(int64_t unit) const { return std::min(width_, g_.out_channels - unit * width_); }
  // A piece: the sums of a range of source channels and a unit of target channels.
  int64_t range_of(int64_t index) const { return index % ranges_; }
  int64_t unit_of(int64_t index) const { return index / ranges_; }
  int64_t each(int64_t index) const { return channels(range_of(index)) * unit_width(unit_of(index)); }
  int64_t unit_width(int64_t unit) const { return outputs_of(unit) > kernel_.lanes ? width_ : kernel_.lanes; }

  // sums[tap of the depth][element][channel of the range][column of the unit] (+)= the products of `count`
  // tiles.
  void multiply(int64_t index, Range some, int64_t count, const S* source, const S* grads, T* sums,
                bool accumulate) const {
    const int64_t range = range_of(index), unit = unit_of(index);
    ConvOuter<S> a{};
    a.source_stride = range_;
    a.channels = channels(range);
    a.width = a.out_stride = unit_width(unit);
    a.ahead = grads;
    for (int64_t e = some.begin; e < some.end; ++e) {
      const S* const grad = grads + (e * units_ + unit) * grad_panel_;
      for (int64_t depth = 0; depth < g_.kernel[0]; ++depth) {
        const int64_t slot = depth * elements + e;
        const S* const from = source + (slot * ranges_ + range) * source_panel_;
        a.out = sums + slot * each(index);
        for (int64_t first = 0; first < count; first += weight_block_pixels<S>) {
          a.source = from + first * range_;
          a.grad = grad + first * a.width;
          a.pixels = std::min(weight_block_pixels<S>, count - first);
          a.accumulate = accumulate || first > 0;
          kernel_.outer(a);
        }
      }
    }
  }

  void finish(int64_t index, T* sums, S* grad_weight, bool accumulate) const {
    const int64_t range = range_of(index), unit = unit_of(index), depths = g_.kernel[0];
    ConvUnpack<S> u{};
    u.in = sums;
    u.splits = 1;
    u.lanes = outputs_of(unit);
    u.channels = channels(range);
    u.taps = depths * 9;
    u.width = unit_width(unit);
    u.lane_stride = g_.in_channels * u.taps;
    u.out = grad_weight + unit * width_ * u.lane_stride + range * range_ * u.taps;
    u.accumulate = accumulate;
    const int64_t size = each(index);
    for (int64_t depth = 0; depth < depths; ++depth) {
      transforms_.taps({sums + depth * elements * size, sums + depth * 9 * size, size});
    }
    kernel_.unpack(u);
  }

  const ConvGeometry& g_;
  const ConvKernels<S>& kernel_;
  const WinogradWeightKernels<S>& transforms_;
  const S* x_;
  const S* grad_y_;
  int64_t width_, units_;   ///< of target channels
  int64_t ranges_, range_;  ///< of source channels
  int64_t rows_, columns_, tiles_;
  int64_t block_, blocks_;  ///< of tiles
  int64_t grad_panel_, source_panel_;
};

}  // namespace

template <class S>
bool winograd_weight_pays(const ConvGeometry& g) {
  if (has_bf16_tiles() || g.algorithm == ConvAlgorithm::kDirect || g.groups != 1) return false;
  for (int a = 0; a < 3; ++a) {
    if (g.stride[a] != 1 || g.dilation[a] != 1 || (a > 0 && g.kernel[a] != 3)) return false;
  }
  const double outputs = static_cast<double>(g.batch * volume(g.out));
  if (outputs == 0) return false;
  if (g.algorithm == ConvAlgorithm::kWinograd) return true;
  if (std::min(g.in_channels, g.out_channels) < 8) return false;
  // In units of C * K multiplications at the speed of the direct kernel, measured: the products and the
  // transforms of each tile, then those of the sums.
  const double tiles =
      static_cast<double>(g.batch * g.out[0] * ceil_div(g.out[1], 2) * ceil_div(g.out[2], 2));
  const double tile = 1.1 + 5 / static_cast<double>(g.in_channels) + 5 / static_cast<double>(g.out_channels);
  return elements * (tile * tiles + 10) <= 0.9 * 9 * outputs;
}

template <class S>
void winograd_backward_weight(const ConvGeometry& g, const S* x, const S* grad_y, S* grad_weight,
                              Compute<S>* grad_bias, bool accumulate) {
  WinogradWeight<S>(g, x, grad_y).run(grad_weight, accumulate);
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

#if defined(__x86_64__)
template bool winograd_weight_pays<BFloat16>(const ConvGeometry&);
template void winograd_backward_weight(const ConvGeometry&, const BFloat16*, const BFloat16*, BFloat16*,
                                       float*, bool);
#endif

}  // namespace opsin::cpu::conv
