// Copies and conversions on a GPU. Numbers pass through registers as bits, float, double, int64 or complex,
// so that five kernels of a target serve all sources.
#include "copy_kernels.h"

#include "cuda/elementwise.h"
#include "cuda/transpose.h"

namespace opsin {

namespace {

template <class T>
inline constexpr bool is_complex_type = false;
template <class T>
inline constexpr bool is_complex_type<cuda::Complex<T>> = true;

template <class T>
struct Same {
  using Chunks = std::integral_constant<int, 4>;
  __host__ __device__ T operator()(T x) const { return x; }
};

/// As the CPU converts: floats to integers through int64, complex numbers to real ones by their real part.
template <class From, class To>
struct Convert {
  using Chunks =
      std::integral_constant<int, std::is_same_v<From, float> && std::is_same_v<To, float> ? 4 : 1>;
  __host__ __device__ To operator()(From x) const {
    if constexpr (is_complex_type<From> && is_complex_type<To>) {
      using Part = decltype(To::real);
      return {static_cast<Part>(x.real), static_cast<Part>(x.imag)};
    } else if constexpr (is_complex_type<From> && std::is_same_v<To, bool>) {
      return x.real != 0 || x.imag != 0;
    } else if constexpr (is_complex_type<From>) {
      return static_cast<To>(x.real);
    } else if constexpr (is_complex_type<To>) {
      return {static_cast<decltype(To::real)>(x), 0};
    } else if constexpr (std::is_same_v<To, bool>) {
      return x != From(0);
    } else {
      return static_cast<To>(x);
    }
  }
};

/// Whether a plan writes one dimension in order and reads another in order; `shape` is then what it moves.
bool is_transpose(const DevicePlan& plan, int64_t item, cuda::StridedTranspose& shape) {
  if (plan.strides[0][0] != item || plan.strides[1][0] == item || plan.strides[1][0] == 0) return false;
  int ordered = 1;
  while (ordered < plan.rank && plan.strides[1][ordered] != item) ++ordered;
  if (ordered == plan.rank) return false;
  shape = {plan.sizes[0],
           plan.sizes[ordered],
           plan.strides[1][0] / item,
           plan.strides[0][ordered] / item,
           0,
           {},
           {},
           {}};
  static_assert(DevicePlan::kMaxRank - 2 <= cuda::StridedTranspose::kMaxBatchRank);
  for (int d = 1; d < plan.rank; ++d) {
    if (d == ordered) continue;
    shape.batch[shape.batch_rank] = plan.sizes[d];
    shape.from_batch[shape.batch_rank] = plan.strides[1][d] / item;
    shape.to_batch[shape.batch_rank++] = plan.strides[0][d] / item;
  }
  return fills_tiles(shape);
}

template <class T>
void copy(const DevicePlan& plan, const void*) {
  cuda::StridedTranspose shape;
  if (plan.data[1] && is_transpose(plan, sizeof(T), shape)) {
    return transpose(plan.data[1], plan.data[0], shape, sizeof(T));
  }
  cuda::run_elementwise<T, 1>(plan, Same<T>());
}

template <class From, class To>
void convert(const DevicePlan& plan, const void*) {
  cuda::run_elementwise<From, 1>(plan, Convert<From, To>());
}

template <class From>
DeviceFn conversion(DType to) {
  if (to == kBool) return convert<From, bool>;
  if (is_integral(to)) return convert<From, int64_t>;
  if (to == kFloat64) return convert<From, double>;
  if (to == kComplex64) return convert<From, cuda::Complex<float>>;
  if (to == kComplex128) return convert<From, cuda::Complex<double>>;
  return convert<From, float>;
}

DeviceFn copy_of(DType dtype) {
  switch (item_size(dtype)) {
    case 1:
      return copy<uint8_t>;
    case 2:
      return copy<uint16_t>;
    case 4:
      return copy<uint32_t>;
    case 8:
      return copy<uint64_t>;
    default:
      return copy<cuda::Bits128>;
  }
}

DeviceFn kernel_of(DType from, DType to) {
  if (from == to) return copy_of(from);
  if (is_integral(from)) return conversion<int64_t>(to);
  if (from == kFloat64) return conversion<double>(to);
  if (from == kComplex64) return conversion<cuda::Complex<float>>(to);
  if (from == kComplex128) return conversion<cuda::Complex<double>>(to);
  return conversion<float>(to);
}

}  // namespace

void register_copy_cuda();

void register_copy_cuda() {
  for (int from = 0; from < kNumDTypes; ++from) {
    for (int to = 0; to < kNumDTypes; ++to) {
      copy_forward[to].set(DeviceType::kCUDA, static_cast<DType>(from),
                           kernel_of(static_cast<DType>(from), static_cast<DType>(to)));
    }
  }
}

}  // namespace opsin
