// Batch normalization on a GPU: sums per channel, a small kernel that makes numbers per channel of them, and
// a pass over all elements with these. Nothing is read on the host.
#include "channels_device.h"
#include "norm_kernels.h"

#include "cuda/quotient.h"
#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

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
    return wide ? wide_quotient(i, inner) : static_cast<int64_t>(divider.divide(static_cast<uint32_t>(i)));
  }
};

template <class S, ColumnSum kSum>
__global__ void __launch_bounds__(kThreads) row_sums(const ColumnSumParams p, const ChannelIndex index) {
  using T = Computed<S>;
  constexpr bool kGrad = kSum != ColumnSum::kMoments, kMask = kSum == ColumnSum::kMaskedGradients;
  constexpr bool kWrite = kSum == ColumnSum::kWrittenGradients;
  __shared__ Pair<double> shared[kBlockWarps];
  constexpr int kLoads = 4;
  const int64_t channel = blockIdx.x, start = channel * index.inner, sample = p.columns * index.inner;
  const S* x = static_cast<const S*>(p.x) + start;
  const S* g = kGrad ? static_cast<const S*>(p.g) + start : nullptr;
  const S* relu_output = kWrite ? static_cast<const S*>(p.relu_output) + start : nullptr;
  S* masked = kWrite ? static_cast<S*>(p.masked) + start : nullptr;
  const auto read = [&](const S* from) {
    T value[1];
    widen(value, pack_at<S, 1>(from), p.dtype);
    return value[0];
  };
  const T least = static_cast<T>(least_positive(p.dtype));
  const T greatest = static_cast<T>(greatest_below(p.ceiling, p.dtype));
  const auto gradient_at = [&](int64_t at) {
    T gradient[1] = {read(g + at)};
    if constexpr (kWrite) {
      gradient[0] *= passes(read(relu_output + at), T(0), greatest);
      pack_at<S, 1>(masked + at) = narrow<S, 1>(gradient, p.dtype);
    }
    return gradient[0];
  };
  T centre, rest = 0, scale = 0, offset = 0;
  if constexpr (kMask) {
    scale = static_cast<const T*>(p.numbers)[p.columns + channel];
    offset = static_cast<const T*>(p.numbers)[2 * p.columns + channel];
  }
  if constexpr (kGrad) {
    centre = static_cast<T>(p.centre[channel]);
    rest = static_cast<T>(static_cast<double>(centre) - p.centre[channel]);
  } else {
    centre = read(x);
  }
  T first = 0, second = 0;
  const auto add = [&](T value, T gradient) {
    const T d = (value - centre) + rest;
    T f = kGrad ? gradient : d;
    if constexpr (kMask) f *= passes((value - centre) * scale + offset, least, greatest);
    first += f;
    second += f * d;
  };
  const auto place = [&](int64_t i) {
    const int64_t n = index.divide(i);
    return n * sample + (i - n * index.inner);
  };
  const int64_t end = p.rows * (blockIdx.y + 1) / p.slices;
  int64_t i = p.rows * blockIdx.y / p.slices + threadIdx.x;
  OPSIN_NO_UNROLL
  for (; i + (kLoads - 1) * int64_t{kThreads} < end; i += kLoads * int64_t{kThreads}) {
    T xs[kLoads], gs[kLoads];
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const int64_t at = place(i + k * int64_t{kThreads});
      xs[k] = read(x + at);
      gs[k] = kGrad ? gradient_at(at) : T(0);
    }
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) add(xs[k], gs[k]);
  }
  OPSIN_NO_UNROLL
  for (; i < end; i += kThreads) {
    const int64_t at = place(i);
    add(read(x + at), kGrad ? gradient_at(at) : T(0));
  }
  const Pair<double> sums =
      block_reduce<Sum>(Pair<double>{static_cast<double>(first), static_cast<double>(second)}, shared);
  if (threadIdx.x != 0) return;
  double* part = p.parts + 2 * blockIdx.y * p.columns + channel;
  part[0] = sums.first;
  part[p.columns] = sums.second;
}

// Numbers per channel.

// As many sums as memory moves at once, so that the least channels still have several blocks.
constexpr unsigned kMergeColumns = 4;

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

template <class T>
__global__ void __launch_bounds__(kMaxBlockThreads)
    prepare_forward(const BatchNormParams p, const double* parts, int64_t slices, const Table<T> table) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kMergeColumns + threadIdx.x;
  Pair<double> sums{0, 0};
  if (p.training) sums = merge_parts<kMergeColumns>(parts, slices, p.shape.channels, c);
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
__global__ void __launch_bounds__(kMaxBlockThreads)
    prepare_backward(const BatchNormBackwardParams p, const double* parts, int64_t slices,
                     const Table<T> table) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kMergeColumns + threadIdx.x;
  Pair<double> sums{0, 0};
  if (slices > 0) sums = merge_parts<kMergeColumns>(parts, slices, p.shape.channels, c);
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

struct ApplyParams : PassData {
  int64_t rows, columns, matrices;
  DType dtype;
};

/// V neighbouring channels.
template <class S, int V, Pass kPass>
struct Applied {
  using T = Computed<S>;
  static constexpr bool kForward = kPass == Pass::kForward || kPass == Pass::kResidual;
  static constexpr bool kMask = kPass == Pass::kMaskedGradient, kSecond = kPass != Pass::kForward;
  T mean[V], scale[V], offset[V], slope[V], mask_scale[V], mask_offset[V];
  T least, greatest;

  __device__ Applied(const ApplyParams& p, const Table<T>& table, int64_t channels, int64_t c)
      : least(static_cast<T>(least_positive(p.dtype))),
        greatest(static_cast<T>(kMask ? greatest_below(p.ceiling, p.dtype) : p.ceiling)) {
    load_row(mean, table.mean + c);
    load_row(scale, table.scale + c);
    load_row(offset, table.offset + c);
    if constexpr (!kForward) load_row(slope, table.slope + c);
    if constexpr (kMask) {
      load_row(mask_scale, table.mask + channels + c);
      load_row(mask_offset, table.mask + 2 * channels + c);
    }
  }
  /// Steps that are ops of their own round in between, as these would.
  __device__ Pack<S, V> operator()(const ApplyParams& p, const Pack<S, V>& x_pack,
                                   const Pack<S, V>& second_pack) const {
    T x[V], second[V], y[V];
    widen(x, x_pack, p.dtype);
    if constexpr (kSecond) widen(second, second_pack, p.dtype);
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) {
      if constexpr (kForward) {
        y[v] = (x[v] - mean[v]) * scale[v] + offset[v];
      } else {
        T g = second[v];
        if constexpr (kMask) {
          g *= passes((x[v] - mean[v]) * mask_scale[v] + mask_offset[v], least, greatest);
        }
        y[v] = g * scale[v] - offset[v] - (x[v] - mean[v]) * slope[v];
      }
    }
    if constexpr (kPass == Pass::kResidual) {
      if constexpr (sizeof(S) == 2) widen(y, narrow<S, V>(y, p.dtype), p.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) y[v] += second[v];
    }
    if constexpr (kForward) {
      if (greatest > T(0)) {
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) {
          y[v] = y[v] < -least ? T(0) : y[v] > greatest ? greatest : y[v];
        }
      }
    }
    return narrow<S, V>(y, p.dtype);
  }
};

/// Rows that a thread goes through, some at once.
constexpr int kApplyRows = 8, kApplyLoads = 4;

template <class S, int V, Pass kPass>
__global__ void __launch_bounds__(kThreads)
    apply_columns(const ApplyParams p, const Table<Computed<S>> table) {
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V;
  if (column >= p.columns) return;
  constexpr bool kSecond = kPass != Pass::kForward;
  // From the end on: that is what the sums read last, so that caches may have it still.
  const unsigned blocks = gridDim.x / static_cast<unsigned>(p.matrices), place = gridDim.x - 1 - blockIdx.x;
  const int64_t matrix = place / blocks, block = place % blocks;
  const Applied<S, V, kPass> apply(p, table, p.columns, matrix * p.columns + column);
  const int64_t start = matrix * p.rows * p.columns + column;
  const S* x = static_cast<const S*>(p.x) + start;
  const S* second = kSecond ? static_cast<const S*>(p.second) + start : nullptr;
  S* y = static_cast<S*>(p.y) + start;
  const int64_t step = blockDim.y, apart = step * p.columns;
  const auto take = [&](auto count, int64_t r) {
    constexpr int kCount = decltype(count)::value;
    Pack<S, V> xs[kCount], seconds[kCount];
    const int64_t at = r * p.columns;
    OPSIN_UNROLL
    for (int k = 0; k < kCount; ++k) {
      xs[k] = pack_at<S, V>(x + at + k * apart);
      if constexpr (kSecond) seconds[k] = pack_at<S, V>(second + at + k * apart);
    }
    OPSIN_UNROLL
    for (int k = 0; k < kCount; ++k) pack_at<S, V>(y + at + k * apart) = apply(p, xs[k], seconds[k]);
  };
  int64_t r = block * step * kApplyRows + threadIdx.y;
  const int64_t end = p.rows < r + step * kApplyRows ? p.rows : r + step * kApplyRows;
  // Whole turns ask once.
  OPSIN_NO_UNROLL
  for (; r + (kApplyLoads - 1) * step < end; r += kApplyLoads * step) {
    take(std::integral_constant<int, kApplyLoads>{}, r);
  }
  OPSIN_NO_UNROLL
  for (; r < end; r += step) take(std::integral_constant<int, 1>{}, r);
}

template <class S, Pass kPass>
__global__ void __launch_bounds__(kThreads) apply_rows(const ApplyParams p, const Table<Computed<S>> table,
                                                       const ChannelIndex index, const ChannelIndex channel) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.rows; i += thread_count()) {
    const int64_t row = index.divide(i), c = row - channel.divide(row) * channel.inner;
    Pack<S, 1> second{};
    if constexpr (kPass != Pass::kForward) second = pack_at<S, 1>(static_cast<const S*>(p.second) + i);
    const Applied<S, 1, kPass> apply(p, table, p.columns, c);
    pack_at<S, 1>(static_cast<S*>(p.y) + i) = apply(p, pack_at<S, 1>(static_cast<const S*>(p.x) + i), second);
  }
}

/// Calls body<S, V>() with the widest vectors that serve.
template <class Body>
void dispatch_vectors(const ChannelWork& work, Body&& body) {
  dispatch_stored(work.shape.dtype, [&]<class S>() {
    if constexpr (sizeof(S) < 8) {
      if (work.vectors) return body.template operator()<S, kVector<S>>();
    }
    body.template operator()<S, 1>();
  });
}

template <class S, int V, ColumnSum kSum>
void launch_sums(const ChannelWork& work, const ColumnSumParams& p) {
  if (work.shape.columns) {
    launch_column_sums<S, V, kSum>(ColumnTiles(p.rows, p.columns, V), p);
  } else if constexpr (V == 1) {
    const dim3 grid(static_cast<unsigned>(p.columns), static_cast<unsigned>(p.slices));
    OPSIN_LAUNCH((row_sums<S, kSum>), grid, kThreads, 0, p, ChannelIndex(work.shape.inner, p.rows));
  }
}

template <class S, int V, Pass kPass>
void launch_apply(const ChannelWork& work, const Table<Computed<S>>& table, ApplyParams p) {
  const ChannelShape& shape = work.shape;
  p.rows = work.per_channel();
  if (shape.columns) {
    const ColumnTiles tiles(p.rows, shape.channels, V);
    const int64_t of_block = int64_t{tiles.y} * kApplyRows;
    const dim3 grid(static_cast<unsigned>((p.rows + of_block - 1) / of_block * p.matrices), tiles.tiles);
    OPSIN_LAUNCH((apply_columns<S, V, kPass>), grid, tiles.block(), 0, p, table);
  } else if constexpr (V == 1) {
    p.rows *= shape.channels;
    OPSIN_LAUNCH((apply_rows<S, kPass>), grid_for(p.rows, kThreads * 4), kThreads, 0, p, table,
                 ChannelIndex(shape.inner, p.rows), ChannelIndex(shape.channels, p.rows));
  }
}

}  // namespace

int64_t ChannelWork::slices(ColumnSum sum) const {
  if (!shape.columns) {
    return std::clamp<int64_t>(
        std::min(ColumnTiles::kBlocks / shape.channels, per_channel() / (kThreads * 8)), 1,
        ColumnTiles::kBlocks);
  }
  const int vector = !vectors ? 1 : shape.dtype == kFloat32 ? kVector<float> : kVector<uint16_t>;
  return ColumnTiles(per_channel(), shape.channels, vector).slices(matrices, column_blocks(sum, vector));
}

void channel_sums(ColumnSum sum, const ChannelWork& work, int64_t slices, ColumnSumParams p) {
  p.rows = work.per_channel();
  p.columns = work.shape.channels;
  p.slices = slices;
  p.dtype = work.shape.dtype;
  p.matrices = work.matrices;
  dispatch_vectors(work, [&]<class S, int V>() {
    switch (sum) {
      case ColumnSum::kMoments:
        return launch_sums<S, V, ColumnSum::kMoments>(work, p);
      case ColumnSum::kGradients:
        return launch_sums<S, V, ColumnSum::kGradients>(work, p);
      case ColumnSum::kWrittenGradients:
        return launch_sums<S, V, ColumnSum::kWrittenGradients>(work, p);
      case ColumnSum::kMaskedGradients:
        return launch_sums<S, V, ColumnSum::kMaskedGradients>(work, p);
      case ColumnSum::kRowGradients:
        break;  // Those of layer norm.
    }
  });
}

void channel_pass(Pass pass, const ChannelWork& work, void* memory, const void* mask, const PassData& data) {
  const ApplyParams p{data, 0, work.shape.channels, work.matrices, work.shape.dtype};
  dispatch_vectors(work, [&]<class S, int V>() {
    Table<Computed<S>> table(memory, work.channels());
    table.mask = static_cast<const Computed<S>*>(mask);
    switch (pass) {
      case Pass::kForward:
        return launch_apply<S, V, Pass::kForward>(work, table, p);
      case Pass::kResidual:
        return launch_apply<S, V, Pass::kResidual>(work, table, p);
      case Pass::kGradient:
        return launch_apply<S, V, Pass::kGradient>(work, table, p);
      case Pass::kMaskedGradient:
        return launch_apply<S, V, Pass::kMaskedGradient>(work, table, p);
    }
  });
}

namespace {

/// Calls body<T>() for what values of `dtype` are computed in.
template <class Body>
void dispatch_computed(DType dtype, Body&& body) {
  dtype == kFloat64 ? body.template operator()<double>() : body.template operator()<float>();
}

void statistics(const BatchNormParams& p) {
  const ChannelWork work(p.shape, 1, p.x);
  const int64_t channels = p.shape.channels, slices = p.training ? work.slices() : 0;
  const Workspace memory(slices * 2 * channels * static_cast<int64_t>(sizeof(double)));
  auto* parts = static_cast<double*>(memory.get());
  if (p.training) channel_sums(ColumnSum::kMoments, work, slices, {.x = p.x, .parts = parts});
  dispatch_computed(p.shape.dtype, [&]<class T>() {
    OPSIN_LAUNCH(prepare_forward<T>, grid_for(channels, kMergeColumns, ~0u),
                 dim3(kMergeColumns, kMergeShares<kMergeColumns>), 0, p, parts, slices,
                 Table<T>(p.numbers, channels));
  });
}

void apply(const NormalisedParams& p) {
  // The numbers are only read.
  channel_pass(p.residual ? Pass::kResidual : Pass::kForward, ChannelWork(p.shape, 1, p.x, p.residual, p.y),
               const_cast<void*>(p.numbers), nullptr, {p.x, p.residual, p.y, p.ceiling});
}

void backward(const BatchNormBackwardParams& p) {
  const ChannelWork work(p.shape, 1, p.x, p.g, p.relu_output, p.masked, p.grad_x);
  const bool sums = p.training || p.grad_weight || p.grad_bias;
  const ColumnSum sum = p.numbers  ? ColumnSum::kMaskedGradients
                        : p.masked ? ColumnSum::kWrittenGradients
                                   : ColumnSum::kGradients;
  const int64_t channels = p.shape.channels, slices = sums ? work.slices(sum) : 0;
  const int64_t part_bytes = slices * 2 * channels * static_cast<int64_t>(sizeof(double));
  const Workspace memory(part_bytes + Table<double>::bytes(channels));
  auto* parts = static_cast<double*>(memory.get());
  void* const numbers = static_cast<char*>(memory.get()) + part_bytes;
  if (sums) {
    channel_sums(sum, work, slices,
                 {.x = p.x,
                  .g = p.g,
                  .centre = p.mean,
                  .parts = parts,
                  .ceiling = p.ceiling,
                  .numbers = p.numbers,
                  .relu_output = p.relu_output,
                  .masked = p.masked});
  }
  dispatch_computed(p.shape.dtype, [&]<class T>() {
    OPSIN_LAUNCH(prepare_backward<T>, grid_for(channels, kMergeColumns, ~0u),
                 dim3(kMergeColumns, kMergeShares<kMergeColumns>), 0, p, parts, slices,
                 Table<T>(numbers, channels));
  });
  if (!p.grad_x) return;
  channel_pass(p.numbers ? Pass::kMaskedGradient : Pass::kGradient, work, numbers, p.numbers,
               {p.x, p.masked ? p.masked : p.g, p.grad_x, p.ceiling});
}

}  // namespace
}  // namespace cuda

void register_batch_norm_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    batch_norm_statistics.set(DeviceType::kCUDA, dtype, cuda::statistics);
    batch_norm_apply.set(DeviceType::kCUDA, dtype, cuda::apply);
    batch_norm_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
