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
// The gradient of the input is the same with flipped, transposed weights. Every target element is summed in
// an order that no block changes, so results depend neither on the number of threads nor on blocks.
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
#include "conv_plan.h"
#include "conv_winograd_tiles.h"

#include <algorithm>
#include <vector>

#include "cpu/packed_cache.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// A forward convolution, or the gradient of an input seen as one:
//     target(o) = sum over t of source(o - pad + t) * weight(t)
template <class S>
struct Pass {
  int64_t batch, groups, depth_taps;
  const S* source;
  int64_t source_size[3], source_channels;  // of a group
  S* target;
  int64_t target_size[3], target_channels;  // of a group
  int64_t pad[3];
  const S* weight;
  int64_t lane_stride, channel_stride;  // of the weights, by target and by source channel
  const int64_t* slot;                  // of each tap
  const KeptWeight* kept;
  const float* bias;
};

// Elements that set the transforms of a tile apart, so that they fall on different lines of the cache.
constexpr int64_t gap = 16;
// Of a tile of the source.
constexpr int64_t most_elements = 64;
// Transformed source pixels and sums of a block: so many bytes, unless that is less than eight (three of 6 x
// 6 outputs) or more than sixteen register tiles of image tiles, for which the transformed weights would be
// read too often.
constexpr int64_t block_bytes = int64_t{2} << 20;
constexpr int64_t most_block_bytes = int64_t{8} << 20;
constexpr int64_t least_tiles = 8, least_large_tiles = 3, most_tiles = 16;
// Transformed weights that are kept at once.
constexpr int64_t weight_bytes = int64_t{32} << 20;

struct Layout {
  int64_t m, elements, lanes, width;  // elements: of a transformed tile; width: of a unit of target channels
  int64_t rows, columns, tiles;       // of tiles in an image; tiles of all images
  int64_t block, blocks;              // tiles of a block
  int64_t units, units_together;      // units of a group
  int64_t weight_stride, unit_weights;
  int64_t weight_taps;     // taps of the kernel, over all axes
  int64_t chunk_channels;  // source channels whose weights are packed at once
  int64_t source_row, source_stride, plane;
  int64_t product_row, product_stride;

  int64_t chunk() const { return weight_taps * chunk_channels * width; }
};

template <class S>
Layout lay_out(const Pass<S>& pass, int64_t m) {
  const auto& kernel = kernels<float>();
  Layout l{};
  l.m = m;
  l.elements = (l.m + 2) * (l.m + 2);
  l.lanes = kernel.lanes;
  l.width = 2 * kernel.lanes;
  l.rows = ceil_div(pass.target_size[1], l.m);
  l.columns = ceil_div(pass.target_size[2], l.m);
  l.tiles = pass.batch * l.rows * l.columns;
  l.units = ceil_div(pass.target_channels, l.width);
  l.weight_stride = pass.depth_taps * pass.source_channels * l.width + gap;
  l.unit_weights = l.elements * l.weight_stride;
  l.weight_taps = pass.depth_taps * 9;
  l.chunk_channels = std::min(pass.source_channels, std::max<int64_t>(8, 4096 / (l.weight_taps * l.width)));
  l.units_together =
      std::clamp<int64_t>(most_block_bytes / (l.unit_weights * static_cast<int64_t>(sizeof(float))), 1,
                          std::clamp<int64_t>(l.units, 1, 4));
  l.source_row = ceil_div(pass.source_channels, l.lanes) * l.lanes;
  if (l.source_row % 512 == 0) l.source_row += gap;
  l.product_row = l.units_together * l.width;
  const int64_t tiles_bytes = kernel.rows * l.elements * (pass.depth_taps * l.source_row + l.product_row) *
                              static_cast<int64_t>(sizeof(float));
  const int64_t least = l.m == 6 ? least_large_tiles : least_tiles;
  const int64_t tiles = std::min(std::clamp(block_bytes / tiles_bytes, least, most_tiles),
                                 std::max<int64_t>(1, most_block_bytes / tiles_bytes));
  l.blocks = ceil_div(l.tiles, tiles * kernel.rows);
  l.block = l.blocks == 0 ? 0 : ceil_div(ceil_div(l.tiles, l.blocks), kernel.rows) * kernel.rows;
  l.blocks = l.blocks == 0 ? 0 : ceil_div(l.tiles, l.block);
  l.source_stride = l.block * l.source_row + gap;
  l.plane = l.elements * l.source_stride;
  l.product_stride = l.block * l.product_row + gap;
  return l;
}

// What the tasks of a thread use one after the other.
struct Buffers {
  Scratch<float> planes, products, weights, chunk;
  Scratch<const float*> sources;
  Scratch<float*> products_list;
  std::vector<int64_t> held;  // the plane of the source that each of `planes` is the transform of

  Buffers(int64_t depth_taps, const Layout& l, bool transforms_weights)
      : planes(depth_taps * l.plane),
        products(l.elements * l.product_stride),
        weights(transforms_weights ? l.units_together * l.unit_weights : 0),
        chunk(transforms_weights ? l.chunk() : 0),
        sources(l.block * depth_taps),
        products_list(l.block),
        held(static_cast<size_t>(depth_taps)) {}
};

template <class S>
class Task {
 public:
  Task(const Pass<S>& pass, const Layout& l, const WinogradKernels<S>& transforms, const S* zeros, S* unused)
      : pass_(pass), l_(l), transforms_(transforms), zeros_(zeros), unused_(unused) {}

  // Units [unit_begin, unit_end) of one group; `weights` are of the first of them, or null: transformed here.
  void run(int64_t begin, int64_t end, int64_t group, int64_t unit_begin, int64_t unit_end,
           const float* weights, Buffers& b) const {
    const auto& kernel = kernels<float>();
    const int64_t taps = pass_.depth_taps, depths = pass_.source_size[0];
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
        const float* unit_weights = b.weights.get();
        if (weights == nullptr) {
          for (int64_t u = 0; u < together; ++u) {
            transform_weights(group, unit + u, b.chunk.get(), b.weights.get() + u * l_.unit_weights);
          }
        } else {
          unit_weights = weights + (unit - unit_begin) * l_.unit_weights;
        }
        for (int64_t e = 0; e < l_.elements; ++e) {
          a.source_offset = e * l_.source_stride;
          for (int64_t u = 0; u < together; ++u) {
            const int64_t columns = pass_.target_channels - (unit + u) * l_.width;
            a.columns = columns > l_.lanes ? l_.width : l_.lanes;
            a.weight = unit_weights + u * l_.unit_weights + e * l_.weight_stride +
                       tap_begin * pass_.source_channels * a.columns;
            // The weights of the next product.
            const bool last = u + 1 == together, more = !last || e + 1 < l_.elements;
            a.ahead = !more  ? a.weight
                      : last ? unit_weights + (e + 1) * l_.weight_stride
                             : a.weight + l_.unit_weights;
            a.ahead_pixel = more ? 1 : 0;
            a.target_offset = e * l_.product_stride + u * l_.width;
            kernel.tiles(a);
          }
        }
        const int64_t column = unit * l_.width;
        transform_products(begin, end, depth, group * pass_.target_channels + column,
                           std::min(together * l_.width, pass_.target_channels - column), b.products.get());
      }
    }
  }

  // The weights of one unit: [elements][depth taps][source channels][width], the elements weight_stride
  // apart.
  void transform_weights(int64_t group, int64_t unit, float* chunk, float* out) const {
    const int64_t column = unit * l_.width;
    const S* weight = pass_.weight + group * pass_.source_channels * pass_.target_channels * l_.weight_taps +
                      column * pass_.lane_stride;
    ConvPack<float, S> a{};
    a.lane_stride = pass_.lane_stride;
    a.channel_stride = pass_.channel_stride;
    a.lanes = std::min(l_.width, pass_.target_channels - column);
    a.taps = l_.weight_taps;
    a.slot = pass_.slot;
    a.out = chunk;
    a.width = a.lanes > l_.lanes ? l_.width : l_.lanes;
    for (int64_t c = 0; c < pass_.source_channels; c += l_.chunk_channels) {
      a.in = weight + c * pass_.channel_stride;
      a.channels = std::min(l_.chunk_channels, pass_.source_channels - c);
      transforms_.pack(a);
      const int64_t rows = a.channels * a.width;
      for (int64_t d = 0; d < pass_.depth_taps; ++d) {
        transforms_.weight(
            {chunk + d * 9 * rows, rows, out + (d * pass_.source_channels + c) * a.width, l_.weight_stride});
      }
    }
  }

 private:
  // Tile `tile` of all: its image and first target pixel.
  struct Place {
    int64_t image, y, x;
  };
  Place place(int64_t tile) const {
    return {tile / (l_.rows * l_.columns), tile / l_.columns % l_.rows * l_.m, tile % l_.columns * l_.m};
  }

  // The transforms of the source pixels of tiles [begin, end) in one plane.
  void transform_plane(int64_t begin, int64_t end, int64_t group, int64_t depth, float* out) const {
    const int64_t channels = pass_.groups * pass_.source_channels, n = l_.m + 2;
    const int64_t height = pass_.source_size[1], width = pass_.source_size[2];
    const S* source[most_elements];
    for (int64_t tile = begin; tile < end; ++tile, out += l_.source_row) {
      const Place p = place(tile);
      const S* plane = pass_.source + (p.image * pass_.source_size[0] + depth) * height * width * channels +
                       group * pass_.source_channels;
      const int64_t y = p.y - pass_.pad[1], x = p.x - pass_.pad[2];
      list_pixels(plane, y, x, n, height, width, channels, zeros_, source);
      transforms_.input({source, 0, pass_.source_channels, out, l_.source_stride});
    }
  }

  // The targets of tiles [begin, end) in one plane, for some channels.
  void transform_products(int64_t begin, int64_t end, int64_t depth, int64_t channel, int64_t channels,
                          const float* products) const {
    const int64_t all = pass_.groups * pass_.target_channels, m = l_.m;
    const int64_t height = pass_.target_size[1], width = pass_.target_size[2];
    S* target[most_elements];
    for (int64_t tile = begin; tile < end; ++tile, products += l_.product_row) {
      const Place p = place(tile);
      S* plane = pass_.target + (p.image * pass_.target_size[0] + depth) * height * width * all;
      list_pixels(plane, p.y, p.x, m, height, width, all, unused_, target);
      transforms_.output({products, l_.product_stride, channels,
                          pass_.bias == nullptr ? nullptr : pass_.bias + channel, target, channel});
    }
  }

  const Pass<S>& pass_;
  const Layout& l_;
  const WinogradKernels<S>& transforms_;
  const S* zeros_;
  S* unused_;
};

// The weights of groups [group, group + groups) and units [unit, unit + units) of each.
template <class S>
void transform_units(const Layout& l, const Task<S>& task, int64_t group, int64_t groups, int64_t unit,
                     int64_t units, float* out) {
  parallel_for(groups * units, 1, [&](int64_t begin, int64_t end) {
    const Scratch<float> chunk(l.chunk());
    for (int64_t i = begin; i < end; ++i) {
      task.transform_weights(group + i / units, unit + i % units, chunk.get(), out + i * l.unit_weights);
    }
  });
}

// All tasks for the same; null `packed`: each transforms its weights.
template <class S>
void run_units(const Pass<S>& pass, const Layout& l, const Task<S>& task, int64_t group, int64_t groups,
               int64_t unit, int64_t units, int64_t wanted, const float* packed) {
  // Tasks for the same tiles transform the same source: fewer units than go together only where a thread
  // would have none.
  const int64_t shared = l.blocks * groups;
  const int64_t most =
      std::max(ceil_div(units, l.units_together), std::min<int64_t>(units, ceil_div(num_threads(), shared)));
  const int64_t splits = std::clamp<int64_t>(ceil_div(wanted, shared), 1, most);
  int64_t units_each = ceil_div(units, splits);
  if (units_each > l.units_together) units_each = ceil_div(units_each, l.units_together) * l.units_together;
  const int64_t tasks = ceil_div(units, units_each);
  parallel_for(l.blocks * groups * tasks, 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(pass.depth_taps, l, packed == nullptr);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / tasks / groups * l.block, g = i / tasks % groups, u = i % tasks * units_each;
      task.run(first, std::min(first + l.block, l.tiles), group + g, unit + u,
               unit + std::min(u + units_each, units),
               packed == nullptr ? nullptr : packed + (g * units + u) * l.unit_weights, buffers);
    }
  });
}

template <class S>
const WinogradKernels<S>& transforms_of(int64_t m) {
  const WinogradTable<S>& table = winograd_table<S>();
  return m == 2 ? table.two : m == 4 ? table.four : table.six;
}

template <class S>
void run(const Pass<S>& pass, int64_t m, int64_t wanted) {
  const WinogradKernels<S>& transforms = transforms_of<S>(m);
  const Layout l = lay_out(pass, m);
  if (l.tiles == 0 || l.units == 0 || pass.target_size[0] <= 0) return;
  const int64_t channels = pass.groups * pass.source_channels, all = pass.groups * pass.target_channels;
  const Scratch<S> zeros(channels), unused(all);
  std::fill(zeros.get(), zeros.get() + channels, S{});
  const Task<S> task(pass, l, transforms, zeros.get(), unused.get());
  wanted = std::min<int64_t>(wanted, 4 * num_threads());

  if (pass.kept != nullptr) {
    PackKey key{key_of(&transforms), key_of_weight(pass.kept, pass.weight),
                pass.lane_stride,    pass.channel_stride,
                pass.groups,         pass.source_channels,
                pass.target_channels};
    key.insert(key.end(), pass.slot, pass.slot + l.weight_taps);
    const size_t bytes = static_cast<size_t>(pass.groups * l.units * l.unit_weights) * sizeof(float);
    const Ref<PackedBlock> packed = packed_weight(pass.kept, std::move(key), bytes, [&](void* out) {
      transform_units(l, task, 0, pass.groups, 0, l.units, static_cast<float*>(out));
    });
    return run_units(pass, l, task, 0, pass.groups, 0, l.units, wanted,
                     static_cast<const float*>(packed->data()));
  }
  // Weights that are used once are transformed where they are used.
  if (l.blocks == 1 && pass.target_size[0] == 1) {
    return run_units(pass, l, task, 0, pass.groups, 0, l.units, wanted, nullptr);
  }
  const int64_t fitting = std::max<int64_t>(
      1, weight_bytes / (l.unit_weights * static_cast<int64_t>(sizeof(float)) * l.units_together));
  const int64_t rounds = ceil_div(ceil_div(l.units, l.units_together), fitting);
  const int64_t units =
      std::min(l.units, ceil_div(ceil_div(l.units, rounds), l.units_together) * l.units_together);
  const int64_t groups = std::clamp<int64_t>(fitting * l.units_together / l.units, 1, pass.groups);
  const Scratch<float> packed(groups * units * l.unit_weights);
  for (int64_t group = 0; group < pass.groups; group += groups) {
    for (int64_t unit = 0; unit < l.units; unit += units) {
      const int64_t some_groups = std::min(groups, pass.groups - group),
                    some_units = std::min(units, l.units - unit);
      transform_units(l, task, group, some_groups, unit, some_units, packed.get());
      run_units(pass, l, task, group, some_groups, unit, some_units, wanted, packed.get());
    }
  }
}

// The forward product, or the gradient of the input: the convolution of grad_y with the weights transposed
// and their taps reversed.
template <class S>
void run_product(const ConvGeometry& g, Product product, const S* source, const S* weight, const float* bias,
                 S* target) {
  const bool forward = product == Product::kForward;
  const int64_t inputs = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  const int64_t taps = volume(g.kernel);
  std::vector<int64_t> slot(static_cast<size_t>(taps));
  for (int64_t t = 0; t < taps; ++t) slot[static_cast<size_t>(t)] = forward ? t : taps - 1 - t;
  Pass<S> pass{};
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
  pass.slot = slot.data();
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
