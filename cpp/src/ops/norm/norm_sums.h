// Sums over rows and columns for the normalization loops. In float32 few values are added before their sum
// goes to float64, so that what is lost on the way is below the last digit of a result. What is squared is
// taken from a number near the mean, so that nothing cancels; if that is one for many values, of few digits,
// because differences from any other are all rounded the same way.
#pragma once

#include "norm_kernels.h"

#include <type_traits>

#include "cpu/kernels/lanes.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

/// So many vectors are added up before float64.
constexpr int kDepth = 16;

/// Neighbours as a vector, or one value as a number.
template <class V, class S>
OPSIN_INLINE V read(const S* from) {
  if constexpr (std::is_same_v<V, Compute<S>>) {
    return widen(*from);
  } else {
    return load_wide(from);
  }
}
template <class S, class V>
OPSIN_INLINE void write(S* to, V value) {
  if constexpr (std::is_same_v<V, Compute<S>>) {
    narrow(value, to);
  } else {
    store_some(to, value, lanes_of<Compute<S>>);
  }
}
template <class V, class T>
OPSIN_INLINE V all(T value) {
  if constexpr (std::is_same_v<V, T>) {
    return value;
  } else {
    return broadcast(value);
  }
}
/// Part `k` of a vector, or a number, in float64 and back.
using HalfFloat = float __attribute__((vector_size(vector_bytes / 2)));
OPSIN_INLINE Double part_of(Float v, int k) {
  // GCC converts half a vector in two steps.
#if defined(__AVX512F__)
  return (Double)_mm512_cvtps_pd(k == 0 ? _mm512_castps512_ps256((__m512)v)
                                        : (__m256)_mm512_extractf64x4_pd((__m512d)v, 1));
#elif defined(__AVX2__)
  return (Double)_mm256_cvtps_pd(k == 0 ? _mm256_castps256_ps128((__m256)v)
                                        : _mm256_extractf128_ps((__m256)v, 1));
#else
  HalfFloat half[2];
  __builtin_memcpy(half, &v, sizeof v);
  return __builtin_convertvector(half[k], Double);
#endif
}
OPSIN_INLINE Double part_of(Double v, int) { return v; }
OPSIN_INLINE double part_of(float v, int) { return static_cast<double>(v); }
OPSIN_INLINE double part_of(double v, int) { return v; }
template <class V>
using InDouble = decltype(part_of(V{}, 0));
template <class V>
constexpr int parts_of = std::is_same_v<V, Float> ? 2 : 1;
/// How many elements a part holds.
template <class V>
constexpr int step_of = sizeof(InDouble<V>) / sizeof(double);

template <class V>
OPSIN_INLINE V rounded_from(const double* numbers) {
  if constexpr (std::is_same_v<V, Float>) {
    const Double low = load(numbers), high = load(numbers + lanes_of<double>);
    // Two halves in memory would be waited for.
#if defined(__AVX512F__)
    return (Float)_mm512_insertf64x4((__m512d)_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low)),
                                     (__m256d)_mm512_cvtpd_ps((__m512d)high), 1);
#elif defined(__AVX2__)
    return (Float)_mm256_set_m128(_mm256_cvtpd_ps((__m256d)high), _mm256_cvtpd_ps((__m256d)low));
#else
    const HalfFloat half[2] = {__builtin_convertvector(low, HalfFloat),
                               __builtin_convertvector(high, HalfFloat)};
    V v;
    __builtin_memcpy(&v, half, sizeof v);
    return v;
#endif
  } else if constexpr (std::is_same_v<V, Double>) {
    return load(numbers);
  } else {
    return static_cast<V>(*numbers);
  }
}

OPSIN_INLINE Double halves(Float v) { return part_of(v, 0) + part_of(v, 1); }
OPSIN_INLINE Double halves(Double v) { return v; }

/// Adds the lanes of two vectors to two numbers, side by side: one after the other, the sums would wait for
/// each other's steps.
template <class T>
OPSIN_INLINE void add_lanes(Vector<T> a, Vector<T> b, double& sum, double& product) {
  double s[lanes_of<double>], q[lanes_of<double>];
  store(s, halves(a));
  store(q, halves(b));
#pragma GCC unroll 4
  for (int half = lanes_of<double> / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      s[i] += s[i + half];
      q[i] += q[i + half];
    }
  }
  sum += s[0];
  product += q[0];
}

/// Adds to float64 sums.
template <class V>
OPSIN_INLINE void add_to(double* sums, V v) {
  using D = InDouble<V>;
  for (int k = 0; k < parts_of<V>; ++k, sums += step_of<V>) write(sums, read<D>(sums) + part_of(v, k));
}

template <class S>
constexpr DType kDTypeOf = std::is_same_v<S, Float16>    ? kFloat16
                           : std::is_same_v<S, BFloat16> ? kBFloat16
                           : std::is_same_v<S, float>    ? kFloat32
                                                         : kFloat64;
/// A float above this, and none other, is positive once it is rounded to S.
template <class S>
constexpr Compute<S> least = least_positive(kDTypeOf<S>);

template <class V>
OPSIN_INLINE V magnitude(V v) {
  return v < 0 ? -v : v;
}
/// `value` to some 15 bits of numbers as large as `size`.
template <class T>
OPSIN_INLINE T coarse(T value, T size) {
  const T large = size * 256;
  return (value + large) - large;
}

template <class V>
OPSIN_INLINE V normalised(V x, V mean, V scale, V offset) {
  return fma(x - mean, scale, offset);
}
/// The gradient g of a ReLU, as unary::Relu and Relu6 have it.
template <class S, class V>
OPSIN_INLINE V masked(V g, V y, Compute<S> above, Compute<S> greatest) {
  const V one = all<V>(Compute<S>(1));
  return g * (y > above ? (y <= greatest ? one : V{}) : V{});
}
template <class S>
OPSIN_INLINE Compute<S> greatest_of(const ChannelParams& p) {
  return static_cast<Compute<S>>(greatest_below(p.ceiling, kDTypeOf<S>));
}

/// What is summed: x alone, or the gradient, as it is or masked in one of the ways of ChannelParams.
enum class Summed { kMoments, kGradient, kMaskedByNumbers, kMaskedByOutput };

/// The gradient at element i; `numbers` are those of its channel.
template <class S, Summed kSummed, class V>
OPSIN_INLINE V gradient_at(const ChannelParams& p, int64_t i, const V* numbers, Compute<S> greatest) {
  const V g = read<V>(static_cast<const S*>(p.g) + i);
  if constexpr (kSummed == Summed::kMaskedByNumbers) {
    const V x = read<V>(static_cast<const S*>(p.x) + i);
    return masked<S>(g, normalised(x, numbers[0], numbers[1], numbers[2]), least<S>, greatest);
  } else if constexpr (kSummed == Summed::kMaskedByOutput) {
    const V kept = masked<S>(g, read<V>(static_cast<const S*>(p.relu_output) + i), Compute<S>(0), greatest);
    write(static_cast<S*>(p.masked) + i, kept);
    return kept;
  } else {
    return g;
  }
}

/// The sums of `depth` rows, at most kDepth, of kVectors vectors of channels (or one channel): `at` is an
/// element of the first row.
template <class S, Summed kSummed, class V, int kVectors>
OPSIN_INLINE void sums_of_column(const ChannelParams& p, int64_t at, int64_t c, int64_t depth) {
  using T = Compute<S>;
  constexpr int lanes = sizeof(V) / sizeof(T);
  const S* x = static_cast<const S*>(p.x) + at;
  const int64_t row = p.channels;
  V near[kVectors], sum[kVectors]{}, product[kVectors]{}, numbers[kVectors][3];
  if constexpr (kSummed == Summed::kMoments) {
    // The mean of four rows, which is never further away than twice the spread of all.
    const int64_t last = depth - 1;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const S* own = x + v * lanes;
      near[v] = ((read<V>(own) + read<V>(own + last / 3 * row)) +
                 (read<V>(own + last * 2 / 3 * row) + read<V>(own + last * row))) *
                T(0.25);
    }
  } else {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      near[v] = rounded_from<V>(p.shift + c + v * lanes);
      if constexpr (kSummed == Summed::kMaskedByNumbers) {
        for (int k = 0; k < 3; ++k)
          numbers[v][k] = read<V>(static_cast<const T*>(p.numbers) + k * p.stride + c + v * lanes);
      }
    }
  }
  const T greatest = greatest_of<S>(p);
  // The rows of the next call on these channels: short pieces, far apart, which the hardware does not
  // foresee.
  const auto fetch = [ahead = depth * row](const S* next) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int byte = 0; byte < kVectors * static_cast<int>(lanes * sizeof(S)); byte += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(next + ahead) + byte, 0, 2);
  };
  const S* g = kSummed == Summed::kMoments ? x : static_cast<const S*>(p.g) + at;
  for (int64_t r = 0; r < depth; ++r) {
    if constexpr (lanes > 1) {
      fetch(x + r * row);
      if constexpr (kSummed != Summed::kMoments) fetch(g + r * row);
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const V away = read<V>(x + r * row + v * lanes) - near[v];
      V factor = away;
      if constexpr (kSummed != Summed::kMoments)
        factor = gradient_at<S, kSummed>(p, at + r * row + v * lanes, numbers[v], greatest);
      sum[v] += factor;
      product[v] = fma(factor, away, product[v]);
    }
  }
  if constexpr (kSummed != Summed::kMoments) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v, c += lanes) {
      add_to(p.sum + c, sum[v]);
      add_to(p.product + c, product[v]);
    }
    return;
  }
  // From the value nearby to the shift, in float64.
  using D = InDouble<V>;
#pragma GCC unroll 8
  for (int i = 0; i < kVectors * parts_of<V>; ++i, c += step_of<V>) {
    const int v = i / parts_of<V>, k = i % parts_of<V>;
    const D apart = part_of(near[v], k) - read<D>(p.shift + c), s = part_of(sum[v], k);
    const D q = part_of(product[v], k), all_apart = apart * static_cast<double>(depth);
    write(p.sum + c, read<D>(p.sum + c) + (s + all_apart));
    write(p.product + c, read<D>(p.product + c) + (q + apart * (s + s + all_apart)));
  }
}

template <class S, Summed kSummed>
OPSIN_INLINE void sums_columns(const ChannelParams& p) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, kTogether = 4;
  for (int64_t r = 0; r < p.rows; r += kDepth) {
    const int64_t depth = p.rows - r < kDepth ? p.rows - r : kDepth;
    int64_t c = 0;
    for (; c + kTogether * lanes <= p.channels; c += kTogether * lanes)
      sums_of_column<S, kSummed, Vector<T>, kTogether>(p, r * p.channels + c, c, depth);
    for (; c + lanes <= p.channels; c += lanes)
      sums_of_column<S, kSummed, Vector<T>, 1>(p, r * p.channels + c, c, depth);
    for (; c < p.channels; ++c) sums_of_column<S, kSummed, T, 1>(p, r * p.channels + c, c, depth);
  }
}

/// Two sums over neighbours: f(i, sum, product) adds vectors or numbers of the compute type to them.
template <class T, class F>
OPSIN_INLINE void sums_along(int64_t n, double& sum, double& product, F f) {
  constexpr int lanes = lanes_of<T>, kChains = 4, kBlock = kChains * kDepth * lanes;
  for (int64_t i = 0; i < n;) {
    const int64_t end = n - i < kBlock ? n : i + kBlock;
    Vector<T> s[kChains] = {}, q[kChains] = {};
    for (; i + kChains * lanes <= end; i += kChains * lanes) {
#pragma GCC unroll 4
      for (int j = 0; j < kChains; ++j) f(i + j * lanes, s[j], q[j]);
    }
    for (; i + lanes <= end; i += lanes) f(i, s[0], q[0]);
    T rest = 0, rest_product = 0;
    for (; i < end; ++i) f(i, rest, rest_product);
    sum += static_cast<double>(rest);
    product += static_cast<double>(rest_product);
    add_lanes<T>((s[0] + s[1]) + (s[2] + s[3]), (q[0] + q[1]) + (q[2] + q[3]), sum, product);
  }
}

/// The sums of x - near and of its square.
template <class S>
OPSIN_INLINE void squares_along(const S* x, int64_t n, Compute<S> near, double& sum, double& square) {
  using T = Compute<S>;
  sum = square = 0;
  sums_along<T>(n, sum, square, [=]<class V>(int64_t i, V& s, V& q) __attribute__((always_inline)) {
    const V away = read<V>(x + i) - near;
    s += away;
    q = fma(away, away, q);
  });
}

/// The sums of x - near and of its square. `near` is the mean of the first values, or of all if that is far
/// away.
template <class S>
OPSIN_INLINE Compute<S> moments_along(const S* x, int64_t n, double& sum, double& square) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  T mean = widen(*x), size = magnitude(mean);
  if (n >= lanes) {
    const Vector<T> first = read<Vector<T>>(x);
    mean = sum_of_lanes<T>(first) * (T(1) / lanes);
    size = sum_of_lanes<T>(magnitude(first)) * (T(1) / lanes);
  }
  const T near = coarse(mean, size);
  squares_along(x, n, near, sum, square);
  const auto count = static_cast<double>(n);
  constexpr double kFar = 2;  // in variances
  if (!(sum * sum > kFar * (square * count - sum * sum))) return near;
  const T nearer = coarse(near + static_cast<T>(sum / count), size);
  squares_along(x, n, nearer, sum, square);
  return nearer;
}

template <class S, Summed kSummed>
OPSIN_INLINE void sums_of_row(const ChannelParams& p, int64_t first, int64_t c) {
  using T = Compute<S>;
  const S* x = static_cast<const S*>(p.x) + first;
  const double shift = p.shift[c];
  double sum = 0, product = 0;
  if constexpr (kSummed == Summed::kMoments) {
    const double apart = static_cast<double>(moments_along(x, p.rows, sum, product)) - shift;
    const double all_apart = static_cast<double>(p.rows) * apart;
    p.sum[c] += sum + all_apart;
    p.product[c] += product + apart * (2 * sum + all_apart);
  } else {
    const T near = static_cast<T>(shift), greatest = greatest_of<S>(p);
    T numbers[3] = {};
    if constexpr (kSummed == Summed::kMaskedByNumbers) {
      for (int k = 0; k < 3; ++k) numbers[k] = static_cast<const T*>(p.numbers)[k * p.stride + c];
    }
    sums_along<T>(p.rows, sum, product, [&]<class V>(int64_t i, V& s, V& q) __attribute__((always_inline)) {
      const V of_channel[3] = {all<V>(numbers[0]), all<V>(numbers[1]), all<V>(numbers[2])};
      const V g = gradient_at<S, kSummed>(p, first + i, of_channel, greatest);
      s += g;
      q = fma(g, read<V>(x + i) - near, q);
    });
    p.sum[c] += sum;
    p.product[c] += product;
  }
}

template <class S, Summed kSummed>
OPSIN_INLINE void sums_rows(const ChannelParams& p) {
  for (int64_t c = 0; c < p.channels; ++c) sums_of_row<S, kSummed>(p, c * p.pitch, c);
}

}  // namespace

}  // namespace opsin::cpu::OPSIN_ISA_NS
