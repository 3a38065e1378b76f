// The gradient of the weights of a 1x1 convolution without padding: the product of grad_y, transposed, with
// the pixels of x that the stride leaves, [outputs, pixels] x [pixels, channels].
//
// Both operands have their channels side by side, and neither is transposed: a block of pixels is copied into
// panels, of a few register tiles of outputs and of two vectors of channels, whose rows are as far apart as
// they are wide. Read where they lie, rows would be powers of two apart and share lines of the cache. Tiles
// leave for their places in the gradient. What the next block of pixels reads is fetched meanwhile.
//
// Outputs and channels are divided among tasks, which changes no sum, and so are pixels, by the shape alone;
// the partial sums of these are added in order.
#include "conv_algorithm.h"
#include "conv_fetch_ahead.h"
#include "conv_plan.h"

#include <algorithm>
#include <numeric>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// Elements of a row of the panels that exist at once: those of grad_y are read again and again from the
// second-level cache, those of x once for all of these.
constexpr int64_t most_rows = 256, most_columns = 1024;

struct Range {
  int64_t begin, end;
};

Range share(int64_t total, int64_t parts, int64_t index) {
  return {total * index / parts, total * (index + 1) / parts};
}

template <class T>
class Pointwise {
 public:
  Pointwise(const ConvGeometry& g, const T* x, const T* grad_y)
      : g_(g),
        kernel_(kernels<T>()),
        x_(x),
        grad_y_(grad_y),
        rows_(g.out_channels),
        columns_(g.in_channels),
        pixels_(g.batch * volume(g.out)),
        height_(std::lcm(4 * kernel_.rows, kernel_.lanes)),
        width_(2 * kernel_.lanes),
        block_(weight_block<T>(rows_ * columns_)),
        adjacent_(volume(g.stride) == 1) {}

  int64_t pixels() const { return pixels_; }
  int64_t blocks() const { return ceil_div(pixels_, block_); }
  int64_t panels() const { return ceil_div(rows_, height_); }
  int64_t units() const { return ceil_div(columns_, width_); }
  // Parts of the gradient that repay the copies of their operands.
  int64_t row_parts() const { return ceil_div(rows_, 2 * height_); }
  int64_t column_parts() const { return ceil_div(columns_, 4 * width_); }

  // out[rows][columns] (+)= the sum over some blocks of pixels, of some panels and units.
  void multiply(Range blocks, Range panels, Range units, T* out, bool accumulate) const {
    const int64_t panels_once = std::max<int64_t>(1, most_rows / height_);
    const int64_t units_once = most_columns / width_;
    // Otherwise tasks share the rows of the operands.
    const bool everything =
        panels.end - panels.begin == this->panels() && units.end - units.begin == this->units();
    const Scratch<T> a(std::min(panels_once, panels.end - panels.begin) * panel(height_)),
        b(std::min(units_once, units.end - units.begin) * panel(width_)), edge(height_ * width_);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      FetchAhead<T> ahead(a.get());
      if (everything && block + 1 < blocks.end) {
        ahead.add(grad_y_ + (block + 1) * block_ * rows_, count(block + 1) * rows_);
        if (adjacent_) ahead.add(x_ + (block + 1) * block_ * columns_, count(block + 1) * columns_);
      }
      for (int64_t unit = units.begin; unit < units.end; unit += units_once) {
        const Range some{unit, std::min(unit + units_once, units.end)};
        pack_x(block, some, b.get());
        for (int64_t panel = panels.begin; panel < panels.end; panel += panels_once) {
          const Range few{panel, std::min(panel + panels_once, panels.end)};
          pack_grad(block, few, a.get());
          multiply_panels(few, some, a.get(), b.get(), count(block), out, edge.get(),
                          accumulate || block > blocks.begin, ahead);
        }
      }
    }
  }

 private:
  // Elements from panel to panel: a line of the cache more than they fill, so that they are no power of two
  // apart.
  int64_t panel(int64_t width) const { return width * block_ + line<T>; }
  int64_t count(int64_t block) const { return std::min(block_, pixels_ - block * block_); }

  void pack_grad(int64_t block, Range panels, T* out) const {
    const int64_t row = panels.begin * height_;
    kernel_.panels({grad_y_ + block * block_ * rows_ + row, rows_, count(block),
                    std::min(panels.end * height_, rows_) - row, out, height_, panel(height_)});
  }

  void pack_x(int64_t block, Range units, T* out) const {
    const int64_t column = units.begin * width_, columns = std::min(units.end * width_, columns_) - column;
    const int64_t begin = block * block_, end = begin + count(block);
    // A last panel of half the width has rows of half the length.
    const auto pack = [&](const T* in, int64_t stride, int64_t first, int64_t rows) {
      const int64_t whole = columns - columns % width_, distance = panel(width_);
      if (whole > 0)
        kernel_.panels({in + column, stride, rows, whole, out + first * width_, width_, distance});
      if (whole == columns) return;
      const int64_t last = columns - whole > kernel_.lanes ? width_ : kernel_.lanes;
      kernel_.panels({in + column + whole, stride, rows, columns - whole,
                      out + whole / width_ * distance + first * last, width_, distance});
    };
    if (adjacent_) return pack(x_ + begin * columns_, columns_, 0, end - begin);
    for (int64_t p = begin; p < end;) {
      const int64_t w = p % g_.out[2], some = std::min(g_.out[2] - w, end - p);
      int64_t line = p / g_.out[2];
      const int64_t h = line % g_.out[1];
      line /= g_.out[1];
      const int64_t d = line % g_.out[0], image = line / g_.out[0];
      const int64_t source =
          ((image * g_.in[0] + d * g_.stride[0]) * g_.in[1] + h * g_.stride[1]) * g_.in[2] + w * g_.stride[2];
      pack(x_ + source * columns_, g_.stride[2] * columns_, p - begin, some);
      p += some;
    }
  }

  void multiply_panels(Range panels, Range units, const T* a, const T* b, int64_t pixels, T* out, T* edge,
                       bool accumulate, FetchAhead<T>& ahead) const {
    for (int64_t unit = units.begin; unit < units.end; ++unit, b += panel(width_)) {
      const int64_t column = unit * width_, columns = std::min(width_, columns_ - column);
      ConvOuter<T> o{};
      o.grad = b;
      o.width = columns > kernel_.lanes ? width_ : kernel_.lanes;
      o.pixels = pixels;
      o.source = a;
      for (int64_t i = panels.begin; i < panels.end; ++i, o.source += panel(height_)) {
        T* const to = out + i * height_ * columns_ + column;
        o.channels = std::min(height_, rows_ - i * height_);
        o.source_stride = o.channels > kernel_.lanes ? height_ : kernel_.lanes;
        ahead.next(ceil_div(o.channels, kernel_.rows), kernel_.fetch_pixels, o);
        if (columns == o.width) {
          o.out = to;
          o.out_stride = columns_;
          o.accumulate = accumulate;
          kernel_.outer(o);
          continue;
        }
        o.out = edge;
        o.out_stride = o.width;
        o.accumulate = false;
        kernel_.outer(o);
        for (int64_t r = 0; r < o.channels; ++r) {
          for (int64_t j = 0; j < columns; ++j) {
            T& sum = to[r * columns_ + j];
            sum = accumulate ? sum + edge[r * o.width + j] : edge[r * o.width + j];
          }
        }
      }
    }
  }

  const ConvGeometry& g_;
  const ConvKernels<T>& kernel_;
  const T* x_;
  const T* grad_y_;
  int64_t rows_, columns_, pixels_;
  int64_t height_, width_;  ///< of the panels of grad_y and of x
  int64_t block_;           ///< pixels
  bool adjacent_;           ///< the pixels of x
};

}  // namespace

template <class T>
void pointwise_backward_weight(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight,
                               T* grad_bias, bool accumulate) {
  const Pointwise<T> product(g, x, grad_y);
  const int64_t elements = g.out_channels * g.in_channels, wanted = wanted_tasks(g);
  const int64_t row_parts = product.row_parts(), column_parts = product.column_parts();
  // Partial sums cost little where the operands have many times their size.
  const int64_t operands = product.pixels() * (g.out_channels + g.in_channels);
  const int64_t cheap = std::clamp<int64_t>(operands / (4 * elements), 1, 4);
  const int64_t splits =
      std::min(choose_splits<T>(product.pixels(), elements,
                                std::max(cheap, ceil_div(wanted, row_parts * column_parts))),
               product.blocks());
  const int64_t threads = num_threads();
  const int64_t parts = threads == 1 ? 1 : ceil_div(std::min(wanted, 2 * threads), splits);
  // Each part of the rows copies the columns, and the other way round: the longer side is divided first.
  const bool by_rows = g.out_channels >= g.in_channels;
  int64_t row_tasks = 1, column_tasks = 1;
  if (by_rows) {
    row_tasks = std::min(row_parts, parts);
    column_tasks = std::min(column_parts, ceil_div(parts, row_tasks));
  } else {
    column_tasks = std::min(column_parts, parts);
    row_tasks = std::min(row_parts, ceil_div(parts, column_tasks));
  }
  const Scratch<T> partial(splits == 1 ? 0 : splits * elements);

  parallel_for(splits * row_tasks * column_tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t split = task / (row_tasks * column_tasks);
      product.multiply(share(product.blocks(), splits, split),
                       share(product.panels(), row_tasks, task / column_tasks % row_tasks),
                       share(product.units(), column_tasks, task % column_tasks),
                       splits == 1 ? grad_weight : partial.get() + split * elements,
                       splits == 1 && accumulate);
    }
  });
  if (splits > 1) {
    parallel_for(elements, std::max<int64_t>(1, 32768 / splits), [&](int64_t begin, int64_t end) {
      kernels<T>().sum_rows(
          {partial.get() + begin, elements, splits, end - begin, grad_weight + begin, accumulate});
    });
  }
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

template void pointwise_backward_weight(const ConvGeometry&, const float*, const float*, float*, float*,
                                        bool);
template void pointwise_backward_weight(const ConvGeometry&, const double*, const double*, double*, double*,
                                        bool);

}  // namespace opsin::cpu::conv
