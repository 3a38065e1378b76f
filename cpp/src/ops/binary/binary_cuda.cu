// The binary ops on a GPU: the functors of the CPU.
#include "binary_functors.h"
#include "binary_kernels.h"

#include "cuda/elementwise.h"

namespace opsin {

namespace {

using binary::Kind;

/// Rare and long ones are called, not compiled into every loop.
template <class F>
inline constexpr bool is_called =
    (std::is_same_v<F, binary::Pow> || std::is_same_v<F, binary::Atan2> || std::is_same_v<F, binary::Fmod> ||
     std::is_same_v<F, binary::Remainder> || std::is_same_v<F, binary::DivFloor> ||
     std::is_same_v<F, binary::DivTrunc> || std::is_same_v<F, binary::Gcd> ||
     std::is_same_v<F, binary::Lcm> || std::is_same_v<F, binary::Xlogy> || std::is_same_v<F, binary::Hypot> ||
     std::is_same_v<F, binary::Logaddexp> || std::is_same_v<F, binary::Logaddexp2>);

/// What networks spend their time in.
template <class F>
inline constexpr bool is_hot = (std::is_same_v<F, binary::Add> || std::is_same_v<F, binary::Sub> ||
                                std::is_same_v<F, binary::Mul> || std::is_same_v<F, binary::Div>);

template <class F, class T>
__host__ __device__ OPSIN_NOINLINE T value_of(T a, T b) {
  return F::value(a, b);
}

template <class F, class T>
struct Value {
  using Chunks = std::integral_constant<int, is_hot<F> && std::is_same_v<T, float> ? 4 : 1>;
  using TakesRows = std::bool_constant<(Chunks::value > 1)>;
  __host__ __device__ auto operator()(T a, T b) const {
    if constexpr (is_called<F>) {
      return value_of<F>(a, b);
    } else {
      return F::value(a, b);
    }
  }
};

template <class F, class T>
void forward(const DevicePlan& plan, const void*) {
  cuda::run_elementwise<T, 2>(plan, Value<F, T>());
}

template <class F>
void fill(BinaryOp op) {
  ElementwiseSlot& slot = binary_forward[static_cast<int>(op)];
  if constexpr (F::kKind != Kind::kInteger && F::kKind != Kind::kBits) {
    for (const DType dtype : {kFloat16, kBFloat16, kFloat32}) {
      slot.set(DeviceType::kCUDA, dtype, forward<F, float>);
    }
    slot.set(DeviceType::kCUDA, kFloat64, forward<F, double>);
  }
  if constexpr (F::kKind != Kind::kFloat && F::kKind != Kind::kOnlyFloat) {
    if constexpr (std::is_same_v<F, binary::Gcd> || std::is_same_v<F, binary::Lcm>) {
      // What overflows on the way is no longer the result modulo a power of two.
      slot.set(DeviceType::kCUDA, kUInt8, forward<F, uint8_t>);
      slot.set(DeviceType::kCUDA, kInt8, forward<F, int8_t>);
      slot.set(DeviceType::kCUDA, kInt16, forward<F, int16_t>);
      slot.set(DeviceType::kCUDA, kInt32, forward<F, int32_t>);
    } else {
      for (const DType dtype : cuda::kShortIntegers) {
        slot.set(DeviceType::kCUDA, dtype, forward<F, int32_t>);
      }
    }
    slot.set(DeviceType::kCUDA, kInt64, forward<F, int64_t>);
  }
  if constexpr (binary::takes_bool<F>()) slot.set(DeviceType::kCUDA, kBool, forward<F, bool>);
}

}  // namespace

void register_binary_cuda();

void register_binary_cuda() {
#define OPSIN_ROW(Functor, function, doc) fill<binary::Functor>(BinaryOp::Functor);
  OPSIN_BINARY_OPS(OPSIN_ROW)
  OPSIN_BINARY_PURE_OPS(OPSIN_ROW)
  OPSIN_BINARY_SPECIAL_OPS(OPSIN_ROW)
  OPSIN_INTEGER_OPS(OPSIN_ROW)
  OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
}

}  // namespace opsin
