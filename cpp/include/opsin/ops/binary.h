// Functions of two tensors, element by element. Shapes broadcast as in NumPy (ShapeError otherwise); dtypes
// promote as in PyTorch. A number made with wrap_number() takes part as a Python number does. Names ending in
// `_` write the result over `self`, whose shape and kind of dtype must hold it.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// self + alpha * other
OPSIN_API Tensor add(const Tensor& self, const Tensor& other, const Scalar& alpha = 1);
OPSIN_API Tensor add_(const Tensor& self, const Tensor& other, const Scalar& alpha = 1);
/// self - alpha * other
OPSIN_API Tensor sub(const Tensor& self, const Tensor& other, const Scalar& alpha = 1);
OPSIN_API Tensor sub_(const Tensor& self, const Tensor& other, const Scalar& alpha = 1);
/// self * other
OPSIN_API Tensor mul(const Tensor& self, const Tensor& other);
OPSIN_API Tensor mul_(const Tensor& self, const Tensor& other);
/// self / other, floating point also for integers.
OPSIN_API Tensor div(const Tensor& self, const Tensor& other);
OPSIN_API Tensor div_(const Tensor& self, const Tensor& other);
/// self / other, rounded towards zero ("trunc") or down ("floor") and then of the common dtype. RuntimeError
/// when an integer is divided by zero so.
OPSIN_API Tensor div(const Tensor& self, const Tensor& other, std::optional<std::string_view> rounding_mode);
OPSIN_API Tensor div_(const Tensor& self, const Tensor& other, std::optional<std::string_view> rounding_mode);
/// other - alpha * self
OPSIN_API Tensor rsub(const Tensor& self, const Tensor& other, const Scalar& alpha = 1);
/// The quotient rounded down.
OPSIN_API Tensor floor_divide(const Tensor& self, const Tensor& other);
OPSIN_API Tensor floor_divide_(const Tensor& self, const Tensor& other);
/// self - other * floor(self / other), with the sign of other.
OPSIN_API Tensor remainder(const Tensor& self, const Tensor& other);
OPSIN_API Tensor remainder_(const Tensor& self, const Tensor& other);
/// self - other * trunc(self / other), with the sign of self.
OPSIN_API Tensor fmod(const Tensor& self, const Tensor& other);
OPSIN_API Tensor fmod_(const Tensor& self, const Tensor& other);
/// self to the power of exponent. RuntimeError for integers with a negative number as exponent.
OPSIN_API Tensor pow(const Tensor& self, const Tensor& exponent);
OPSIN_API Tensor pow_(const Tensor& self, const Tensor& exponent);
/// The larger of both; NaN if either is.
OPSIN_API Tensor maximum(const Tensor& self, const Tensor& other);
/// The smaller of both; NaN if either is.
OPSIN_API Tensor minimum(const Tensor& self, const Tensor& other);
/// The larger of both; NaN only if both are.
OPSIN_API Tensor fmax(const Tensor& self, const Tensor& other);
/// The smaller of both; NaN only if both are.
OPSIN_API Tensor fmin(const Tensor& self, const Tensor& other);
/// The angle of the point (x = other, y = self), in [-pi, pi].
OPSIN_API Tensor atan2(const Tensor& self, const Tensor& other);
OPSIN_API Tensor atan2_(const Tensor& self, const Tensor& other);
/// sqrt(self^2 + other^2)
OPSIN_API Tensor hypot(const Tensor& self, const Tensor& other);
OPSIN_API Tensor hypot_(const Tensor& self, const Tensor& other);
/// The size of self with the sign of other.
OPSIN_API Tensor copysign(const Tensor& self, const Tensor& other);
OPSIN_API Tensor copysign_(const Tensor& self, const Tensor& other);
/// self * ln(other); 0 where self is 0, NaN where other is NaN.
OPSIN_API Tensor xlogy(const Tensor& self, const Tensor& other);
OPSIN_API Tensor xlogy_(const Tensor& self, const Tensor& other);
/// ln(e^self + e^other)
OPSIN_API Tensor logaddexp(const Tensor& self, const Tensor& other);
/// log2(2^self + 2^other)
OPSIN_API Tensor logaddexp2(const Tensor& self, const Tensor& other);
/// self * 2^other
OPSIN_API Tensor ldexp(const Tensor& self, const Tensor& other);
OPSIN_API Tensor ldexp_(const Tensor& self, const Tensor& other);
/// The greatest common divisor of integers.
OPSIN_API Tensor gcd(const Tensor& self, const Tensor& other);
OPSIN_API Tensor gcd_(const Tensor& self, const Tensor& other);
/// The least common multiple of integers.
OPSIN_API Tensor lcm(const Tensor& self, const Tensor& other);
OPSIN_API Tensor lcm_(const Tensor& self, const Tensor& other);
/// Bitwise and of integers or bools.
OPSIN_API Tensor bitwise_and(const Tensor& self, const Tensor& other);
OPSIN_API Tensor bitwise_and_(const Tensor& self, const Tensor& other);
/// Bitwise or of integers or bools.
OPSIN_API Tensor bitwise_or(const Tensor& self, const Tensor& other);
OPSIN_API Tensor bitwise_or_(const Tensor& self, const Tensor& other);
/// Bitwise exclusive or of integers or bools.
OPSIN_API Tensor bitwise_xor(const Tensor& self, const Tensor& other);
OPSIN_API Tensor bitwise_xor_(const Tensor& self, const Tensor& other);
/// self * 2^other for integers.
OPSIN_API Tensor bitwise_left_shift(const Tensor& self, const Tensor& other);
OPSIN_API Tensor bitwise_left_shift_(const Tensor& self, const Tensor& other);
/// self / 2^other for integers, rounded down.
OPSIN_API Tensor bitwise_right_shift(const Tensor& self, const Tensor& other);
OPSIN_API Tensor bitwise_right_shift_(const Tensor& self, const Tensor& other);
/// x for x > 0, else slope * x, where slope broadcasts.
OPSIN_API Tensor parametric_relu(const Tensor& self, const Tensor& slope);
/// |self - other| <= atol + rtol * |other|, of one dtype.
OPSIN_API Tensor isclose(const Tensor& self, const Tensor& other, double rtol = 1e-5, double atol = 1e-8,
                         bool equal_nan = false);

/// self == other
OPSIN_API Tensor eq(const Tensor& self, const Tensor& other);
OPSIN_API Tensor eq_(const Tensor& self, const Tensor& other);
/// self != other
OPSIN_API Tensor ne(const Tensor& self, const Tensor& other);
OPSIN_API Tensor ne_(const Tensor& self, const Tensor& other);
/// self < other
OPSIN_API Tensor lt(const Tensor& self, const Tensor& other);
OPSIN_API Tensor lt_(const Tensor& self, const Tensor& other);
/// self <= other
OPSIN_API Tensor le(const Tensor& self, const Tensor& other);
OPSIN_API Tensor le_(const Tensor& self, const Tensor& other);
/// self > other
OPSIN_API Tensor gt(const Tensor& self, const Tensor& other);
OPSIN_API Tensor gt_(const Tensor& self, const Tensor& other);
/// self >= other
OPSIN_API Tensor ge(const Tensor& self, const Tensor& other);
OPSIN_API Tensor ge_(const Tensor& self, const Tensor& other);
/// Whether both are nonzero.
OPSIN_API Tensor logical_and(const Tensor& self, const Tensor& other);
OPSIN_API Tensor logical_and_(const Tensor& self, const Tensor& other);
/// Whether one is nonzero.
OPSIN_API Tensor logical_or(const Tensor& self, const Tensor& other);
OPSIN_API Tensor logical_or_(const Tensor& self, const Tensor& other);
/// Whether exactly one is nonzero.
OPSIN_API Tensor logical_xor(const Tensor& self, const Tensor& other);
OPSIN_API Tensor logical_xor_(const Tensor& self, const Tensor& other);

/// self kept in [min, max]; either bound may be undefined. Numbers by wrap_number().
OPSIN_API Tensor clamp(const Tensor& self, const Tensor& min, const Tensor& max = {});
OPSIN_API Tensor clamp_(const Tensor& self, const Tensor& min, const Tensor& max = {});
OPSIN_API Tensor clamp_min(const Tensor& self, const Tensor& min);
OPSIN_API Tensor clamp_min_(const Tensor& self, const Tensor& min);
OPSIN_API Tensor clamp_max(const Tensor& self, const Tensor& max);
OPSIN_API Tensor clamp_max_(const Tensor& self, const Tensor& max);
/// self + weight * (end - self)
OPSIN_API Tensor lerp(const Tensor& self, const Tensor& end, const Tensor& weight);
OPSIN_API Tensor lerp_(const Tensor& self, const Tensor& end, const Tensor& weight);
/// self + value * tensor1 * tensor2
OPSIN_API Tensor addcmul(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2,
                         const Scalar& value = 1);
OPSIN_API Tensor addcmul_(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2,
                          const Scalar& value = 1);
/// self + value * tensor1 / tensor2; floating point only.
OPSIN_API Tensor addcdiv(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2,
                         const Scalar& value = 1);
OPSIN_API Tensor addcdiv_(const Tensor& self, const Tensor& tensor1, const Tensor& tensor2,
                          const Scalar& value = 1);

/// self where condition is true, other elsewhere; all three broadcast.
OPSIN_API Tensor where(const Tensor& condition, const Tensor& self, const Tensor& other);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator+(const Tensor& a, const Scalar& b) { return add(a, wrap_number(b)); }
inline Tensor operator-(const Tensor& a, const Scalar& b) { return sub(a, wrap_number(b)); }
inline Tensor operator*(const Tensor& a, const Scalar& b) { return mul(a, wrap_number(b)); }
inline Tensor operator/(const Tensor& a, const Scalar& b) { return div(a, wrap_number(b)); }

}  // namespace opsin
