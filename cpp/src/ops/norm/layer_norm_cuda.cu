// Layer normalization on a GPU: a group of threads holds a row.
#include "column_device.h"
#include "norm_kernels.h"

#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

/// The elements of this thread in a part of a vector per element of a row; `missing` beyond its end or
/// without one.
template <int V, class T>
__device__ __forceinline__ void load_weights(T (&to)[kHeld], const T* from, const RowGroups& groups,
                                             int64_t first, T missing) {
  const unsigned left = from ? groups.left(first) : 0;
  // Neighbours at once, where the row is read so: `from` is aligned then too.
  constexpr int kAtOnce = V > 1 ? 16 / static_cast<int>(sizeof(T)) : 1;
  OPSIN_UNROLL
  for (int i = 0; i < kHeld; i += kAtOnce) {
    const unsigned at = groups.place<V>(i);
    Pack<T, kAtOnce> pack;
    if (at < left) pack = pack_at<T, kAtOnce>(from + first + at);
    OPSIN_UNROLL
    for (int k = 0; k < kAtOnce; ++k) to[i + k] = at < left ? pack.value[k] : missing;
  }
}

template <class S, int V>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    forward_rows(const LayerNormParams p, const RowGroups groups) {
  using T = Computed<S>;
  __shared__ Pair<T> shared[kBlockWarps];
  const int64_t row = groups.row();
  const bool inside = row < groups.rows, held = groups.held();
  const S* x = inside ? static_cast<const S*>(p.x) + row * groups.n : nullptr;
  S* y = inside ? static_cast<S*>(p.y) + row * groups.n : nullptr;
  T values[kHeld], sum = 0;
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    load_part<S, V>(values, x, groups, first, p.dtype, T(0));
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) sum += values[i];
  }
  // A second pass around the mean corrects it and loses no digits.
  const T near =
      group_reduce<Sum>(sum, groups.width, reinterpret_cast<T*>(shared)) / static_cast<T>(groups.n);
  Pair<T> sums{0, 0};
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    if (!held) load_part<S, V>(values, x, groups, first, p.dtype, T(0));
    const unsigned left = groups.left(first);
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const T d = groups.place<V>(i) < left ? values[i] - near : T(0);
      sums.first += d;
      sums.second += d * d;
    }
  }
  sums = group_reduce<Sum>(sums, groups.width, shared);
  if (!inside) return;
  const double n = static_cast<double>(groups.n), centre = static_cast<double>(sums.first) / n;
  const double mean = static_cast<double>(near) + centre;
  double variance = static_cast<double>(sums.second) / n - centre * centre;
  variance = variance > 0 || variance != variance ? variance : 0;
  const double inverse = 1 / std::sqrt(variance + p.eps);
  if (groups.lane() == 0) {
    p.mean[row] = mean;
    p.inverse[row] = inverse;
  }
  const T a = static_cast<T>(inverse), rest = static_cast<T>((static_cast<double>(near) - mean) * inverse);
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    if (!held) load_part<S, V>(values, x, groups, first, p.dtype, T(0));
    T weight[kHeld], bias[kHeld];
    load_weights<V>(weight, static_cast<const T*>(p.weight), groups, first, T(1));
    load_weights<V>(bias, static_cast<const T*>(p.bias), groups, first, T(0));
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) values[i] = ((values[i] - near) * a + rest) * weight[i] + bias[i];
    store_part<S, V>(values, y, groups, first, p.dtype);
  }
}

/// With h = g weight and xhat = (x - mean) inverse: dx = inverse (h - mean(h) - xhat mean(h xhat)).
template <class S, int V>
__global__ void __launch_bounds__(kMostRowThreads, kRowBlocks<S>)
    backward_rows(const LayerNormBackwardParams p, const RowGroups groups) {
  using T = Computed<S>;
  __shared__ Pair<T> shared[kBlockWarps];
  const int64_t row = groups.row();
  const bool inside = row < groups.rows, held = groups.held();
  const S* x = inside ? static_cast<const S*>(p.x) + row * groups.n : nullptr;
  const S* g = inside ? static_cast<const S*>(p.g) + row * groups.n : nullptr;
  S* grad_x = inside ? static_cast<S*>(p.grad_x) + row * groups.n : nullptr;
  const double mean = inside ? p.mean[row] : 0, inverse = inside ? p.inverse[row] : 0;
  const T m = static_cast<T>(mean), a = static_cast<T>(inverse),
          lost = static_cast<T>(static_cast<double>(m) - mean);
  T xs[kHeld], hs[kHeld];
  const auto load = [&](int64_t first) {
    T weight[kHeld];
    load_part<S, V>(xs, x, groups, first, p.dtype, T(0));
    load_part<S, V>(hs, g, groups, first, p.dtype, T(0));
    load_weights<V>(weight, static_cast<const T*>(p.weight), groups, first, T(1));
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      xs[i] = (xs[i] - m) + lost;
      hs[i] *= weight[i];
    }
  };
  Pair<T> sums{0, 0};
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    load(first);
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      sums.first += hs[i];
      sums.second += hs[i] * xs[i];
    }
  }
  sums = group_reduce<Sum>(sums, groups.width, shared);
  // Subtracted before it is scaled: where eps dwarfs the variance, inverse magnifies the rounding.
  const double n = static_cast<double>(groups.n);
  const T centre = static_cast<T>(static_cast<double>(sums.first) / n);
  const T slope = static_cast<T>(static_cast<double>(sums.second) / n * inverse * inverse * inverse);
  for (int64_t first = 0; first < groups.n; first += groups.part()) {
    if (!held) load(first);
    OPSIN_UNROLL
    for (int i = 0; i < kHeld; ++i) hs[i] = (hs[i] - centre) * a - xs[i] * slope;
    store_part<S, V>(hs, grad_x, groups, first, p.dtype);
  }
}

template <class T>
__global__ void store_sums(const double* parts, int64_t slices, int64_t columns, T* grad_weight,
                           T* grad_bias) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  const Pair<double> sums = merge_parts(parts, slices, columns, column);
  if (column >= columns || threadIdx.y != 0) return;
  if (grad_bias) grad_bias[column] = static_cast<T>(sums.first);
  if (grad_weight) grad_weight[column] = static_cast<T>(sums.second);
}

void forward(const LayerNormParams& p) {
  dispatch_stored(p.dtype, [&]<class S>() {
    const RowGroups groups(p.rows, p.n);
    if constexpr (sizeof(S) < 8) {
      if (fits_vectors<S>(p.n, p.x, p.y, p.weight, p.bias)) {
        return OPSIN_LAUNCH((forward_rows<S, kVector<S>>), groups.grid(), groups.block(), 0, p, groups);
      }
    }
    OPSIN_LAUNCH((forward_rows<S, 1>), groups.grid(), groups.block(), 0, p, groups);
  });
}

template <class S, int V>
void backward_by(const LayerNormBackwardParams& p) {
  if (p.grad_x) {
    const RowGroups groups(p.rows, p.n);
    OPSIN_LAUNCH((backward_rows<S, V>), groups.grid(), groups.block(), 0, p, groups);
  }
  if (!p.grad_weight && !p.grad_bias) return;
  using T = Computed<S>;
  const ColumnTiles tiles(p.rows, p.n, V);
  const int64_t slices = tiles.slices();
  const Workspace memory(slices * 2 * p.n * static_cast<int64_t>(sizeof(double)));
  auto* parts = static_cast<double*>(memory.get());
  launch_column_sums<S, V, ColumnSum::kRowGradients>(
      tiles, {p.x, p.g, p.mean, p.inverse, p.rows, p.n, slices, p.dtype, parts});
  OPSIN_LAUNCH(store_sums<T>, grid_for(p.n, kWarpThreads, ~0u), dim3(kWarpThreads, kMergeShares), 0, parts,
               slices, p.n, static_cast<T*>(p.grad_weight), static_cast<T*>(p.grad_bias));
}

void backward(const LayerNormBackwardParams& p) {
  dispatch_stored(p.dtype, [&]<class S>() {
    if constexpr (sizeof(S) < 8) {
      if (fits_vectors<S>(p.n, p.x, p.g, p.grad_x, p.weight)) return backward_by<S, kVector<S>>(p);
    }
    backward_by<S, 1>(p);
  });
}

}  // namespace
}  // namespace cuda

void register_layer_norm_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    layer_norm_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    layer_norm_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
