// Element types and PyTorch's rules for mixing them.
#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>

#include <opsin/api.h>
#include <opsin/half.h>

namespace opsin {

enum class DType : uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kComplex64,
  kComplex128,
};
inline constexpr int kNumDTypes = 12;

inline constexpr DType kBool = DType::kBool, kUInt8 = DType::kUInt8, kInt8 = DType::kInt8,
                       kInt16 = DType::kInt16, kInt32 = DType::kInt32, kInt64 = DType::kInt64,
                       kFloat16 = DType::kFloat16, kBFloat16 = DType::kBFloat16, kFloat32 = DType::kFloat32,
                       kFloat64 = DType::kFloat64, kComplex64 = DType::kComplex64,
                       kComplex128 = DType::kComplex128;

constexpr size_t item_size(DType dtype) {
  constexpr uint8_t sizes[kNumDTypes] = {1, 1, 1, 2, 4, 8, 2, 2, 4, 8, 8, 16};
  return sizes[static_cast<int>(dtype)];
}

/// PyTorch's name without the module: "float32".
constexpr const char* name(DType dtype) {
  constexpr const char* names[kNumDTypes] = {"bool",    "uint8",   "int8",      "int16",
                                             "int32",   "int64",   "float16",   "bfloat16",
                                             "float32", "float64", "complex64", "complex128"};
  return names[static_cast<int>(dtype)];
}

constexpr bool is_floating_point(DType dtype) { return dtype >= kFloat16 && dtype <= kFloat64; }
constexpr bool is_complex(DType dtype) { return dtype >= kComplex64; }
/// bool counts as integral.
constexpr bool is_integral(DType dtype) { return dtype <= kInt64; }
/// Only floating-point and complex tensors carry gradients.
constexpr bool is_differentiable(DType dtype) { return dtype >= kFloat16; }
/// The dtype in which a value of `dtype` is accumulated and computed: float32 for the 16-bit types.
constexpr DType compute_type(DType dtype) {
  return dtype == kFloat16 || dtype == kBFloat16 ? kFloat32 : dtype;
}

/// The dtype that holds both operands by PyTorch's promotion table.
/// Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
OPSIN_API DType promote_types(DType a, DType b);
/// Whether PyTorch lets an in-place result of `from` be written to `to` (no drop of category).
OPSIN_API bool can_cast(DType from, DType to);

/// The dtype of floating-point results made from Python numbers and integers; float32 unless changed.
OPSIN_API DType default_dtype();
OPSIN_API void set_default_dtype(DType dtype);

namespace detail {
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<bool> {
  static constexpr DType value = kBool;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = kUInt8;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = kInt8;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = kInt16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = kInt32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = kInt64;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = kFloat16;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = kBFloat16;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = kFloat64;
};
template <>
struct DTypeOf<std::complex<float>> {
  static constexpr DType value = kComplex64;
};
template <>
struct DTypeOf<std::complex<double>> {
  static constexpr DType value = kComplex128;
};
}  // namespace detail

/// The DType of a C++ type: `dtype_of<float> == kFloat32`.
template <class T>
inline constexpr DType dtype_of = detail::DTypeOf<T>::value;

}  // namespace opsin
