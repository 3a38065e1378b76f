// Pairwise overlaps on a GPU: one thread for each pair.
#include "overlap_kernels.h"
#include "prepared_device.h"

#include "cuda/block.h"
#include "cuda/scratch.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    overlap_pairs(const T* a, const T* b, OverlapParams p, T eps, int64_t count) {
  for (int64_t e = thread_rank(); e < count; e += thread_count()) {
    const int64_t i = e / p.m, j = e - i * p.m;
    T one[kBoxColumns], two[kBoxColumns];
    load_box(one, a, i);
    load_box(two, b, j);
    static_cast<T*>(p.y)[e] = boxes::overlap(p.kind, p.rank, one, two, eps);
  }
}

template <class T>
void run(const OverlapParams& p) {
  const Scratch<T> a = prepare_boxes(p.kind, p.rank, static_cast<const T*>(p.a), p.n);
  const Scratch<T> b = prepare_boxes(p.kind, p.rank, static_cast<const T*>(p.b), p.m);
  const int64_t count = p.n * p.m;
  OPSIN_LAUNCH(overlap_pairs<T>, grid_for(count, kThreads), kThreads, 0, a.data(), b.data(), p,
               static_cast<T>(p.eps), count);
}

}  // namespace
}  // namespace cuda

void register_overlap_cuda();

void register_overlap_cuda() {
  pair_overlap.set(DeviceType::kCUDA, kFloat32, cuda::run<float>);
  pair_overlap.set(DeviceType::kCUDA, kFloat64, cuda::run<double>);
}

}  // namespace opsin
