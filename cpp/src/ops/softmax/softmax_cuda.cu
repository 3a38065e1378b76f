// Softmax and its logarithm on a GPU. Vectors whose elements are neighbours are held by groups of threads;
// where the vectors themselves are neighbours, threads go down their columns.
#include "softmax_device.h"
#include "softmax_kernels.h"

namespace opsin {

namespace cuda {
namespace {

/// y = exp(x - max) / sum, or log y = (x - max) - log(sum).
template <class T>
struct Finish {
  T base, last;
  bool log;

  __device__ Finish(Powers<T> powers, bool log_)
      : base(base_of(powers.max)), last(log_ ? device_log(powers.sum) : T(1) / powers.sum), log(log_) {}
  __device__ T operator()(T x) const { return log ? (x - base) - last : device_exp(x - base) * last; }
};

template <class S, int V>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    forward_rows(const SoftmaxParams p, const RowGroups groups) {
  using T = Computed<S>;
  const bool inside = groups.row() < groups.rows;
  const S* x = inside ? static_cast<const S*>(p.x) + groups.row() * groups.n : nullptr;
  S* y = inside ? static_cast<S*>(p.y) + groups.row() * groups.n : nullptr;
  T values[kHeld];
  const Finish<T> finish(row_powers<S, V>(values, x, groups, p.dtype), p.log);
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    if (!groups.held()) load_part<S, V>(values, x, groups, first, p.dtype, T(0));
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) values[i] = finish(values[i]);
    store_part<S, V>(values, y, groups, first, p.dtype);
  }
}

template <class S>
__global__ void __launch_bounds__(256) forward_columns(const SoftmaxParams p, const ColumnGroups groups) {
  using T = Computed<S>;
  const S* x = static_cast<const S*>(p.x);
  const Finish<T> finish(column_powers(x, groups, p.dtype), p.log);
  if (!groups.inside()) return;
  x += groups.start();
  S* y = static_cast<S*>(p.y) + groups.start();
  for (int64_t i = threadIdx.y; i < groups.n; i += blockDim.y) {
    write_one(finish(read_one(x + i * groups.inner, p.dtype)), y + i * groups.inner, p.dtype);
  }
}

// softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - exp(y) sum(dy).
template <class T>
__device__ __forceinline__ T term(T g, T y, bool log) {
  return log ? g : g * y;
}
template <class T>
__device__ __forceinline__ T slope(T g, T y, T sum, bool log) {
  return log ? g - device_exp(y) * sum : y * (g - sum);
}

template <class S, int V>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    backward_rows(const SoftmaxBackwardParams p, const RowGroups groups) {
  using T = Computed<S>;
  __shared__ T shared[kBlockWarps];
  const bool inside = groups.row() < groups.rows;
  const int64_t at = groups.row() * groups.n;
  const S* g = inside ? static_cast<const S*>(p.grad_y) + at : nullptr;
  const S* y = inside ? static_cast<const S*>(p.y) + at : nullptr;
  S* grad_x = inside ? static_cast<S*>(p.grad_x) + at : nullptr;
  T gs[kHeld], ys[kHeld], sum = 0;
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    load_part<S, V>(gs, g, groups, first, p.dtype, T(0));
    load_part<S, V>(ys, y, groups, first, p.dtype, T(0));
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) sum += term(gs[i], ys[i], p.log);
  }
  sum = group_reduce<Sum>(sum, groups.width, shared);
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    if (!groups.held()) {
      load_part<S, V>(gs, g, groups, first, p.dtype, T(0));
      load_part<S, V>(ys, y, groups, first, p.dtype, T(0));
    }
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) gs[i] = slope(gs[i], ys[i], sum, p.log);
    store_part<S, V>(gs, grad_x, groups, first, p.dtype);
  }
}

template <class S>
__global__ void __launch_bounds__(256)
    backward_columns(const SoftmaxBackwardParams p, const ColumnGroups groups) {
  using T = Computed<S>;
  __shared__ T shared[256];
  const S* g = static_cast<const S*>(p.grad_y);
  const S* y = static_cast<const S*>(p.y);
  T sum = 0;
  if (groups.inside()) {
    g += groups.start();
    y += groups.start();
    for (int64_t i = threadIdx.y; i < groups.n; i += blockDim.y) {
      sum += term(read_one(g + i * groups.inner, p.dtype), read_one(y + i * groups.inner, p.dtype), p.log);
    }
  }
  sum = column_reduce<Sum>(sum, shared);
  if (!groups.inside()) return;
  S* grad_x = static_cast<S*>(p.grad_x) + groups.start();
  for (int64_t i = threadIdx.y; i < groups.n; i += blockDim.y) {
    const int64_t at = i * groups.inner;
    write_one(slope(read_one(g + at, p.dtype), read_one(y + at, p.dtype), sum, p.log), grad_x + at, p.dtype);
  }
}

void forward(const SoftmaxParams& p) {
  dispatch_stored(p.dtype, [&]<class S>() {
    if (p.inner != 1) {
      const ColumnGroups groups{p.outer, p.n, p.inner};
      return OPSIN_LAUNCH(forward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    }
    const RowGroups groups(p.outer, p.n);
    if constexpr (sizeof(S) < 8) {
      if (fits_vectors<S>(p.n, p.x, p.y)) {
        return OPSIN_LAUNCH((forward_rows<S, kVector<S>>), groups.grid(), groups.block(), 0, p, groups);
      }
    }
    OPSIN_LAUNCH((forward_rows<S, 1>), groups.grid(), groups.block(), 0, p, groups);
  });
}

void backward(const SoftmaxBackwardParams& p) {
  dispatch_stored(p.dtype, [&]<class S>() {
    if (p.inner != 1) {
      const ColumnGroups groups{p.outer, p.n, p.inner};
      return OPSIN_LAUNCH(backward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    }
    const RowGroups groups(p.outer, p.n);
    if constexpr (sizeof(S) < 8) {
      if (fits_vectors<S>(p.n, p.grad_y, p.y, p.grad_x)) {
        return OPSIN_LAUNCH((backward_rows<S, kVector<S>>), groups.grid(), groups.block(), 0, p, groups);
      }
    }
    OPSIN_LAUNCH((backward_rows<S, 1>), groups.grid(), groups.block(), 0, p, groups);
  });
}

}  // namespace
}  // namespace cuda

void register_softmax_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    softmax_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    softmax_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
