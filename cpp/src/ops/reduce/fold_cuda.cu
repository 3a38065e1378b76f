// Sums and counts over dimensions on a GPU.
#include "fold_device.h"

namespace opsin {

namespace cuda {
namespace {

template <class Value>
inline constexpr bool is_float = std::is_floating_point_v<Value>;

/// Groups of floats are added as floats, the groups as doubles: the error does not grow with the length, and
/// few instructions are slow ones.
template <class Value>
struct SumFold {
  using T = Value;
  using Acc = std::conditional_t<is_float<T>, double, int64_t>;
  using Merge = Sum;
  using Hot = std::bool_constant<is_float<T>>;
  static constexpr int kLoads = 4;
  __device__ static Acc identity() { return 0; }
  __device__ static int shift(const FoldNumbers&, int64_t) { return 0; }
  template <int N>
  __device__ static void take(Acc& acc, const T (&x)[N], int64_t, int64_t, int, const FoldNumbers&) {
    acc += static_cast<Acc>(tree<Sum>(x));
  }
  __device__ static void finish(Acc acc, const FoldNumbers& p, int64_t output) {
    if constexpr (is_float<T>) {
      put_number(acc / p.args.divisor, p, output);
    } else {
      put_number(acc, p, output);
    }
  }
};

/// Hundreds of instructions, which would be copied into every unrolled loop.
__device__ __attribute__((noinline)) double power(double x, double y) { return std::pow(x, y); }

/// The rarer sums: what is added is chosen at run time.
template <class Value>
struct MappedSum : SumFold<Value> {
  using T = Value;
  using Acc = typename SumFold<Value>::Acc;
  using Shift = std::conditional_t<is_float<T>, double, int>;
  using Hot = std::bool_constant<false>;
  static constexpr int kLoads = is_float<T> ? 2 : 4;

  __device__ static Shift shift(const FoldNumbers& p, int64_t output) {
    if constexpr (is_float<T>) {
      if (p.fold == Fold::CenteredSquares) return reinterpret_cast<const double*>(p.shift)[output];
      if (p.fold == Fold::LogSumExp) {
        // An infinite maximum takes no part, so that exp(-inf) sums to 0 and exp(inf) to infinity.
        const int bytes = p.dtype == kFloat64 ? 8 : p.dtype == kFloat32 ? 4 : 2;
        const T max = load<T>(p.shift + output * bytes, p.dtype);
        return math::abs(max) <= std::numeric_limits<T>::max() ? max : T(0);
      }
    }
    return 0;
  }

  /// The sum of f over N elements, taken as G.
  template <class G, int N, class F>
  __device__ static void add(Acc& acc, const T (&x)[N], F f) {
    G mapped[N];
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) mapped[i] = f(x[i]);
    acc += static_cast<Acc>(tree<Sum>(mapped));
  }

  template <int N>
  __device__ static void take(Acc& acc, const T (&x)[N], int64_t, int64_t, Shift shift,
                              const FoldNumbers& p) {
    if constexpr (is_float<T>) {
      switch (p.fold) {
        case Fold::NanSum:
          return add<T>(acc, x, [](T v) { return v == v ? v : T(0); });
        case Fold::SumAbs:
          return add<T>(acc, x, [](T v) { return math::abs(v); });
        case Fold::SumSquares:
          return add<double>(acc, x, [](double v) { return v * v; });
        case Fold::SumPowers:
          return add<double>(acc, x, [&](double v) { return power(math::abs(v), p.args.power); });
        case Fold::CenteredSquares:
          return add<double>(acc, x, [&](double v) { return (v - shift) * (v - shift); });
        case Fold::LogSumExp:
          return add<T>(acc, x, [&](T v) { return device_exp(v - static_cast<T>(shift)); });
        default:
          break;
      }
    }
    // Elements that are zero for All, that are not for Any and CountNonzero.
    const bool zero = p.fold == Fold::All;
    add<int>(acc, x, [&](T v) { return (v == T(0)) == zero ? 1 : 0; });
  }

  __device__ static void finish(Acc acc, const FoldNumbers& p, int64_t output) {
    switch (p.fold) {
      case Fold::All:
        return put_number(static_cast<int64_t>(acc == 0), p, output);
      case Fold::Any:
        return put_number(static_cast<int64_t>(acc != 0), p, output);
      case Fold::CountNonzero:
        return put_number(static_cast<int64_t>(acc), p, output);
      default:
        break;
    }
    if constexpr (is_float<T>) put_number(result(acc, p, output), p, output);
  }

 private:
  __device__ static double result(double acc, const FoldNumbers& p, int64_t output) {
    switch (p.fold) {
      case Fold::SumSquares:
        return p.args.root == 2 ? std::sqrt(acc) : acc;
      case Fold::SumPowers:
        return p.args.root == 1 ? acc : power(acc, 1 / p.args.root);
      case Fold::CenteredSquares:
        return p.args.root == 2 ? std::sqrt(acc / p.args.divisor) : acc / p.args.divisor;
      case Fold::LogSumExp:
        return std::log(acc) + static_cast<double>(shift(p, output));
      default:
        return acc / p.args.divisor;
    }
  }
};

void run(const FoldParams& p) {
  const FoldNumbers numbers{p.fold, p.args, p.shape.dtype, p.y_dtype, p.y, p.shift, nullptr, false, false};
  if (p.fold == Fold::Sum) return run_any_fold<SumFold>(p.shape, numbers);
  run_any_fold<MappedSum>(p.shape, numbers);
}

}  // namespace
}  // namespace cuda

void register_fold_cuda() {
  const auto fill = [](std::initializer_list<Fold> folds, std::initializer_list<DType> dtypes) {
    for (const Fold fold : folds) {
      for (const DType dtype : dtypes) {
        fold_forward[static_cast<int>(fold)].set(DeviceType::kCUDA, dtype, cuda::run);
      }
    }
  };
  fill({Fold::Sum, Fold::All, Fold::Any, Fold::CountNonzero},
       {kBool, kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64});
  fill(
      {Fold::NanSum, Fold::SumAbs, Fold::SumSquares, Fold::SumPowers, Fold::CenteredSquares, Fold::LogSumExp},
      {kFloat16, kBFloat16, kFloat32, kFloat64});
}

}  // namespace opsin
