// Winograd's minimal filtering: F(2x2, 3x3), F(4x4, 3x3) and F(6x6, 3x3) over the last two axes, summed over
// the taps of the depth (S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast
// Algorithms for Convolutional Neural Networks", CVPR 2016). A tile of m x m outputs is
//
//     y = A^T [ sum over channels c of (G w_c G^T) * (B^T x_c B) ] A              * element by element
//
// which takes (m + 2)^2 products instead of 9 m^2: 2.25, 4 or 5.06 times fewer. The source pixels of a block
// of tiles are transformed (B), each of the (m + 2)^2 elements is a matrix product [tiles, C] x [C, K] by the
// kernel of the direct convolution, and the sums are transformed back (A) while they are in the cache:
//
//     for each block of tiles and range of target channels, in parallel
//       for each plane of the depth
//         transform the source planes that the taps of the depth read, each once
//         for each few units (pairs of vectors) of target channels
//           for each element: products of all tiles, summed over channels and taps of the depth in registers
//           transform the sums, add the bias
//
// Weights that are transformed for one call and would fill the caches go another way,
// conv_winograd_large.cpp. The gradient of the input is the same with flipped, transposed weights. Every
// target element is summed in an order that no block changes, so results depend neither on the number of
// threads nor on blocks.
//
// Accuracy. The points of F(4x4) are 0, +-5/8, +-3/2 and infinity, oneDNN's: of all pairs of eighths up to 3
// none has a smaller error (13/8 for 3/2 has the same), 2.2 times less than Lavin's 0, +-1, +-2; that
// points in reciprocal pairs cancel is due to S. A. Alam et al., "Winograd Convolution for Deep Neural
// Networks: Efficient Point Selection" (2022), the analysis to B. Barabasz et al., "Error Analysis and
// Improving the Accuracy of Winograd Convolution for Deep Neural Networks" (2020). Their powers and products
// are exact. An element of y passes at most C * kD + 32 roundings, each of relative size u = 2^-24, of terms
// bounded by |A^T| [(|G| |w| |G^T|) * (|B^T| |x| |B|)] |A|. So, to first order in u and before a bias is
// added, with the maximum over the source pixels of the tile,
//
//     |y - exact| <= (C * kD + 32) u kappa sum over c of max |x_c| * (sum over taps of |w_c|),
//
//     kappa = (max over outputs o and taps t of sum over i, j of |A^T_oi| |G_it| |B^T_ij|)^2 = 16 for m = 2,
//                                                                             175.5 for m = 4, 1565 for m
//                                                                             = 6.
//
// This is the worst case. On random operands without a mean, the root mean square of the error is 0.6 to 0.8
// times that of the direct kernel for m = 2, since sums are nine times shorter, and 1.7 to 2.6 times for m =
// 4; on operands with a mean both are more accurate than the direct kernel. m = 6 is for 16-bit floats alone.
// These are widened as they are read, all else is float32, and the result with its bias is rounded once: the
// error above, for m = 6 on random operands 9 times that of the direct kernel, adds less than a hundredth to
// the root mean square of the rounding to bfloat16. The points 0, +-1/2, +-1, +-2 have the smallest kappa of
// all triples of pairs of eighths up to 3. A value that is infinite or NaN reaches its whole tile.
#include "conv_algorithm.h"
#include "conv_winograd_pass.h"

#include <algorithm>
#include <vector>

#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// Transformed source pixels and sums of a block: so many bytes, unless that is less than eight (three of 6 x
// 6 outputs) or more than sixteen register tiles of image tiles, for which the transformed weights would be
// read too often.
constexpr int64_t block_bytes = int64_t{2} << 20;
constexpr int64_t most_block_bytes = int64_t{8} << 20;
constexpr int64_t least_tiles = 8, least_large_tiles = 3, most_tiles = 16;
// Transformed weights of a tap of the depth, beyond which they are made where they are multiplied.
constexpr int64_t weight_bytes = int64_t{2} << 20;

// Of the blocks of tiles, whose planes of the source each thread transforms for itself.
struct Layout {
  int64_t block, blocks;   // tiles of a block
  int64_t units_together;  // units of a group
  int64_t weight_stride, unit_weights;
  int64_t source_row, source_stride, plane;
  int64_t product_row, product_stride;
};

template <class S>
Layout lay_out(const WinogradSteps<S>& steps) {
  const WinogradPass<S>& pass = steps.pass;
  const auto& kernel = kernels<float>();
  constexpr int64_t item = sizeof(float);
  Layout l{};
  l.weight_stride = pass.depth_taps * pass.source_channels * steps.width + steps.gap;
  l.unit_weights = steps.elements * l.weight_stride;
  l.units_together = std::clamp<int64_t>(most_block_bytes / (l.unit_weights * item), 1,
                                         std::clamp<int64_t>(steps.units, 1, 4));
  l.source_row = ceil_div(pass.source_channels, steps.lanes) * steps.lanes;
  if (l.source_row % 512 == 0) l.source_row += steps.gap;
  l.product_row = l.units_together * steps.width;
  const int64_t tiles_bytes =
      kernel.rows * steps.elements * (pass.depth_taps * l.source_row + l.product_row) * item;
  const int64_t least = steps.m == 6 ? least_large_tiles : least_tiles;
  const int64_t tiles = std::min(std::clamp(block_bytes / tiles_bytes, least, most_tiles),
                                 std::max<int64_t>(1, most_block_bytes / tiles_bytes));
  l.blocks = ceil_div(steps.tiles, tiles * kernel.rows);
  l.block = ceil_div(ceil_div(steps.tiles, l.blocks), kernel.rows) * kernel.rows;
  l.blocks = ceil_div(steps.tiles, l.block);
  l.source_stride = l.block * l.source_row + steps.gap;
  l.plane = steps.elements * l.source_stride;
  l.product_stride = l.block * l.product_row + steps.gap;
  return l;
}

// What the tasks of a thread use one after the other.
struct Buffers {
  Scratch<float> planes, products;
  Scratch<const float*> sources;
  Scratch<float*> products_list;
  std::vector<int64_t> held;  // the plane of the source that each of `planes` is the transform of

  Buffers(int64_t depth_taps, int64_t elements, const Layout& l)
      : planes(depth_taps * l.plane),
        products(elements * l.product_stride),
        sources(l.block * depth_taps),
        products_list(l.block),
        held(static_cast<size_t>(depth_taps)) {}
};

template <class S>
class Task {
 public:
  Task(const WinogradSteps<S>& steps, const Layout& l) : steps_(steps), pass_(steps.pass), l_(l) {}

  // Units [unit_begin, unit_end) of one group; `weights` are of the first of them.
  void run(int64_t begin, int64_t end, int64_t group, int64_t unit_begin, int64_t unit_end,
           const float* weights, Buffers& b) const {
    const auto& kernel = kernels<float>();
    const int64_t taps = pass_.depth_taps, depths = pass_.source_size[0], width = steps_.width;
    std::fill(b.held.begin(), b.held.end(), int64_t{-1});
    for (int64_t i = 0; i < l_.block; ++i) b.products_list.get()[i] = b.products.get() + i * l_.product_row;
    for (int64_t depth = 0; depth < pass_.target_size[0]; ++depth) {
      const int64_t first = depth - pass_.pad[0];
      const int64_t tap_begin = std::clamp<int64_t>(-first, 0, taps),
                    tap_end = std::clamp<int64_t>(depths - first, tap_begin, taps);
      const int64_t used = tap_end - tap_begin;
      for (int64_t t = tap_begin; t < tap_end; ++t) {
        const int64_t slot = (first + t) % taps;
        float* plane = b.planes.get() + slot * l_.plane;
        if (b.held[static_cast<size_t>(slot)] != first + t) {
          transform_plane(begin, end, group, first + t, plane);
          b.held[static_cast<size_t>(slot)] = first + t;
        }
        for (int64_t i = 0; i < end - begin; ++i) {
          b.sources.get()[(i / kernel.rows * used + t - tap_begin) * kernel.rows + i % kernel.rows] =
              plane + i * l_.source_row;
        }
      }
      ConvTiles<float> a{};
      a.source = b.sources.get();
      a.target = b.products_list.get();
      a.taps = used;
      a.channels = pass_.source_channels;
      a.pixels = end - begin;
      for (int64_t unit = unit_begin; unit < unit_end; unit += l_.units_together) {
        const int64_t together = std::min(l_.units_together, unit_end - unit);
        const float* unit_weights = weights + (unit - unit_begin) * l_.unit_weights;
        for (int64_t e = 0; e < steps_.elements; ++e) {
          a.source_offset = e * l_.source_stride;
          for (int64_t u = 0; u < together; ++u) {
            a.columns = steps_.weight_columns(unit + u);
            a.weight = unit_weights + u * l_.unit_weights + e * l_.weight_stride +
                       tap_begin * pass_.source_channels * a.columns;
            // The weights of the next product.
            const bool last = u + 1 == together, more = !last || e + 1 < steps_.elements;
            a.ahead = !more  ? a.weight
                      : last ? unit_weights + (e + 1) * l_.weight_stride
                             : a.weight + l_.unit_weights;
            a.ahead_pixel = more ? 1 : 0;
            a.target_offset = e * l_.product_stride + u * width;
            kernel.tiles(a);
          }
        }
        const int64_t column = unit * width;
        steps_.transform_products(begin, end, depth, group * pass_.target_channels + column,
                                  std::min(together * width, pass_.target_channels - column),
                                  b.products.get(), l_.product_row, l_.product_stride);
      }
    }
  }

 private:
  // The transforms of the source pixels of tiles [begin, end) in one plane.
  void transform_plane(int64_t begin, int64_t end, int64_t group, int64_t depth, float* out) const {
    const S* pixels[WinogradSteps<S>::most_elements];
    for (int64_t tile = begin; tile < end; ++tile, out += l_.source_row) {
      steps_.list_source(tile, depth, group, pixels);
      steps_.transforms.input({pixels, 0, pass_.source_channels, out, l_.source_stride});
    }
  }

  const WinogradSteps<S>& steps_;
  const WinogradPass<S>& pass_;
  const Layout& l_;
};

// The weights of all units of all groups.
template <class S>
void transform_units(const WinogradSteps<S>& steps, const Layout& l, float* out) {
  const WinogradPass<S>& pass = steps.pass;
  parallel_for(pass.groups * steps.units, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> chunk(steps.chunk(pass.depth_taps));
    for (int64_t i = begin; i < end; ++i) {
      steps.transform_weights(i / steps.units, i % steps.units, 0, pass.depth_taps, 0, pass.source_channels,
                              chunk.get(), out + i * l.unit_weights, l.weight_stride);
    }
  });
}

template <class S>
void run_units(const WinogradSteps<S>& steps, const Layout& l, int64_t wanted, const float* packed) {
  const WinogradPass<S>& pass = steps.pass;
  const Task<S> task(steps, l);
  // Tasks for the same tiles transform the same source: fewer units than go together only where a thread
  // would have none.
  const int64_t shared = l.blocks * pass.groups, units = steps.units;
  const int64_t most =
      std::max(ceil_div(units, l.units_together), std::min<int64_t>(units, ceil_div(num_threads(), shared)));
  const int64_t splits =
      std::clamp<int64_t>(ceil_div(std::min<int64_t>(wanted, 4 * num_threads()), shared), 1, most);
  int64_t units_each = ceil_div(units, splits);
  if (units_each > l.units_together) units_each = ceil_div(units_each, l.units_together) * l.units_together;
  const int64_t tasks = ceil_div(units, units_each);
  parallel_for(shared * tasks, 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(pass.depth_taps, steps.elements, l);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / tasks / pass.groups * l.block, group = i / tasks % pass.groups,
                    unit = i % tasks * units_each;
      task.run(first, std::min(first + l.block, steps.tiles), group, unit, std::min(unit + units_each, units),
               packed + (group * units + unit) * l.unit_weights, buffers);
    }
  });
}

template <class S>
const WinogradKernels<S>& transforms_of(int64_t m) {
  const WinogradTable<S>& table = winograd_table<S>();
  return m == 2 ? table.two : m == 4 ? table.four : table.six;
}

template <class S>
void run(const WinogradPass<S>& pass, int64_t m, int64_t wanted) {
  const WinogradSteps<S> steps(pass, transforms_of<S>(m));
  if (steps.tiles == 0 || steps.units == 0 || pass.target_size[0] <= 0) return;
  const Layout l = lay_out(steps);
  const int64_t weights = pass.groups * steps.units * l.unit_weights;
  const int64_t bytes = weights * static_cast<int64_t>(sizeof(float));
  if (pass.kept != nullptr) {
    const PackKey key{key_of(&steps.transforms),
                      key_of_weight(pass.kept, pass.weight),
                      pass.lane_stride,
                      pass.channel_stride,
                      pass.groups,
                      pass.source_channels,
                      pass.target_channels,
                      pass.depth_taps,
                      pass.flipped};
    const Ref<PackedBlock> packed = packed_weight(pass.kept, key, static_cast<size_t>(bytes), [&](void* out) {
      transform_units(steps, l, static_cast<float*>(out));
    });
    return run_units(steps, l, wanted, static_cast<const float*>(packed->data()));
  }
  if (bytes > weight_bytes * pass.depth_taps) return winograd_of_large_weights(steps);
  const Scratch<float> packed(weights);
  transform_units(steps, l, packed.get());
  run_units(steps, l, wanted, packed.get());
}

// The forward product, or the gradient of the input: the convolution of grad_y with the weights transposed
// and their taps reversed.
template <class S>
void run_product(const ConvGeometry& g, Product product, const S* source, const S* weight, const float* bias,
                 S* target) {
  const bool forward = product == Product::kForward;
  const int64_t inputs = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  const int64_t taps = volume(g.kernel);
  WinogradPass<S> pass{};
  pass.batch = g.batch;
  pass.groups = g.groups;
  pass.depth_taps = g.kernel[0];
  pass.source = source;
  pass.source_channels = forward ? inputs : outputs;
  pass.target = target;
  pass.target_channels = forward ? outputs : inputs;
  for (int a = 0; a < 3; ++a) {
    const int64_t out = std::max<int64_t>(g.out[a], 0);
    pass.source_size[a] = forward ? g.in[a] : out;
    pass.target_size[a] = forward ? out : g.in[a];
    pass.pad[a] = forward ? g.pad_begin[a] : g.kernel[a] - 1 - g.pad_begin[a];
  }
  pass.weight = weight;
  pass.lane_stride = forward ? inputs * taps : taps;
  pass.channel_stride = forward ? taps : inputs * taps;
  pass.flipped = !forward;
  pass.kept = g.weight;
  pass.bias = bias;
  run(pass, winograd_tile(g, dtype_of<S>, product), wanted_tasks(g));
}

}  // namespace

bool winograd_fits(const ConvGeometry& g, DType dtype) {
  bool fits = dtype != kFloat64;
  for (int a = 0; a < 3; ++a) {
    fits = fits && g.stride[a] == 1 && g.dilation[a] == 1 && (a == 0 || g.kernel[a] == 3);
  }
  return fits;
}

const char* winograd_needs() {
  return "needs a kernel that ends in 3x3, stride 1, dilation 1 and float32, float16 or bfloat16";
}

template <class S>
void winograd_forward(const ConvGeometry& g, const S* x, const S* weight, const float* bias, S* y) {
  run_product(g, Product::kForward, x, weight, bias, y);
}

template <class S>
void winograd_backward_input(const ConvGeometry& g, const S* grad_y, const S* weight, S* grad_x) {
  run_product<S>(g, Product::kBackwardInput, grad_y, weight, nullptr, grad_x);
}

#define OPSIN_INSTANTIATE(S)                                                                 \
  template void winograd_forward(const ConvGeometry&, const S*, const S*, const float*, S*); \
  template void winograd_backward_input(const ConvGeometry&, const S*, const S*, S*);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(BFloat16)
OPSIN_INSTANTIATE(Float16)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
