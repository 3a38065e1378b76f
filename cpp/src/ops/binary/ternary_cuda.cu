// The ternary ops on a GPU: the functors of the CPU.
#include "binary_functors.h"
#include "binary_kernels.h"

#include "cuda/elementwise.h"

namespace opsin {

namespace {

template <class F, class T>
struct Value {
  T number;
  __host__ __device__ T operator()(T a, T b, T c) const { return F::value(a, b, c, number); }
};

template <class F, class T>
void forward(const DevicePlan& plan, const void* params) {
  cuda::run_elementwise<T, 3>(plan, Value<F, T>{static_cast<const ternary::Value*>(params)->as<T>()});
}

template <class F>
void fill(TernaryOp op) {
  ElementwiseSlot& slot = ternary_forward[static_cast<int>(op)];
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32}) {
    slot.set(DeviceType::kCUDA, dtype, forward<F, float>);
  }
  slot.set(DeviceType::kCUDA, kFloat64, forward<F, double>);
  if constexpr (F::kIntegers) {
    for (const DType dtype : cuda::kShortIntegers) {
      slot.set(DeviceType::kCUDA, dtype, forward<F, int32_t>);
    }
    slot.set(DeviceType::kCUDA, kInt64, forward<F, int64_t>);
  }
}

}  // namespace

void register_ternary_cuda();

void register_ternary_cuda() {
#define OPSIN_ROW(Functor, function) fill<ternary::Functor>(TernaryOp::Functor);
  OPSIN_TERNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
}

}  // namespace opsin
