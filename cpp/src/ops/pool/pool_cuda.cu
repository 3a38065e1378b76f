// Pooling on a GPU, channels last: a thread takes neighbouring channels of one pixel. Gradients are gathered by
// input pixel from the windows that may cover it, so nothing is added by two threads and sums have one order.
#include <limits>

#include <opsin/error.h>

#include "cuda/access.h"
#include "cuda/block.h"

#include "pool_kernels.h"

namespace opsin {

namespace {

using cuda::Divider;
using cuda::load;
using cuda::store;

constexpr int kThreads = 256;

/// The geometry of one launch; at most 2^31 threads.
struct PoolArgs {
  uint32_t threads;
  int in[3], kernel[3], out[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
  int64_t channels;
  bool adaptive, count_include_pad;
  int64_t divisor;
  DType dtype;
  int size;             ///< Bytes of an element.
  Divider groups;       ///< Threads that share a pixel.
  Divider pixels[3];    ///< Of the side that threads are numbered by.
};

struct Place {
  int64_t image;
  int at[3];
  int64_t channel;
};

__device__ inline Place place_of(const PoolArgs& a, uint32_t thread, int width) {
  Place p;
  const auto group = a.groups.divmod(thread);
  p.channel = int64_t{group.remainder} * width;
  uint32_t rest = group.quotient;
  OPSIN_UNROLL
  for (int axis = 2; axis >= 0; --axis) {
    const auto digit = a.pixels[axis].divmod(rest);
    p.at[axis] = static_cast<int>(digit.remainder);
    rest = digit.quotient;
  }
  p.image = rest;
  return p;
}

__device__ inline int64_t offset_of(const int (&size)[3], int64_t channels, int64_t image, int i0, int i1, int i2,
                                    int64_t channel) {
  return (((image * size[0] + i0) * size[1] + i1) * size[2] + i2) * channels + channel;
}

/// Window `o` of an axis as pixels inside the input, every `step`-th, and what it contributes to the divisor.
struct Window {
  int begin, end, length;
};

__device__ inline Window max_window(const PoolArgs& a, int axis, int o) {
  if (a.adaptive) {
    const int64_t in = a.in[axis], out = a.out[axis];
    return {static_cast<int>(o * in / out), static_cast<int>(((o + 1) * in + out - 1) / out), 1};
  }
  const int step = a.dilation[axis];
  int begin = o * a.stride[axis] - a.pad_begin[axis];
  const int end = min(begin + (a.kernel[axis] - 1) * step + 1, a.in[axis]);
  if (begin < 0) begin += (-begin + step - 1) / step * step;
  return {begin, end, step};
}

__device__ inline Window avg_window(const PoolArgs& a, int axis, int o) {
  if (a.adaptive) {
    const Window w = max_window(a, axis, o);
    return {w.begin, w.end, w.end - w.begin};
  }
  const int start = o * a.stride[axis] - a.pad_begin[axis];
  const int stop = min(start + a.kernel[axis], a.in[axis] + a.pad_end[axis]);
  const int begin = max(start, 0), end = min(stop, a.in[axis]);
  return {begin, end, a.count_include_pad ? stop - start : end - begin};
}

/// The windows [first, last) among which all are that can hold pixel i of an axis.
struct Range {
  int first, last;
};

__device__ inline Range windows_of(const PoolArgs& a, int axis, int i) {
  const int out = a.out[axis];
  if (a.adaptive) {
    const int64_t in = a.in[axis];
    const auto first = static_cast<int>(int64_t{i} * out / in) - 1;
    const auto last = static_cast<int>((int64_t{i} + 1) * out / in) + 2;
    return {max(first, 0), min(last, out)};
  }
  const int reach = (a.kernel[axis] - 1) * a.dilation[axis];
  // A dilated window may step over all of a small input; its index is then that of some pixel.
  if (reach >= a.in[axis]) return {0, out};
  const int top = i + a.pad_begin[axis] - reach, stride = a.stride[axis];
  const int first = top <= 0 ? 0 : (top + stride - 1) / stride;
  return {first, min((i + a.pad_begin[axis]) / stride + 1, out)};
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    max_forward(const PoolArgs a, const T lowest, const char* x, char* y, int64_t* indices) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Window w[3];
  int64_t first = 0;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    w[axis] = max_window(a, axis, p.at[axis]);
    first = first * a.in[axis] + min(w[axis].begin, a.in[axis] - 1);
  }
  T best[V];
  int64_t where[V];
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) {
    best[v] = lowest;
    where[v] = first;
  }
  for (int i0 = w[0].begin; i0 < w[0].end; i0 += w[0].length) {
    for (int i1 = w[1].begin; i1 < w[1].end; i1 += w[1].length) {
      for (int i2 = w[2].begin; i2 < w[2].end; i2 += w[2].length) {
        T value[V];
        load(value, x + offset_of(a.in, a.channels, p.image, i0, i1, i2, p.channel) * a.size, a.dtype);
        const int64_t pixel = (int64_t{i0} * a.in[1] + i1) * a.in[2] + i2;
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) {
          const bool take = value[v] > best[v] || value[v] != value[v];
          best[v] = take ? value[v] : best[v];
          where[v] = take ? pixel : where[v];
        }
      }
    }
  }
  const int64_t to = offset_of(a.out, a.channels, p.image, p.at[0], p.at[1], p.at[2], p.channel);
  store(best, y + to * a.size, a.dtype);
  if (!indices) return;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) indices[to + v] = where[v];
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    max_backward(const PoolArgs a, const char* grad_y, const int64_t* indices, char* grad_x) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Range r[3];
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) r[axis] = windows_of(a, axis, p.at[axis]);
  const int64_t pixel = (int64_t{p.at[0]} * a.in[1] + p.at[1]) * a.in[2] + p.at[2];
  T sum[V] = {};
  for (int o0 = r[0].first; o0 < r[0].last; ++o0) {
    for (int o1 = r[1].first; o1 < r[1].last; ++o1) {
      for (int o2 = r[2].first; o2 < r[2].last; ++o2) {
        const int64_t from = offset_of(a.out, a.channels, p.image, o0, o1, o2, p.channel);
        T grad[V];
        load(grad, grad_y + from * a.size, a.dtype);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += indices[from + v] == pixel ? grad[v] : T(0);
      }
    }
  }
  store(sum, grad_x + offset_of(a.in, a.channels, p.image, p.at[0], p.at[1], p.at[2], p.channel) * a.size, a.dtype);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_gather(const PoolArgs a, const char* x, const int64_t* indices, char* y) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, 1);
  const int64_t volume = int64_t{a.in[0]} * a.in[1] * a.in[2];
  const int64_t to = offset_of(a.out, a.channels, p.image, p.at[0], p.at[1], p.at[2], p.channel);
  const int64_t from = (p.image * volume + indices[to]) * a.channels + p.channel;
  store(load<T>(x + from * a.size, a.dtype), y + to * a.size, a.dtype);
}

template <class T>
__device__ inline T divisor_of(const PoolArgs& a, const Window& w0, const Window& w1, const Window& w2) {
  return static_cast<T>(a.divisor != 0 ? a.divisor : int64_t{w0.length} * w1.length * w2.length);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) avg_forward(const PoolArgs a, const char* x, char* y) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Window w[3];
  bool empty = false;
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    w[axis] = avg_window(a, axis, p.at[axis]);
    empty |= w[axis].begin >= w[axis].end;
  }
  T sum[V] = {};
  for (int i0 = w[0].begin; i0 < w[0].end; ++i0) {
    for (int i1 = w[1].begin; i1 < w[1].end; ++i1) {
      for (int i2 = w[2].begin; i2 < w[2].end; ++i2) {
        T value[V];
        load(value, x + offset_of(a.in, a.channels, p.image, i0, i1, i2, p.channel) * a.size, a.dtype);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += value[v];
      }
    }
  }
  if (!empty) {
    const T divisor = divisor_of<T>(a, w[0], w[1], w[2]);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) sum[v] /= divisor;
  }
  store(sum, y + offset_of(a.out, a.channels, p.image, p.at[0], p.at[1], p.at[2], p.channel) * a.size, a.dtype);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) avg_backward(const PoolArgs a, const char* grad_y, char* grad_x) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Range r[3];
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) r[axis] = windows_of(a, axis, p.at[axis]);
  const auto holds = [](const Window& w, int i) { return w.begin <= i && i < w.end; };
  T sum[V] = {};
  for (int o0 = r[0].first; o0 < r[0].last; ++o0) {
    const Window w0 = avg_window(a, 0, o0);
    if (!holds(w0, p.at[0])) continue;
    for (int o1 = r[1].first; o1 < r[1].last; ++o1) {
      const Window w1 = avg_window(a, 1, o1);
      if (!holds(w1, p.at[1])) continue;
      for (int o2 = r[2].first; o2 < r[2].last; ++o2) {
        const Window w2 = avg_window(a, 2, o2);
        if (!holds(w2, p.at[2])) continue;
        T grad[V];
        load(grad, grad_y + offset_of(a.out, a.channels, p.image, o0, o1, o2, p.channel) * a.size, a.dtype);
        const T divisor = divisor_of<T>(a, w0, w1, w2);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += grad[v] / divisor;
      }
    }
  }
  store(sum, grad_x + offset_of(a.in, a.channels, p.image, p.at[0], p.at[1], p.at[2], p.channel) * a.size, a.dtype);
}

PoolArgs args_of(const PoolParams& p, DType dtype) {
  const cpu::PoolGeometry& g = p.geometry;
  PoolArgs a{};
  for (int axis = 0; axis < 3; ++axis) {
    OPSIN_CHECK(ShapeError, g.in[axis] <= INT32_MAX / 2 && g.out[axis] <= INT32_MAX / 2,
                "pool: expected at most 2^30 positions per axis on a GPU, got ", g.in[axis], " and ", g.out[axis]);
    a.in[axis] = static_cast<int>(g.in[axis]);
    a.out[axis] = static_cast<int>(g.out[axis]);
    a.kernel[axis] = static_cast<int>(g.kernel[axis]);
    a.stride[axis] = static_cast<int>(g.stride[axis]);
    a.dilation[axis] = static_cast<int>(g.dilation[axis]);
    a.pad_begin[axis] = static_cast<int>(g.pad_begin[axis]);
    a.pad_end[axis] = static_cast<int>(g.pad_end[axis]);
  }
  a.channels = g.channels;
  a.adaptive = p.adaptive;
  a.count_include_pad = p.count_include_pad;
  a.divisor = p.divisor_override;
  a.dtype = dtype;
  a.size = static_cast<int>(item_size(dtype));
  return a;
}

/// Calls run(args, first image, blocks) for as many images at a time as one launch can number; `width` channels
/// go to a thread and `size` is the side that threads are numbered by.
template <class F>
void for_launches(const PoolParams& p, DType dtype, int width, const int64_t (&size)[3], F&& run) {
  const int64_t groups = p.geometry.channels / width;
  const int64_t each = size[0] * size[1] * size[2] * groups;
  OPSIN_CHECK(ShapeError, each <= INT32_MAX, "pool: expected at most 2^31 elements per image on a GPU, got ", each);
  PoolArgs a = args_of(p, dtype);
  a.groups = Divider(static_cast<uint32_t>(groups));
  for (int axis = 0; axis < 3; ++axis) a.pixels[axis] = Divider(static_cast<uint32_t>(size[axis]));
  const int64_t most = INT32_MAX / each;
  for (int64_t image = 0; image < p.geometry.batch; image += most) {
    const int64_t images = std::min(most, p.geometry.batch - image);
    a.threads = static_cast<uint32_t>(images * each);
    run(a, image, (a.threads + kThreads - 1) / kThreads);
  }
}

int64_t elements(const int64_t (&size)[3], const PoolParams& p) {
  return size[0] * size[1] * size[2] * p.geometry.channels;
}

/// Neighbouring channels of a thread: 16 bytes in registers where the addresses allow it.
template <class T>
constexpr int kWide = std::is_same_v<T, float> ? 4 : std::is_same_v<T, double> ? 2 : 1;
template <class T>
bool is_wide(const PoolParams& p, DType dtype, const void* a, const void* b) {
  const size_t bytes = item_size(dtype) * static_cast<size_t>(kWide<T>);
  return kWide<T> > 1 && p.geometry.channels % kWide<T> == 0 && reinterpret_cast<uintptr_t>(a) % bytes == 0 &&
         reinterpret_cast<uintptr_t>(b) % bytes == 0;
}
/// Calls body.operator()<V>().
template <class T, class F>
void with_width(bool wide, F&& body) {
  if constexpr (kWide<T> > 1) {
    if (wide) return body.template operator()<kWide<T>>();
  }
  body.template operator()<1>();
}

template <class T>
T lowest_of(DType dtype) {
  if constexpr (std::is_same_v<T, int64_t>) {
    return dtype == kUInt8 ? 0 : static_cast<int64_t>(~uint64_t{0} << (8 * item_size(dtype) - 1));
  } else {
    return -std::numeric_limits<T>::infinity();
  }
}

template <class T>
struct Pool {
  static void max_forward(const PoolParams& p, DType dtype, const void* x, void* y, int64_t* indices) {
    with_width<T>(is_wide<T>(p, dtype, x, y), [&]<int V>() {
      const auto& g = p.geometry;
      const auto size = static_cast<int64_t>(item_size(dtype));
      for_launches(p, dtype, V, g.out, [&](const PoolArgs& a, int64_t image, unsigned blocks) {
        const int64_t from = image * elements(g.in, p), to = image * elements(g.out, p);
        OPSIN_LAUNCH((opsin::max_forward<T, V>), blocks, kThreads, 0, a, lowest_of<T>(dtype),
                     static_cast<const char*>(x) + from * size, static_cast<char*>(y) + to * size,
                     indices ? indices + to : nullptr);
      });
    });
  }
  static void max_backward(const PoolParams& p, DType dtype, const void* grad_y, const int64_t* indices,
                           void* grad_x) {
    with_width<T>(is_wide<T>(p, dtype, grad_y, grad_x), [&]<int V>() {
      const auto& g = p.geometry;
      const auto size = static_cast<int64_t>(item_size(dtype));
      for_launches(p, dtype, V, g.in, [&](const PoolArgs& a, int64_t image, unsigned blocks) {
        const int64_t from = image * elements(g.out, p), to = image * elements(g.in, p);
        OPSIN_LAUNCH((opsin::max_backward<T, V>), blocks, kThreads, 0, a,
                     static_cast<const char*>(grad_y) + from * size, indices + from,
                     static_cast<char*>(grad_x) + to * size);
      });
    });
  }
  static void max_gather(const PoolParams& p, DType dtype, const void* x, const int64_t* indices, void* y) {
    const auto& g = p.geometry;
    const auto size = static_cast<int64_t>(item_size(dtype));
    for_launches(p, dtype, 1, g.out, [&](const PoolArgs& a, int64_t image, unsigned blocks) {
      const int64_t from = image * elements(g.in, p), to = image * elements(g.out, p);
      OPSIN_LAUNCH((opsin::max_gather<T>), blocks, kThreads, 0, a, static_cast<const char*>(x) + from * size,
                   indices + to, static_cast<char*>(y) + to * size);
    });
  }
  static void avg_forward(const PoolParams& p, DType dtype, const void* x, void* y) {
    with_width<T>(is_wide<T>(p, dtype, x, y), [&]<int V>() {
      const auto& g = p.geometry;
      const auto size = static_cast<int64_t>(item_size(dtype));
      for_launches(p, dtype, V, g.out, [&](const PoolArgs& a, int64_t image, unsigned blocks) {
        OPSIN_LAUNCH((opsin::avg_forward<T, V>), blocks, kThreads, 0, a,
                     static_cast<const char*>(x) + image * elements(g.in, p) * size,
                     static_cast<char*>(y) + image * elements(g.out, p) * size);
      });
    });
  }
  static void avg_backward(const PoolParams& p, DType dtype, const void* grad_y, void* grad_x) {
    with_width<T>(is_wide<T>(p, dtype, grad_y, grad_x), [&]<int V>() {
      const auto& g = p.geometry;
      const auto size = static_cast<int64_t>(item_size(dtype));
      for_launches(p, dtype, V, g.in, [&](const PoolArgs& a, int64_t image, unsigned blocks) {
        OPSIN_LAUNCH((opsin::avg_backward<T, V>), blocks, kThreads, 0, a,
                     static_cast<const char*>(grad_y) + image * elements(g.out, p) * size,
                     static_cast<char*>(grad_x) + image * elements(g.in, p) * size);
      });
    });
  }
};

template <class T>
void fill(DType dtype) {
  constexpr DeviceType kDevice = DeviceType::kCUDA;
  max_pool_forward.set(kDevice, dtype, Pool<T>::max_forward);
  if constexpr (std::is_floating_point_v<T>) {
    max_pool_backward.set(kDevice, dtype, Pool<T>::max_backward);
    max_pool_gather.set(kDevice, dtype, Pool<T>::max_gather);
    avg_pool_forward.set(kDevice, dtype, Pool<T>::avg_forward);
    avg_pool_backward.set(kDevice, dtype, Pool<T>::avg_backward);
  }
}

}  // namespace

void register_pool_cuda();

void register_pool_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32}) fill<float>(dtype);
  fill<double>(kFloat64);
  for (const DType dtype : {kUInt8, kInt8, kInt16, kInt32, kInt64}) fill<int64_t>(dtype);
}

}  // namespace opsin
