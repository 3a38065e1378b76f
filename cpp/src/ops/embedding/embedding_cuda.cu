#include "embedding_kernels.h"

#include <cmath>

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/device_error.h"
#include "cuda/scratch.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    mark_rows(ShortenParams s, uint8_t* seen, HostText op, DeviceError* error) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < s.count; i += thread_count()) {
    const int64_t row = s.rows[i];
    if (row >= 0 && row < s.table) {
      seen[row] = 1;
    } else {
      report_index(error, op, row, 0, s.table);
    }
  }
}

/// A block for each row that was seen.
template <class T>
__global__ void __launch_bounds__(kThreads) shorten_rows(ShortenParams s, const uint8_t* seen, int64_t item) {
  OPSIN_SHARED(double, shared);
  const bool largest = s.p == HUGE_VAL;
  for (int64_t row = blockIdx.x; row < s.table; row += gridDim.x) {
    if (!seen[row]) continue;
    char* const data = static_cast<char*>(s.weight) + row * s.width * item;
    double norm = 0;
    for (int64_t k = threadIdx.x; k < s.width; k += kThreads) {
      const double size = std::fabs(static_cast<double>(load<T>(data + k * item, s.dtype)));
      norm = largest ? (size > norm ? size : norm) : norm + std::pow(size, s.p);
    }
    norm = largest ? block_reduce<Max>(norm, shared) : std::pow(block_reduce<Sum>(norm, shared), 1 / s.p);
    if (!(norm > s.max_norm)) continue;
    const T scale = static_cast<T>(s.max_norm / (norm + 1e-7));
    for (int64_t k = threadIdx.x; k < s.width; k += kThreads) {
      store(load<T>(data + k * item, s.dtype) * scale, data + k * item, s.dtype);
    }
  }
}

void shorten(const ShortenParams& s) {
  if (s.count == 0 || s.table == 0) return;
  const Scratch<uint8_t> seen(s.table);
  clear(seen.data(), s.table);
  OPSIN_LAUNCH(mark_rows, grid_for(s.count, kThreads), kThreads, 0, s, seen.data(), "embedding",
               device_error());
  const auto item = static_cast<int64_t>(item_size(s.dtype));
  constexpr size_t kShared = kBlockWarps * sizeof(double);
  if (s.dtype == kFloat64) {
    OPSIN_LAUNCH(shorten_rows<double>, grid_for(s.table, 1), kThreads, kShared, s, seen.data(), item);
  } else {
    OPSIN_LAUNCH(shorten_rows<float>, grid_for(s.table, 1), kThreads, kShared, s, seen.data(), item);
  }
}

}  // namespace

void register_embedding_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    embedding_shorten.set(DeviceType::kCUDA, dtype, shorten);
  }
}

}  // namespace opsin
