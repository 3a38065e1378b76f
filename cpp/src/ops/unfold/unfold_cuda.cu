// Windows as columns on a GPU: one thread for each element that is written. Sums run in the order of the
// taps.
#include "unfold_kernels.h"

#include <algorithm>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// A geometry as a kernel counts with it: in 32 bits where no tensor has more elements.
template <class I>
struct Sizes {
  I planes, windows, taps;
  I in[3], kernel[3], out[3], stride[3], dilation[3], pad[3];
  Divider by_in[3], by_kernel[3], by_out[3], by_stride[3];
};

/// n / size, and the rest in `n`.
template <class I>
__device__ I split(I& n, I size, const Divider& divider) {
  I above;
  if constexpr (sizeof(I) == 4) {
    above = static_cast<I>(divider.divide(static_cast<uint32_t>(n)));
  } else {
    above = n / size;
  }
  n -= above * size;
  return above;
}

/// 16-bit, 32-bit or 64-bit items are copied as they are.
template <class I>
__global__ void __launch_bounds__(kThreads)
    unfold(const __grid_constant__ Sizes<I> s, const char* images, char* columns, int item, I n) {
  OPSIN_NO_UNROLL
  for (I i = static_cast<I>(thread_rank()); i < n; i += static_cast<I>(thread_count())) {
    // What is left of the index holds a digit less each time; the digits come last axis first.
    I rest = i, o[3], tap[3];
    OPSIN_UNROLL
    for (int axis = 2; axis >= 0; --axis) {
      const I above = split(rest, s.out[axis], s.by_out[axis]);
      o[axis] = rest;
      rest = above;
    }
    OPSIN_UNROLL
    for (int axis = 2; axis >= 0; --axis) {
      const I above = split(rest, s.kernel[axis], s.by_kernel[axis]);
      tap[axis] = rest;
      rest = above;
    }
    bool inside = true;
    I at = rest;
    OPSIN_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      const I pixel = o[axis] * s.stride[axis] - s.pad[axis] + tap[axis] * s.dilation[axis];
      inside &= pixel >= 0 && pixel < s.in[axis];
      at = at * s.in[axis] + pixel;
    }
    const auto copy = [&]<class T>(T zero) {
      reinterpret_cast<T*>(columns)[i] = inside ? reinterpret_cast<const T*>(images)[at] : zero;
    };
    if (item == 2) {
      copy(uint16_t{0});
    } else if (item == 4) {
      copy(uint32_t{0});
    } else {
      copy(uint64_t{0});
    }
  }
}

/// The window of an axis whose tap lies on pixel `i`, or -1.
template <class I>
__device__ I window_at(const Sizes<I>& s, int axis, I i, I tap) {
  I from = i + s.pad[axis] - tap * s.dilation[axis];
  if (from < 0) return -1;
  const I o = split(from, s.stride[axis], s.by_stride[axis]);
  return from == 0 && o < s.out[axis] ? o : -1;
}

template <class T, class I>
__global__ void __launch_bounds__(kThreads)
    fold(const __grid_constant__ Sizes<I> s, const char* columns, char* images, DType dtype, I n) {
  const auto item = static_cast<int64_t>(item_size(dtype));
  OPSIN_NO_UNROLL
  for (I i = static_cast<I>(thread_rank()); i < n; i += static_cast<I>(thread_count())) {
    I rest = i, at[3];
    OPSIN_UNROLL
    for (int axis = 2; axis >= 0; --axis) {
      const I above = split(rest, s.in[axis], s.by_in[axis]);
      at[axis] = rest;
      rest = above;
    }
    T sum = 0;
    OPSIN_NO_UNROLL
    for (I a = 0; a < s.kernel[0]; ++a) {
      const I o0 = window_at(s, 0, at[0], a);
      if (o0 < 0) continue;
      OPSIN_NO_UNROLL
      for (I b = 0; b < s.kernel[1]; ++b) {
        const I o1 = window_at(s, 1, at[1], b);
        if (o1 < 0) continue;
        const I line = (o0 * s.out[1] + o1) * s.out[2];
        const I row = rest * s.taps + (a * s.kernel[1] + b) * s.kernel[2];
        OPSIN_NO_UNROLL
        for (I c = 0; c < s.kernel[2]; ++c) {
          const I o2 = window_at(s, 2, at[2], c);
          if (o2 < 0) continue;
          sum += load<T>(columns + ((row + c) * s.windows + line + o2) * item, dtype);
        }
      }
    }
    store(sum, images + i * item, dtype);
  }
}

int64_t volume(const int64_t (&size)[3]) { return size[0] * size[1] * size[2]; }

template <class I>
Sizes<I> sizes_of(const UnfoldGeometry& g) {
  Sizes<I> s;
  s.planes = static_cast<I>(g.planes);
  s.windows = static_cast<I>(volume(g.out));
  s.taps = static_cast<I>(volume(g.kernel));
  for (int i = 0; i < 3; ++i) {
    const auto divider = [](int64_t size) {
      return Divider(sizeof(I) == 4 ? static_cast<uint32_t>(size) : 1);
    };
    s.in[i] = static_cast<I>(g.in[i]);
    s.kernel[i] = static_cast<I>(g.kernel[i]);
    s.out[i] = static_cast<I>(g.out[i]);
    s.stride[i] = static_cast<I>(g.stride[i]);
    s.dilation[i] = static_cast<I>(g.dilation[i]);
    s.pad[i] = static_cast<I>(g.pad[i]);
    s.by_in[i] = divider(g.in[i]);
    s.by_kernel[i] = divider(g.kernel[i]);
    s.by_out[i] = divider(g.out[i]);
    s.by_stride[i] = divider(g.stride[i]);
  }
  return s;
}

/// Whether 32 bits count all elements and reach all positions, those in the padding included.
bool is_small(const UnfoldGeometry& g) {
  constexpr int64_t kMost = INT64_C(0x7fffffff) - int64_t{kMaxGridBlocks} * kThreads;
  bool small = g.planes * volume(g.in) <= kMost && g.planes * volume(g.kernel) * volume(g.out) <= kMost;
  for (int i = 0; i < 3; ++i) {
    small &= std::max(g.stride[i], g.dilation[i]) <= kMost && g.in[i] + g.pad[i] <= kMost &&
             (g.out[i] - 1) * g.stride[i] + (g.kernel[i] - 1) * g.dilation[i] <= kMost;
  }
  return small;
}

void run_unfold(const UnfoldGeometry& g, DType dtype, const void* images, void* columns) {
  const int64_t n = g.planes * volume(g.kernel) * volume(g.out);
  const auto launch = [&]<class I>(I) {
    OPSIN_LAUNCH((unfold<I>), grid_for(n, kThreads), kThreads, 0, sizes_of<I>(g),
                 static_cast<const char*>(images), static_cast<char*>(columns),
                 static_cast<int>(item_size(dtype)), static_cast<I>(n));
  };
  is_small(g) ? launch(int32_t{}) : launch(int64_t{});
}

template <class T>
void fold_numbers(const UnfoldGeometry& g, DType dtype, const void* columns, void* images) {
  const int64_t n = g.planes * volume(g.in);
  const auto launch = [&]<class I>(I) {
    OPSIN_LAUNCH((fold<T, I>), grid_for(n, kThreads), kThreads, 0, sizes_of<I>(g),
                 static_cast<const char*>(columns), static_cast<char*>(images), dtype, static_cast<I>(n));
  };
  is_small(g) ? launch(int32_t{}) : launch(int64_t{});
}

void run_fold(const UnfoldGeometry& g, DType dtype, const void* columns, void* images) {
  if (dtype == kFloat64) return fold_numbers<double>(g, dtype, columns, images);
  fold_numbers<float>(g, dtype, columns, images);
}

}  // namespace

void register_unfold_cuda();

void register_unfold_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    unfold_forward.set(DeviceType::kCUDA, dtype, run_unfold);
    fold_columns.set(DeviceType::kCUDA, dtype, run_fold);
  }
}

}  // namespace opsin
