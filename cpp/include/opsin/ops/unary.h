// Functions of one tensor, element by element. Shapes: any. Integers become the default float dtype where the
// result is not whole; activations take floating point only. Names ending in `_` (or `inplace`) write the
// result over `self` and return it.
#pragma once

#include <string_view>

#include <opsin/tensor.h>

namespace opsin {

/// The absolute value, |x|.
OPSIN_API Tensor abs(const Tensor& self);
OPSIN_API Tensor abs_(const Tensor& self);
/// The inverse cosine, in [0, pi].
OPSIN_API Tensor acos(const Tensor& self);
OPSIN_API Tensor acos_(const Tensor& self);
/// The inverse hyperbolic cosine.
OPSIN_API Tensor acosh(const Tensor& self);
OPSIN_API Tensor acosh_(const Tensor& self);
/// The inverse sine, in [-pi/2, pi/2].
OPSIN_API Tensor asin(const Tensor& self);
OPSIN_API Tensor asin_(const Tensor& self);
/// The inverse hyperbolic sine.
OPSIN_API Tensor asinh(const Tensor& self);
OPSIN_API Tensor asinh_(const Tensor& self);
/// The inverse tangent, in [-pi/2, pi/2].
OPSIN_API Tensor atan(const Tensor& self);
OPSIN_API Tensor atan_(const Tensor& self);
/// The inverse hyperbolic tangent.
OPSIN_API Tensor atanh(const Tensor& self);
OPSIN_API Tensor atanh_(const Tensor& self);
/// The smallest integer that is not less.
OPSIN_API Tensor ceil(const Tensor& self);
OPSIN_API Tensor ceil_(const Tensor& self);
/// The cosine of an angle in radians.
OPSIN_API Tensor cos(const Tensor& self);
OPSIN_API Tensor cos_(const Tensor& self);
/// The hyperbolic cosine.
OPSIN_API Tensor cosh(const Tensor& self);
OPSIN_API Tensor cosh_(const Tensor& self);
/// Degrees to radians.
OPSIN_API Tensor deg2rad(const Tensor& self);
OPSIN_API Tensor deg2rad_(const Tensor& self);
/// The error function, 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x.
OPSIN_API Tensor erf(const Tensor& self);
OPSIN_API Tensor erf_(const Tensor& self);
/// The complementary error function, 1 - erf(x).
OPSIN_API Tensor erfc(const Tensor& self);
OPSIN_API Tensor erfc_(const Tensor& self);
/// The inverse of erf; infinite at -1 and 1, NaN beyond.
OPSIN_API Tensor erfinv(const Tensor& self);
OPSIN_API Tensor erfinv_(const Tensor& self);
/// The exponential, e^x.
OPSIN_API Tensor exp(const Tensor& self);
OPSIN_API Tensor exp_(const Tensor& self);
/// 2^x.
OPSIN_API Tensor exp2(const Tensor& self);
OPSIN_API Tensor exp2_(const Tensor& self);
/// e^x - 1, exact near 0.
OPSIN_API Tensor expm1(const Tensor& self);
OPSIN_API Tensor expm1_(const Tensor& self);
/// The largest integer that is not greater.
OPSIN_API Tensor floor(const Tensor& self);
OPSIN_API Tensor floor_(const Tensor& self);
/// What follows the point: x - trunc(x).
OPSIN_API Tensor frac(const Tensor& self);
OPSIN_API Tensor frac_(const Tensor& self);
/// The logarithm of |Gamma(x)|.
OPSIN_API Tensor lgamma(const Tensor& self);
OPSIN_API Tensor lgamma_(const Tensor& self);
/// The natural logarithm.
OPSIN_API Tensor log(const Tensor& self);
OPSIN_API Tensor log_(const Tensor& self);
/// The logarithm to base 10.
OPSIN_API Tensor log10(const Tensor& self);
OPSIN_API Tensor log10_(const Tensor& self);
/// ln(1 + x), exact near 0.
OPSIN_API Tensor log1p(const Tensor& self);
OPSIN_API Tensor log1p_(const Tensor& self);
/// The logarithm to base 2.
OPSIN_API Tensor log2(const Tensor& self);
OPSIN_API Tensor log2_(const Tensor& self);
/// The negative, -x.
OPSIN_API Tensor neg(const Tensor& self);
OPSIN_API Tensor neg_(const Tensor& self);
/// Radians to degrees.
OPSIN_API Tensor rad2deg(const Tensor& self);
OPSIN_API Tensor rad2deg_(const Tensor& self);
/// 1 / x.
OPSIN_API Tensor reciprocal(const Tensor& self);
OPSIN_API Tensor reciprocal_(const Tensor& self);
/// The rectified linear unit, max(0, x).
OPSIN_API Tensor relu(const Tensor& self);
OPSIN_API Tensor relu_(const Tensor& self);
/// 1 / sqrt(x).
OPSIN_API Tensor rsqrt(const Tensor& self);
OPSIN_API Tensor rsqrt_(const Tensor& self);
/// The logistic function, 1 / (1 + e^-x).
OPSIN_API Tensor sigmoid(const Tensor& self);
OPSIN_API Tensor sigmoid_(const Tensor& self);
/// -1, 0 or 1.
OPSIN_API Tensor sign(const Tensor& self);
OPSIN_API Tensor sign_(const Tensor& self);
/// The sine of an angle in radians.
OPSIN_API Tensor sin(const Tensor& self);
OPSIN_API Tensor sin_(const Tensor& self);
/// sin(pi x) / (pi x); 1 at 0.
OPSIN_API Tensor sinc(const Tensor& self);
OPSIN_API Tensor sinc_(const Tensor& self);
/// The hyperbolic sine.
OPSIN_API Tensor sinh(const Tensor& self);
OPSIN_API Tensor sinh_(const Tensor& self);
/// The square root; NaN below zero.
OPSIN_API Tensor sqrt(const Tensor& self);
OPSIN_API Tensor sqrt_(const Tensor& self);
/// x^2.
OPSIN_API Tensor square(const Tensor& self);
OPSIN_API Tensor square_(const Tensor& self);
/// The tangent of an angle in radians.
OPSIN_API Tensor tan(const Tensor& self);
OPSIN_API Tensor tan_(const Tensor& self);
/// The hyperbolic tangent.
OPSIN_API Tensor tanh(const Tensor& self);
OPSIN_API Tensor tanh_(const Tensor& self);
/// The integer part, towards 0.
OPSIN_API Tensor trunc(const Tensor& self);
OPSIN_API Tensor trunc_(const Tensor& self);

/// Whether the element is NaN.
OPSIN_API Tensor isnan(const Tensor& self);
/// Whether the element is infinite.
OPSIN_API Tensor isinf(const Tensor& self);
/// Whether the element is neither NaN nor infinite.
OPSIN_API Tensor isfinite(const Tensor& self);
/// Whether the element is positive infinity.
OPSIN_API Tensor isposinf(const Tensor& self);
/// Whether the element is negative infinity.
OPSIN_API Tensor isneginf(const Tensor& self);
/// Whether the sign is negative, also of -0.
OPSIN_API Tensor signbit(const Tensor& self);
/// Whether the element is zero.
OPSIN_API Tensor logical_not(const Tensor& self);
OPSIN_API Tensor logical_not_(const Tensor& self);
/// Every bit inverted; of a bool, logical not. Integers only.
OPSIN_API Tensor bitwise_not(const Tensor& self);
OPSIN_API Tensor bitwise_not_(const Tensor& self);

/// The tensor itself.
OPSIN_API Tensor positive(const Tensor& self);
/// The derivative of lgamma.
OPSIN_API Tensor digamma(const Tensor& self);
OPSIN_API Tensor digamma_(const Tensor& self);
/// The n-th derivative of digamma.
OPSIN_API Tensor polygamma(int64_t n, const Tensor& self);
/// The nearest multiple of 10^-decimals; halves go to the even one.
OPSIN_API Tensor round(const Tensor& self, int64_t decimals = 0);
OPSIN_API Tensor round_(const Tensor& self, int64_t decimals = 0);
/// ln(x / (1 - x)), of x kept in [eps, 1 - eps] if eps is given.
OPSIN_API Tensor logit(const Tensor& self, std::optional<double> eps = {});
OPSIN_API Tensor logit_(const Tensor& self, std::optional<double> eps = {});
/// NaN and the infinities replaced, by default by 0 and the largest values of the dtype.
OPSIN_API Tensor nan_to_num(const Tensor& self, std::optional<double> nan = {},
                            std::optional<double> posinf = {}, std::optional<double> neginf = {});
OPSIN_API Tensor nan_to_num_(const Tensor& self, std::optional<double> nan = {},
                             std::optional<double> posinf = {}, std::optional<double> neginf = {});

/// x for x > 0, else negative_slope * x.
OPSIN_API Tensor leaky_relu(const Tensor& input, double negative_slope = 0.01, bool inplace = false);
/// x for x > 0, else alpha * (e^x - 1).
OPSIN_API Tensor elu(const Tensor& input, double alpha = 1, bool inplace = false);
/// elu scaled so that mean 0 and variance 1 are a fixed point. Klambauer et al. (2017).
OPSIN_API Tensor selu(const Tensor& input, bool inplace = false);
/// x for x > 0, else alpha * (e^(x / alpha) - 1).
OPSIN_API Tensor celu(const Tensor& input, double alpha = 1, bool inplace = false);
/// x * Phi(x) ("none"), or x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) ("tanh").
OPSIN_API Tensor gelu(const Tensor& input, std::string_view approximate = "none");
/// x * sigmoid(x)
OPSIN_API Tensor silu(const Tensor& input, bool inplace = false);
/// x * tanh(softplus(x))
OPSIN_API Tensor mish(const Tensor& input, bool inplace = false);
/// ln(1 + e^(beta * x)) / beta; x itself where beta * x > threshold.
OPSIN_API Tensor softplus(const Tensor& input, double beta = 1, double threshold = 20);
/// x / (1 + |x|)
OPSIN_API Tensor softsign(const Tensor& input);
/// x moved towards 0 by lambd >= 0, 0 within.
OPSIN_API Tensor softshrink(const Tensor& input, double lambd = 0.5);
/// x, but 0 within [-lambd, lambd].
OPSIN_API Tensor hardshrink(const Tensor& input, double lambd = 0.5);
/// x kept in [min_val, max_val].
OPSIN_API Tensor hardtanh(const Tensor& input, double min_val = -1, double max_val = 1, bool inplace = false);
/// x kept in [0, 6].
OPSIN_API Tensor relu6(const Tensor& input, bool inplace = false);
/// relu6(x + 3) / 6
OPSIN_API Tensor hardsigmoid(const Tensor& input, bool inplace = false);
/// x * relu6(x + 3) / 6
OPSIN_API Tensor hardswish(const Tensor& input, bool inplace = false);
/// ln(sigmoid(x))
OPSIN_API Tensor logsigmoid(const Tensor& input);
/// x - tanh(x)
OPSIN_API Tensor tanhshrink(const Tensor& input);
/// x above the threshold, else value.
OPSIN_API Tensor threshold(const Tensor& input, double threshold, double value, bool inplace = false);
/// x for x > 0, else weight * x; weight [] or [1] or [C] for input [N, C, ...].
OPSIN_API Tensor prelu(const Tensor& input, const Tensor& weight);
/// The first half along dim times the sigmoid of the second; [..., 2 M, ...] to [..., M, ...].
OPSIN_API Tensor glu(const Tensor& input, int64_t dim = -1);

inline Tensor operator-(const Tensor& self) { return neg(self); }

}  // namespace opsin
