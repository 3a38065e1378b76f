// Sums over pairs of elements on a GPU, in two steps: blocks, then what they have.
#include "pair_kernels.h"

#include "cuda/vectors.h"
#include "cuda/workspace.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int64_t kMostBlocks = 1024;

template <class S, int V>
__device__ __forceinline__ double squares(const S* a, const S* b, DType stored) {
  using T = Computed<S>;
  T x[V], y[V];
  widen(x, pack_at<S, V>(a), stored);
  widen(y, pack_at<S, V>(b), stored);
  double sum = 0;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) {
    const auto d = static_cast<double>(x[v] - y[v]);
    sum += d * d;
  }
  return sum;
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    squared_error_kernel(const S* a, const S* b, int64_t n, bool vectors, DType stored, double* parts) {
  __shared__ double shared[kBlockWarps];
  double sum = 0;
  if (vectors) {
    for (int64_t i = thread_rank() * kVector<S>; i < n; i += thread_count() * kVector<S>) {
      sum += squares<S, kVector<S>>(a + i, b + i, stored);
    }
  } else {
    for (int64_t i = thread_rank(); i < n; i += thread_count()) sum += squares<S, 1>(a + i, b + i, stored);
  }
  sum = block_reduce<Sum>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    scaled_total(const double* parts, int64_t count, double scale, char* y, DType stored) {
  __shared__ double shared[kBlockWarps];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += parts[i];
  sum = block_reduce<Sum>(sum, shared) * scale;
  if (threadIdx.x != 0) return;
  if (stored == kFloat64) {
    *reinterpret_cast<double*>(y) = sum;
  } else {
    store(static_cast<float>(sum), y, stored);
  }
}

void run(const PairParams& p) {
  dispatch_stored(p.dtype, [&]<class S>() {
    const auto* a = static_cast<const S*>(p.a);
    const auto* b = static_cast<const S*>(p.b);
    const bool vectors = fits_vectors<S>(p.n, p.a, p.b);
    const int64_t blocks = grid_for(p.n, kThreads * 4 * (vectors ? kVector<S> : 1), kMostBlocks);
    const Workspace memory(blocks * static_cast<int64_t>(sizeof(double)));
    auto* parts = static_cast<double*>(memory.get());
    OPSIN_LAUNCH(squared_error_kernel<S>, static_cast<unsigned>(blocks), kThreads, 0, a, b, p.n, vectors,
                 p.dtype, parts);
    OPSIN_LAUNCH(scaled_total, 1, kThreads, 0, parts, blocks, p.scale, static_cast<char*>(p.y), p.dtype);
  });
}

}  // namespace
}  // namespace cuda

void register_pair_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    squared_error.set(DeviceType::kCUDA, dtype, cuda::run);
  }
}

}  // namespace opsin
