// The focal loss on a GPU.
#include "focal_kernels.h"

#include "cuda/elementwise.h"

namespace opsin {

namespace {

template <class T>
Focal<T> focal_of(const void* params) {
  const auto& args = *static_cast<const FocalArgs*>(params);
  return {static_cast<T>(args.alpha), static_cast<T>(args.gamma)};
}

// Functors are unrolled, and these are long.
template <class T>
__host__ __device__ OPSIN_NOINLINE T value_of(Focal<T> focal, T x, T t) {
  return focal.value(x, t, focal.gamma == T(2));
}
template <class T>
__host__ __device__ OPSIN_NOINLINE T slope_of(Focal<T> focal, T dy, T x, T t) {
  return focal.slope(dy, x, t, focal.gamma == T(2));
}

template <class T>
struct Value {
  Focal<T> focal;
  __host__ __device__ T operator()(T x, T t) const { return value_of(focal, x, t); }
};

template <class T>
struct Slope {
  Focal<T> focal;
  __host__ __device__ T operator()(T dy, T x, T t) const { return slope_of(focal, dy, x, t); }
};

template <class T>
void forward(const DevicePlan& plan, const void* params) {
  cuda::run_elementwise<T, 2>(plan, Value<T>{focal_of<T>(params)});
}

template <class T>
void backward(const DevicePlan& plan, const void* params) {
  cuda::run_elementwise<T, 3>(plan, Slope<T>{focal_of<T>(params)});
}

}  // namespace

void register_focal_cuda();

void register_focal_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    focal_forward.set(DeviceType::kCUDA, dtype, wide ? forward<double> : forward<float>);
    focal_backward.set(DeviceType::kCUDA, dtype, wide ? backward<double> : backward<float>);
  }
}

}  // namespace opsin
