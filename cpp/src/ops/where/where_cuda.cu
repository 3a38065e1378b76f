// Choice on a GPU. Values are moved, not computed, so only their size matters.
#include "where_kernels.h"

#include "cuda/elementwise.h"

namespace opsin {

namespace {

__host__ __device__ bool is_set(cuda::Bits128 x) { return x.low != 0; }
template <class T>
__host__ __device__ bool is_set(T x) {
  return x != 0;
}

template <class T>
struct Choose {
  using Chunks = std::integral_constant<int, 4>;
  __host__ __device__ T operator()(T condition, T a, T b) const { return is_set(condition) ? a : b; }
};

template <class T>
void forward(const DevicePlan& plan, const void*) {
  cuda::run_elementwise<T, 3>(plan, Choose<T>());
}

}  // namespace

void register_where_cuda();

void register_where_cuda() {
  constexpr DeviceFn kBySize[] = {forward<uint8_t>, forward<uint16_t>, forward<uint32_t>, forward<uint64_t>,
                                  forward<cuda::Bits128>};
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    int log_size = 0;
    while ((size_t{1} << log_size) < item_size(dtype)) ++log_size;
    where_forward.set(DeviceType::kCUDA, dtype, kBySize[log_size]);
  }
}

}  // namespace opsin
