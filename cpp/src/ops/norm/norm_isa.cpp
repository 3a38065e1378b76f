// Normalization loops, compiled once per instruction set.
#include "norm_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

constexpr int kLanes = 32;

OPSIN_FN double total_of(double* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

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
OPSIN_FN double gradient_at(const ChannelParams& p, int64_t i, int64_t c) {
  using T = Compute<S>;
  const S g = static_cast<const S*>(p.g)[i];
  if constexpr (kSummed == Summed::kMaskedByNumbers) {
    return static_cast<double>(Normal<S>(p).masked(g, static_cast<const S*>(p.x)[i], c));
  } else if constexpr (kSummed == Summed::kMaskedByOutput) {
    const T z = static_cast<T>(static_cast<const S*>(p.relu_output)[i]);
    const T masked = static_cast<T>(g) * (z > T(0) ? T(1) : T(0));
    static_cast<S*>(p.masked)[i] = static_cast<S>(masked);
    return static_cast<double>(masked);
  } else {
    return wide(g);
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
        const double ga = gradient_at<S, kSummed>(p, first + c, c);
        const double gb = gradient_at<S, kSummed>(p, first + c + channels, c);
        const double gd = gradient_at<S, kSummed>(p, first + c + 2 * channels, c);
        const double ge = gradient_at<S, kSummed>(p, first + c + 3 * channels, c);
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
      if constexpr (kGrad) f = gradient_at<S, kSummed>(p, r * channels + c, c);
      sum[c] += f;
      product[c] += f * a;
    }
  }
}

template <class S, Summed kSummed>
OPSIN_FN void sums_row(const ChannelParams& p) {
  constexpr bool kGrad = kSummed != Summed::kMoments;
  const auto* x = static_cast<const S*>(p.x);
  const double shift = p.shift[0];
  alignas(64) double sum[kLanes] = {}, product[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= p.rows; i += kLanes) {
#pragma GCC ivdep
    for (int j = 0; j < kLanes; ++j) {
      const double a = wide(x[i + j]) - shift;
      double f = a;
      if constexpr (kGrad) f = gradient_at<S, kSummed>(p, i + j, 0);
      sum[j] += f;
      product[j] += f * a;
    }
  }
  for (int64_t j = 0; i + j < p.rows; ++j) {
    const double a = wide(x[i + j]) - shift;
    double f = a;
    if constexpr (kGrad) f = gradient_at<S, kSummed>(p, i + j, 0);
    sum[j] += f;
    product[j] += f * a;
  }
  p.sum[0] += total_of(sum);
  p.product[0] += total_of(product);
}

template <class S, Summed kSummed>
OPSIN_FN void sums_of(const ChannelParams& p) {
  p.columns ? sums_columns<S, kSummed>(p) : sums_row<S, kSummed>(p);
}

template <class S>
void sums(const ChannelParams& p) {
  if (!p.g) {
    sums_of<S, Summed::kMoments>(p);
  } else if (p.relu) {
    sums_of<S, Summed::kMaskedByNumbers>(p);
  } else if (p.relu_output) {
    sums_of<S, Summed::kMaskedByOutput>(p);
  } else {
    sums_of<S, Summed::kGradient>(p);
  }
}

/// Calls f(element, channel) for all elements, in loops that vectorise.
template <class F>
OPSIN_FN void for_elements(const ChannelParams& p, F f) {
  if (!p.columns) {
#pragma GCC ivdep
    for (int64_t i = 0; i < p.rows; ++i) f(i, 0);
    return;
  }
  for (int64_t r = 0; r < p.rows; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < p.channels; ++c) f(r * p.channels + c, c);
  }
}

template <class S, bool kResidual, bool kRelu>
OPSIN_FN void apply_with(const ChannelParams& p) {
  using T = Compute<S>;
  const auto* x = static_cast<const S*>(p.x);
  const auto* residual = static_cast<const S*>(p.residual);
  auto* y = static_cast<S*>(p.y);
  const Normal<S> normal(p);
  for_elements(p, [=](int64_t i, int64_t c) __attribute__((always_inline)) {
    T value = normal(x[i], c);
    if constexpr (kResidual) value = static_cast<T>(static_cast<S>(value)) + static_cast<T>(residual[i]);
    // What rounds to -0 stays so, as if rounded before.
    if constexpr (kRelu) value = value < -Normal<S>::kLeast ? T(0) : value;
    y[i] = static_cast<S>(value);
  });
}

template <class S>
void apply(const ChannelParams& p) {
  if (p.residual) {
    p.relu ? apply_with<S, true, true>(p) : apply_with<S, true, false>(p);
  } else {
    p.relu ? apply_with<S, false, true>(p) : apply_with<S, false, false>(p);
  }
}

template <class S, bool kMask>
OPSIN_FN void gradient_with(const ChannelParams& p) {
  using T = Compute<S>;
  const auto* x = static_cast<const S*>(p.x);
  const auto* g = static_cast<const S*>(p.g);
  auto* y = static_cast<S*>(p.y);
  const Normal<S> normal(p);
  const T* mean = normal.mean;
  const T* scale = normal.offset + p.stride;
  const T* offset = scale + p.stride;
  const T* slope = offset + p.stride;
  for_elements(p, [=](int64_t i, int64_t c) __attribute__((always_inline)) {
    T gradient;
    if constexpr (kMask) {
      gradient = normal.masked(g[i], x[i], c);
    } else {
      gradient = static_cast<T>(g[i]);
    }
    y[i] = static_cast<S>(gradient * scale[c] - offset[c] - (static_cast<T>(x[i]) - mean[c]) * slope[c]);
  });
}

template <class S>
void apply_backward(const ChannelParams& p) {
  p.relu ? gradient_with<S, true>(p) : gradient_with<S, false>(p);
}

template <class S>
void layer_forward(const LayerNormPart& p) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const auto* bias = static_cast<const T*>(p.bias);
  const auto n = static_cast<double>(p.n);
  for (int64_t r = 0; r < p.rows; ++r) {
    const S* x = static_cast<const S*>(p.x) + r * p.n;
    S* y = static_cast<S*>(p.y) + r * p.n;
    double shift = p.rms ? 0 : wide(x[0]), sum = 0, square = 0;
    ChannelParams row{};
    row.rows = p.n;
    row.channels = 1;
    row.x = x;
    row.shift = &shift;
    row.sum = &sum;
    row.product = &square;
    sums_row<S, Summed::kMoments>(row);
    const double centre = p.rms ? 0 : sum / n;
    const double mean = shift + centre;
    double variance = square / n - centre * centre;
    variance = variance > 0 || variance != variance ? variance : 0;
    const double inverse = 1 / std::sqrt(variance + p.eps);
    p.mean[r] = mean;
    p.inverse[r] = inverse;
    const T m = static_cast<T>(mean), a = static_cast<T>(inverse);
    const T rest = static_cast<T>((static_cast<double>(m) - mean) * inverse);
#pragma GCC ivdep
    for (int64_t i = 0; i < p.n; ++i) {
      T value = (static_cast<T>(x[i]) - m) * a + rest;
      value = weight ? value * weight[i] : value;
      y[i] = static_cast<S>(bias ? value + bias[i] : value);
    }
  }
}

/// With h = g weight and xhat = (x - mean) inverse: dx = inverse (h - mean(h) - xhat mean(h xhat)).
template <class S>
void layer_backward(const LayerNormPart& p) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const auto n = static_cast<double>(p.n);
  for (int64_t r = 0; r < p.rows; ++r) {
    const S* x = static_cast<const S*>(p.x) + r * p.n;
    const S* g = static_cast<const S*>(p.g) + r * p.n;
    const double mean = p.mean[r], inverse = p.inverse[r];
    if (p.weight_sum) {
#pragma GCC ivdep
      for (int64_t i = 0; i < p.n; ++i) p.weight_sum[i] += wide(g[i]) * ((wide(x[i]) - mean) * inverse);
    }
    if (p.bias_sum) {
#pragma GCC ivdep
      for (int64_t i = 0; i < p.n; ++i) p.bias_sum[i] += wide(g[i]);
    }
    if (!p.y) continue;
    alignas(64) double sum[kLanes] = {}, product[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= p.n; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) {
        const double h = weight ? wide(g[i + j]) * static_cast<double>(weight[i + j]) : wide(g[i + j]);
        sum[j] += h;
        product[j] += h * (wide(x[i + j]) - mean);
      }
    }
    for (int64_t j = 0; i + j < p.n; ++j) {
      const double h = weight ? wide(g[i + j]) * static_cast<double>(weight[i + j]) : wide(g[i + j]);
      sum[j] += h;
      product[j] += h * (wide(x[i + j]) - mean);
    }
    S* y = static_cast<S*>(p.y) + r * p.n;
    const T m = static_cast<T>(mean), a = static_cast<T>(inverse);
    // Subtracted before it is scaled: where eps dwarfs the variance, inverse magnifies the rounding.
    const T centre = static_cast<T>(p.rms ? 0 : total_of(sum) / n);
    const T slope = static_cast<T>(total_of(product) / n * inverse * inverse * inverse);
#pragma GCC ivdep
    for (int64_t k = 0; k < p.n; ++k) {
      const T h = weight ? static_cast<T>(g[k]) * weight[k] : static_cast<T>(g[k]);
      y[k] = static_cast<S>((h - centre) * a - (static_cast<T>(x[k]) - m) * slope);
    }
  }
}

constexpr NormTable make_table() {
  NormTable table{};
  const auto set = [&]<class S>(DType dtype) {
    const int d = static_cast<int>(dtype);
    table.sums[d] = sums<S>;
    table.apply[d] = apply<S>;
    table.apply_backward[d] = apply_backward<S>;
    table.layer_forward[d] = layer_forward<S>;
    table.layer_backward[d] = layer_backward<S>;
  };
  set.template operator()<float16>(kFloat16);
  set.template operator()<bfloat16>(kBFloat16);
  set.template operator()<float>(kFloat32);
  set.template operator()<double>(kFloat64);
  return table;
}

}  // namespace

const NormTable& norm_table() {
  static constexpr NormTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
