// Convolution as a matrix product with explicit copies of the windows ("im2col"): [pixels, taps * channels]
// of one group, of so many pixels and taps at a time that they stay under im2col_bytes.
#include "conv_algorithm.h"
#include "conv_plan.h"

#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

/// The windows of a convolution: `columns` channels of a group in each tap.
struct Windows {
  const ConvGeometry& g;
  int64_t columns, rows, taps, pixels;  ///< channels in and out of a group, taps, pixels of the output
  int64_t taps_at_once, pixels_at_once;

  Windows(const ConvGeometry& geometry, int64_t element)
      : g(geometry),
        columns(g.in_channels / g.groups),
        rows(g.out_channels / g.groups),
        taps(volume(g.kernel)),
        pixels(g.batch * volume(g.out)) {
    const int64_t elements = im2col_bytes / element;
    taps_at_once = std::clamp<int64_t>(elements / columns, 1, taps);
    pixels_at_once = std::clamp<int64_t>(elements / (columns * taps_at_once), 1, pixels);
  }

  /// Calls run(first tap, taps, first pixel, pixels).
  template <class F>
  void for_blocks(F&& run) const {
    for (int64_t pixel = 0; pixel < pixels; pixel += pixels_at_once) {
      for (int64_t tap = 0; tap < taps; tap += taps_at_once) {
        run(tap, std::min(taps_at_once, taps - tap), pixel, std::min(pixels_at_once, pixels - pixel));
      }
    }
  }

  /// Calls visit(pixel, tap, position in the input or -1) for pixels [begin, end) and taps [first, last).
  template <class F>
  void for_positions(int64_t begin, int64_t end, int64_t first, int64_t last, F&& visit) const {
    for (int64_t p = begin; p < end; ++p) {
      int64_t origin[3], rest = p;
      for (int a = 2; a >= 0; --a) {
        origin[a] = rest % g.out[a] * g.stride[a] - g.pad_begin[a];
        rest /= g.out[a];
      }
      for (int64_t t = first; t < last; ++t) {
        const int64_t tap[3] = {t / (g.kernel[1] * g.kernel[2]), t / g.kernel[2] % g.kernel[1],
                                t % g.kernel[2]};
        int64_t position = rest;
        bool inside = true;
        for (int a = 0; a < 3; ++a) {
          const int64_t at = origin[a] + tap[a] * g.dilation[a];
          inside &= at >= 0 && at < g.in[a];
          position = position * g.in[a] + at;
        }
        visit(p, t, inside ? position : -1);
      }
    }
  }
};

template <class T>
void multiply(const GemmParams& params) {
  std::is_same_v<T, float> ? gemm_f32(params) : gemm_f64(params);
}

/// [K][C][taps] to [K][taps][C], or the way back.
template <class T>
void exchange(const T* in, int64_t outer, int64_t rows, int64_t columns, T* out, bool accumulate) {
  parallel_for(outer, std::max<int64_t>(1, 32768 / (rows * columns)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * rows * columns; i < end * rows * columns; i += rows * columns) {
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          const T value = in[i + r * columns + c];
          T& to = out[i + c * rows + r];
          to = accumulate ? to + value : value;
        }
      }
    }
  });
}

/// windows[p][t][c] = x at tap t of pixel p, zeros outside.
template <class T>
void copy_windows(const Windows& w, const T* x, int64_t tap, int64_t taps, int64_t pixel, int64_t pixels,
                  T* windows) {
  parallel_for(pixels, std::max<int64_t>(1, 32768 / (taps * w.columns)), [&](int64_t begin, int64_t end) {
    T* to = windows + begin * taps * w.columns;
    w.for_positions(pixel + begin, pixel + end, tap, tap + taps, [&](int64_t, int64_t, int64_t position) {
      if (position < 0) {
        std::fill(to, to + w.columns, T{});
      } else {
        std::copy_n(x + position * w.g.in_channels, w.columns, to);
      }
      to += w.columns;
    });
  });
}

}  // namespace

template <class S>
void bias_gradient(const ConvGeometry& g, const S* grad_y, Compute<S>* grad_bias, bool accumulate) {
  using T = Compute<S>;
  constexpr int64_t rows = 1024;
  const int64_t pixels = g.batch * volume(g.out), blocks = ceil_div(pixels, rows), k = g.out_channels;
  const Scratch<T> sums(blocks * k);
  const auto& kernel = depthwise_kernels<S>();
  parallel_for(blocks, std::max<int64_t>(1, 65536 / (rows * k)), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      kernel.sum_rows({grad_y + block * rows * k, k, std::min(rows, pixels - block * rows), k,
                       sums.get() + block * k, false});
    }
  });
  kernels<T>().sum_rows({sums.get(), k, blocks, k, grad_bias, accumulate});
}

template <class T>
void im2col_forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y) {
  const Windows w(g, sizeof(T));
  const int64_t depth = w.taps * w.columns;
  const Scratch<T> packed(g.out_channels * depth), windows(w.pixels_at_once * w.taps_at_once * w.columns);
  exchange(weight, g.out_channels, w.columns, w.taps, packed.get(), false);
  for (int64_t group = 0; group < g.groups; ++group) {
    w.for_blocks([&](int64_t tap, int64_t taps, int64_t pixel, int64_t pixels) {
      copy_windows(w, x + group * w.columns, tap, taps, pixel, pixels, windows.get());
      GemmParams p;
      p.m = pixels;
      p.n = w.rows;
      p.k = taps * w.columns;
      p.a = windows.get();
      p.a_row = p.k;
      p.a_col = 1;
      p.b = packed.get() + group * w.rows * depth + tap * w.columns;
      p.b_row = 1;
      p.b_col = depth;
      p.c = y + pixel * g.out_channels + group * w.rows;
      p.c_row = g.out_channels;
      p.bias = bias == nullptr || tap > 0 ? nullptr : bias + group * w.rows;
      p.accumulate = tap > 0;
      multiply<T>(p);
    });
  }
}

template <class T>
void im2col_backward_input(const ConvGeometry& g, const T* grad_y, const T* weight, T* grad_x) {
  const Windows w(g, sizeof(T));
  const int64_t depth = w.taps * w.columns, count = g.batch * volume(g.in) * g.in_channels;
  const Scratch<T> packed(g.out_channels * depth), windows(w.pixels_at_once * w.taps_at_once * w.columns);
  exchange(weight, g.out_channels, w.columns, w.taps, packed.get(), false);
  parallel_for(count, 65536,
               [&](int64_t begin, int64_t end) { std::fill(grad_x + begin, grad_x + end, T{}); });
  for (int64_t group = 0; group < g.groups; ++group) {
    w.for_blocks([&](int64_t tap, int64_t taps, int64_t pixel, int64_t pixels) {
      GemmParams p;
      p.m = pixels;
      p.n = taps * w.columns;
      p.k = w.rows;
      p.a = grad_y + pixel * g.out_channels + group * w.rows;
      p.a_row = g.out_channels;
      p.a_col = 1;
      p.b = packed.get() + group * w.rows * depth + tap * w.columns;
      p.b_row = depth;
      p.b_col = 1;
      p.c = windows.get();
      p.c_row = p.n;
      multiply<T>(p);
      // Windows overlap in pixels, never in channels.
      parallel_for(w.columns, std::max<int64_t>(16, 32768 / (pixels * taps)), [&](int64_t c, int64_t end) {
        const T* from = windows.get();
        w.for_positions(pixel, pixel + pixels, tap, tap + taps, [&](int64_t, int64_t, int64_t position) {
          T* to = grad_x + position * g.in_channels + group * w.columns;
          if (position >= 0) {
            for (int64_t j = c; j < end; ++j) to[j] += from[j];
          }
          from += w.columns;
        });
      });
    });
  }
}

template <class T>
void im2col_backward_weight(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                            bool accumulate) {
  const Windows w(g, sizeof(T));
  const int64_t depth = w.taps * w.columns;
  const Scratch<T> packed(g.out_channels * depth), windows(w.pixels_at_once * w.taps_at_once * w.columns);
  for (int64_t group = 0; group < g.groups; ++group) {
    w.for_blocks([&](int64_t tap, int64_t taps, int64_t pixel, int64_t pixels) {
      copy_windows(w, x + group * w.columns, tap, taps, pixel, pixels, windows.get());
      GemmParams p;
      p.m = w.rows;
      p.n = taps * w.columns;
      p.k = pixels;
      p.a = grad_y + pixel * g.out_channels + group * w.rows;
      p.a_row = 1;
      p.a_col = g.out_channels;
      p.b = windows.get();
      p.b_row = p.n;
      p.b_col = 1;
      p.c = packed.get() + group * w.rows * depth + tap * w.columns;
      p.c_row = depth;
      p.accumulate = pixel > 0;
      multiply<T>(p);
    });
  }
  exchange(packed.get(), g.out_channels, w.taps, w.columns, grad_weight, accumulate);
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

#define OPSIN_INSTANTIATE(T)                                                           \
  template void bias_gradient(const ConvGeometry&, const T*, T*, bool);                \
  template void im2col_forward(const ConvGeometry&, const T*, const T*, const T*, T*); \
  template void im2col_backward_input(const ConvGeometry&, const T*, const T*, T*);    \
  template void im2col_backward_weight(const ConvGeometry&, const T*, const T*, T*, T*, bool);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
#undef OPSIN_INSTANTIATE
template void bias_gradient(const ConvGeometry&, const BFloat16*, float*, bool);
template void bias_gradient(const ConvGeometry&, const Float16*, float*, bool);

}  // namespace opsin::cpu::conv
