// The gradient of the weights of a 1x1 convolution without padding: the product of grad_y, transposed, with
// the pixels of x that the stride leaves, [outputs, pixels] x [pixels, channels], or the other way round
// where that leaves fewer lanes of vectors empty.
//
// Both operands have their channels side by side, and neither is transposed. Register tiles read them where
// they lie, or a block of pixels is copied into panels, of a few register tiles of rows and of two vectors of
// columns: where pixels are apart or share lines of the cache, and what fills no vector. What the next block
// of pixels reads is fetched meanwhile.
//
// Rows and columns are divided among tasks, which changes no sum, and so are pixels, by the shape alone; the
// partial sums of these are added in order.
#include "conv_algorithm.h"
#include "conv_fetch_ahead.h"
#include "conv_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

// Elements of a row of the panels that exist at once: those of the rows are read again and again from the
// second-level cache, those of the columns once for all of these.
constexpr int64_t most_rows = 256, most_columns = 1024;

struct Range {
  int64_t begin, end;
};

Range share(int64_t total, int64_t parts, int64_t index) {
  return {total * index / parts, total * (index + 1) / parts};
}

template <class T>
struct Operand {
  const T* data;  ///< [pixels][channels]
  int64_t channels;
  bool adjacent;          ///< the pixels
  bool in_place = false;  ///< tiles read it where it lies
};

template <class T>
class Pointwise {
 public:
  Pointwise(const ConvGeometry& g, const T* x, const T* grad_y)
      : g_(g),
        kernel_(kernels<T>()),
        turned_(turns(g)),
        a_{grad_y, g.out_channels, true},
        b_{x, g.in_channels, volume(g.stride) == 1},
        pixels_(g.batch * volume(g.out)),
        width_(2 * kernel_.lanes),
        block_(weight_block<T>(g.out_channels * g.in_channels)) {
    if (turned_) std::swap(a_, b_);
    a_.in_place = reads_in_place(a_);
    b_.in_place = reads_in_place(b_);
    stride_ = vectors(b_.channels) * kernel_.lanes;
    // Panels of even shares.
    const int64_t most = std::lcm(4 * kernel_.rows, kernel_.lanes);
    height_ = vectors(ceil_div(rows(), ceil_div(rows(), most))) * kernel_.lanes;
    if (b_.in_place) whole_ = stride_ == b_.channels ? units() : b_.channels / width_;
  }

  /// Whether rows are inputs and columns outputs.
  bool turned() const { return turned_; }
  int64_t rows() const { return a_.channels; }
  int64_t columns() const { return b_.channels; }
  /// Columns of the sums, in whole vectors: [rows][stride] or, if turned, panels of them one after the other.
  int64_t stride() const { return stride_; }
  int64_t pixels() const { return pixels_; }
  int64_t blocks() const { return ceil_div(pixels_, block_); }
  int64_t panels() const { return ceil_div(rows(), height_); }
  int64_t units() const { return ceil_div(columns(), width_); }
  // Parts of the sums that repay the copies of their operands.
  int64_t row_parts() const { return ceil_div(rows(), 2 * height_); }
  int64_t column_parts() const { return ceil_div(columns(), 4 * width_); }

  // out (+)= the sum over some blocks of pixels, of some panels and units.
  void multiply(Range blocks, Range panels, Range units, T* out, bool accumulate) const {
    const int64_t panels_once = std::max<int64_t>(1, most_rows / height_);
    const int64_t units_once = most_columns / width_;
    // Otherwise tasks share the rows of the operands.
    const bool everything =
        panels.end - panels.begin == this->panels() && units.end - units.begin == this->units();
    const int64_t copied_panels = a_.in_place ? 0 : std::min(panels_once, panels.end - panels.begin);
    const int64_t copied_units = std::min(units_once, units.end - std::max(units.begin, whole_));
    const Scratch<T> a(copied_panels * panel(height_)), b(copied_units * panel(width_));
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      // Read where nothing is left to fetch: what is in the first-level cache.
      FetchAhead<T> ahead(a_.in_place ? a_.data + block * block_ * rows() : a.get());
      if (everything && block + 1 < blocks.end) {
        for (const Operand<T>& o : {a_, b_}) {
          if (o.adjacent)
            ahead.add(o.data + (block + 1) * block_ * o.channels, count(block + 1) * o.channels);
        }
      }
      for (int64_t unit = units.begin; unit < units.end; unit += units_once) {
        const Range some{unit, std::min(unit + units_once, units.end)};
        pack(b_, block, {std::max(unit, whole_), some.end}, width_, b.get());
        for (int64_t panel = panels.begin; panel < panels.end; panel += panels_once) {
          const Range few{panel, std::min(panel + panels_once, panels.end)};
          if (!a_.in_place) pack(a_, block, few, height_, a.get());
          multiply_panels(block, few, some, a.get(), b.get(), out, accumulate || block > blocks.begin, ahead);
        }
      }
    }
  }

 private:
  bool turns(const ConvGeometry& g) const {
    return g.in_channels * vectors(g.out_channels) < g.out_channels * vectors(g.in_channels);
  }
  // Not where so many bytes from pixel to pixel would have them share a few sets of the caches. Tiles of few
  // rows come so soon to the next pixel that a block has to stay in the first-level cache: measured with
  // AVX2.
  bool reads_in_place(const Operand<T>& o) const {
    constexpr auto size = static_cast<int64_t>(sizeof(T));
    const bool stays = kernel_.rows > 8 || (g_.in_channels + g_.out_channels) * size <= 512;
    return o.adjacent && stays && o.channels * size % 2048 != 0;
  }
  int64_t vectors(int64_t channels) const { return ceil_div(channels, kernel_.lanes); }
  // Elements from panel to panel: a line of the cache more than they fill, so that they are no power of two
  // apart.
  int64_t panel(int64_t width) const { return width * block_ + line<T>; }
  int64_t count(int64_t block) const { return std::min(block_, pixels_ - block * block_); }

  void pack(const Operand<T>& from, int64_t block, Range panels, int64_t width, T* out) const {
    if (panels.begin >= panels.end) return;
    const int64_t column = panels.begin * width;
    const int64_t columns = std::min(panels.end * width, from.channels) - column;
    const int64_t begin = block * block_, end = begin + count(block), distance = panel(width);
    // The rows of a last panel are as long as it needs.
    const auto copy = [&](const T* in, int64_t stride, int64_t first, int64_t rows) {
      const int64_t whole = columns - columns % width;
      if (whole > 0) kernel_.panels({in + column, stride, rows, whole, out + first * width, width, distance});
      if (whole == columns) return;
      const int64_t last = vectors(columns - whole) * kernel_.lanes;
      kernel_.panels({in + column + whole, stride, rows, columns - whole,
                      out + whole / width * distance + first * last, last, distance});
    };
    if (from.adjacent) return copy(from.data + begin * from.channels, from.channels, 0, end - begin);
    for (int64_t p = begin; p < end;) {
      const int64_t w = p % g_.out[2], some = std::min(g_.out[2] - w, end - p);
      int64_t line = p / g_.out[2];
      const int64_t h = line % g_.out[1];
      line /= g_.out[1];
      const int64_t d = line % g_.out[0], image = line / g_.out[0];
      const int64_t source =
          ((image * g_.in[0] + d * g_.stride[0]) * g_.in[1] + h * g_.stride[1]) * g_.in[2] + w * g_.stride[2];
      copy(from.data + source * from.channels, g_.stride[2] * from.channels, p - begin, some);
      p += some;
    }
  }

  void multiply_panels(int64_t block, Range panels, Range units, const T* a, const T* b, T* out,
                       bool accumulate, FetchAhead<T>& ahead) const {
    for (int64_t unit = units.begin; unit < units.end; ++unit) {
      const int64_t column = unit * width_;
      ConvOuter<T> o{};
      o.width = std::min(width_, stride_ - column);
      o.pixels = count(block);
      o.out_stride = turned_ ? o.width : stride_;
      o.accumulate = accumulate;
      if (unit < whole_) {
        o.grad = b_.data + block * block_ * columns() + column;
        o.grad_stride = columns();
      } else {
        o.grad = b + (unit - std::max(units.begin, whole_)) * panel(width_);
        o.grad_stride = o.width * kernel_.step;
      }
      for (int64_t i = panels.begin; i < panels.end; ++i) {
        const int64_t row = i * height_;
        o.channels = std::min(height_, rows() - row);
        o.out = out + (turned_ ? column * rows() : column) + row * o.out_stride;
        if (a_.in_place) {
          o.source = a_.data + block * block_ * rows() + row;
          o.source_stride = rows();
        } else {
          o.source = a + (i - panels.begin) * panel(height_);
          o.source_stride = vectors(o.channels) * kernel_.lanes;
        }
        ahead.next(ceil_div(o.channels, kernel_.rows), kernel_.fetch_pixels, o);
        kernel_.outer(o);
      }
    }
  }

  const ConvGeometry& g_;
  const ConvKernels<T>& kernel_;
  bool turned_;
  Operand<T> a_, b_;  ///< the rows and the columns of the sums
  int64_t pixels_;
  int64_t height_, width_;  ///< of the panels of rows and of columns
  int64_t block_;           ///< pixels
  int64_t stride_;
  int64_t whole_ = 0;  ///< units of columns that are read in place
};

// grad_weight (+)= the sum over all splits.
template <class T>
void merge(const Pointwise<T>& product, int64_t splits, const T* sums, T* grad_weight, bool accumulate) {
  const auto& kernel = kernels<T>();
  const int64_t rows = product.rows(), columns = product.columns(), stride = product.stride();
  if (product.turned()) {
    const int64_t width = 2 * kernel.lanes, unit_size = rows * width;
    return parallel_for(product.units(), std::max<int64_t>(1, 32768 / (splits * unit_size)),
                        [&](int64_t begin, int64_t end) {
                          for (int64_t unit = begin; unit < end; ++unit) {
                            ConvUnpack<T> u{};
                            u.in = sums + unit * unit_size;
                            u.splits = splits;
                            u.split_stride = rows * stride;
                            u.width = std::min(width, stride - unit * width);
                            u.lanes = std::min(width, columns - unit * width);
                            u.channels = rows;
                            u.taps = 1;
                            u.out = grad_weight + unit * unit_size;
                            u.lane_stride = rows;
                            u.accumulate = accumulate;
                            kernel.unpack(u);
                          }
                        });
  }
  parallel_for(rows, std::max<int64_t>(1, 32768 / (splits * stride)), [&](int64_t begin, int64_t end) {
    // Without gaps between them, rows are one.
    const int64_t together = stride == columns ? end - begin : 1;
    for (int64_t row = begin; row < end; row += together) {
      kernel.sum_rows({sums + row * stride, rows * stride, splits, together * columns,
                       grad_weight + row * columns, accumulate});
    }
  });
}

}  // namespace

template <class T>
void pointwise_backward_weight(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight,
                               T* grad_bias, bool accumulate) {
  const Pointwise<T> product(g, x, grad_y);
  const int64_t elements = product.rows() * product.stride(), wanted = wanted_tasks(g);
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
  int64_t row_tasks = 1, column_tasks = 1;
  if (product.rows() >= product.columns()) {
    row_tasks = std::min(row_parts, parts);
    column_tasks = std::min(column_parts, ceil_div(parts, row_tasks));
  } else {
    column_tasks = std::min(column_parts, parts);
    row_tasks = std::min(row_parts, ceil_div(parts, column_tasks));
  }
  const bool direct = splits == 1 && !product.turned() && product.stride() == product.columns();
  const Scratch<T> partial(direct ? 0 : splits * elements);
  T* const sums = direct ? grad_weight : partial.get();

  parallel_for(splits * row_tasks * column_tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t split = task / (row_tasks * column_tasks);
      product.multiply(share(product.blocks(), splits, split),
                       share(product.panels(), row_tasks, task / column_tasks % row_tasks),
                       share(product.units(), column_tasks, task % column_tasks), sums + split * elements,
                       direct && accumulate);
    }
  });
  if (!direct) merge(product, splits, sums, grad_weight, accumulate);
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

template void pointwise_backward_weight(const ConvGeometry&, const float*, const float*, float*, float*,
                                        bool);
template void pointwise_backward_weight(const ConvGeometry&, const double*, const double*, double*, double*,
                                        bool);

}  // namespace opsin::cpu::conv
