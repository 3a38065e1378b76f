#include "creation_math.h"

#include <cmath>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// A product of its own: the compiler must not fuse it with the sum that follows.
struct Product {
  __device__ double operator()(double a, double b) const {
#if defined(__CUDA_ARCH__)
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
  }
};

/// As Scalar::to_int() does.
__device__ int64_t saturated(double value) {
  if (value != value) return 0;
  if (value >= 9223372036854775808.0) return INT64_MAX;
  if (value < -9223372036854775808.0) return INT64_MIN;
  return static_cast<int64_t>(value);
}

__device__ void write(char* to, DType dtype, int64_t value) {
  if (dtype == kFloat64) return store(static_cast<double>(value), to, dtype);
  if (is_floating_point(dtype)) return store(static_cast<float>(static_cast<double>(value)), to, dtype);
  store(dtype == kBool ? static_cast<int64_t>(value != 0) : value, to, dtype);
}
__device__ void write(char* to, DType dtype, double value) {
  if (dtype == kFloat64) return store(value, to, dtype);
  if (is_floating_point(dtype)) return store(static_cast<float>(value), to, dtype);
  store(dtype == kBool ? static_cast<int64_t>(value != 0) : saturated(value), to, dtype);
}

__global__ void __launch_bounds__(kThreads) write_range(RangeParams p, int64_t size) {
  using Kind = RangeParams::Kind;
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.count; i += thread_count()) {
    char* const to = static_cast<char*>(p.out) + i * size;
    if (p.kind == Kind::kIntegers) {
      write(to, p.dtype, p.first + i * p.step);
    } else {
      const double real = real_of(p, i, Product{});
      write(to, p.dtype, p.kind == Kind::kPowers ? std::pow(p.base, real) : real);
    }
  }
}

void fill_range(const RangeParams& p) {
  OPSIN_LAUNCH(write_range, grid_for(p.count, kThreads), kThreads, 0, p,
               static_cast<int64_t>(item_size(p.dtype)));
}

/// Finds its row by halving.
__global__ void __launch_bounds__(kThreads) write_triangle(TriangleParams p) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.count; i += thread_count()) {
    int64_t low = 0, high = p.rows;  // The row is in [low, high).
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (triangle_before(p, middle) <= i ? low : high) = middle;
    }
    p.out[i] = low;
    p.out[p.count + i] = triangle_columns(p, low).first + i - triangle_before(p, low);
  }
}

void fill_triangle(const TriangleParams& p) {
  OPSIN_LAUNCH(write_triangle, grid_for(p.count, kThreads), kThreads, 0, p);
}

}  // namespace

void register_creation_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_complex(dtype)) range_forward.set(DeviceType::kCUDA, dtype, fill_range);
  }
  triangle_forward.set(DeviceType::kCUDA, kInt64, fill_triangle);
}

}  // namespace opsin
