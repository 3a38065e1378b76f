// Sums over rows and columns for the normalization loops.
#pragma once

#include "norm_kernels.h"

#include <type_traits>

#include "core/isa_loops.h"
#include "cpu/kernels/lanes.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

/// So many neighbours are converted to the compute type at a time.
constexpr int64_t kBlock = 1024;

template <class S>
OPSIN_FN double wide(S x) {
  return static_cast<double>(static_cast<Compute<S>>(x));
}

/// How a channel is normalised.
template <class S>
struct Normal {
  using T = Compute<S>;
  static constexpr T kLeast = least_positive(dtype_of<S>);
  const T *mean, *scale, *offset;

  explicit Normal(const ChannelParams& p)
      : mean(static_cast<const T*>(p.numbers)), scale(mean + p.stride), offset(scale + p.stride) {}
  OPSIN_FN T operator()(S x, int64_t c) const { return (static_cast<T>(x) - mean[c]) * scale[c] + offset[c]; }
  /// The gradient g of ReLU, as unary::Relu has it.
  OPSIN_FN T masked(S g, S x, int64_t c) const {
    return static_cast<T>(g) * ((*this)(x, c) > kLeast ? T(1) : T(0));
  }
};

/// What is summed: x alone, or the gradient, as it is or masked in one of the ways of ChannelParams.
enum class Summed { kMoments, kGradient, kMaskedByNumbers, kMaskedByOutput };

/// The gradient at element i, of channel c.
template <class S, Summed kSummed>
OPSIN_FN Compute<S> gradient_at(const ChannelParams& p, int64_t i, int64_t c) {
  using T = Compute<S>;
  const S g = static_cast<const S*>(p.g)[i];
  if constexpr (kSummed == Summed::kMaskedByNumbers) {
    return Normal<S>(p).masked(g, static_cast<const S*>(p.x)[i], c);
  } else if constexpr (kSummed == Summed::kMaskedByOutput) {
    const T z = static_cast<T>(static_cast<const S*>(p.relu_output)[i]);
    const T masked = static_cast<T>(g) * (z > T(0) ? T(1) : T(0));
    static_cast<S*>(p.masked)[i] = static_cast<S>(masked);
    return masked;
  } else {
    return static_cast<T>(g);
  }
}

template <class S, Summed kSummed>
OPSIN_FN void sums_columns(const ChannelParams& p) {
  constexpr bool kGrad = kSummed != Summed::kMoments;
  const int64_t channels = p.channels;
  const auto* x = static_cast<const S*>(p.x);
  double* sum = p.sum;
  double* product = p.product;
  const double* shift = p.shift;
  int64_t r = 0;
  for (; r + 4 <= p.rows; r += 4) {
    const int64_t first = r * channels;
    const S* x0 = x + first;
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const double k = shift[c];
      const double a = wide(x0[c]) - k, b = wide(x0[c + channels]) - k;
      const double d = wide(x0[c + 2 * channels]) - k, e = wide(x0[c + 3 * channels]) - k;
      if constexpr (kGrad) {
        const double ga = wide(gradient_at<S, kSummed>(p, first + c, c));
        const double gb = wide(gradient_at<S, kSummed>(p, first + c + channels, c));
        const double gd = wide(gradient_at<S, kSummed>(p, first + c + 2 * channels, c));
        const double ge = wide(gradient_at<S, kSummed>(p, first + c + 3 * channels, c));
        sum[c] += (ga + gb) + (gd + ge);
        product[c] += (ga * a + gb * b) + (gd * d + ge * e);
      } else {
        sum[c] += (a + b) + (d + e);
        product[c] += (a * a + b * b) + (d * d + e * e);
      }
    }
  }
  for (; r < p.rows; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c) {
      const double a = wide(x[r * channels + c]) - shift[c];
      double f = a;
      if constexpr (kGrad) f = wide(gradient_at<S, kSummed>(p, r * channels + c, c));
      sum[c] += f;
      product[c] += f * a;
    }
  }
}

OPSIN_INLINE Double load_doubles(const double* x) { return load(x); }
OPSIN_INLINE Double load_doubles(const float* x) {
  using Half = float __attribute__((vector_size(vector_bytes / 2)));
  Half half;
  __builtin_memcpy(&half, x, sizeof half);
  return __builtin_convertvector(half, Double);
}

/// Two sums over neighbours: f(a, b, sum, product) adds vectors of two arrays, or numbers, to them.
template <class T, class F>
OPSIN_FN void sums_along(const T* a, const T* b, int64_t n, double& sum, double& product, F f) {
  constexpr int kWide = lanes_of<double>;
  Double s[4] = {}, q[4] = {};
  int64_t i = 0;
  for (; i + 4 * kWide <= n; i += 4 * kWide) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      f(load_doubles(a + i + j * kWide), load_doubles(b + i + j * kWide), s[j], q[j]);
  }
  for (; i + kWide <= n; i += kWide) f(load_doubles(a + i), load_doubles(b + i), s[0], q[0]);
  double rest = 0, rest_product = 0;
  for (; i < n; ++i) f(static_cast<double>(a[i]), static_cast<double>(b[i]), rest, rest_product);
  sum += sum_of_lanes<double>((s[0] + s[1]) + (s[2] + s[3])) + rest;
  product += sum_of_lanes<double>((q[0] + q[1]) + (q[2] + q[3])) + rest_product;
}

/// Neighbours as the compute type, in `buffer` unless they are.
template <class S>
OPSIN_FN const Compute<S>* computed(const S* x, int64_t n, Compute<S>* buffer) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    return x;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<Compute<S>>(x[i]);
    return buffer;
  }
}

template <class S, Summed kSummed>
OPSIN_FN void sums_block(const ChannelParams& p, int64_t first, int64_t n, int64_t c) {
  using T = Compute<S>;
  alignas(64) T values[kBlock], gradients[kBlock];
  const T* x = computed(static_cast<const S*>(p.x) + first, n, values);
  const double shift = p.shift[c];
  if constexpr (kSummed == Summed::kMoments) {
    sums_along(x, x, n, p.sum[c], p.product[c], [=](auto a, auto, auto& sum, auto& square) {
      const auto d = a - shift;
      sum += d;
      square += d * d;
    });
  } else {
    const T* g = gradients;
    if constexpr (kSummed == Summed::kGradient) {
      g = computed(static_cast<const S*>(p.g) + first, n, gradients);
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) gradients[i] = gradient_at<S, kSummed>(p, first + i, c);
    }
    sums_along(x, g, n, p.sum[c], p.product[c], [=](auto a, auto b, auto& sum, auto& product) {
      sum += b;
      product += b * (a - shift);
    });
  }
}

template <class S, Summed kSummed>
OPSIN_FN void sums_rows(const ChannelParams& p) {
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t i = 0; i < p.rows; i += kBlock) {
      sums_block<S, kSummed>(p, c * p.pitch + i, p.rows - i < kBlock ? p.rows - i : kBlock, c);
    }
  }
}

}  // namespace

}  // namespace opsin::cpu::OPSIN_ISA_NS
