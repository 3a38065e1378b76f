// One thread for each output, which adds its products in the order of the loops below; the gradient of the
// weights, whose sums run over the whole batch, is split into ranges of positions that are added afterwards.
// The split depends on the shape alone.
#include "conv_cuda.h"

#include <algorithm>
#include <climits>

#include "core/dispatch.h"
#include "cuda/column_sums.h"
#include "cuda/launch.h"
#include "cuda/workspace.h"

namespace opsin {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// The gradient of the weights is split until it has about so many threads, each with this many positions.
constexpr int64_t kWeightThreads = int64_t{1} << 17;
constexpr int64_t kLeastPositions = 64;

/// A geometry as the kernels want it.
struct Shape {
  int64_t channels, filters, group_channels, group_filters, taps;
  int in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
  int64_t positions;  ///< Of the output, over the whole batch.
};

Shape make_shape(const ConvGeometry& g) {
  // A stride or dilation beyond int is never taken: there is one output or one tap.
  const auto narrow = [](int64_t value) { return static_cast<int>(std::min<int64_t>(value, INT_MAX)); };
  Shape s;
  s.channels = g.in_channels;
  s.filters = g.out_channels;
  s.group_channels = g.in_channels / g.groups;
  s.group_filters = g.out_channels / g.groups;
  s.taps = 1;
  s.positions = g.batch;
  for (int i = 0; i < 3; ++i) {
    s.in[i] = static_cast<int>(g.in[i]);
    s.out[i] = static_cast<int>(g.out[i]);
    s.kernel[i] = static_cast<int>(g.kernel[i]);
    s.stride[i] = narrow(g.stride[i]);
    s.dilation[i] = narrow(g.dilation[i]);
    s.pad[i] = static_cast<int>(g.pad_begin[i]);
    s.taps *= g.kernel[i];
    s.positions *= g.out[i];
  }
  return s;
}

/// Where a flat position [N, size[0], size[1], size[2]] lies.
struct Place {
  int64_t image;
  int at[3];
};
__device__ inline Place place(int64_t position, const int (&size)[3]) {
  Place p;
  p.at[2] = static_cast<int>(position % size[2]);
  position /= size[2];
  p.at[1] = static_cast<int>(position % size[1]);
  position /= size[1];
  p.at[0] = static_cast<int>(position % size[0]);
  p.image = position / size[0];
  return p;
}
__device__ inline int64_t row(int64_t image, int a, int b, int c, const int (&size)[3]) {
  return ((image * size[0] + a) * size[1] + b) * size[2] + c;
}

/// The input position under tap `t` of output position `o`, or outside of [0, in).
__device__ inline int input_at(const Shape& s, int axis, int o, int t) {
  return o * s.stride[axis] - s.pad[axis] + t * s.dilation[axis];
}
/// The output position whose tap `t` lies on input position `i`, or -1.
__device__ inline int output_at(const Shape& s, int axis, int i, int t) {
  const int reach = i + s.pad[axis] - t * s.dilation[axis];
  if (reach < 0 || reach % s.stride[axis] != 0) return -1;
  const int o = reach / s.stride[axis];
  return o < s.out[axis] ? o : -1;
}

template <class T>
__global__ void forward(Shape s, int64_t count, const T* x, const T* weight, const T* bias, T* y) {
  using Sum = compute_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t k = i % s.filters;
  const Place o = place(i / s.filters, s.out);
  const int64_t first_channel = k / s.group_filters * s.group_channels;
  const T* filter = weight + k * s.group_channels * s.taps;
  Sum sum = bias ? static_cast<Sum>(bias[k]) : Sum{};
  int64_t tap = 0;
  for (int a = 0; a < s.kernel[0]; ++a)
    for (int b = 0; b < s.kernel[1]; ++b)
      for (int c = 0; c < s.kernel[2]; ++c, ++tap) {
        const int ia = input_at(s, 0, o.at[0], a), ib = input_at(s, 1, o.at[1], b),
                  ic = input_at(s, 2, o.at[2], c);
        if (ia < 0 || ia >= s.in[0] || ib < 0 || ib >= s.in[1] || ic < 0 || ic >= s.in[2]) continue;
        const T* from = x + row(o.image, ia, ib, ic, s.in) * s.channels + first_channel;
        for (int64_t j = 0; j < s.group_channels; ++j) {
          sum += static_cast<Sum>(from[j]) * static_cast<Sum>(filter[j * s.taps + tap]);
        }
      }
  y[i] = static_cast<T>(sum);
}

template <class T>
__global__ void backward_input(Shape s, int64_t count, const T* grad_y, const T* weight, T* grad_x) {
  using Sum = compute_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t channel = i % s.channels;
  const Place at = place(i / s.channels, s.in);
  const int64_t first_filter = channel / s.group_channels * s.group_filters;
  const int64_t filter_size = s.group_channels * s.taps;
  const T* taps = weight + first_filter * filter_size + channel % s.group_channels * s.taps;
  Sum sum{};
  int64_t tap = 0;
  for (int a = 0; a < s.kernel[0]; ++a)
    for (int b = 0; b < s.kernel[1]; ++b)
      for (int c = 0; c < s.kernel[2]; ++c, ++tap) {
        const int oa = output_at(s, 0, at.at[0], a), ob = output_at(s, 1, at.at[1], b),
                  oc = output_at(s, 2, at.at[2], c);
        if (oa < 0 || ob < 0 || oc < 0) continue;
        const T* from = grad_y + row(at.image, oa, ob, oc, s.out) * s.filters + first_filter;
        for (int64_t k = 0; k < s.group_filters; ++k) {
          sum += static_cast<Sum>(from[k]) * static_cast<Sum>(taps[k * filter_size + tap]);
        }
      }
  grad_x[i] = static_cast<T>(sum);
}

/// Thread (range, k, tap, channel), channel fastest, adds the products of one weight over a range of
/// positions; sums [ranges, weights].
template <class T, class To>
__global__ void backward_weight(Shape s, int64_t count, int64_t ranges, const T* x, const T* grad_y,
                                To* sums) {
  using Sum = compute_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count * ranges) return;
  const int64_t range = i / count, j = i % count % s.group_channels;
  const int64_t tap = i % count / s.group_channels % s.taps;
  const int64_t k = i % count / (s.group_channels * s.taps);
  const int c = static_cast<int>(tap % s.kernel[2]), b = static_cast<int>(tap / s.kernel[2] % s.kernel[1]),
            a = static_cast<int>(tap / s.kernel[2] / s.kernel[1]);
  const int64_t channel = k / s.group_filters * s.group_channels + j;
  const int64_t begin = s.positions * range / ranges, end = s.positions * (range + 1) / ranges;
  Place o = place(begin, s.out);
  Sum sum{};
  for (int64_t p = begin; p < end; ++p) {
    const int ia = input_at(s, 0, o.at[0], a), ib = input_at(s, 1, o.at[1], b),
              ic = input_at(s, 2, o.at[2], c);
    if (ia >= 0 && ia < s.in[0] && ib >= 0 && ib < s.in[1] && ic >= 0 && ic < s.in[2]) {
      sum += static_cast<Sum>(x[row(o.image, ia, ib, ic, s.in) * s.channels + channel]) *
             static_cast<Sum>(grad_y[p * s.filters + k]);
    }
    if (++o.at[2] < s.out[2]) continue;
    o.at[2] = 0;
    if (++o.at[1] < s.out[1]) continue;
    o.at[1] = 0;
    if (++o.at[0] < s.out[0]) continue;
    o.at[0] = 0;
    ++o.image;
  }
  sums[range * count + (k * s.group_channels + j) * s.taps + tap] = static_cast<To>(sum);
}

template <class T>
__global__ void add_to_rows(const T* bias, int64_t count, int64_t filters, T* y) {
  using Sum = compute_t<T>;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) y[i] = static_cast<T>(static_cast<Sum>(y[i]) + static_cast<Sum>(bias[i % filters]));
}

unsigned blocks_for(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

template <class T>
void weight_gradient(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight) {
  const Shape s = make_shape(g);
  const int64_t count = s.filters * s.group_channels * s.taps;
  const int64_t ranges = std::clamp<int64_t>(kWeightThreads / count, 1, s.positions / kLeastPositions + 1);
  const unsigned blocks = blocks_for(count * ranges);
  if (ranges == 1) {
    return OPSIN_LAUNCH((backward_weight<T, T>), blocks, kThreads, 0, s, count, ranges, x, grad_y,
                        grad_weight);
  }
  using Sum = compute_t<T>;
  const Workspace memory(count * ranges * static_cast<int64_t>(sizeof(Sum)));
  auto* sums = static_cast<Sum*>(memory.get());
  OPSIN_LAUNCH((backward_weight<T, Sum>), blocks, kThreads, 0, s, count, ranges, x, grad_y, sums);
  column_sums_of_partials(dtype_of<T>, sums, ranges, count, grad_weight);
}

}  // namespace

void conv_forward(const ConvGeometry& g, DType dtype, const void* x, const void* weight, const void* bias,
                  void* y) {
  const int64_t count = g.batch * volume(g.out) * g.out_channels;
  if (count == 0) return;
  dispatch_floating(dtype, "conv", [&]<class T>() {
    OPSIN_LAUNCH((forward<T>), blocks_for(count), kThreads, 0, make_shape(g), count, static_cast<const T*>(x),
                 static_cast<const T*>(weight), static_cast<const T*>(bias), static_cast<T*>(y));
  });
}

void conv_backward_input(const ConvGeometry& g, DType dtype, const void* grad_y, const void* weight,
                         void* grad_x) {
  const int64_t count = g.batch * volume(g.in) * g.in_channels;
  if (count == 0) return;
  dispatch_floating(dtype, "conv_backward_input", [&]<class T>() {
    OPSIN_LAUNCH((backward_input<T>), blocks_for(count), kThreads, 0, make_shape(g), count,
                 static_cast<const T*>(grad_y), static_cast<const T*>(weight), static_cast<T*>(grad_x));
  });
}

void conv_backward_weight(const ConvGeometry& g, DType dtype, const void* x, const void* grad_y,
                          void* grad_weight, void* grad_bias) {
  if (grad_weight) {
    dispatch_floating(dtype, "conv_backward_weight", [&]<class T>() {
      weight_gradient(g, static_cast<const T*>(x), static_cast<const T*>(grad_y),
                      static_cast<T*>(grad_weight));
    });
  }
  if (grad_bias) column_sums(dtype, grad_y, g.batch * volume(g.out), g.out_channels, grad_bias);
}

void add_bias(DType dtype, const void* bias, int64_t rows, int64_t filters, void* y) {
  const int64_t count = rows * filters;
  dispatch_floating(dtype, "conv", [&]<class T>() {
    OPSIN_LAUNCH((add_to_rows<T>), blocks_for(count), kThreads, 0, static_cast<const T*>(bias), count,
                 filters, static_cast<T*>(y));
  });
}

}  // namespace cuda

void register_conv_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    conv_forward.set(DeviceType::kCUDA, dtype, cuda::conv_forward);
    conv_backward_input.set(DeviceType::kCUDA, dtype, cuda::conv_backward_input);
    conv_backward_weight.set(DeviceType::kCUDA, dtype, cuda::conv_backward_weight);
  }
}

}  // namespace opsin
