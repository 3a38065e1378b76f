// Elements picked along a dimension, and the reverse, on a GPU.
#include "along_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 256;
/// As many lines go to threads of their own; fewer to a block each.
constexpr int64_t kManyLines = 8192;

template <class T>
__global__ void take_rows(const AlongParams p) {
  const auto* from = static_cast<const T*>(p.x);
  auto* to = static_cast<T*>(p.y);
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.outer * p.small * p.inner; i += thread_count()) {
    const int64_t o = i / (p.small * p.inner), k = i % p.inner;
    to[i] = from[(o * p.large + p.index[i]) * p.inner + k];
  }
}

template <class T>
__device__ __forceinline__ T plus(T a, T b) {
  return a + b;
}
template <class T>
__device__ __forceinline__ Complex<T> plus(Complex<T> a, Complex<T> b) {
  return {a.real + b.real, a.imag + b.imag};
}

/// to += value, in the dtype that lies in memory.
template <class T>
__device__ __forceinline__ void add(char* to, T value, DType stored) {
  T sum = plus(load<T>(to, stored), value);
  if constexpr (std::is_same_v<T, int64_t>) {
    if (stored == kBool) sum = sum != 0;
  }
  store(sum, to, stored);
}

/// A line is what steps along the dimension; a thread goes through one.
template <class T>
__global__ void put_lines(const AlongParams p, int item) {
  const auto* from = static_cast<const char*>(p.x);
  auto* to = static_cast<char*>(p.y);
  OPSIN_NO_UNROLL
  for (int64_t line = thread_rank(); line < p.outer * p.inner; line += thread_count()) {
    const int64_t o = line / p.inner, k = line % p.inner;
    for (int64_t i = 0; i < p.small; ++i) {
      const int64_t at = (o * p.small + i) * p.inner + k;
      add(to + ((o * p.large + p.index[at]) * p.inner + k) * item, load<T>(from + at * item, p.dtype),
          p.dtype);
    }
  }
}

/// A block goes through a line, kThreads elements at a time. The first of those that go to one place adds up
/// all of them in order.
template <class T>
__global__ void __launch_bounds__(kThreads) put_line(const AlongParams p, int item) {
  __shared__ int64_t places[kThreads];
  __shared__ T values[kThreads];
  const auto* from = static_cast<const char*>(p.x);
  auto* to = static_cast<char*>(p.y);
  const int64_t o = blockIdx.x / p.inner, k = blockIdx.x % p.inner;
  const unsigned own = threadIdx.x;
  for (int64_t first = 0; first < p.small; first += kThreads) {
    const auto count = static_cast<unsigned>(p.small - first < kThreads ? p.small - first : kThreads);
    if (own < count) {
      const int64_t at = (o * p.small + first + own) * p.inner + k;
      places[own] = p.index[at];
      values[own] = load<T>(from + at * item, p.dtype);
    }
    __syncthreads();
    if (own < count) {
      bool leads = true;
      for (unsigned j = 0; j < own && leads; ++j) leads = places[j] != places[own];
      if (leads) {
        char* place = to + ((o * p.large + places[own]) * p.inner + k) * item;
        for (unsigned j = own; j < count; ++j) {
          if (places[j] == places[own]) add(place, values[j], p.dtype);
        }
      }
    }
    __syncthreads();
  }
}

void take(const AlongParams& p) {
  const unsigned grid = grid_for(p.outer * p.small * p.inner, kThreads);
  switch (item_size(p.dtype)) {
    case 1:
      return OPSIN_LAUNCH(take_rows<uint8_t>, grid, kThreads, 0, p);
    case 2:
      return OPSIN_LAUNCH(take_rows<uint16_t>, grid, kThreads, 0, p);
    case 4:
      return OPSIN_LAUNCH(take_rows<uint32_t>, grid, kThreads, 0, p);
    case 8:
      return OPSIN_LAUNCH(take_rows<uint64_t>, grid, kThreads, 0, p);
    default:
      OPSIN_LAUNCH(take_rows<Bits128>, grid, kThreads, 0, p);
  }
}

template <class T>
void put_as(const AlongParams& p) {
  const int64_t lines = p.outer * p.inner;
  const auto item = static_cast<int>(item_size(p.dtype));
  if (p.small == 1 || lines >= kManyLines) {
    OPSIN_LAUNCH(put_lines<T>, grid_for(lines, kThreads), kThreads, 0, p, item);
  } else {
    OPSIN_LAUNCH(put_line<T>, static_cast<unsigned>(lines), kThreads, 0, p, item);
  }
}

void put(const AlongParams& p) {
  if (p.dtype == kComplex64) return put_as<Complex<float>>(p);
  if (p.dtype == kComplex128) return put_as<Complex<double>>(p);
  if (p.dtype == kFloat64) return put_as<double>(p);
  if (is_floating_point(p.dtype)) return put_as<float>(p);
  put_as<int64_t>(p);
}

}  // namespace
}  // namespace cuda

void register_along_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    take_along_rows.set(DeviceType::kCUDA, static_cast<DType>(i), cuda::take);
    put_along_rows.set(DeviceType::kCUDA, static_cast<DType>(i), cuda::put);
  }
}

}  // namespace opsin
