// Batch normalization on a GPU: sums per channel, a small kernel that makes numbers per channel of them, and
// a pass over all elements with these. Nothing is read on the host.
#include "column_device.h"
#include "norm_kernels.h"

#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

/// What the last pass needs, `channels` numbers of each.
template <class T>
struct Table {
  T *mean, *scale, *offset, *slope;

  Table(void* memory, int64_t channels)
      : mean(static_cast<T*>(memory)),
        scale(mean + channels),
        offset(scale + channels),
        slope(offset + channels) {}
  static int64_t bytes(int64_t channels) { return 4 * channels * static_cast<int64_t>(sizeof(T)); }
};

// Rows of one channel each: `inner` neighbours.

/// Which sample and which neighbour an element of a channel is.
struct ChannelIndex {
  int64_t inner;
  bool wide;
  Divider divider;

  ChannelIndex(int64_t inner_, int64_t count)
      : inner(inner_),
        wide(count > std::numeric_limits<uint32_t>::max()),
        divider(static_cast<uint32_t>(inner_)) {}
  __device__ int64_t divide(int64_t i) const {
    return wide ? i / inner : static_cast<int64_t>(divider.divide(static_cast<uint32_t>(i)));
  }
};

template <class S, bool kGrad>
__global__ void __launch_bounds__(kThreads) row_sums(const ColumnSumParams p, const ChannelIndex index) {
  using T = Computed<S>;
  __shared__ Pair<double> shared[kBlockWarps];
  constexpr int kLoads = 4;
  const int64_t channel = blockIdx.x, start = channel * index.inner, sample = p.columns * index.inner;
  const S* x = static_cast<const S*>(p.x) + start;
  const S* g = kGrad ? static_cast<const S*>(p.g) + start : nullptr;
  const auto read = [&](const S* from) {
    T value[1];
    widen(value, pack_at<S, 1>(from), p.dtype);
    return value[0];
  };
  T centre, rest = 0;
  if constexpr (kGrad) {
    centre = static_cast<T>(p.centre[channel]);
    rest = static_cast<T>(static_cast<double>(centre) - p.centre[channel]);
  } else {
    centre = read(x);
  }
  T first = 0, second = 0;
  const auto add = [&](T value, T gradient) {
    const T d = (value - centre) + rest, f = kGrad ? gradient : d;
    first += f;
    second += f * d;
  };
  const auto place = [&](int64_t i) {
    const int64_t n = index.divide(i);
    return n * sample + (i - n * index.inner);
  };
  const int64_t end = p.rows * (blockIdx.y + 1) / p.slices;
  int64_t i = p.rows * blockIdx.y / p.slices + threadIdx.x;
  for (; i + (kLoads - 1) * int64_t{kThreads} < end; i += kLoads * int64_t{kThreads}) {
    T xs[kLoads], gs[kLoads];
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const int64_t at = place(i + k * int64_t{kThreads});
      xs[k] = read(x + at);
      gs[k] = kGrad ? read(g + at) : T(0);
    }
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) add(xs[k], gs[k]);
  }
  for (; i < end; i += kThreads) {
    const int64_t at = place(i);
    add(read(x + at), kGrad ? read(g + at) : T(0));
  }
  const Pair<double> sums =
      block_reduce<Sum>(Pair<double>{static_cast<double>(first), static_cast<double>(second)}, shared);
  if (threadIdx.x != 0) return;
  double* part = p.parts + 2 * blockIdx.y * p.columns + channel;
  part[0] = sums.first;
  part[p.columns] = sums.second;
}

// Numbers per channel.

__device__ __forceinline__ char* place_of(const ChannelNumbers& numbers, int64_t channel) {
  const int bytes = numbers.dtype == kFloat64 ? 8 : numbers.dtype == kFloat32 ? 4 : 2;
  return static_cast<char*>(numbers.data) + channel * numbers.stride * bytes;
}
__device__ __forceinline__ double read_number(const ChannelNumbers& numbers, int64_t channel,
                                              double missing) {
  if (!numbers.data) return missing;
  const char* place = place_of(numbers, channel);
  if (numbers.dtype == kFloat64) return *reinterpret_cast<const double*>(place);
  return static_cast<double>(load<float>(place, numbers.dtype));
}
/// running = (1 - momentum) running + momentum value
__device__ __forceinline__ void move_number(const ChannelNumbers& running, int64_t channel, double value,
                                            double momentum) {
  if (!running.data) return;
  const double moved = (1 - momentum) * read_number(running, channel, 0) + momentum * value;
  char* place = place_of(running, channel);
  if (running.dtype == kFloat64) {
    *reinterpret_cast<double*>(place) = moved;
  } else {
    store(static_cast<float>(moved), place, running.dtype);
  }
}

/// y = (x - mean) scale + offset, with the mean rounded and what that loses put into the offset.
template <class T>
__global__ void __launch_bounds__(kWarpThreads* kMergeShares)
    prepare_forward(const BatchNormParams p, const double* parts, int64_t slices, const Table<T> table) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  Pair<double> sums{0, 0};
  if (p.training) sums = merge_parts(parts, slices, p.shape.channels, c);
  if (c >= p.shape.channels || threadIdx.y != 0) return;
  double mean, variance;
  if (p.training) {
    const auto n = static_cast<double>(p.shape.batch * p.shape.inner);
    const int bytes = p.shape.dtype == kFloat64 ? 8 : p.shape.dtype == kFloat32 ? 4 : 2;
    const char* first = static_cast<const char*>(p.x) + (p.shape.columns ? c : c * p.shape.inner) * bytes;
    const double centre = sums.first / n, m2 = sums.second - sums.first * centre;
    mean = static_cast<double>(load<T>(first, p.shape.dtype)) + centre;
    variance = m2 > 0 || m2 != m2 ? m2 / n : 0;
    move_number(p.running_mean, c, mean, p.momentum);
    move_number(p.running_var, c, variance * (n / (n - 1)), p.momentum);
  } else {
    mean = read_number(p.running_mean, c, 0);
    variance = read_number(p.running_var, c, 1);
  }
  const double inverse = 1 / std::sqrt(variance + p.eps), scale = read_number(p.weight, c, 1) * inverse;
  const T rounded = static_cast<T>(mean);
  p.mean[c] = mean;
  p.inverse[c] = inverse;
  table.mean[c] = rounded;
  table.scale[c] = static_cast<T>(scale);
  table.offset[c] = static_cast<T>(read_number(p.bias, c, 0) + (static_cast<double>(rounded) - mean) * scale);
}

/// dx = g scale - offset - (x - mean) slope
template <class T>
__global__ void __launch_bounds__(kWarpThreads* kMergeShares)
    prepare_backward(const BatchNormBackwardParams p, const double* parts, int64_t slices,
                     const Table<T> table) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  Pair<double> sums{0, 0};
  if (slices > 0) sums = merge_parts(parts, slices, p.shape.channels, c);
  if (c >= p.shape.channels || threadIdx.y != 0) return;
  const double inverse = p.inverse[c], scale = read_number(p.weight, c, 1) * inverse;
  if (p.grad_bias) static_cast<T*>(p.grad_bias)[c] = static_cast<T>(sums.first);
  if (p.grad_weight) static_cast<T*>(p.grad_weight)[c] = static_cast<T>(sums.second * inverse);
  const auto n = static_cast<double>(p.shape.batch * p.shape.inner);
  table.mean[c] = static_cast<T>(p.mean[c]);
  table.scale[c] = static_cast<T>(scale);
  table.offset[c] = p.training ? static_cast<T>(scale * sums.first / n) : T(0);
  table.slope[c] = p.training ? static_cast<T>(scale * inverse * inverse * sums.second / n) : T(0);
}

// The last pass.

struct ApplyParams {
  const void* x;
  const void* g;  ///< For the gradient, else null.
  void* y;
  int64_t rows, columns;
  DType dtype;
};

/// V neighbouring channels.
template <class T, int V, bool kGrad>
struct Applied {
  T mean[V], scale[V], offset[V], slope[V];

  __device__ void load(const Table<T>& table, int64_t c) {
    load_row(mean, table.mean + c);
    load_row(scale, table.scale + c);
    load_row(offset, table.offset + c);
    if constexpr (kGrad) load_row(slope, table.slope + c);
  }
  __device__ T operator()(T x, T g, int v) const {
    if constexpr (kGrad) return g * scale[v] - offset[v] - (x - mean[v]) * slope[v];
    return (x - mean[v]) * scale[v] + offset[v];
  }
};

/// Rows that a thread goes through, some at once.
constexpr int kApplyRows = 8, kApplyLoads = 4;

template <class S, int V, bool kGrad>
__global__ void __launch_bounds__(kThreads)
    apply_columns(const ApplyParams p, const Table<Computed<S>> table) {
  using T = Computed<S>;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  if (column >= p.columns) return;
  Applied<T, V, kGrad> apply;
  apply.load(table, column);
  const S* x = static_cast<const S*>(p.x) + column;
  const S* g = kGrad ? static_cast<const S*>(p.g) + column : nullptr;
  S* y = static_cast<S*>(p.y) + column;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y * kApplyRows + threadIdx.y;
  for (int batch = 0; batch < kApplyRows; batch += kApplyLoads) {
    Pack<S, V> xs[kApplyLoads], gs[kApplyLoads];
    OPSIN_UNROLL
    for (int k = 0; k < kApplyLoads; ++k) {
      const int64_t r = first + static_cast<int64_t>(batch + k) * blockDim.y;
      if (r >= p.rows) continue;
      xs[k] = pack_at<S, V>(x + r * p.columns);
      if constexpr (kGrad) gs[k] = pack_at<S, V>(g + r * p.columns);
    }
    OPSIN_UNROLL
    for (int k = 0; k < kApplyLoads; ++k) {
      const int64_t r = first + static_cast<int64_t>(batch + k) * blockDim.y;
      if (r >= p.rows) return;
      T values[V], gradients[V] = {};
      widen(values, xs[k], p.dtype);
      if constexpr (kGrad) widen(gradients, gs[k], p.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) values[v] = apply(values[v], gradients[v], v);
      pack_at<S, V>(y + r * p.columns) = narrow<S, V>(values, p.dtype);
    }
  }
}

template <class S, bool kGrad>
__global__ void __launch_bounds__(kThreads) apply_rows(const ApplyParams p, const Table<Computed<S>> table,
                                                       const ChannelIndex index, const ChannelIndex channel) {
  using T = Computed<S>;
  for (int64_t i = thread_rank(); i < p.rows; i += thread_count()) {
    const int64_t row = index.divide(i), c = row - channel.divide(row) * channel.inner;
    T x[1], g[1] = {};
    widen(x, pack_at<S, 1>(static_cast<const S*>(p.x) + i), p.dtype);
    if constexpr (kGrad) widen(g, pack_at<S, 1>(static_cast<const S*>(p.g) + i), p.dtype);
    Applied<T, 1, kGrad> apply;
    apply.load(table, c);
    const T y[1] = {apply(x[0], g[0], 0)};
    pack_at<S, 1>(static_cast<S*>(p.y) + i) = narrow<S, 1>(y, p.dtype);
  }
}

/// Calls body<S, V>() with the widest vectors that serve.
template <class Body, class... Data>
void dispatch_vectors(const ChannelShape& shape, Body&& body, Data... data) {
  dispatch_stored(shape.dtype, [&]<class S>() {
    if constexpr (sizeof(S) < 8) {
      if (shape.columns && fits_vectors<S>(shape.channels, data...)) {
        return body.template operator()<S, kVector<S>>();
      }
    }
    body.template operator()<S, 1>();
  });
}

int64_t count_slices(const ChannelShape& shape, int vector) {
  const int64_t rows = shape.batch * shape.inner;
  if (shape.columns) return ColumnTiles(rows, shape.channels, vector).slices();
  return std::clamp<int64_t>(std::min(ColumnTiles::kBlocks / shape.channels, rows / (kThreads * 8)), 1,
                             ColumnTiles::kBlocks);
}

template <class S, int V, bool kGrad>
void launch_sums(const ChannelShape& shape, const ColumnSumParams& p) {
  if (shape.columns) {
    launch_column_sums<S, V, kGrad ? ColumnSum::kGradients : ColumnSum::kMoments>(
        ColumnTiles(p.rows, p.columns, V), p);
  } else if constexpr (V == 1) {
    const dim3 grid(static_cast<unsigned>(p.columns), static_cast<unsigned>(p.slices));
    OPSIN_LAUNCH((row_sums<S, kGrad>), grid, kThreads, 0, p, ChannelIndex(shape.inner, p.rows));
  }
}

template <class S, int V, bool kGrad>
void launch_apply(const ChannelShape& shape, const Table<Computed<S>>& table, const void* x, const void* g,
                  void* y) {
  const int64_t rows = shape.batch * shape.inner;
  if (shape.columns) {
    const ColumnTiles tiles(rows, shape.channels, V);
    const int64_t of_block = int64_t{tiles.y} * kApplyRows;
    const dim3 grid(static_cast<unsigned>((rows + of_block - 1) / of_block), tiles.tiles);
    OPSIN_LAUNCH((apply_columns<S, V, kGrad>), grid, tiles.block(), 0,
                 ApplyParams{x, g, y, rows, shape.channels, shape.dtype}, table);
  } else if constexpr (V == 1) {
    const int64_t count = rows * shape.channels;
    OPSIN_LAUNCH((apply_rows<S, kGrad>), grid_for(count, kThreads * 4), kThreads, 0,
                 ApplyParams{x, g, y, count, shape.channels, shape.dtype}, table,
                 ChannelIndex(shape.inner, count), ChannelIndex(shape.channels, count));
  }
}

void forward(const BatchNormParams& p) {
  const auto run = [&]<class S, int V>() {
    using T = Computed<S>;
    const int64_t channels = p.shape.channels, slices = p.training ? count_slices(p.shape, V) : 0;
    const int64_t part_bytes = slices * 2 * channels * static_cast<int64_t>(sizeof(double));
    const Workspace memory(part_bytes + Table<T>::bytes(channels));
    auto* parts = static_cast<double*>(memory.get());
    const Table<T> table(static_cast<char*>(memory.get()) + part_bytes, channels);
    if (p.training) {
      launch_sums<S, V, false>(p.shape, {p.x, nullptr, nullptr, nullptr, p.shape.batch * p.shape.inner,
                                         channels, slices, p.shape.dtype, parts});
    }
    OPSIN_LAUNCH(prepare_forward<T>, grid_for(channels, kWarpThreads, ~0u), dim3(kWarpThreads, kMergeShares),
                 0, p, parts, slices, table);
    launch_apply<S, V, false>(p.shape, table, p.x, nullptr, p.y);
  };
  dispatch_vectors(p.shape, run, p.x, p.y);
}

void backward(const BatchNormBackwardParams& p) {
  const auto run = [&]<class S, int V>() {
    using T = Computed<S>;
    const bool sums = p.training || p.grad_weight || p.grad_bias;
    const int64_t channels = p.shape.channels, slices = sums ? count_slices(p.shape, V) : 0;
    const int64_t part_bytes = slices * 2 * channels * static_cast<int64_t>(sizeof(double));
    const Workspace memory(part_bytes + Table<T>::bytes(channels));
    auto* parts = static_cast<double*>(memory.get());
    const Table<T> table(static_cast<char*>(memory.get()) + part_bytes, channels);
    if (sums) {
      launch_sums<S, V, true>(p.shape, {p.x, p.g, p.mean, nullptr, p.shape.batch * p.shape.inner, channels,
                                        slices, p.shape.dtype, parts});
    }
    OPSIN_LAUNCH(prepare_backward<T>, grid_for(channels, kWarpThreads, ~0u), dim3(kWarpThreads, kMergeShares),
                 0, p, parts, slices, table);
    if (p.grad_x) launch_apply<S, V, true>(p.shape, table, p.x, p.g, p.grad_x);
  };
  dispatch_vectors(p.shape, run, p.x, p.g, p.grad_x);
}

}  // namespace
}  // namespace cuda

void register_batch_norm_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    batch_norm_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    batch_norm_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
