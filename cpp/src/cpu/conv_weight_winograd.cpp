// The gradient of the weights of 3x3 taps by Winograd's minimal filtering, F(3x3, 4x4): the transpose of the
// F(4x4, 3x3) of conv_winograd.cpp, with its matrices A, B and G, where the literature is named. Of a tile of
// 4 x 4 outputs with gradients d, which reads 6 x 6 source pixels x, the gradient of the taps is
//
//     G^T [ (B^T x B) * (A d A^T) ] G                                             * element by element
//
// which takes 36 products instead of 144. G waits for the sums over all tiles, each of whose 36 elements is a
// matrix product [C, tiles] x [tiles, K] by the kernel of the direct gradient:
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
// Accuracy. All is float32; 16-bit floats are widened as they are read, and the result is rounded once. With
// u = 2^-24, N tiles and 32 roundings of the transforms, the error is to first order at most (N + 32) u kappa
// times the sum over tiles of max |x| max |d|, where kappa = (max over taps t of the sum over i, j, k of
// |G_it| |B_ji| |A_ik|)^2 = 802.4. On random operands its root mean square is 2.4 (8 tiles) to 4.8 times (784
// tiles) that of the direct kernel, or 8 to 20 u of that of the gradient; on operands with a mean 0.8 to 2.2
// times, or 2 u.
#include "conv_algorithm.h"
#include "conv_fetch_ahead.h"
#include "conv_plan.h"
#include "conv_winograd_tiles.h"

#include <algorithm>
#include <array>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

constexpr int64_t m = 4, n = m + 2, elements = n * n;
// Transformed tiles of a block, unless these are less than `least_tiles`.
constexpr int64_t block_bytes = int64_t{2} << 20, least_tiles = 128;
// Sums of a piece: a part of the second-level cache.
constexpr int64_t piece_bytes = 640 * 1024;

template <class S>
class WinogradWeightGrad {
 public:
  WinogradWeightGrad(const ConvGeometry& g, const S* x, const S* grad_y)
      : g_(g),
        kernel_(kernels<float>()),
        transforms_(winograd_table<S>()),
        x_(x),
        grad_y_(grad_y),
        inputs_(g.in_channels / g.groups),
        outputs_(g.out_channels / g.groups),
        width_(2 * kernel_.lanes),
        units_(ceil_div(outputs_, width_)),
        rows_(ceil_div(g.out[1], m)),
        columns_(ceil_div(g.out[2], m)),
        tiles_(g.batch * g.out[0] * rows_ * columns_) {
    const int64_t bytes_each = g.kernel[0] * elements * width_ * static_cast<int64_t>(sizeof(float));
    const int64_t most = std::max(kernel_.lanes, piece_bytes / bytes_each);
    range_ = std::max(kernel_.lanes, ceil_div(inputs_, ceil_div(inputs_, most)));
    ranges_ = ceil_div(inputs_, range_);
    const int64_t tile_bytes = elements * g.groups * (g.kernel[0] * ranges_ * range_ + units_ * width_) *
                               static_cast<int64_t>(sizeof(float));
    blocks_ = ceil_div(tiles_, std::max(least_tiles, block_bytes / tile_bytes));
    block_ = ceil_div(tiles_, blocks_);
    blocks_ = ceil_div(tiles_, block_);
    // A line of the cache more than they fill, so that they are no power of two apart.
    grad_panel_ = block_ * width_ + line<float>;
    source_panel_ = block_ * range_ + line<float>;
  }

  void run(S* grad_weight, bool accumulate) const {
    const Scratch<S> zeros(std::max(g_.in_channels, g_.out_channels));
    std::fill(zeros.get(), zeros.get() + std::max(g_.in_channels, g_.out_channels), S{});
    const Scratch<float> source(g_.kernel[0] * elements * source_panels() * source_panel_),
        grads(elements * grad_panels() * grad_panel_);
    const int64_t pieces = g_.groups * ranges_ * units_;
    // Parts of the elements, where the pieces are too few for the threads.
    const int64_t threads = num_threads();
    const int64_t parts = threads == 1 ? 1 : std::clamp<int64_t>(4 * threads / pieces, 1, elements);
    const bool keeps = blocks_ * parts > 1;
    const Scratch<float> sums(keeps ? pieces * piece() : 0);
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t begin = block * block_, count = std::min(block_, tiles_ - begin);
      parallel_for(count, 4, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) transform(begin, i, zeros.get(), source.get(), grads.get());
      });
      parallel_for(pieces * parts, 1, [&](int64_t first, int64_t last) {
        const Scratch<float> own(keeps ? 0 : piece());
        for (int64_t i = first; i < last; ++i) {
          const int64_t index = i / parts, part = i % parts;
          const Range some{elements * part / parts, elements * (part + 1) / parts};
          float* const to = keeps ? sums.get() + index * piece() : own.get();
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
  int64_t piece() const { return g_.kernel[0] * elements * range_ * width_; }
  // Of an element.
  int64_t source_panels() const { return g_.groups * ranges_; }
  int64_t grad_panels() const { return g_.groups * units_; }

  // Tile begin + index: of the source that each tap of the depth reads, and of the gradients of the outputs.
  void transform(int64_t begin, int64_t index, const S* zeros, float* source, float* grads) const {
    const int64_t tile = begin + index, y = tile / columns_ % rows_ * m, x = tile % columns_ * m;
    const int64_t plane = tile / (rows_ * columns_), image = plane / g_.out[0], out_depth = plane % g_.out[0];
    std::array<const S*, m * m> outputs;
    list_pixels(grad_y_ + plane * g_.out[1] * g_.out[2] * g_.out_channels, y, x, m, g_.out[1], g_.out[2],
                g_.out_channels, zeros, outputs.data());
    for (int64_t panel = 0; panel < grad_panels(); ++panel) {
      const int64_t unit = panel % units_;
      transforms_.grad.output({outputs.data(), panel / units_ * outputs_ + unit * width_, outputs_of(unit),
                               grads + panel * grad_panel_ + index * unit_width(unit),
                               grad_panels() * grad_panel_});
    }
    std::array<const S*, elements> pixels;
    for (int64_t t = 0; t < g_.kernel[0]; ++t, source += elements * source_panels() * source_panel_) {
      const int64_t depth = out_depth + t - g_.pad_begin[0];
      if (depth < 0 || depth >= g_.in[0]) {
        pixels.fill(zeros);
      } else {
        list_pixels(x_ + (image * g_.in[0] + depth) * g_.in[1] * g_.in[2] * g_.in_channels,
                    y - g_.pad_begin[1], x - g_.pad_begin[2], n, g_.in[1], g_.in[2], g_.in_channels, zeros,
                    pixels.data());
      }
      for (int64_t panel = 0; panel < source_panels(); ++panel) {
        const int64_t range = panel % ranges_;
        transforms_.four.input({pixels.data(), panel / ranges_ * inputs_ + range * range_, channels(range),
                                source + panel * source_panel_ + index * range_,
                                source_panels() * source_panel_});
      }
    }
  }

  int64_t channels(int64_t range) const { return std::min(range_, inputs_ - range * range_); }
  int64_t outputs_of(int64_t unit) const { return std::min(width_, outputs_ - unit * width_); }
  // A piece: the sums of a range of source channels and a unit of target channels of a group.
  int64_t range_of(int64_t index) const { return index % ranges_; }
  int64_t unit_of(int64_t index) const { return index / ranges_ % units_; }
  int64_t group_of(int64_t index) const { return index / ranges_ / units_; }
  int64_t each(int64_t index) const { return channels(range_of(index)) * unit_width(unit_of(index)); }
  int64_t unit_width(int64_t unit) const { return outputs_of(unit) > kernel_.lanes ? width_ : kernel_.lanes; }

  // sums[tap of the depth][element][channel of the range][column of the unit] (+)= the products of `count`
  // tiles.
  void multiply(int64_t index, Range some, int64_t count, const float* source, const float* grads,
                float* sums, bool accumulate) const {
    const int64_t range = range_of(index), unit = unit_of(index), group = group_of(index);
    ConvOuter<float> a{};
    a.source_stride = range_;
    a.channels = channels(range);
    a.width = a.out_stride = a.grad_stride = unit_width(unit);
    a.ahead = grads;
    for (int64_t e = some.begin; e < some.end; ++e) {
      const float* const grad = grads + (e * grad_panels() + group * units_ + unit) * grad_panel_;
      for (int64_t depth = 0; depth < g_.kernel[0]; ++depth) {
        const int64_t slot = depth * elements + e;
        const float* const from = source + (slot * source_panels() + group * ranges_ + range) * source_panel_;
        a.out = sums + slot * each(index);
        for (int64_t first = 0; first < count; first += weight_block_pixels<float>) {
          a.source = from + first * range_;
          a.grad = grad + first * a.width;
          a.pixels = std::min(weight_block_pixels<float>, count - first);
          a.accumulate = accumulate || first > 0;
          kernel_.outer(a);
        }
      }
    }
  }

  void finish(int64_t index, float* sums, S* grad_weight, bool accumulate) const {
    const int64_t range = range_of(index), unit = unit_of(index), depths = g_.kernel[0];
    const int64_t size = each(index);
    for (int64_t depth = 0; depth < depths; ++depth) {
      transforms_.grad.weight({sums + depth * elements * size, size, sums + depth * 9 * size, size});
    }
    ConvUnpack<S> u{};
    u.in = sums;
    u.splits = 1;
    u.lanes = outputs_of(unit);
    u.channels = channels(range);
    u.taps = depths * 9;
    u.width = unit_width(unit);
    u.lane_stride = inputs_ * u.taps;
    u.out =
        grad_weight + (group_of(index) * outputs_ + unit * width_) * u.lane_stride + range * range_ * u.taps;
    u.accumulate = accumulate;
    u.stream = inputs_ * g_.out_channels * u.taps * static_cast<int64_t>(sizeof(S)) >= stream_bytes;
    transforms_.grad.unpack(u);
  }

  const ConvGeometry& g_;
  const ConvKernels<float>& kernel_;
  const WinogradTable<S>& transforms_;
  const S* x_;
  const S* grad_y_;
  int64_t inputs_, outputs_;  ///< of a group, as the next two
  int64_t width_, units_;     ///< of target channels
  int64_t ranges_, range_;    ///< of source channels
  int64_t rows_, columns_, tiles_;
  int64_t block_, blocks_;  ///< of tiles
  int64_t grad_panel_, source_panel_;
};

}  // namespace

template <class S>
void winograd_backward_weight(const ConvGeometry& g, const S* x, const S* grad_y, S* grad_weight,
                              float* grad_bias, bool accumulate) {
  WinogradWeightGrad<S>(g, x, grad_y).run(grad_weight, accumulate);
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

#define OPSIN_INSTANTIATE(S) \
  template void winograd_backward_weight(const ConvGeometry&, const S*, const S*, S*, float*, bool);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(BFloat16)
OPSIN_INSTANTIATE(Float16)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
