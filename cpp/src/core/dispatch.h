// From a run-time dtype to a C++ type: `dispatch_floating(dtype, "mean", [&]<class T>() { ... })`.
#pragma once

#include <opsin/dtype.h>
#include <opsin/error.h>

namespace opsin {

namespace detail {
/// `"op" not implemented for 'dtype'`.
[[noreturn, gnu::cold]] OPSIN_API void raise_unsupported(const char* op, DType dtype);

template <class F, class... Ts>
decltype(auto) dispatch_types(DType dtype, const char* op, F&& body) {
  using Result = decltype(body.template operator()<float>());
  bool found = false;
  if constexpr (std::is_void_v<Result>) {
    (void)((dtype == dtype_of<Ts> && (found = true, body.template operator()<Ts>(), true)) || ...);
    if (!found) raise_unsupported(op, dtype);
  } else {
    Result result{};
    (void)((dtype == dtype_of<Ts> && (found = true, result = body.template operator()<Ts>(), true)) || ...);
    if (!found) raise_unsupported(op, dtype);
    return result;
  }
}
}  // namespace detail

/// All twelve dtypes.
template <class F>
decltype(auto) dispatch_all(DType dtype, const char* op, F&& body) {
  return detail::dispatch_types<F, bool, uint8_t, int8_t, int16_t, int32_t, int64_t, float16, bfloat16, float,
                                double, std::complex<float>, std::complex<double>>(dtype, op,
                                                                                   std::forward<F>(body));
}

/// bool, integers and floating point: what has an order.
template <class F>
decltype(auto) dispatch_real(DType dtype, const char* op, F&& body) {
  return detail::dispatch_types<F, bool, uint8_t, int8_t, int16_t, int32_t, int64_t, float16, bfloat16, float,
                                double>(dtype, op, std::forward<F>(body));
}

template <class F>
decltype(auto) dispatch_integral(DType dtype, const char* op, F&& body) {
  return detail::dispatch_types<F, bool, uint8_t, int8_t, int16_t, int32_t, int64_t>(dtype, op,
                                                                                     std::forward<F>(body));
}

template <class F>
decltype(auto) dispatch_floating(DType dtype, const char* op, F&& body) {
  return detail::dispatch_types<F, float16, bfloat16, float, double>(dtype, op, std::forward<F>(body));
}

/// Index tensors: int32 and int64.
template <class F>
decltype(auto) dispatch_index(DType dtype, const char* op, F&& body) {
  return detail::dispatch_types<F, int32_t, int64_t>(dtype, op, std::forward<F>(body));
}

/// The type that values of T are computed in: float for the 16-bit types.
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>, float, T>;

}  // namespace opsin
