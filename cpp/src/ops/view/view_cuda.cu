#include "view_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/device_error.h"
#include "cuda/scan.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// `kWidth` neighbours of a row at a time.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) keep_triangle(TriangularParams p) {
  using Part = Pack<T, kWidth>;
  const int64_t across = p.columns / kWidth, n = p.count * p.rows * across;
  const auto* const from = reinterpret_cast<const Part*>(p.from);
  auto* const to = reinterpret_cast<Part*>(p.to);
  OPSIN_NO_UNROLL
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    const int64_t row = t / across, first = (t - row * across) * kWidth;
    // Relative to where the row meets the diagonal; its element belongs to both triangles.
    const int64_t beyond = first - row % p.rows - p.diagonal;
    Part part{};
    if (p.upper ? beyond + kWidth > 0 : beyond <= 0) part = from[t];
    OPSIN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      if (p.upper ? beyond + i < 0 : beyond + i > 0) part.value[i] = T{};
    }
    to[t] = part;
  }
}

template <class T>
void launch_keep(const TriangularParams& p) {
  constexpr int kWidth = static_cast<int>(16 / sizeof(T));
  const auto addresses = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to);
  const int64_t n = p.count * p.rows * p.columns;
  if (p.columns % kWidth == 0 && addresses % 16 == 0) {
    OPSIN_LAUNCH((keep_triangle<T, kWidth>), grid_for(n / kWidth, kThreads), kThreads, 0, p);
  } else {
    OPSIN_LAUNCH((keep_triangle<T, 1>), grid_for(n, kThreads), kThreads, 0, p);
  }
}

void keep(const TriangularParams& p) {
  switch (item_size(p.dtype)) {
    case 1:
      return launch_keep<uint8_t>(p);
    case 2:
      return launch_keep<uint16_t>(p);
    case 4:
      return launch_keep<uint32_t>(p);
    case 8:
      return launch_keep<uint64_t>(p);
    default:
      return launch_keep<Bits128>(p);
  }
}

struct LoadCount {
  const int64_t* counts;
  DeviceError* error;
  HostText op;
  HostText rule;
  __device__ int64_t operator()(int64_t, int64_t i) const {
    const int64_t count = counts[i];
    if (count < 0) report_value(error, op, rule, static_cast<double>(count));
    return count < 0 ? 0 : count;
  }
};
struct StoreStart {
  int64_t* starts;
  int64_t n;
  __device__ void operator()(int64_t, int64_t i, int64_t before, int64_t count) const {
    starts[i] = before;
    if (i == n - 1) starts[n] = before + count;
  }
};

void count_repeats(const RepeatParams& p) {
  if (p.n == 0) return clear(p.starts, sizeof(int64_t));
  scan_rows(1, p.n, int64_t{0}, Sum{},
            LoadCount{p.counts, device_error(), "repeat_interleave", "repeats can not be negative"},
            StoreStart{p.starts, p.n});
}

/// The last index that starts at or before the place.
__global__ void __launch_bounds__(kThreads) write_repeats(RepeatParams p) {
  OPSIN_NO_UNROLL
  for (int64_t t = thread_rank(); t < p.total; t += thread_count()) {
    int64_t low = 0, high = p.n;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (p.starts[middle] <= t ? low : high) = middle;
    }
    p.out[t] = low;
  }
}

void write(const RepeatParams& p) {
  OPSIN_LAUNCH(write_repeats, grid_for(p.total, kThreads), kThreads, 0, p);
}

}  // namespace

void register_view_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) triangle_keep.set(DeviceType::kCUDA, static_cast<DType>(i), keep);
  repeat_count.set(DeviceType::kCUDA, kInt64, count_repeats);
  repeat_write.set(DeviceType::kCUDA, kInt64, write);
}

}  // namespace opsin
