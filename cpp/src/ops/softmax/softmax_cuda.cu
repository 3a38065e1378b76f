// Softmax and its logarithm on a GPU. Vectors whose elements are neighbours are held by groups of threads;
// where the vectors themselves are neighbours, threads go down their columns.
#include "softmax_device.h"
#include "softmax_kernels.h"

namespace opsin {

namespace cuda {
namespace {

/// y = exp(x - max) / sum, or log y = (x - max) - log(sum).
template <class S>
struct Finish {
  using T = Computed<S>;
  T base, last;
  bool log;

  __device__ Finish(Powers<T> powers, bool log_)
      : base(base_of(powers.max)), last(log_ ? device_log(powers.sum) : T(1) / powers.sum), log(log_) {}
  __device__ T operator()(T x) const { return log ? (x - base) - last : stored_exp<S>(x - base) * last; }
};

/// Registers of a thread: few enough for three quarters of a multiprocessor's threads; fewer would spill.
template <class S>
inline constexpr int kForwardRegisters = sizeof(S) == 8   ? 128
                                         : sizeof(S) == 4 ? 40
                                                          : 48;

template <class S, int V, DType stored, int K, bool kOnce>
__global__ void __maxnreg__(kForwardRegisters<S>)
    forward_rows(const SoftmaxParams p, const RowGroups groups) {
  using T = Computed<S>;
  const bool inside = groups.row() < groups.rows;
  const S* x = inside ? static_cast<const S*>(p.x) + groups.row() * groups.n : nullptr;
  S* y = inside ? static_cast<S*>(p.y) + groups.row() * groups.n : nullptr;
  Held<S, V> held[K];
  const Finish<S> finish(row_powers<S, V, stored, kOnce>(held, x, groups), p.log);
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    if (!kOnce) load_part<S, V, stored>(held, x, groups, first);
    store_part<S, V, stored>(held, y, groups, first, [&](T(&values)[V], int, unsigned) {
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = finish(values[v]);
    });
  }
}

template <class S>
__global__ void __launch_bounds__(256) forward_columns(const SoftmaxParams p, const ColumnGroups groups) {
  const S* x = static_cast<const S*>(p.x);
  const Finish<S> finish(column_powers(x, groups, p.dtype), p.log);
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
template <class S, class T>
__device__ __forceinline__ T slope(T g, T y, T sum, bool log) {
  return log ? g - stored_exp<S>(y) * sum : y * (g - sum);
}

template <class S, int V, DType stored, int K, bool kOnce>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    backward_rows(const SoftmaxBackwardParams p, const RowGroups groups) {
  using T = Computed<S>;
  __shared__ T shared[kBlockWarps];
  const bool inside = groups.row() < groups.rows;
  const int64_t at = groups.row() * groups.n;
  const S* g = inside ? static_cast<const S*>(p.grad_y) + at : nullptr;
  const S* y = inside ? static_cast<const S*>(p.y) + at : nullptr;
  S* grad_x = inside ? static_cast<S*>(p.grad_x) + at : nullptr;
  Held<S, V> gs[K], ys[K];
  T sum = 0;
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    load_part<S, V, stored>(gs, g, groups, first);
    load_part<S, V, stored>(ys, y, groups, first);
    OPSIN_UNROLL
    for (int k = 0; k < K; ++k) {
      T g_values[V], y_values[V], part = 0;
      widen_held<S, V, stored>(g_values, gs[k]);
      widen_held<S, V, stored>(y_values, ys[k]);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) part += term(g_values[v], y_values[v], p.log);
      sum += part;
    }
  }
  sum = group_reduce<Sum>(sum, groups.width, shared);
  forget_widened(gs);
  forget_widened(ys);
  for (int64_t first = 0; first < groups.n; first = groups.next<kOnce>(first)) {
    if (!kOnce) {
      load_part<S, V, stored>(gs, g, groups, first);
      load_part<S, V, stored>(ys, y, groups, first);
    }
    store_part<S, V, stored>(gs, grad_x, groups, first, [&](T(&values)[V], int k, unsigned) {
      T y_values[V];
      widen_held<S, V, stored>(y_values, ys[k]);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = slope<S>(values[v], y_values[v], sum, p.log);
    });
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
    write_one(slope<S>(read_one(g + at, p.dtype), read_one(y + at, p.dtype), sum, p.log), grad_x + at,
              p.dtype);
  }
}

void forward(const SoftmaxParams& p) {
  if (p.inner != 1) {
    return dispatch_stored(p.dtype, [&]<class S>() {
      const ColumnGroups groups{p.outer, p.n, p.inner};
      OPSIN_LAUNCH(forward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    });
  }
  const auto run = [&]<class S, int V, DType stored>() {
    const RowGroups groups(p.outer, p.n, kPacks<V> * V);
    dispatch_held<V>(groups.held(), [&]<bool kOnce>() {
      OPSIN_LAUNCH((forward_rows<S, V, stored, kPacks<V>, kOnce>), groups.grid(), groups.block(), 0, p,
                   groups);
    });
  };
  dispatch_rows(p.dtype, p.n, run, p.x, p.y);
}

void backward(const SoftmaxBackwardParams& p) {
  if (p.inner != 1) {
    return dispatch_stored(p.dtype, [&]<class S>() {
      const ColumnGroups groups{p.outer, p.n, p.inner};
      OPSIN_LAUNCH(backward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    });
  }
  const auto run = [&]<class S, int V, DType stored>() {
    const RowGroups groups(p.outer, p.n, kPacks<V> * V);
    dispatch_held<V>(groups.held(), [&]<bool kOnce>() {
      OPSIN_LAUNCH((backward_rows<S, V, stored, kPacks<V>, kOnce>), groups.grid(), groups.block(), 0, p,
                   groups);
    });
  };
  dispatch_rows(p.dtype, p.n, run, p.grad_y, p.y, p.grad_x);
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
