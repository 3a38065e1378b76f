// Group normalization on a GPU: sums per channel of each sample, a small kernel that makes numbers of those
// of a group, and a pass over all elements with these.
#include "channels_device.h"

#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

/// Groups as rows of channels, each of which a group of threads goes through.
struct GroupRows {
  GroupShape shape;
  ChannelWork work;
  RowGroups groups;
  int64_t slices;

  template <class... Data>
  explicit GroupRows(const GroupShape& s, Data... data)
      : shape(s),
        work(s.columns ? ChannelShape{1, s.channels, s.inner, true, s.dtype}
                       : ChannelShape{1, s.batch * s.channels, s.inner, false, s.dtype},
             s.columns ? s.batch : 1, data...),
        groups(s.batch * s.groups, s.of_group(), 1),
        slices(work.slices()) {}

  /// Calls f(channel of the sample, channel among [batch, channels], sums) for each channel of the group;
  /// without `parts` there are no sums.
  template <class F>
  __device__ void each(const double* parts, F f) const {
    const int64_t row = groups.row();
    if (row >= groups.rows) return;
    const int64_t sample = row / shape.groups, first = (row - sample * shape.groups) * groups.n;
    for (int64_t c = first + groups.lane(); c < first + groups.n; c += groups.width) {
      const int64_t at = sample * shape.channels + c;
      const double* part = parts + (shape.columns ? work.part_at(sample, c, slices) : at);
      Pair<double> sums{0, 0};
      for (int64_t s = 0; parts && s < slices; ++s) {
        sums.first += part[s * work.part_stride()];
        sums.second += part[s * work.part_stride() + work.shape.channels];
      }
      f(c, at, sums);
    }
  }
};

// These kernels have little to do, so one serves all dtypes: `wide` says that numbers are float64.

__device__ __forceinline__ double number(const void* from, int64_t c, double missing, bool wide) {
  if (!from) return missing;
  return wide ? static_cast<const double*>(from)[c] : static_cast<double>(static_cast<const float*>(from)[c]);
}
__device__ __forceinline__ void set_number(void* to, int64_t c, double value, bool wide) {
  if (!to) return;
  if (wide) {
    static_cast<double*>(to)[c] = value;
  } else {
    static_cast<float*>(to)[c] = static_cast<float>(value);
  }
}

/// The rows of a Table of `channels` numbers.
struct AnyTable {
  void* memory;
  int64_t channels;
  bool wide;

  /// The mean is rounded, and what that loses times `slope` goes into the offset.
  __device__ void set(int64_t at, double mean, double scale, double offset, double slope) const {
    const double rounded = wide ? mean : static_cast<double>(static_cast<float>(mean));
    set_number(memory, at, rounded, wide);
    set_number(memory, channels + at, scale, wide);
    set_number(memory, 2 * channels + at, offset + (rounded - mean) * slope, wide);
    set_number(memory, 3 * channels + at, slope, wide);
  }
};

__global__ void __launch_bounds__(kMostRowThreads)
    prepare_forward(const GroupNormParams p, const GroupRows rows, const double* parts,
                    const AnyTable table) {
  __shared__ double shared[2][kBlockWarps];
  const double inner = static_cast<double>(p.shape.inner), count = static_cast<double>(rows.groups.n);
  const auto near_of = [&](int64_t c, int64_t at) {
    const int64_t first = p.shape.columns ? (at - c) * p.shape.inner + c : at * p.shape.inner;
    if (table.wide) return static_cast<const double*>(p.x)[first];
    const int bytes = p.shape.dtype == kFloat32 ? 4 : 2;
    return static_cast<double>(load<float>(static_cast<const char*>(p.x) + first * bytes, p.shape.dtype));
  };
  double total = 0, m2 = 0;
  rows.each(parts,
            [&](int64_t c, int64_t at, Pair<double> sums) { total += near_of(c, at) + sums.first / inner; });
  const double mean = group_reduce<Sum>(total, rows.groups.width, shared[0]) / count;
  rows.each(parts, [&](int64_t c, int64_t at, Pair<double> sums) {
    const double of_channel = sums.first / inner, distance = near_of(c, at) + of_channel - mean;
    m2 += sums.second - sums.first * of_channel + inner * distance * distance;
  });
  m2 = group_reduce<Sum>(m2, rows.groups.width, shared[1]);
  const double variance = m2 > 0 || m2 != m2 ? m2 / (inner * count) : 0;
  const double inverse = 1 / std::sqrt(variance + p.eps);
  rows.each(nullptr, [&](int64_t c, int64_t at, Pair<double>) {
    const double scale = number(p.weight, c, 1, table.wide) * inverse;
    p.mean[at] = mean;
    p.inverse[at] = inverse;
    table.set(at, mean, scale, number(p.bias, c, 0, table.wide), scale);
  });
}

/// totals: [batch][2][channels], what samples add to the gradients of bias and weight; or null.
__global__ void __launch_bounds__(kMostRowThreads)
    prepare_backward(const GroupNormBackwardParams p, const GroupRows rows, const double* parts,
                     const AnyTable table, double* totals) {
  __shared__ Pair<double> shared[kBlockWarps];
  const double n = static_cast<double>(p.shape.inner * rows.groups.n);
  Pair<double> total{0, 0};
  rows.each(parts, [&](int64_t c, int64_t at, Pair<double> sums) {
    const double weight = number(p.weight, c, 1, table.wide);
    total = Sum{}(total, Pair<double>{weight * sums.first, weight * sums.second});
    if (!totals) return;
    double* to = totals + 2 * (at - c) + c;
    to[0] = sums.first;
    to[p.shape.channels] = sums.second * p.inverse[at];
  });
  total = group_reduce<Sum>(total, rows.groups.width, shared);
  rows.each(nullptr, [&](int64_t c, int64_t at, Pair<double>) {
    const double inverse = p.inverse[at], slope = inverse * inverse * inverse * total.second / n;
    table.set(at, p.mean[at], number(p.weight, c, 1, table.wide) * inverse, inverse * total.first / n, slope);
  });
}

__global__ void __launch_bounds__(kMaxBlockThreads)
    store_gradients(const double* totals, int64_t batch, int64_t channels, void* grad_weight, void* grad_bias,
                    bool wide) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kWarpThreads + threadIdx.x;
  const Pair<double> sums = merge_parts<kWarpThreads>(totals, batch, channels, c);
  if (c >= channels || threadIdx.y != 0) return;
  set_number(grad_bias, c, sums.first, wide);
  set_number(grad_weight, c, sums.second, wide);
}

int64_t doubles(int64_t count) { return count * static_cast<int64_t>(sizeof(double)); }

void forward(const GroupNormParams& p) {
  const GroupRows rows(p.shape, p.x, p.y);
  const int64_t channels = rows.work.channels(), part_bytes = doubles(rows.slices * 2 * channels);
  const Workspace memory(part_bytes + Table<double>::bytes(channels));
  auto* parts = static_cast<double*>(memory.get());
  void* const numbers = static_cast<char*>(memory.get()) + part_bytes;
  channel_sums(ColumnSum::kMoments, rows.work, rows.slices, {.x = p.x, .parts = parts});
  const AnyTable table{numbers, channels, p.shape.dtype == kFloat64};
  OPSIN_LAUNCH(prepare_forward, rows.groups.grid(), rows.groups.block(), 0, p, rows, parts, table);
  channel_pass(Pass::kForward, rows.work, numbers, nullptr, {p.x, nullptr, p.y});
}

void backward(const GroupNormBackwardParams& p) {
  const GroupRows rows(p.shape, p.x, p.g, p.grad_x);
  const bool sums = p.grad_weight || p.grad_bias;
  const int64_t channels = rows.work.channels(), part_bytes = doubles(rows.slices * 2 * channels);
  const int64_t total_bytes = sums ? doubles(2 * channels) : 0;
  const Workspace memory(part_bytes + total_bytes + Table<double>::bytes(channels));
  auto* parts = static_cast<double*>(memory.get());
  double* const totals = sums ? parts + rows.slices * 2 * channels : nullptr;
  void* const numbers = static_cast<char*>(memory.get()) + part_bytes + total_bytes;
  channel_sums(ColumnSum::kGradients, rows.work, rows.slices,
               {.x = p.x, .g = p.g, .centre = p.mean, .parts = parts});
  const AnyTable table{numbers, channels, p.shape.dtype == kFloat64};
  OPSIN_LAUNCH(prepare_backward, rows.groups.grid(), rows.groups.block(), 0, p, rows, parts, table, totals);
  if (sums) {
    OPSIN_LAUNCH(store_gradients, grid_for(p.shape.channels, kWarpThreads, ~0u),
                 dim3(kWarpThreads, kMergeShares<kWarpThreads>), 0, totals, p.shape.batch, p.shape.channels,
                 p.grad_weight, p.grad_bias, table.wide);
  }
  if (p.grad_x) channel_pass(Pass::kGradient, rows.work, numbers, nullptr, {p.x, p.g, p.grad_x});
}

}  // namespace
}  // namespace cuda

void register_group_norm_cuda();

void register_group_norm_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    group_norm_forward.set(DeviceType::kCUDA, dtype, cuda::forward);
    group_norm_backward.set(DeviceType::kCUDA, dtype, cuda::backward);
  }
}

}  // namespace opsin
