// Vectorisable mathematics against long double: largest error in units of the last place, and special values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "ops/unary/special.h"

namespace opsin {
namespace {

/// |got - want| in units of the last place of T at `want`; 0 for equal infinities and NaN.
template <class T>
double ulps(T got, long double want) {
  const auto rounded = static_cast<T>(want);
  if (got == rounded || (std::isnan(got) && std::isnan(rounded))) return 0;
  if (!std::isfinite(got) || !std::isfinite(rounded)) return std::numeric_limits<double>::infinity();
  int exponent = 0;
  std::frexp(rounded, &exponent);
  const int last = std::max(exponent - std::numeric_limits<T>::digits,
                            std::numeric_limits<T>::min_exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) / std::ldexp(1.0L, last));
}

template <class T>
std::vector<T> special_values() {
  using Limits = std::numeric_limits<T>;
  return {T(0),
          -T(0),
          T(1),
          -T(1),
          T(0.5),
          -T(0.5),
          T(2),
          T(3),
          -T(3),
          Limits::infinity(),
          -Limits::infinity(),
          Limits::quiet_NaN(),
          Limits::denorm_min(),
          -Limits::denorm_min(),
          Limits::min() / 3,
          Limits::max(),
          Limits::lowest(),
          T(2.5),
          -T(2.5)};
}

/// `count` values between low and high: evenly spread, or by exponent with both signs where low < 0.
template <class T>
std::vector<T> spread(double low, double high, bool by_exponent) {
  std::mt19937_64 random(7);
  std::vector<T> values;
  for (int i = 0; i < 100000; ++i) {
    const double u = static_cast<double>(random() >> 11) * 0x1p-53;
    values.push_back(static_cast<T>(by_exponent ? low * std::pow(high / low, u) : low + u * (high - low)));
  }
  return values;
}

template <class T, class F, class G>
void expect_close(const char* name, double bound, const std::vector<T>& values, F function, G reference) {
  double worst = 0;
  T at = 0;
  for (const T x : values) {
    const double error = ulps<T>(function(x), reference(static_cast<long double>(x)));
    if (error > worst) {
      worst = error;
      at = x;
    }
  }
  EXPECT_LE(worst, bound) << name << " at " << at << ": " << function(at) << ", expected "
                          << reference(static_cast<long double>(at));
  for (const T x : special_values<T>()) {
    const T got = function(x), want = static_cast<T>(reference(static_cast<long double>(x)));
    EXPECT_LE(ulps<T>(got, reference(static_cast<long double>(x))), bound) << name << " at " << x;
    if (!std::isnan(want)) {
      EXPECT_EQ(std::signbit(got), std::signbit(want)) << name << " at " << x;
    }
  }
}

template <class T>
class Math : public testing::Test {};
using FloatTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(Math, FloatTypes);

#define EXPECT_FUNCTION(name, bound, low, high, by_exponent)                                              \
  expect_close<TypeParam>(                                                                                \
      #name, bound, spread<TypeParam>(low, high, by_exponent), [](TypeParam x) { return math::name(x); }, \
      [](long double x) { return std::name(x); })

TYPED_TEST(Math, Exponentials) {
  EXPECT_FUNCTION(exp, 1.2, -105, 89, false);
  EXPECT_FUNCTION(exp, 1.2, -1, 1, false);
  EXPECT_FUNCTION(exp2, 1.2, -150, 128, false);
  EXPECT_FUNCTION(expm1, 2.1, -20, 88, false);
  EXPECT_FUNCTION(expm1, 2.1, 1e-30, 1, true);
}

TYPED_TEST(Math, Logarithms) {
  for (const bool by_exponent : {false, true}) {
    const double low = by_exponent ? 1e-37 : 0.5, high = by_exponent ? 1e38 : 2;
    EXPECT_FUNCTION(log, 1, low, high, by_exponent);
    EXPECT_FUNCTION(log2, 2.1, low, high, by_exponent);
    EXPECT_FUNCTION(log10, 2.1, low, high, by_exponent);
  }
  EXPECT_FUNCTION(log, 1, 2e-45, 1e-38, true);
  EXPECT_FUNCTION(log1p, 1, -0.999, 3, false);
  EXPECT_FUNCTION(log1p, 1, 1e-30, 1e30, true);
}

TYPED_TEST(Math, Trigonometry) {
  EXPECT_FUNCTION(sin, 2.2, -100, 100, false);
  EXPECT_FUNCTION(sin, 2.2, 1e-30, 1e30, true);
  EXPECT_FUNCTION(cos, 2.2, -8000, 8000, false);
  EXPECT_FUNCTION(cos, 2.2, 1e-30, 1e30, true);
  EXPECT_FUNCTION(atan, 2.1, 1e-20, 1e20, true);
  EXPECT_FUNCTION(asin, 2.5, -1, 1, false);
  EXPECT_FUNCTION(acos, 2.5, -1, 1, false);
}

TYPED_TEST(Math, SaturatingFunctions) {
  EXPECT_FUNCTION(tanh, 2.5, -12, 12, false);
  EXPECT_FUNCTION(tanh, 2.5, 1e-30, 1, true);
  EXPECT_FUNCTION(erf, 1.6, -7, 7, false);
  EXPECT_FUNCTION(erf, 1.6, 1e-30, 2, true);
  expect_close<TypeParam>(
      "sigmoid", 2.5, spread<TypeParam>(-80, 80, false), [](TypeParam x) { return math::sigmoid(x); },
      [](long double x) {
        // Below, 1 + e^-x overflows in T and the result is 0 sooner than it must be.
        return x < -100 ? 0.0L : 1 / (1 + std::exp(-x));
      });
}

TYPED_TEST(Math, Hyperbolics) {
  EXPECT_FUNCTION(sinh, 2.5, -90, 90, false);
  EXPECT_FUNCTION(sinh, 2.5, 1e-30, 2, true);
  EXPECT_FUNCTION(cosh, 2.5, -90, 90, false);
  EXPECT_FUNCTION(asinh, 3, 1e-30, 1e30, true);
  EXPECT_FUNCTION(asinh, 3, -10, 10, false);
  EXPECT_FUNCTION(acosh, 3, 1, 10, false);
  EXPECT_FUNCTION(acosh, 3, 1, 1e30, true);
  EXPECT_FUNCTION(atanh, 3, -1, 1, false);
  EXPECT_FUNCTION(atanh, 3, 1e-30, 1, true);
}

TYPED_TEST(Math, ErrorFunctions) {
  EXPECT_FUNCTION(erfc, 6, -7, 9, false);
  EXPECT_FUNCTION(erfc, 6, 1e-30, 2, true);
  // There and back: the slope of erf is 0.1 at 1.5, so that errors of x shrink to those of erf.
  for (const TypeParam x : spread<TypeParam>(-0.97, 0.97, false)) {
    EXPECT_LE(ulps<TypeParam>(static_cast<TypeParam>(std::erf(static_cast<long double>(math::erfinv(x)))), x),
              4)
        << x;
  }
  for (const TypeParam x : {TypeParam(1), TypeParam(-1)}) {
    EXPECT_EQ(math::erfinv(x), x * std::numeric_limits<TypeParam>::infinity());
  }
  EXPECT_TRUE(std::isnan(math::erfinv(TypeParam(1.5))) && std::isnan(math::erfinv(TypeParam(NAN))));
}

TYPED_TEST(Math, LogarithmOfGamma) {
  expect_close<TypeParam>(
      "lgamma", 4, spread<TypeParam>(0.1, 50, false), [](TypeParam x) { return math::lgamma(x); },
      [](long double x) { return std::lgamma(x); });
}

TYPED_TEST(Math, AngleOfEveryPairOfSpecialValues) {
  std::vector<TypeParam> values = special_values<TypeParam>();
  values.push_back(std::numeric_limits<TypeParam>::max() / TypeParam(2.2));
  for (const TypeParam y : values) {
    for (const TypeParam x : values) {
      if (std::isnan(x) || std::isnan(y)) continue;
      const TypeParam got = math::atan2(y, x), want = std::atan2(y, x);
      EXPECT_LE(ulps<TypeParam>(got, std::atan2(static_cast<long double>(y), static_cast<long double>(x))),
                2.5)
          << y << ", " << x;
      EXPECT_EQ(std::signbit(got), std::signbit(want)) << y << ", " << x;
    }
  }
}

TEST(Power, HasTheSpecialCasesOfC) {
  std::vector<float> values = special_values<float>();
  values.insert(values.end(), {16777217.0f, 16777216.0f, 8388607.0f, 1e10f});
  for (const float x : values) {
    for (const float y : values) {
      const long double exact = std::pow(static_cast<long double>(x), static_cast<long double>(y));
      const auto want = static_cast<float>(exact);
      const float got = math::pow(x, y);
      EXPECT_LE(ulps<float>(got, exact), 1) << x << "^" << y << " = " << got << ", expected " << want;
      if (!std::isnan(want)) {
        EXPECT_EQ(std::signbit(got), std::signbit(want)) << x << "^" << y;
      }
    }
  }
}

TEST(Power, IsRightOverTheWholeRange) {
  const std::vector<float> bases = spread<float>(1e-44, 1e38, true),
                           exponents = spread<float>(-90, 90, false);
  for (size_t i = 0; i < bases.size(); ++i) {
    const float y = i % 2 ? exponents[i] : exponents[i] / 60;
    const float x = i % 2 ? 0.5f + bases[i] / (1 + bases[i]) : bases[i];
    EXPECT_LE(
        ulps<float>(math::pow(x, y), std::pow(static_cast<long double>(x), static_cast<long double>(y))), 1)
        << x << "^" << y;
  }
}

}  // namespace
}  // namespace opsin
