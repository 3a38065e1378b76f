// Pooling: windows of every axis are written out once per call, then rows of pixels (or, for index-driven
// gradients, images) and ranges of channels are shared among the threads. Gradients of averages are computed
// by input pixel, from the windows that cover it, so nothing is ever added from two threads.
#include "pool.h"

#include <algorithm>
#include <vector>

#include <opsin/error.h>

#include "cpu/kernels/conv_table.h"
#include "cpu/kernels/pool_planar_table.h"
#include "cpu/kernels/pool_table.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace {

// Owns the numbers that PoolWindows points to.
class Windows {
 public:
  explicit Windows(const PoolGeometry& g) {
    windows_.channels = g.channels;
    for (int a = 0; a < 3; ++a) {
      auto& axis = windows_.axis[a];
      axis.in = g.in[a];
      axis.out = std::max<int64_t>(g.out[a], 0);
      axis.step = 1;
      axis.kernel = g.kernel[a];
      begin_[a].resize(static_cast<size_t>(axis.out));
      end_[a] = length_[a] = begin_[a];
    }
  }
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  // window(o) sets begin, end and length of window o of an axis; `step` is the distance of its pixels.
  template <class F>
  void fill(int a, int64_t step, F&& window) {
    auto& axis = windows_.axis[a];
    axis.step = step;
    for (int64_t o = 0; o < axis.out; ++o) {
      const auto i = static_cast<size_t>(o);
      window(o, begin_[a][i], end_[a][i], length_[a][i]);
    }
    axis.begin = begin_[a].data();
    axis.end = end_[a].data();
    axis.length = length_[a].data();
  }

  // Finds the windows that cover each input index; needs windows of step 1.
  void invert() {
    for (int a = 0; a < 3; ++a) {
      auto& axis = windows_.axis[a];
      first_[a].resize(static_cast<size_t>(axis.in));
      last_[a] = first_[a];
      int64_t first = 0, last = 0;
      for (int64_t i = 0; i < axis.in; ++i) {
        while (first < axis.out && axis.end[first] <= i) ++first;
        last = std::max(first, last);
        while (last < axis.out && axis.begin[last] <= i) ++last;
        first_[a][static_cast<size_t>(i)] = first;
        last_[a][static_cast<size_t>(i)] = last;
      }
      axis.first = first_[a].data();
      axis.last = last_[a].data();
    }
  }

  /// Finds whether every window has pixels, and they are neighbours.
  void find_dense() {
    windows_.dense = true;
    for (const PoolAxis& axis : windows_.axis) {
      windows_.dense &= axis.step == 1;
      for (int64_t o = 0; o < axis.out; ++o) windows_.dense &= axis.end[o] > axis.begin[o];
    }
  }

  /// Whether every input pixel is in one window.
  bool tile() const {
    for (const PoolAxis& axis : windows_.axis) {
      int64_t end = 0;
      for (int64_t o = 0; o < axis.out; ++o) {
        if (axis.begin[o] != end) return false;
        end = axis.end[o];
      }
      if (end != axis.in) return false;
    }
    return true;
  }

  /// Finds the whole windows of the last axis.
  void find_whole(int64_t stride, bool apart = false) {
    const auto& axis = windows_.axis[2];
    const auto whole = [&](int64_t o) {
      return axis.end[o] - axis.begin[o] == (axis.kernel - 1) * axis.step + 1;
    };
    int64_t low = 0;
    while (low < axis.out && !whole(low)) ++low;
    int64_t high = low;
    while (high < axis.out && whole(high) && axis.begin[high] == axis.begin[low] + (high - low) * stride)
      ++high;
    windows_.stride = stride;
    windows_.low = low;
    windows_.high = high;
    windows_.apart = apart;
  }

  void set_divisor(int64_t divisor) { windows_.divisor = divisor; }
  const PoolWindows& get() const { return windows_; }

 private:
  PoolWindows windows_{};
  std::vector<int64_t> begin_[3], end_[3], length_[3], first_[3], last_[3];
};

void fill_adaptive(Windows& windows, const PoolGeometry& g) {
  for (int a = 0; a < 3; ++a) {
    windows.fill(a, 1, [&](int64_t o, int64_t& begin, int64_t& end, int64_t& length) {
      begin = o * g.in[a] / g.out[a];
      end = ((o + 1) * g.in[a] + g.out[a] - 1) / g.out[a];
      length = end - begin;
    });
  }
}

void fill_max(Windows& windows, const PoolGeometry& g) {
  if (g.adaptive) return fill_adaptive(windows, g);
  for (int a = 0; a < 3; ++a) {
    windows.fill(a, g.dilation[a], [&](int64_t o, int64_t& begin, int64_t& end, int64_t& length) {
      begin = o * g.stride[a] - g.pad_begin[a];
      end = std::min(begin + (g.kernel[a] - 1) * g.dilation[a] + 1, g.in[a]);
      if (begin < 0) begin += (-begin + g.dilation[a] - 1) / g.dilation[a] * g.dilation[a];
      length = g.kernel[a];
    });
  }
}

void fill_avg(Windows& windows, const PoolGeometry& g, bool count_include_pad, int64_t divisor) {
  if (g.adaptive) return fill_adaptive(windows, g);
  for (int a = 0; a < 3; ++a) {
    windows.fill(a, 1, [&](int64_t o, int64_t& begin, int64_t& end, int64_t& length) {
      const int64_t start = o * g.stride[a] - g.pad_begin[a];
      const int64_t stop = std::min(start + g.kernel[a], g.in[a] + g.pad_end[a]);
      begin = std::max<int64_t>(start, 0);
      end = std::min(stop, g.in[a]);
      length = count_include_pad ? stop - start : end - begin;
    });
  }
  windows.set_divisor(divisor);
}

int64_t rows_of(const int64_t (&size)[3]) {
  return std::max<int64_t>(size[0], 0) * std::max<int64_t>(size[1], 0);
}
int64_t volume(const int64_t (&size)[3]) { return rows_of(size) * std::max<int64_t>(size[2], 0); }

using Kernel = void (*)(const PoolPart&);

// Calls the kernel for all of `rows` per image, at most `step` channels at a time; `work` is the cost of one
// channel of a row.
void for_parts(const PoolGeometry& g, int64_t rows, int64_t step, int64_t work, PoolPart part,
               Kernel kernel) {
  const int64_t ranges = (g.channels + step - 1) / step;
  const int64_t each = std::max<int64_t>(1, std::min(step, g.channels) * std::max<int64_t>(1, work));
  parallel_for(g.batch * rows * ranges, std::max<int64_t>(1, 65536 / each), [&](int64_t begin, int64_t end) {
    PoolPart mine = part;
    for (int64_t i = begin; i < end; ++i) {
      mine.image = i / ranges / rows;
      mine.row = i / ranges % rows;
      mine.first = i % ranges * step;
      mine.last = std::min(mine.first + step, g.channels);
      kernel(mine);
    }
  });
}

Kernel max_kernel(DType dtype) {
  const PoolTable& all = OPSIN_ISA_SELECT(pool_table);
  switch (dtype) {
    case kFloat32:
      return all.max_f32;
    case kFloat64:
      return all.max_f64;
    case kFloat16:
      return all.max_f16;
    case kBFloat16:
      return all.max_bf16;
    case kUInt8:
      return all.max_u8;
    case kInt8:
      return all.max_i8;
    case kInt16:
      return all.max_i16;
    case kInt32:
      return all.max_i32;
    case kInt64:
      return all.max_i64;
    default:
      break;
  }
  opsin::detail::raise<TypeError>("max_pool: expected a real dtype, got ", name(dtype));
}

[[noreturn]] void refuse(const char* op, DType dtype) {
  opsin::detail::raise<TypeError>(
      op, ": expected a floating-point dtype (float32, float64, float16, bfloat16), got ", name(dtype));
}

Kernel avg_kernel(DType dtype) {
  const PoolTable& all = OPSIN_ISA_SELECT(pool_table);
  switch (dtype) {
    case kFloat32:
      return all.avg_f32;
    case kFloat64:
      return all.avg_f64;
    case kFloat16:
      return all.avg_f16;
    case kBFloat16:
      return all.avg_bf16;
    default:
      refuse("avg_pool", dtype);
  }
}

const PoolGradients& gradients_of(const char* op, DType dtype) {
  const PoolGradientTable& all = OPSIN_ISA_SELECT(pool_gradient_table);
  switch (dtype) {
    case kFloat32:
      return all.f32;
    case kFloat64:
      return all.f64;
    case kFloat16:
      return all.f16;
    case kBFloat16:
      return all.bf16;
    default:
      refuse(op, dtype);
  }
}

PoolPart part_of(const Windows& windows, const void* in, void* out, PoolPositions positions = {}) {
  return {&windows.get(), in, out, positions.indices, positions.taps, 0, 0, 0, 0};
}

// What the windows of a row of outputs cost per channel.
int64_t row_work(const PoolGeometry& g) { return g.out[2] * volume(g.kernel); }

PoolGeometry planes_of(const PoolGeometry& g) {
  PoolGeometry planes = g;
  planes.batch = g.batch * g.channels;
  planes.channels = 1;
  return planes;
}

int64_t planar_stride(const PoolGeometry& g) {
  return g.adaptive ? g.in[2] / std::max<int64_t>(1, g.out[2]) : g.stride[2];
}

}  // namespace

bool pools_planes(const PoolGeometry& g, DType dtype) {
  if (dtype != kFloat32 || volume(g.in) > INT32_MAX || volume(g.kernel) == 1) return false;
  for (int a = 0; a < 3 && g.adaptive; ++a) {
    if (g.out[a] <= 0 || g.in[a] % g.out[a] != 0) return false;
  }
  // Shorter rows are done faster by the channel.
  return g.out[2] >= 24 || (g.channels <= 4 && g.out[2] >= 8);
}

void max_pool_planes(const PoolGeometry& geometry, const void* x, void* y, PoolPositions positions) {
  const PoolGeometry g = planes_of(geometry);
  Windows windows(g);
  fill_max(windows, g);
  windows.find_whole(planar_stride(g));
  for_parts(g, rows_of(g.out), 1, (row_work(g) + 3) / 4, part_of(windows, x, y, positions),
            OPSIN_ISA_SELECT(pool_planar_table).max);
}

void max_pool_planes_backward(const PoolGeometry& geometry, const void* grad_y, PoolPositions positions,
                              void* grad_x) {
  const PoolGeometry g = planes_of(geometry);
  Windows windows(g);
  fill_max(windows, g);
  bool apart = true;
  for (int a = 0; a < 3 && !g.adaptive; ++a) apart &= g.stride[a] >= g.kernel[a] && g.dilation[a] == 1;
  windows.find_whole(planar_stride(g), apart);
  for_parts(g, 1, 1, volume(g.in), part_of(windows, grad_y, grad_x, positions),
            OPSIN_ISA_SELECT(pool_planar_table).max_backward);
}

void max_pool_planes_gather(const PoolGeometry& geometry, const void* x, PoolPositions positions, void* y) {
  max_pool_gather(planes_of(geometry), kFloat32, x, positions, y);
}

void avg_pool_planes(const PoolGeometry& geometry, bool count_include_pad, int64_t divisor_override,
                     const void* x, void* y) {
  const PoolGeometry g = planes_of(geometry);
  Windows windows(g);
  fill_avg(windows, g, count_include_pad, divisor_override);
  windows.find_whole(planar_stride(g));
  for_parts(g, rows_of(g.out), 1, (row_work(g) + 3) / 4, part_of(windows, x, y),
            OPSIN_ISA_SELECT(pool_planar_table).avg);
}

void avg_pool_planes_backward(const PoolGeometry& geometry, bool count_include_pad, int64_t divisor_override,
                              const void* grad_y, void* grad_x) {
  const PoolGeometry g = planes_of(geometry);
  Windows windows(g);
  fill_avg(windows, g, count_include_pad, divisor_override);
  windows.invert();
  windows.find_whole(planar_stride(g));
  for_parts(g, rows_of(g.in), 1, g.in[2], part_of(windows, grad_y, grad_x),
            OPSIN_ISA_SELECT(pool_planar_table).avg_backward);
}

void max_pool_forward(const PoolGeometry& g, DType dtype, const void* x, void* y, PoolPositions positions) {
  Windows windows(g);
  fill_max(windows, g);
  for_parts(g, rows_of(g.out), kPoolChannels, row_work(g), part_of(windows, x, y, positions),
            max_kernel(dtype));
}

void max_pool_backward(const PoolGeometry& g, DType dtype, const void* grad_y, PoolPositions positions,
                       void* grad_x) {
  const PoolGradients& kernels = gradients_of("max_pool_backward", dtype);
  const Kernel scatter = kernels.scatter;
  Windows windows(g);
  fill_max(windows, g);
  if (positions.taps) windows.find_dense();
  if (windows.get().dense) {
    if (kernels.max_tiles && windows.tile()) {
      return for_parts(g, rows_of(g.out), kPoolChannels, row_work(g),
                       part_of(windows, grad_y, grad_x, positions), kernels.max_tiles);
    }
    // Every pixel asks all its windows whether it is their maximum, which vectors do, or every window adds to
    // one pixel, which they cannot: faster from some size on, measured with AVX2.
    constexpr int64_t kAsked = 8;
    if (volume(g.kernel) <= kAsked) {
      windows.invert();
      return for_parts(g, rows_of(g.in), kPoolChannels, 2 * g.in[2],
                       part_of(windows, grad_y, grad_x, positions), kernels.max);
    }
  }
  // A task is some channels of one image, not fewer than memory is good at.
  const int64_t step = std::max<int64_t>(64, (g.batch * g.channels / 16 + 15) / 16 * 16);
  const int64_t image = volume(g.in) * g.channels, out_image = volume(g.out) * g.channels,
                work = volume(g.in);
  if (dtype == kFloat32 || dtype == kFloat64) {
    return for_parts(g, 1, step, work, part_of(windows, grad_y, grad_x, positions), scatter);
  }
  // 16-bit gradients are added in float32, some images at a time.
  const ConvTable& convert = OPSIN_ISA_SELECT(conv_table);
  const auto narrow = dtype == kFloat16 ? convert.f16.narrow : convert.bf16.narrow;
  const int64_t images =
      std::clamp<int64_t>((int64_t{8} << 20) / std::max<int64_t>(1, image), 1, std::max<int64_t>(1, g.batch));
  const Scratch<float> sums(images * image);
  for (int64_t first = 0; first < g.batch; first += images) {
    PoolGeometry some = g;
    some.batch = std::min(images, g.batch - first);
    PoolPositions from = positions;
    if (from.indices) from.indices += first * out_image;
    if (from.taps) from.taps += first * out_image;
    for_parts(some, 1, step, work,
              part_of(windows, static_cast<const uint16_t*>(grad_y) + first * out_image, sums.get(), from),
              scatter);
    auto* to = static_cast<uint16_t*>(grad_x) + first * image;
    parallel_for(some.batch * image, 32768,
                 [&](int64_t begin, int64_t end) { narrow(sums.get() + begin, to + begin, end - begin); });
  }
}

void max_pool_gather(const PoolGeometry& g, DType dtype, const void* x, PoolPositions positions, void* y) {
  Windows windows(g);
  fill_max(windows, g);
  for_parts(g, rows_of(g.out), kPoolChannels, 4 * g.out[2], part_of(windows, x, y, positions),
            gradients_of("max_pool_gather", dtype).gather);
}

void avg_pool_forward(const PoolGeometry& g, DType dtype, bool count_include_pad, int64_t divisor_override,
                      const void* x, void* y) {
  Windows windows(g);
  fill_avg(windows, g, count_include_pad, divisor_override);
  for_parts(g, rows_of(g.out), kPoolChannels, row_work(g), part_of(windows, x, y), avg_kernel(dtype));
}

void avg_pool_backward(const PoolGeometry& g, DType dtype, bool count_include_pad, int64_t divisor_override,
                       const void* grad_y, void* grad_x) {
  Windows windows(g);
  fill_avg(windows, g, count_include_pad, divisor_override);
  const PoolGradients& kernels = gradients_of("avg_pool_backward", dtype);
  if (kernels.avg_tiles && windows.tile()) {
    return for_parts(g, rows_of(g.out), kPoolChannels, row_work(g), part_of(windows, grad_y, grad_x),
                     kernels.avg_tiles);
  }
  windows.invert();
  const int64_t taps = std::max<int64_t>(1, 2 * volume(g.out) / std::max<int64_t>(1, volume(g.in)));
  for_parts(g, rows_of(g.in), kPoolChannels, g.in[2] * taps, part_of(windows, grad_y, grad_x), kernels.avg);
}

}  // namespace opsin::cpu
