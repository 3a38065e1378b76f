// Losses over classes on a GPU: log-softmax and the choice of a class in one pass.
#include "cross_entropy_kernels.h"

#include "../softmax/softmax_device.h"
#include "cuda/device_error.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

template <class T>
__global__ void label_kernel(const int64_t* target, const T* class_weight, int64_t* index, T* weight,
                             int64_t count, int64_t classes, int64_t ignore_index, HostText op,
                             DeviceError* error) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < count; i += thread_count()) {
    const int64_t t = target[i];
    const bool fits = t >= 0 && t < classes, counts = t != ignore_index && fits;
    if (t != ignore_index && !fits) report_index(error, op, t, 0, classes);
    index[i] = counts ? t : 0;
    weight[i] = !counts ? T(0) : class_weight ? class_weight[t] : T(1);
  }
}

void labels(const LabelParams& p) {
  const auto launch = [&]<class T>() {
    OPSIN_LAUNCH(label_kernel<T>, grid_for(p.count, kThreads), kThreads, 0, p.target,
                 static_cast<const T*>(p.class_weight), p.index, static_cast<T*>(p.weight), p.count,
                 p.classes, p.ignore_index, p.op, device_error());
  };
  p.dtype == kFloat64 ? launch.template operator()<double>() : launch.template operator()<float>();
}

/// Writes the loss of a position; `own` is the score of its class.
template <class T>
__device__ __forceinline__ void put_loss(const CrossEntropyParams& p, int64_t position, Powers<T> powers,
                                         T own) {
  const T log_sum = device_log(powers.sum) + base_of(powers.max),
          scale = static_cast<const T*>(p.scale)[position];
  static_cast<T*>(p.log_sum)[position] = log_sum;
  static_cast<T*>(p.loss)[position] = scale == T(0) ? T(0) : scale * (log_sum - own);
}

/// Threads of a block that serves one position. The scores are read once, so none need be held.
constexpr unsigned kMostScoreThreads = 256;

template <class S, int V, DType stored, int K>
__global__ void __launch_bounds__(kMostScoreThreads, 2 * kRowBlocks<S>)
    forward_rows(const CrossEntropyParams p, const RowGroups groups) {
  const int64_t position = groups.row();
  const bool inside = position < groups.rows, writes = inside && groups.lane() == 0;
  const S* x = inside ? static_cast<const S*>(p.x) + position * groups.n : nullptr;
  // Asked for before the scores, which it would have to wait for at the end.
  const int64_t target = writes ? p.target[position] : 0;
  Held<S, V> held[K];
  const auto powers = row_powers<S, V, stored, false>(held, x, groups);
  if (writes) put_loss(p, position, powers, read_one(x + target, stored));
}

template <class S>
__global__ void __launch_bounds__(256)
    forward_columns(const CrossEntropyParams p, const ColumnGroups groups) {
  const S* x = static_cast<const S*>(p.x);
  const auto powers = column_powers(x, groups, p.dtype);
  if (!groups.inside() || threadIdx.y != 0) return;
  const int64_t position = groups.column();
  put_loss(p, position, powers, read_one(x + groups.start() + p.target[position] * groups.inner, p.dtype));
}

/// scale (exp(x - log_sum) - [class == target])
template <class S>
struct Slope {
  using T = Computed<S>;
  T scale, log_sum;
  int64_t target;

  __device__ Slope(const CrossEntropyParams& p, int64_t position)
      : scale(static_cast<const T*>(p.scale)[position]),
        log_sum(static_cast<const T*>(p.log_sum)[position]),
        target(p.target[position]) {}
  __device__ T operator()(T x, int64_t c) const {
    return scale == T(0) ? T(0) : scale * (stored_exp<S>(x - log_sum) - (c == target ? T(1) : T(0)));
  }
};

template <class S, int V, DType stored, int K>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    backward_rows(const CrossEntropyParams p, const RowGroups groups) {
  using T = Computed<S>;
  const int64_t position = groups.row();
  if (position >= groups.rows) return;
  const Slope<S> slope(p, position);
  const S* x = static_cast<const S*>(p.x) + position * groups.n;
  S* grad_x = static_cast<S*>(p.grad_x) + position * groups.n;
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    Held<S, V> held[K];
    load_part<S, V, stored>(held, x, groups, first);
    store_part<S, V, stored>(held, grad_x, groups, first, [&](T(&values)[V], int, unsigned at) {
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = slope(values[v], first + at + v);
    });
  }
}

template <class S>
__global__ void __launch_bounds__(256)
    backward_columns(const CrossEntropyParams p, const ColumnGroups groups) {
  if (!groups.inside()) return;
  const Slope<S> slope(p, groups.column());
  const S* x = static_cast<const S*>(p.x) + groups.start();
  S* grad_x = static_cast<S*>(p.grad_x) + groups.start();
  for (int64_t c = threadIdx.y; c < groups.n; c += blockDim.y) {
    const int64_t at = c * groups.inner;
    write_one(slope(read_one(x + at, p.dtype), c), grad_x + at, p.dtype);
  }
}

void forward(const CrossEntropyParams& p) {
  if (p.inner != 1) {
    return dispatch_stored(p.dtype, [&]<class S>() {
      const ColumnGroups groups{p.outer, p.classes, p.inner};
      OPSIN_LAUNCH(forward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    });
  }
  const auto run = [&]<class S, int V, DType stored>() {
    const RowGroups groups(p.outer, p.classes, kPacks<V> * V, kMostScoreThreads);
    OPSIN_LAUNCH((forward_rows<S, V, stored, kPacks<V>>), groups.grid(), groups.block(), 0, p, groups);
  };
  dispatch_rows(p.dtype, p.classes, run, p.x);
}

void backward(const CrossEntropyParams& p) {
  if (p.inner != 1) {
    return dispatch_stored(p.dtype, [&]<class S>() {
      const ColumnGroups groups{p.outer, p.classes, p.inner};
      OPSIN_LAUNCH(backward_columns<S>, groups.grid(), groups.block(), 0, p, groups);
    });
  }
  const auto run = [&]<class S, int V, DType stored>() {
    const RowGroups groups(p.outer, p.classes, kPacks<V> * V);
    OPSIN_LAUNCH((backward_rows<S, V, stored, kPacks<V>>), groups.grid(), groups.block(), 0, p, groups);
  };
  dispatch_rows(p.dtype, p.classes, run, p.x, p.grad_x);
}

}  // namespace
}  // namespace cuda

void register_cross_entropy_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    cross_entropy_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    cross_entropy_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
  for (const DType dtype : {kFloat32, kFloat64}) class_labels.set(DeviceType::kCUDA, dtype, cuda::labels);
}

}  // namespace opsin
