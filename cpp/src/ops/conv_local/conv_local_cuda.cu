// Unshared convolution on a GPU. The weight is the large operand: forward, a warp reads a filter of a
// position once for some images; its gradient has a thread for each weight, that of the input one for each
// element.
#include "conv_local_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
/// Images that a filter is read once for.
constexpr int kImages = 8;

struct Local {
  LocalConv conv;
  int64_t item, in, out, taps, channels, filters, length;  ///< Channels and filters of a group.

  explicit Local(const LocalConv& c)
      : conv(c),
        item(static_cast<int64_t>(item_size(c.dtype))),
        in(c.geometry.in[0] * c.geometry.in[1] * c.geometry.in[2]),
        out(c.geometry.out[0] * c.geometry.out[1] * c.geometry.out[2]),
        taps(c.geometry.kernel[0] * c.geometry.kernel[1] * c.geometry.kernel[2]),
        channels(c.geometry.in_channels / c.geometry.groups),
        filters(c.geometry.out_channels / c.geometry.groups),
        length(channels * taps) {}

  template <class T>
  __device__ T read(const void* data, int64_t i) const {
    return load<T>(static_cast<const char*>(data) + i * item, conv.dtype);
  }
  template <class T>
  __device__ void write(T value, int64_t i) const {
    store(value, static_cast<char*>(conv.result) + i * item, conv.dtype);
  }
};

struct Place {
  int64_t at[3];
  __device__ Place(int64_t i, const int64_t (&size)[3])
      : at{i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]} {}
};

/// The pixel under tap `t` of output position `o`, or -1.
__device__ inline int64_t pixel_under(const cpu::ConvGeometry& g, const Place& o, int64_t t) {
  const Place tap(t, g.kernel);
  int64_t pixel = 0;
  bool inside = true;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t i = o.at[axis] * g.stride[axis] - g.pad_begin[axis] + tap.at[axis] * g.dilation[axis];
    inside &= i >= 0 && i < g.in[axis];
    pixel = pixel * g.in[axis] + i;
  }
  return inside ? pixel : -1;
}

/// The output position whose tap `t` lies on pixel `i`, or -1.
__device__ inline int64_t position_over(const cpu::ConvGeometry& g, const Place& i, int64_t t) {
  const Place tap(t, g.kernel);
  int64_t position = 0;
  bool found = true;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t reach = i.at[axis] + g.pad_begin[axis] - tap.at[axis] * g.dilation[axis];
    const int64_t o = reach / g.stride[axis];
    found &= reach >= 0 && o * g.stride[axis] == reach && o < g.out[axis];
    position = position * g.out[axis] + o;
  }
  return found ? position : -1;
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward(const __grid_constant__ Local s) {
  const cpu::ConvGeometry& g = s.conv.geometry;
  const int64_t lane = threadIdx.x % kWarpThreads, n = s.out * g.out_channels;
  OPSIN_NO_UNROLL
  for (int64_t row = thread_rank() / kWarpThreads; row < n; row += thread_count() / kWarpThreads) {
    const int64_t o = row / g.out_channels, k = row - o * g.out_channels;
    const Place place(o, g.out);
    const int64_t first = k / s.filters * s.channels;
    for (int64_t image = 0; image < g.batch; image += kImages) {
      const int images = static_cast<int>(g.batch - image < kImages ? g.batch - image : kImages);
      T sum[kImages] = {};
      for (int64_t l = lane; l < s.length; l += kWarpThreads) {
        const int64_t c = l / s.taps, pixel = pixel_under(g, place, l - c * s.taps);
        if (pixel < 0) continue;
        const T weight = s.read<T>(s.conv.weight, row * s.length + l);
        const int64_t at = (image * s.in + pixel) * g.in_channels + first + c;
        OPSIN_UNROLL
        for (int i = 0; i < kImages; ++i) {
          if (i < images) sum[i] += weight * s.read<T>(s.conv.x, at + i * s.in * g.in_channels);
        }
      }
      OPSIN_UNROLL
      for (int i = 0; i < kImages; ++i) {
        const T all = warp_reduce<Sum>(sum[i]);
        if (i < images && lane == 0) s.write(all, ((image + i) * s.out + o) * g.out_channels + k);
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward_weight(const __grid_constant__ Local s) {
  const cpu::ConvGeometry& g = s.conv.geometry;
  const int64_t n = s.out * g.out_channels * s.length;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const int64_t row = i / s.length, l = i - row * s.length;
    const int64_t o = row / g.out_channels, k = row - o * g.out_channels;
    const int64_t c = l / s.taps, pixel = pixel_under(g, Place(o, g.out), l - c * s.taps);
    T sum = 0;
    if (pixel >= 0) {
      const int64_t at = pixel * g.in_channels + k / s.filters * s.channels + c;
      for (int64_t image = 0; image < g.batch; ++image) {
        sum += s.read<T>(s.conv.x, image * s.in * g.in_channels + at) *
               s.read<T>(s.conv.y, image * s.out * g.out_channels + row);
      }
    }
    s.write(sum, i);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) backward_input(const __grid_constant__ Local s) {
  const cpu::ConvGeometry& g = s.conv.geometry;
  const int64_t n = g.batch * s.in * g.in_channels;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const int64_t row = i / g.in_channels, channel = i - row * g.in_channels;
    const int64_t image = row / s.in, group = channel / s.channels, c = channel - group * s.channels;
    const Place place(row - image * s.in, g.in);
    T sum = 0;
    for (int64_t t = 0; t < s.taps; ++t) {
      const int64_t o = position_over(g, place, t);
      if (o < 0) continue;
      const int64_t first = o * g.out_channels + group * s.filters;
      for (int64_t k = first; k < first + s.filters; ++k) {
        sum += s.read<T>(s.conv.y, image * s.out * g.out_channels + k) *
               s.read<T>(s.conv.weight, k * s.length + c * s.taps + t);
      }
    }
    s.write(sum, i);
  }
}

/// Launches the kernel of the type of computation with `threads` threads.
template <class Single, class Double>
void launch(const LocalConv& conv, int64_t threads, Single single, Double twice) {
  const Local s(conv);
  if (conv.dtype == kFloat64) {
    OPSIN_LAUNCH(twice, grid_for(threads, kThreads), kThreads, 0, s);
  } else {
    OPSIN_LAUNCH(single, grid_for(threads, kThreads), kThreads, 0, s);
  }
}

int64_t product(const int64_t (&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; }

void launch_forward(const LocalConv& conv) {
  const cpu::ConvGeometry& g = conv.geometry;
  launch(conv, product(g.out) * g.out_channels * kWarpThreads, forward<float>, forward<double>);
}
void launch_backward_input(const LocalConv& conv) {
  const cpu::ConvGeometry& g = conv.geometry;
  launch(conv, g.batch * product(g.in) * g.in_channels, backward_input<float>, backward_input<double>);
}
void launch_backward_weight(const LocalConv& conv) {
  const cpu::ConvGeometry& g = conv.geometry;
  launch(conv, product(g.out) * g.out_channels * (g.in_channels / g.groups) * product(g.kernel),
         backward_weight<float>, backward_weight<double>);
}

}  // namespace

void register_conv_local_cuda();

void register_conv_local_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    conv_local_forward.set(DeviceType::kCUDA, dtype, launch_forward);
    conv_local_backward_input.set(DeviceType::kCUDA, dtype, launch_backward_input);
    conv_local_backward_weight.set(DeviceType::kCUDA, dtype, launch_backward_weight);
  }
}

}  // namespace opsin
