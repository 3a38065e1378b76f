// A number of any dtype, as it comes from the caller.
#pragma once

#include <complex>
#include <cstdint>
#include <type_traits>

#include <opsin/dtype.h>

namespace opsin {

class Scalar {
 public:
  enum class Kind : uint8_t { kBoolean, kInteger, kReal, kComplex };

  Scalar() : Scalar(int64_t{0}) {}
  Scalar(bool value) : kind_(Kind::kBoolean), int_(value) {}
  template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Scalar(T value) : kind_(Kind::kInteger), int_(static_cast<int64_t>(value)) {}
  template <class T>
    requires std::is_floating_point_v<T>
  Scalar(T value) : kind_(Kind::kReal), real_(static_cast<double>(value)) {}
  Scalar(std::complex<double> value) : kind_(Kind::kComplex), real_(value.real()), imag_(value.imag()) {}

  Kind kind() const { return kind_; }
  bool is_integral() const { return kind_ <= Kind::kInteger; }
  bool is_bool() const { return kind_ == Kind::kBoolean; }
  bool is_complex() const { return kind_ == Kind::kComplex; }

  /// The dtype a 0-d tensor made from this number has: bool, int64, the default float or complex dtype.
  DType dtype() const {
    switch (kind_) {
      case Kind::kBoolean:
        return kBool;
      case Kind::kInteger:
        return kInt64;
      case Kind::kReal:
        return default_dtype();
      default:
        return default_dtype() == kFloat64 ? kComplex128 : kComplex64;
    }
  }

  double to_double() const { return is_integral() ? static_cast<double>(int_) : real_; }
  /// Truncates; out-of-range values saturate, NaN gives 0.
  int64_t to_int() const {
    if (is_integral()) return int_;
    if (!(real_ == real_)) return 0;
    if (real_ >= 9223372036854775808.0) return INT64_MAX;
    if (real_ < -9223372036854775808.0) return INT64_MIN;
    return static_cast<int64_t>(real_);
  }
  bool to_bool() const { return is_integral() ? int_ != 0 : real_ != 0 || imag_ != 0; }
  std::complex<double> to_complex() const { return {to_double(), imag_}; }

  template <class T>
  T to() const {
    if constexpr (std::is_same_v<T, bool>) {
      return to_bool();
    } else if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(to_int());
    } else if constexpr (std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>) {
      return static_cast<T>(to_complex());
    } else if constexpr (std::is_same_v<T, double>) {
      return to_double();
    } else {
      return static_cast<T>(static_cast<float>(to_double()));
    }
  }

 private:
  Kind kind_;
  int64_t int_ = 0;
  double real_ = 0;
  double imag_ = 0;
};

}  // namespace opsin
