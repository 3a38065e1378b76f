// Normalization loops, compiled once per instruction set.
#include "norm_sums.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S, Summed kSummed>
OPSIN_FN void sums_of(const ChannelParams& p) {
  p.columns ? sums_columns<S, kSummed>(p) : sums_rows<S, kSummed>(p);
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
    for (int64_t c = 0; c < p.channels; ++c) {
#pragma GCC ivdep
      for (int64_t i = 0; i < p.rows; ++i) f(c * p.pitch + i, c);
    }
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

/// Sum and sum of squares of x - shift over a row.
template <class S>
OPSIN_FN void row_moments(const S* x, int64_t n, double shift, double& sum, double& square) {
  ChannelParams row{};
  row.rows = n;
  row.channels = 1;
  row.x = x;
  row.shift = &shift;
  row.sum = &sum;
  row.product = &square;
  sums_rows<S, Summed::kMoments>(row);
}

/// y = ((x - mean) scale + rest) weight + bias
template <class S, bool kWeight, bool kBias>
OPSIN_FN void layer_row(const LayerNormPart& p, const S* x, Compute<S> mean, Compute<S> scale,
                        Compute<S> rest, S* y) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const auto* bias = static_cast<const T*>(p.bias);
#pragma GCC ivdep
  for (int64_t i = 0; i < p.n; ++i) {
    T value = (static_cast<T>(x[i]) - mean) * scale + rest;
    if constexpr (kWeight) value *= weight[i];
    if constexpr (kBias) value += bias[i];
    y[i] = static_cast<S>(value);
  }
}

template <class S>
void layer_forward(const LayerNormPart& p) {
  using T = Compute<S>;
  const double one = 1 / static_cast<double>(p.n);
  for (int64_t r = 0; r < p.rows; ++r) {
    const S* x = static_cast<const S*>(p.x) + r * p.n;
    S* y = static_cast<S*>(p.y) + r * p.n;
    const double shift = p.rms ? 0 : wide(x[0]);
    double sum = 0, square = 0;
    row_moments(x, p.n, shift, sum, square);
    const double centre = p.rms ? 0 : sum * one;
    const double mean = shift + centre;
    double variance = square * one - centre * centre;
    variance = variance > 0 || variance != variance ? variance : 0;
    const double inverse = 1 / std::sqrt(variance + p.eps);
    p.mean[r] = mean;
    p.inverse[r] = inverse;
    const T m = static_cast<T>(mean), a = static_cast<T>(inverse);
    const T rest = static_cast<T>((static_cast<double>(m) - mean) * inverse);
    if (p.weight) {
      p.bias ? layer_row<S, true, true>(p, x, m, a, rest, y) : layer_row<S, true, false>(p, x, m, a, rest, y);
    } else {
      p.bias ? layer_row<S, false, true>(p, x, m, a, rest, y)
             : layer_row<S, false, false>(p, x, m, a, rest, y);
    }
  }
}

/// kRows rows of a layer norm's gradient. With h = g weight and xhat = (x - mean) inverse:
/// dx = inverse (h - mean(h) - xhat mean(h xhat)).
template <class S, int kRows, bool kWeights>
OPSIN_FN void layer_backward_rows(const LayerNormPart& p, int64_t first) {
  using T = Compute<S>;
  constexpr int kWide = lanes_of<double>, kColumns = 256;
  const int64_t n = p.n;
  const auto* weight = static_cast<const T*>(p.weight);
  const S* x = static_cast<const S*>(p.x) + first * n;
  const S* g = static_cast<const S*>(p.g) + first * n;
  alignas(64) T values[kRows][kColumns], gradients[kRows][kColumns];
  double sums[kRows] = {}, products[kRows] = {};
  for (int64_t from = 0; from < n; from += kColumns) {
    const int64_t count = n - from < kColumns ? n - from : kColumns;
    const T *a[kRows], *b[kRows];
    for (int r = 0; r < kRows; ++r) {
      a[r] = computed(x + r * n + from, count, values[r]);
      b[r] = computed(g + r * n + from, count, gradients[r]);
    }
    Double sum[kRows] = {}, product[kRows] = {};
    int64_t i = 0;
    for (; i + kWide <= count; i += kWide) {
      Double of_weight = {}, of_bias = {};
      const Double w = weight ? load_doubles(weight + from + i) : Double{} + 1.0;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Double away = load_doubles(a[r] + i) - p.mean[first + r], grad = load_doubles(b[r] + i);
        const Double h = grad * w;
        sum[r] += h;
        product[r] += h * away;
        if constexpr (kWeights) {
          of_weight += grad * (away * p.inverse[first + r]);
          of_bias += grad;
        }
      }
      if (kWeights && p.weight_sum) store(p.weight_sum + from + i, load(p.weight_sum + from + i) + of_weight);
      if (kWeights && p.bias_sum) store(p.bias_sum + from + i, load(p.bias_sum + from + i) + of_bias);
    }
    for (int r = 0; r < kRows; ++r) {
      sums[r] += sum_of_lanes<double>(sum[r]);
      products[r] += sum_of_lanes<double>(product[r]);
    }
    for (; i < count; ++i) {
      double of_weight = 0, of_bias = 0;
      const double w = weight ? static_cast<double>(weight[from + i]) : 1;
      for (int r = 0; r < kRows; ++r) {
        const double away = static_cast<double>(a[r][i]) - p.mean[first + r];
        const double grad = static_cast<double>(b[r][i]), h = grad * w;
        sums[r] += h;
        products[r] += h * away;
        of_weight += grad * (away * p.inverse[first + r]);
        of_bias += grad;
      }
      if (p.weight_sum) p.weight_sum[from + i] += of_weight;
      if (p.bias_sum) p.bias_sum[from + i] += of_bias;
    }
  }
  if (!p.y) return;
  const double one = 1 / static_cast<double>(n);
  for (int r = 0; r < kRows; ++r) {
    const S* xr = x + r * n;
    const S* gr = g + r * n;
    S* y = static_cast<S*>(p.y) + (first + r) * n;
    const double inverse = p.inverse[first + r], mean = p.mean[first + r];
    const double tilt = products[r] * one * inverse;
    const T m = static_cast<T>(mean), s = static_cast<T>(inverse);
    // What rounding the mean takes from xhat.
    const double rest = (static_cast<double>(m) - mean) * inverse;
    // Subtracted before it is scaled: where eps dwarfs the variance, inverse magnifies the rounding.
    const T centre = static_cast<T>((p.rms ? 0 : sums[r] * one) + rest * tilt);
    const T slope = static_cast<T>(tilt * inverse * inverse);
    if (weight) {
#pragma GCC ivdep
      for (int64_t k = 0; k < n; ++k) {
        const T h = static_cast<T>(gr[k]) * weight[k];
        y[k] = static_cast<S>((h - centre) * s - (static_cast<T>(xr[k]) - m) * slope);
      }
    } else {
#pragma GCC ivdep
      for (int64_t k = 0; k < n; ++k) {
        y[k] = static_cast<S>((static_cast<T>(gr[k]) - centre) * s - (static_cast<T>(xr[k]) - m) * slope);
      }
    }
  }
}

template <class S, bool kWeights>
OPSIN_FN void layer_backward_with(const LayerNormPart& p) {
  int64_t r = 0;
  for (; r + 4 <= p.rows; r += 4) layer_backward_rows<S, 4, kWeights>(p, r);
  for (; r < p.rows; ++r) layer_backward_rows<S, 1, kWeights>(p, r);
}

template <class S>
void layer_backward(const LayerNormPart& p) {
  p.weight_sum || p.bias_sum ? layer_backward_with<S, true>(p) : layer_backward_with<S, false>(p);
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
