// Pooling on a GPU with windows of any kind: a thread takes neighbouring channels of one pixel.
#pragma once

#include "pool_kernels.h"
#include "pool_windows_cuda.h"

namespace opsin::pool {

/// The geometry of one launch, whose tensors have at most 2^31 elements.
struct PoolArgs {
  uint32_t threads;
  int in[3], kernel[3], out[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
  int channels;
  bool adaptive, count_include_pad;
  int64_t divisor;
  DType dtype;
  Divider groups;     ///< Threads that share a pixel.
  Divider pixels[3];  ///< Of the side that threads are numbered by.
};

struct Place {
  int image, at[3], channel;
};

__device__ __forceinline__ Place place_of(const PoolArgs& a, uint32_t thread, int width) {
  Place p;
  const auto group = a.groups.divmod(thread);
  p.channel = static_cast<int>(group.remainder) * width;
  uint32_t rest = group.quotient;
  OPSIN_UNROLL
  for (int axis = 2; axis >= 0; --axis) {
    const auto digit = a.pixels[axis].divmod(rest);
    p.at[axis] = static_cast<int>(digit.remainder);
    rest = digit.quotient;
  }
  p.image = static_cast<int>(rest);
  return p;
}

__device__ __forceinline__ int offset_of(const PoolArgs& a, const int (&size)[3], const Place& p, int i0,
                                         int i1, int i2) {
  return (((p.image * size[0] + i0) * size[1] + i1) * size[2] + i2) * a.channels + p.channel;
}
__device__ __forceinline__ int offset_of(const PoolArgs& a, const int (&size)[3], const Place& p) {
  return offset_of(a, size, p, p.at[0], p.at[1], p.at[2]);
}

// Elements as they are computed with: int64_t stands for all integers.

template <class S>
using Value = std::conditional_t<std::is_same_v<S, int64_t>, int64_t, cuda::Computed<S>>;

template <class S, int V>
__device__ __forceinline__ void read(Value<S> (&to)[V], const void* from, int at, DType dtype) {
  if constexpr (std::is_same_v<S, int64_t>) {
    cuda::load(to, static_cast<const char*>(from) + at * static_cast<int64_t>(item_size(dtype)), dtype);
  } else {
    cuda::widen(to, cuda::pack_at<S, V>(static_cast<const S*>(from) + at), dtype);
  }
}
template <class S, int V>
__device__ __forceinline__ void write(const Value<S> (&from)[V], void* to, int at, DType dtype) {
  if constexpr (std::is_same_v<S, int64_t>) {
    cuda::store(from, static_cast<char*>(to) + at * static_cast<int64_t>(item_size(dtype)), dtype);
  } else {
    cuda::pack_at<S, V>(static_cast<S*>(to) + at) = cuda::narrow<S>(from, dtype);
  }
}

/// a * b / c without the division of 64-bit numbers where it can be.
__device__ __forceinline__ int scaled(int a, int b, int c, int add = 0) {
  const uint64_t n = static_cast<uint64_t>(a) * static_cast<uint32_t>(b) + static_cast<uint32_t>(add);
  if (n >> 32 == 0) return static_cast<int>(static_cast<uint32_t>(n) / static_cast<uint32_t>(c));
  return static_cast<int>(n / static_cast<uint32_t>(c));
}

/// Window `o` of an axis as pixels inside the input, every `step`-th, and what it contributes to the divisor.
struct Window {
  int begin, end, length;
};

__device__ __forceinline__ Window max_window(const PoolArgs& a, int axis, int o) {
  if (a.adaptive) {
    const int in = a.in[axis], out = a.out[axis];
    return {scaled(o, in, out), scaled(o + 1, in, out, out - 1), 1};
  }
  const int step = a.dilation[axis];
  int begin = o * a.stride[axis] - a.pad_begin[axis];
  const int end = min(begin + (a.kernel[axis] - 1) * step + 1, a.in[axis]);
  if (begin < 0) begin += (-begin + step - 1) / step * step;
  return {begin, end, step};
}

__device__ __forceinline__ Window avg_window(const PoolArgs& a, int axis, int o) {
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

__device__ __forceinline__ Range windows_of(const PoolArgs& a, int axis, int i) {
  const int out = a.out[axis];
  if (a.adaptive) {
    return {max(scaled(i, out, a.in[axis]) - 1, 0), min(scaled(i + 1, out, a.in[axis]) + 2, out)};
  }
  const int reach = (a.kernel[axis] - 1) * a.dilation[axis];
  // A dilated window may step over all of a small input; its index is then that of some pixel.
  if (reach >= a.in[axis]) return {0, out};
  const int top = i + a.pad_begin[axis] - reach, stride = a.stride[axis];
  const int first = top <= 0 ? 0 : (top + stride - 1) / stride;
  return {first, min((i + a.pad_begin[axis]) / stride + 1, out)};
}

/// Positions of an image as a number: that of the first pixel of a window, and how far apart its pixels are.
struct Count {
  int first, step[3];
};

__device__ __forceinline__ Count count_of(const PoolArgs& a, const Window (&w)[3], bool taps) {
  if (taps) return {0, {a.kernel[1] * a.kernel[2], a.kernel[2], 1}};
  Count count{0, {w[0].length * a.in[1] * a.in[2], w[1].length * a.in[2], w[2].length}};
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis)
    count.first = count.first * a.in[axis] + min(w[axis].begin, a.in[axis] - 1);
  return count;
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    max_forward(const PoolArgs a, const Value<S> lowest, const void* x, void* y,
                const PoolPositions positions) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Window w[3];
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) w[axis] = max_window(a, axis, p.at[axis]);
  const Count count = count_of(a, w, positions.taps != nullptr);
  Value<S> best[V];
  int where[V];
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) {
    best[v] = lowest;
    where[v] = count.first;
  }
  int at0 = count.first;
  for (int i0 = w[0].begin; i0 < w[0].end; i0 += w[0].length, at0 += count.step[0]) {
    int at1 = at0;
    for (int i1 = w[1].begin; i1 < w[1].end; i1 += w[1].length, at1 += count.step[1]) {
      int at2 = at1;
      for (int i2 = w[2].begin; i2 < w[2].end; i2 += w[2].length, at2 += count.step[2]) {
        Value<S> value[V];
        read<S>(value, x, offset_of(a, a.in, p, i0, i1, i2), a.dtype);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) {
          const bool take = value[v] > best[v] || value[v] != value[v];
          best[v] = take ? value[v] : best[v];
          where[v] = take ? at2 : where[v];
        }
      }
    }
  }
  const int to = offset_of(a, a.out, p);
  write<S>(best, y, to, a.dtype);
  if (positions.taps) {
    Pack<uint8_t, V> taps;
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) taps.value[v] = static_cast<uint8_t>(where[v]);
    cuda::pack_at<uint8_t, V>(positions.taps + to) = taps;
  } else if (positions.indices) {
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) positions.indices[to + v] = where[v];
  }
}

/// The tap that pixel `i` of an axis is of window `o`, or -1.
__device__ __forceinline__ int tap_of(const PoolArgs& a, int axis, int o, int i) {
  const Window w = max_window(a, axis, o);
  const int from = i - min(w.begin, a.in[axis] - 1);
  if (from <= 0) return from < 0 ? -1 : 0;
  if (i >= w.end) return -1;
  return w.length == 1 ? from : from % w.length == 0 ? from / w.length : -1;
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    max_backward(const PoolArgs a, const void* grad_y, const PoolPositions positions, void* grad_x) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Range r[3];
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) r[axis] = windows_of(a, axis, p.at[axis]);
  const int64_t pixel = (p.at[0] * a.in[1] + p.at[1]) * a.in[2] + p.at[2];
  Value<S> sum[V] = {};
  for (int o0 = r[0].first; o0 < r[0].last; ++o0) {
    const int t0 = tap_of(a, 0, o0, p.at[0]);
    if (t0 < 0) continue;
    for (int o1 = r[1].first; o1 < r[1].last; ++o1) {
      const int t1 = tap_of(a, 1, o1, p.at[1]);
      if (t1 < 0) continue;
      for (int o2 = r[2].first; o2 < r[2].last; ++o2) {
        const int t2 = tap_of(a, 2, o2, p.at[2]);
        if (t2 < 0) continue;
        const int from = offset_of(a, a.out, p, o0, o1, o2);
        Value<S> grad[V];
        read<S>(grad, grad_y, from, a.dtype);
        if (positions.taps) {
          const int tap = (t0 * a.kernel[1] + t1) * a.kernel[2] + t2;
          const auto taps = cuda::pack_at<uint8_t, V>(positions.taps + from);
          OPSIN_UNROLL
          for (int v = 0; v < V; ++v) sum[v] += taps.value[v] == tap ? grad[v] : 0;
        } else {
          OPSIN_UNROLL
          for (int v = 0; v < V; ++v) sum[v] += positions.indices[from + v] == pixel ? grad[v] : 0;
        }
      }
    }
  }
  write<S>(sum, grad_x, offset_of(a, a.in, p), a.dtype);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    max_gather(const PoolArgs a, const void* x, const PoolPositions positions, void* y) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, 1);
  const int to = offset_of(a, a.out, p);
  int64_t pixel;
  if (positions.taps) {
    int tap = positions.taps[to], from[3];
    OPSIN_UNROLL
    for (int axis = 2; axis >= 0; --axis) {
      const Window w = max_window(a, axis, p.at[axis]);
      from[axis] = min(w.begin, a.in[axis] - 1) + tap % a.kernel[axis] * w.length;
      tap /= a.kernel[axis];
    }
    pixel = (from[0] * a.in[1] + from[1]) * a.in[2] + from[2];
  } else {
    pixel = positions.indices[to];
  }
  const int volume = a.in[0] * a.in[1] * a.in[2];
  Value<S> value[1];
  read<S>(value, x, (p.image * volume + static_cast<int>(pixel)) * a.channels + p.channel, a.dtype);
  write<S>(value, y, to, a.dtype);
}

template <class T>
__device__ __forceinline__ T divisor_of(const PoolArgs& a, const Window& w0, const Window& w1,
                                        const Window& w2) {
  return static_cast<T>(a.divisor != 0 ? a.divisor : int64_t{w0.length} * w1.length * w2.length);
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads) avg_forward(const PoolArgs a, const void* x, void* y) {
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
  Value<S> sum[V] = {};
  for (int i0 = w[0].begin; i0 < w[0].end; ++i0) {
    for (int i1 = w[1].begin; i1 < w[1].end; ++i1) {
      for (int i2 = w[2].begin; i2 < w[2].end; ++i2) {
        Value<S> value[V];
        read<S>(value, x, offset_of(a, a.in, p, i0, i1, i2), a.dtype);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += value[v];
      }
    }
  }
  if (!empty) {
    const auto divisor = divisor_of<Value<S>>(a, w[0], w[1], w[2]);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) sum[v] /= divisor;
  }
  write<S>(sum, y, offset_of(a, a.out, p), a.dtype);
}

template <class S, int V>
__global__ void __launch_bounds__(kThreads) avg_backward(const PoolArgs a, const void* grad_y, void* grad_x) {
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const Place p = place_of(a, thread, V);
  Range r[3];
  OPSIN_UNROLL
  for (int axis = 0; axis < 3; ++axis) r[axis] = windows_of(a, axis, p.at[axis]);
  const auto holds = [](const Window& w, int i) { return w.begin <= i && i < w.end; };
  Value<S> sum[V] = {};
  for (int o0 = r[0].first; o0 < r[0].last; ++o0) {
    const Window w0 = avg_window(a, 0, o0);
    if (!holds(w0, p.at[0])) continue;
    for (int o1 = r[1].first; o1 < r[1].last; ++o1) {
      const Window w1 = avg_window(a, 1, o1);
      if (!holds(w1, p.at[1])) continue;
      for (int o2 = r[2].first; o2 < r[2].last; ++o2) {
        const Window w2 = avg_window(a, 2, o2);
        if (!holds(w2, p.at[2])) continue;
        Value<S> grad[V];
        read<S>(grad, grad_y, offset_of(a, a.out, p, o0, o1, o2), a.dtype);
        const Value<S> share = 1 / divisor_of<Value<S>>(a, w0, w1, w2);
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += grad[v] * share;
      }
    }
  }
  write<S>(sum, grad_x, offset_of(a, a.in, p), a.dtype);
}

}  // namespace opsin::pool
