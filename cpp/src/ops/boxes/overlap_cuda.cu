// Pairwise overlaps on a GPU: one thread for each pair.
#include "overlap_kernels.h"
#include "prepared_device.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    prepare_kernel(Overlap kind, int rank, int width, const T* coordinates, int64_t n, T* columns) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    boxes::prepare(kind, rank, coordinates + i * width, columns + i * kBoxColumns, 1);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    overlap_pairs(const T* a, const T* b, OverlapParams p, T eps, int64_t count) {
  OPSIN_NO_UNROLL
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

template <class T>
Scratch<T> prepare_boxes(Overlap kind, int rank, const T* coordinates, int64_t n) {
  Scratch<T> columns(n * kBoxColumns);
  OPSIN_LAUNCH(prepare_kernel<T>, grid_for(n, kThreads), kThreads, 0, kind, rank, coordinates_of(kind, rank),
               coordinates, n, columns.data());
  return columns;
}

template Scratch<float> prepare_boxes(Overlap, int, const float*, int64_t);
template Scratch<double> prepare_boxes(Overlap, int, const double*, int64_t);

}  // namespace cuda

void register_overlap_cuda();

void register_overlap_cuda() {
  pair_overlap.set(DeviceType::kCUDA, kFloat32, cuda::run<float>);
  pair_overlap.set(DeviceType::kCUDA, kFloat64, cuda::run<double>);
}

}  // namespace opsin
