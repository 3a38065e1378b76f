// The unary ops on a GPU: the functors of the CPU.
#include "unary_functors.h"
#include "unary_kernels.h"

#include "cuda/elementwise.h"
#include "cuda/vectors.h"

namespace opsin {

namespace {

using cuda::run_elementwise;

template <class T>
unary::Args<T> read_args(const void* params) {
  if constexpr (std::is_integral_v<T>) {
    return {};
  } else {
    const auto* args = static_cast<const UnaryArgs*>(params);
    return {static_cast<T>(args->a), static_cast<T>(args->b), static_cast<T>(args->c)};
  }
}

/// GELU and SiLU where results have 16 bits: as unary::Gelu and unary::Silu, whose arithmetic would take
/// longer there than to move the elements, with a relative error of 1e-5.
struct NarrowGelu {
  static constexpr bool kInput = true, kOutput = false;

  static __host__ __device__ unary::Normal normal_of(float x) {
    const float size = std::fmin(std::fabs(x), 13.0f), t = math::detail::quick_quotient(size - 3, size + 3);
    const float g = math::detail::horner(t, 0.121513516f, -0.206410527f, 0.123254657f, -0.0461259447f,
                                         0.00592197804f, 0.0026234961f, -0.000607468479f);
    const float density = cuda::power_of_two(-0.721347520f * (x * x)), tail = g * density;
    return {x > 0.0f ? 1.0f - tail : tail, density};
  }
  static __host__ __device__ float value(float x, unary::Args<float>) { return x * normal_of(x).below; }
  static __host__ __device__ float derivative(float x, float, unary::Args<float>) {
    const unary::Normal normal = normal_of(x);
    return normal.below + x * (0.3989422804f * normal.density);
  }
};
struct NarrowSilu {
  static constexpr bool kInput = true, kOutput = false;

  static __host__ __device__ float sigmoid(float x) {
    return math::detail::quick_quotient(1.0f, 1.0f + cuda::short_exp(-x));
  }
  static __host__ __device__ float value(float x, unary::Args<float>) { return x * sigmoid(x); }
  static __host__ __device__ float derivative(float x, float, unary::Args<float>) {
    return unary::silu_derivative(x, sigmoid(x));
  }
};
/// What networks spend their time in is compiled into the loops, several elements side by side; of the rest
/// there is one copy that is called, which keeps the plug-in small.
template <class F, class... Hot>
inline constexpr bool is_one_of = (std::is_same_v<F, Hot> || ...);
template <class F>
inline constexpr bool is_hot =
    is_one_of<F, unary::Abs, unary::Neg, unary::Square, unary::Sqrt, unary::Rsqrt, unary::Reciprocal,
              unary::Exp, unary::Log, unary::Tanh, unary::Sigmoid, unary::Relu, unary::Clamp,
              unary::LeakyRelu, unary::Elu, unary::Gelu, NarrowGelu, unary::GeluTanh, unary::Silu, NarrowSilu,
              unary::Hardswish, unary::Hardsigmoid, unary::Hardtanh, unary::Relu6>;

template <class F>
using Narrow = std::conditional_t<std::is_same_v<F, unary::Gelu>, NarrowGelu,
                                  std::conditional_t<std::is_same_v<F, unary::Silu>, NarrowSilu, F>>;

/// In float64 all of them are long.
template <class F, class T>
inline constexpr bool is_inlined = is_hot<F> && !std::is_same_v<T, double>;
/// Long ones have enough to do between their loads.
template <class F>
inline constexpr bool is_short =
    is_one_of<F, unary::Abs, unary::Neg, unary::Square, unary::Relu, unary::Clamp, unary::LeakyRelu,
              unary::Hardtanh, unary::Relu6, unary::Silu, NarrowGelu, NarrowSilu>;
template <class F, class T>
using ChunksOf = std::integral_constant<int, !std::is_same_v<T, float> || !is_hot<F> ? 1
                                             : is_short<F>                           ? 4
                                                                                     : 2>;

template <class F, class T>
__host__ __device__ OPSIN_NOINLINE auto value_of(T x, unary::Args<T> args) {
  return F::value(x, args);
}
template <class F, class T>
__host__ __device__ OPSIN_NOINLINE T gradient_of(T g, T x, T y, unary::Args<T> args) {
  return g * F::derivative(x, y, args);
}

template <class F, class T>
struct Value {
  using Chunks = ChunksOf<F, T>;
  unary::Args<T> args;
  __host__ __device__ auto operator()(T x) const {
    if constexpr (is_inlined<F, T>) {
      return F::value(x, args);
    } else {
      return value_of<F>(x, args);
    }
  }
};

/// The derivative times the incoming gradient, from x and y where both are read, else from the one that is.
template <class F, class T>
struct Gradient {
  using Chunks = ChunksOf<F, T>;
  unary::Args<T> args;
  __host__ __device__ T operator()(T g, T x) const { return (*this)(g, x, x); }
  __host__ __device__ T operator()(T g, T x, T y) const {
    if constexpr (is_inlined<F, T>) {
      return g * F::derivative(x, y, args);
    } else {
      return gradient_of<F>(g, x, y, args);
    }
  }
};

template <class F, class T>
void forward(const DevicePlan& plan, const void* params) {
  run_elementwise<T, 1>(plan, Value<F, T>{read_args<T>(params)});
}

template <class F, class T>
void backward(const DevicePlan& plan, const void* params) {
  if constexpr (F::kInput && F::kOutput) {
    run_elementwise<T, 3>(plan, Gradient<F, T>{read_args<T>(params)});
  } else {
    // Both operands are the one that is read.
    run_elementwise<T, 2>(plan, Gradient<F, T>{read_args<T>(params)});
  }
}

template <class F>
void fill(UnaryOp op) {
  ElementwiseSlot& value = unary_forward[static_cast<int>(op)];
  ElementwiseSlot& gradient = unary_backward[static_cast<int>(op)];
  for (const DType dtype : {kFloat16, kBFloat16}) {
    value.set(DeviceType::kCUDA, dtype, forward<Narrow<F>, float>);
    if constexpr (F::kSmooth) gradient.set(DeviceType::kCUDA, dtype, backward<Narrow<F>, float>);
  }
  value.set(DeviceType::kCUDA, kFloat32, forward<F, float>);
  if constexpr (F::kSmooth) gradient.set(DeviceType::kCUDA, kFloat32, backward<F, float>);
  value.set(DeviceType::kCUDA, kFloat64, forward<F, double>);
  if constexpr (F::kSmooth) gradient.set(DeviceType::kCUDA, kFloat64, backward<F, double>);
  if constexpr (F::kKind == unary::Kind::kSame) {
    for (const DType dtype : cuda::kShortIntegers) {
      value.set(DeviceType::kCUDA, dtype, forward<F, int32_t>);
    }
    value.set(DeviceType::kCUDA, kInt64, forward<F, int64_t>);
  }
}

}  // namespace

void register_unary_cuda();

void register_unary_cuda() {
#define OPSIN_ROW(Functor, function, doc) fill<unary::Functor>(UnaryOp::Functor);
  OPSIN_UNARY_OPS(OPSIN_ROW)
  OPSIN_UNARY_PARAM_OPS(OPSIN_ROW)
  OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
}

}  // namespace opsin
