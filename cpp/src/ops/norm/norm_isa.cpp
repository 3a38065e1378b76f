// Normalization loops, compiled once per instruction set.
#include "norm_sums.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

// For lambdas.
#define OPSIN_INLINED __attribute__((always_inline))

template <class S, Summed kSummed>
void sums_of(const ChannelParams& p) {
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

/// for_elements() for kRows rows of channels: the numbers of a channel are loaded once for all of them.
template <class S, int kNumbers, int kRows, class F>
OPSIN_INLINE void for_columns(const ChannelParams& p, int64_t row, F f) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const auto* numbers = static_cast<const T*>(p.numbers);
  const int64_t first = row * p.channels;
  int64_t c = 0;
  for (; c + lanes <= p.channels; c += lanes) {
    Vector<T> of_channel[kNumbers];
    for (int k = 0; k < kNumbers; ++k) of_channel[k] = load(numbers + k * p.stride + c);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) f(first + r * p.channels + c, of_channel);
  }
  for (; c < p.channels; ++c) {
    T one[kNumbers];
    for (int k = 0; k < kNumbers; ++k) one[k] = numbers[k * p.stride + c];
    for (int r = 0; r < kRows; ++r) f(first + r * p.channels + c, one);
  }
}

/// Calls f(element, kNumbers numbers of its channel) for all elements, in vectors where there are as many.
template <class S, int kNumbers, class F>
OPSIN_INLINE void for_elements(const ChannelParams& p, F f) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, kTogether = 4;
  const auto* numbers = static_cast<const T*>(p.numbers);
  if (!p.columns) {
    for (int64_t c = 0; c < p.channels; ++c) {
      T one[kNumbers];
      Vector<T> of_channel[kNumbers];
      for (int k = 0; k < kNumbers; ++k) one[k] = numbers[k * p.stride + c];
      for (int k = 0; k < kNumbers; ++k) of_channel[k] = broadcast(one[k]);
      int64_t i = c * p.pitch;
      const int64_t end = i + p.rows;
      for (; i + lanes <= end; i += lanes) f(i, of_channel);
      for (; i < end; ++i) f(i, one);
    }
    return;
  }
  int64_t r = 0;
  for (; r + kTogether <= p.rows; r += kTogether) for_columns<S, kNumbers, kTogether>(p, r, f);
  for (; r < p.rows; ++r) for_columns<S, kNumbers, 1>(p, r, f);
}

template <class S, class V>
OPSIN_INLINE V rounded_to(V value) {
  if constexpr (std::is_same_v<S, Compute<S>>) {
    return value;
  } else {
    S memory[lanes_of<float>];
    write(memory, value);
    return read<V>(memory);
  }
}

template <class S, bool kResidual, bool kRelu>
void apply_with(const ChannelParams& p) {
  const auto* x = static_cast<const S*>(p.x);
  const auto* residual = static_cast<const S*>(p.residual);
  auto* y = static_cast<S*>(p.y);
  const auto ceiling = static_cast<Compute<S>>(p.ceiling);
  for_elements<S, 3>(p, [=]<class V>(int64_t i, const V* numbers) OPSIN_INLINED {
    V value = normalised(read<V>(x + i), numbers[0], numbers[1], numbers[2]);
    if constexpr (kResidual) value = rounded_to<S>(value) + read<V>(residual + i);
    // What rounds to -0 stays so, as if rounded before.
    if constexpr (kRelu) {
      value = value < -least<S> ? V{} : value;
      value = value > all<V>(ceiling) ? all<V>(ceiling) : value;
    }
    write(y + i, value);
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
void gradient_with(const ChannelParams& p) {
  const auto* x = static_cast<const S*>(p.x);
  const auto* g = static_cast<const S*>(p.g);
  auto* y = static_cast<S*>(p.y);
  const Compute<S> greatest = greatest_of<S>(p);
  for_elements<S, 6>(p, [=]<class V>(int64_t i, const V* numbers) OPSIN_INLINED {
    const V value = read<V>(x + i);
    V gradient = read<V>(g + i);
    if constexpr (kMask)
      gradient =
          masked<S>(gradient, normalised(value, numbers[0], numbers[1], numbers[2]), least<S>, greatest);
    write(y + i, gradient * numbers[3] - numbers[4] - (value - numbers[0]) * numbers[5]);
  });
}

/// The gradient with fixed statistics, which needs no x.
template <class S>
void scale_with(const ChannelParams& p) {
  const auto* g = static_cast<const S*>(p.g);
  auto* y = static_cast<S*>(p.y);
  for_elements<S, 4>(p, [=]<class V>(int64_t i, const V* numbers)
                            OPSIN_INLINED { write(y + i, read<V>(g + i) * numbers[3]); });
}

template <class S>
void apply_backward(const ChannelParams& p) {
  if (!p.x) return scale_with<S>(p);
  p.relu ? gradient_with<S, true>(p) : gradient_with<S, false>(p);
}

/// Calls f(element) for all of a row, in vectors where there are as many; f tells them apart by the type of
/// its second argument.
template <class T, class F>
OPSIN_INLINE void along(int64_t n, F f) {
  int64_t i = 0;
  for (; i + lanes_of<T> <= n; i += lanes_of<T>) f(i, Vector<T>{});
  for (; i < n; ++i) f(i, T{});
}

/// y = ((x - mean) scale + rest) weight + bias
template <class S, bool kWeight, bool kBias>
OPSIN_INLINE void layer_row(const LayerNormPart& p, const S* x, Compute<S> mean, Compute<S> scale,
                            Compute<S> rest, S* y) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const auto* bias = static_cast<const T*>(p.bias);
  along<T>(p.n, [=]<class V>(int64_t i, V) OPSIN_INLINED {
    V value = normalised(read<V>(x + i), all<V>(mean), all<V>(scale), all<V>(rest));
    if constexpr (kWeight) value *= read<V>(weight + i);
    if constexpr (kBias) value += read<V>(bias + i);
    write(y + i, value);
  });
}

template <class S>
void layer_forward(const LayerNormPart& p) {
  using T = Compute<S>;
  const double one = 1 / static_cast<double>(p.n);
  for (int64_t r = 0; r < p.rows; ++r) {
    const S* x = static_cast<const S*>(p.x) + r * p.n;
    S* y = static_cast<S*>(p.y) + r * p.n;
    double sum = 0, square = 0, mean = 0, centre = 0;
    if (p.rms) {
      squares_along(x, p.n, T(0), sum, square);
    } else {
      const auto near = static_cast<double>(moments_along(x, p.n, sum, square));
      centre = sum * one;
      mean = near + centre;
    }
    double variance = square * one - centre * centre;
    variance = variance > 0 || variance != variance ? variance : 0;
    const double inverse = 1 / __builtin_sqrt(variance + p.eps);
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

/// What one row of a layer norm needs for its gradient.
template <class T>
struct LayerRow {
  double inverse, sum = 0, product = 0;  // Of h and of h xhat.
  T mean, scale, rest;                   // The last is what rounding the mean takes from xhat.

  OPSIN_INLINE void begin(const LayerNormPart& p, int64_t row) {
    inverse = p.inverse[row];
    mean = static_cast<T>(p.mean[row]);
    scale = static_cast<T>(inverse);
    rest = static_cast<T>((static_cast<double>(mean) - p.mean[row]) * inverse);
  }
  template <class V>
  OPSIN_INLINE V normalise(V x) const {
    return normalised(x, all<V>(mean), all<V>(scale), all<V>(rest));
  }
};

/// kRows rows of the sums over a layer norm's rows, which are left in the buffer, with those along them if
/// kInput. With h = g weight and xhat = (x - mean) inverse.
template <class S, int kRows, bool kInput>
OPSIN_INLINE void layer_weight_rows(const LayerNormPart& p, int64_t first, LayerRow<Compute<S>>* rows) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int64_t n = p.n;
  const auto* weight = static_cast<const T*>(p.weight);
  auto* of_weight = static_cast<T*>(p.buffer);
  T* of_bias = of_weight + n;
  const S* x = static_cast<const S*>(p.x) + first * n;
  const S* g = static_cast<const S*>(p.g) + first * n;
  LayerRow<T> row[kRows];
  for (int r = 0; r < kRows; ++r) row[r] = rows[r];
  const auto take = [&]<class V>(int64_t i, V* sum, V* product) OPSIN_INLINED {
    const V w = kInput && weight ? read<V>(weight + i) : all<V>(T(1));
    V by_xhat{}, alone{};
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V xhat = row[r].normalise(read<V>(x + r * n + i));
      const V grad = read<V>(g + r * n + i);
      if constexpr (kInput) {
        const V h = grad * w;
        sum[r] += h;
        product[r] = fma(h, xhat, product[r]);
      }
      by_xhat = fma(grad, xhat, by_xhat);
      alone += grad;
    }
    write(of_weight + i, read<V>(of_weight + i) + by_xhat);
    write(of_bias + i, read<V>(of_bias + i) + alone);
  };
  for (int64_t i = 0; i < n;) {
    const int64_t end = !kInput || n - i < kDepth * lanes ? n : i + kDepth * lanes;
    Vector<T> sum[kRows] = {}, product[kRows] = {};
    for (; i + lanes <= end; i += lanes) take(i, sum, product);
    T last[kRows] = {}, last_product[kRows] = {};
    for (; i < end; ++i) take(i, last, last_product);
    if constexpr (kInput) {
      for (int r = 0; r < kRows; ++r) {
        rows[r].sum += static_cast<double>(last[r]);
        rows[r].product += static_cast<double>(last_product[r]);
        add_lanes<T>(sum[r], product[r], rows[r].sum, rows[r].product);
      }
    }
  }
}

/// The sums along a row.
template <class S>
OPSIN_INLINE void layer_input_sums(const LayerNormPart& p, int64_t at, LayerRow<Compute<S>>& row) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const S* x = static_cast<const S*>(p.x) + at * p.n;
  const S* g = static_cast<const S*>(p.g) + at * p.n;
  const auto along_row = [&](auto h_of) OPSIN_INLINED {
    sums_along<T>(p.n, row.sum, row.product, [=]<class V>(int64_t i, V& s, V& q) OPSIN_INLINED {
      const V h = h_of(i, V{});
      s += h;
      q = fma(h, row.normalise(read<V>(x + i)), q);
    });
  };
  if (weight) {
    along_row([=]<class V>(int64_t i, V) OPSIN_INLINED { return read<V>(g + i) * read<V>(weight + i); });
  } else {
    along_row([=]<class V>(int64_t i, V) OPSIN_INLINED { return read<V>(g + i); });
  }
}

/// dx = inverse (h - mean(h) - xhat mean(h xhat)) of a row.
template <class S>
OPSIN_INLINE void layer_input(const LayerNormPart& p, int64_t at, const LayerRow<Compute<S>>& row) {
  using T = Compute<S>;
  const auto* weight = static_cast<const T*>(p.weight);
  const S* x = static_cast<const S*>(p.x) + at * p.n;
  const S* g = static_cast<const S*>(p.g) + at * p.n;
  S* y = static_cast<S*>(p.y) + at * p.n;
  const double one = 1 / static_cast<double>(p.n), tilt = row.product * one;
  // Subtracted before it is scaled: where eps dwarfs the variance, inverse magnifies the rounding.
  const T m = row.mean, s = row.scale;
  const T centre = static_cast<T>((p.rms ? 0 : row.sum * one) + static_cast<double>(row.rest) * tilt);
  const T slope = static_cast<T>(tilt * row.inverse * row.inverse);
  const auto apply = [=]<class V>(int64_t i, V h)
                         OPSIN_INLINED { write(y + i, (h - centre) * s - (read<V>(x + i) - m) * slope); };
  if (weight) {
    along<T>(p.n,
             [=]<class V>(int64_t i, V) OPSIN_INLINED { apply(i, read<V>(g + i) * read<V>(weight + i)); });
  } else {
    along<T>(p.n, [=]<class V>(int64_t i, V) OPSIN_INLINED { apply(i, read<V>(g + i)); });
  }
}

/// kRows rows of a layer norm's gradient.
template <class S, int kRows, bool kInput, bool kWeights>
OPSIN_INLINE void layer_backward_rows(const LayerNormPart& p, int64_t first) {
  LayerRow<Compute<S>> rows[kRows];
  for (int r = 0; r < kRows; ++r) rows[r].begin(p, first + r);
  if constexpr (kWeights) {
    layer_weight_rows<S, kRows, kInput>(p, first, rows);
  } else {
    for (int r = 0; r < kRows; ++r) layer_input_sums<S>(p, first + r, rows[r]);
  }
  if constexpr (kInput) {
    for (int r = 0; r < kRows; ++r) layer_input<S>(p, first + r, rows[r]);
  }
}

/// Adds what is in the buffer to the sums of weight and bias, and clears it.
template <class T>
OPSIN_INLINE void settle(const LayerNormPart& p) {
  auto* buffer = static_cast<T*>(p.buffer);
  for (double* sums : {p.weight_sum, p.bias_sum}) {
    along<T>(p.n, [=]<class V>(int64_t i, V zero) OPSIN_INLINED {
      if (sums) add_to(sums + i, read<V>(buffer + i));
      write(buffer + i, zero);
    });
    buffer += p.n;
  }
}

template <class S, bool kInput, bool kWeights>
void layer_backward_with(const LayerNormPart& p) {
  // As many as have their numbers in registers; without weights, two rows do not wait for each other's sums.
  constexpr int kRows = kInput ? 2 : 4;
  int64_t r = 0;
  for (int added = 0; r + kRows <= p.rows; r += kRows) {
    layer_backward_rows<S, kRows, kInput, kWeights>(p, r);
    if (kWeights && ++added % (kDepth / kRows) == 0) settle<Compute<S>>(p);
  }
  for (; r < p.rows; ++r) layer_backward_rows<S, 1, kInput, kWeights>(p, r);
  if (kWeights) settle<Compute<S>>(p);
}

template <class S>
void layer_backward(const LayerNormPart& p) {
  if (!p.buffer) {
    layer_backward_with<S, true, false>(p);
  } else {
    p.y ? layer_backward_with<S, true, true>(p) : layer_backward_with<S, false, true>(p);
  }
}

void inverse_roots(double* values, int64_t count, double eps) {
  for (int64_t i = 0; i < count; ++i) values[i] = 1 / __builtin_sqrt(values[i] + eps);
}

constexpr NormTable make_table() {
  NormTable table{};
  table.inverse_roots = inverse_roots;
  const auto set = [&]<class S>(DType dtype) {
    const int d = static_cast<int>(dtype);
    table.sums[d] = sums<S>;
    table.apply[d] = apply<S>;
    table.apply_backward[d] = apply_backward<S>;
    table.layer_forward[d] = layer_forward<S>;
    table.layer_backward[d] = layer_backward<S>;
  };
  set.template operator()<Float16>(kFloat16);
  set.template operator()<BFloat16>(kBFloat16);
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
