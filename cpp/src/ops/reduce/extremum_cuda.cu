// Products, extrema and their positions on a GPU.
#include "arg_kernels.h"
#include "fold_device.h"

namespace opsin {

namespace cuda {
namespace {

template <class Value>
inline constexpr bool is_float = std::is_floating_point_v<Value>;

template <class Value>
struct ProductFold {
  using T = Value;
  using Acc = std::conditional_t<is_float<T>, double, int64_t>;
  using Merge = Product;
  using Hot = std::bool_constant<false>;
  static constexpr int kLoads = 1;
  __device__ static Acc identity() { return 1; }
  __device__ static int shift(const FoldNumbers&, int64_t) { return 0; }
  template <int N>
  __device__ static void take(Acc& acc, const T (&x)[N], int64_t, int64_t, int, const FoldNumbers&) {
    Acc factors[N];
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) factors[i] = static_cast<Acc>(x[i]);
    acc *= tree<Product>(factors);
  }
  __device__ static void finish(Acc acc, const FoldNumbers& p, int64_t output) { put_number(acc, p, output); }
};

/// The smallest element is the largest with its sign turned round. That of an integer has no negative for the
/// lowest one, but its complement has the reversed order too.
template <class T>
__device__ __forceinline__ T turned(T x, bool turn) {
  if (!turn) return x;
  if constexpr (is_float<T>) {
    return -x;
  } else {
    return ~x;
  }
}
template <class T>
__device__ __forceinline__ T lowest() {
  return is_float<T> ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
}

template <class Value>
struct ExtremumFold {
  using T = Value;
  using Acc = T;
  using Merge = Max;
  using Hot = std::bool_constant<false>;
  static constexpr int kLoads = 2;
  __device__ static Acc identity() { return lowest<T>(); }
  __device__ static int shift(const FoldNumbers&, int64_t) { return 0; }
  template <int N>
  __device__ static void take(Acc& acc, const T (&x)[N], int64_t, int64_t, int, const FoldNumbers& p) {
    T values[N];
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) values[i] = turned(p.absolute ? math::abs(x[i]) : x[i], p.lowest);
    acc = Max{}(acc, tree<Max>(values));
  }
  __device__ static void finish(Acc acc, const FoldNumbers& p, int64_t output) {
    put_number(static_cast<std::conditional_t<is_float<T>, double, int64_t>>(turned(acc, p.lowest)), p,
               output);
  }
};

template <class Value>
struct PositionFold {
  using T = Value;
  using Acc = Indexed<T>;
  using Merge = ArgMax;
  using Hot = std::bool_constant<false>;
  static constexpr int kLoads = 1;
  __device__ static Acc identity() { return {lowest<T>(), std::numeric_limits<int64_t>::max()}; }
  __device__ static int shift(const FoldNumbers&, int64_t) { return 0; }
  template <int N>
  __device__ static void take(Acc& acc, const T (&x)[N], int64_t first, int64_t step, int,
                              const FoldNumbers& p) {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) acc = ArgMax{}(acc, Acc{turned(x[i], p.lowest), first + i * step});
  }
  __device__ static void finish(const Acc& acc, const FoldNumbers& p, int64_t output) {
    ExtremumFold<T>::finish(acc.value, p, output);
    p.positions[output] = acc.index;
  }
};

void run_product(const FoldParams& p) {
  run_any_fold<ProductFold>(p.shape,
                            {p.fold, p.args, p.shape.dtype, p.y_dtype, p.y, p.shift, nullptr, false, false});
}

void run_extremum(const FoldParams& p) {
  const bool lowest = p.fold == Fold::Min || p.fold == Fold::MinAbs;
  const bool absolute = p.fold == Fold::MaxAbs || p.fold == Fold::MinAbs;
  run_any_fold<ExtremumFold>(
      p.shape, {p.fold, p.args, p.shape.dtype, p.y_dtype, p.y, p.shift, nullptr, lowest, absolute});
}

void run_position(const ArgParams& p) {
  run_any_fold<PositionFold>(p.shape, {Fold::Max, FoldArgs{}, p.shape.dtype, p.shape.dtype, p.values, nullptr,
                                       p.positions, !p.max, false});
}

}  // namespace
}  // namespace cuda

void register_extremum_cuda() {
  const auto set = [](Fold fold, DType dtype, void (*run)(const FoldParams&)) {
    fold_forward[static_cast<int>(fold)].set(DeviceType::kCUDA, dtype, run);
  };
  for (const DType dtype :
       {kBool, kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64}) {
    set(Fold::Prod, dtype, cuda::run_product);
    set(Fold::Max, dtype, cuda::run_extremum);
    set(Fold::Min, dtype, cuda::run_extremum);
    arg_forward.set(DeviceType::kCUDA, dtype, cuda::run_position);
    if (!is_floating_point(dtype)) continue;
    set(Fold::MaxAbs, dtype, cuda::run_extremum);
    set(Fold::MinAbs, dtype, cuda::run_extremum);
  }
}

}  // namespace opsin
