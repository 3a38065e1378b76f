// Resampling loops, compiled once per instruction set. A row of the output is made in two steps: the rows of
// the input that it needs are merged, then that row is resampled along itself.
#include "interpolate_table.h"

#include "cpu/kernels/lanes.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

// For lambdas.
#define OPSIN_INLINED __attribute__((always_inline))

constexpr int kBatch = 4;

/// to[i] = (to[i] if `add`) + the sum of w[k] * from[k][i], k < kRows.
template <int kRows, class S, class T>
OPSIN_INLINE void merge_some(T* to, const S* const* from, const T* w, int64_t n, bool add) {
  constexpr int lanes = lanes_of<T>;
  Vector<T> weight[kRows];
#pragma GCC unroll 4
  for (int k = 0; k < kRows; ++k) weight[k] = broadcast(w[k]);
  for (int64_t i = 0; i < n; i += lanes) {
    Vector<T> sum = add ? load_some<T>(to + i, n - i) : Vector<T>{};
#pragma GCC unroll 4
    for (int k = 0; k < kRows; ++k) sum = fma(weight[k], load_some<T>(from[k] + i, n - i), sum);
    store_some(to + i, sum, n - i);
  }
}
template <class S, class T>
OPSIN_INLINE void merge(T* to, const S* const* from, const T* w, int rows, int64_t n, bool add) {
  if (rows == 4) {
    merge_some<4>(to, from, w, n, add);
  } else if (rows == 3) {
    merge_some<3>(to, from, w, n, add);
  } else if (rows == 2) {
    merge_some<2>(to, from, w, n, add);
  } else {
    merge_some<1>(to, from, w, n, add);
  }
}

/// The rows of x that output row (o0, o1) needs, merged: in the buffer, or where they are if it is one.
template <class S, class T>
OPSIN_INLINE const T* merged(const ResampleRows& a, const ResamplePart& part, const S* image, int64_t o0,
                             int64_t o1, int64_t& step) {
  const ResampleAxis &u = a.axis[0], &v = a.axis[1];
  const int64_t width = part.c1 - part.c0, pixels = a.axis[2].in, row = pixels * a.inner;
  const T* wu = static_cast<const T*>(u.weights) + o0 * u.most;
  const T* wv = static_cast<const T*>(v.weights) + o1 * v.most;
  T* buffer = static_cast<T*>(part.buffer);
  const S* from[kBatch];
  T weight[kBatch];
  int held = 0;
  bool add = false;
  const auto flush = [&]() OPSIN_INLINED {
    if (width == a.inner) {
      merge(buffer, from, weight, held, row, add);
    } else {
      for (int64_t p = 0; p < pixels; ++p) {
        merge(buffer + p * width, from, weight, held, width, add);
        for (int k = 0; k < held; ++k) from[k] += a.inner;
      }
    }
    add = true;
    held = 0;
  };
  for (int64_t i = 0; i < u.count[o0]; ++i) {
    for (int64_t j = 0; j < v.count[o1]; ++j) {
      from[held] = image + ((u.first[o0] + i) * v.in + v.first[o1] + j) * row + part.c0;
      weight[held] = wu[i] * wv[j];
      if constexpr (__is_same(S, T)) {
        if (a.places == nullptr && u.count[o0] * v.count[o1] == 1 && weight[0] == T(1)) {
          step = a.inner;
          return from[0];
        }
      }
      if (++held == kBatch) flush();
    }
  }
  if (held > 0) flush();
  step = width;
  if (!add) {
    for (int64_t i = 0; i < pixels * width; ++i) buffer[i] = 0;
  }
  return buffer;
}

/// y[c] = the sum of w[k] * from(k)[c] for kVectors vectors of channels, the last of which begins at `last`.
template <int kVectors, class S, class T, class From>
OPSIN_INLINE void pixel_of(S* y, From from, const T* w, int64_t taps, int64_t first, int64_t last) {
  constexpr int lanes = lanes_of<T>;
  const auto at = [=](int i) OPSIN_INLINED { return i + 1 < kVectors ? first + int64_t{i} * lanes : last; };
  Vector<T> sum[kVectors] = {};
  for (int64_t k = 0; k < taps; ++k) {
    const Vector<T> weight = broadcast(w[k]);
    const auto* x = from(k);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sum[i] = fma(weight, load_some<T>(x + at(i), lanes), sum[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; ++i) store_some(y + at(i), sum[i], lanes);
}

/// y[c] = the sum of w[k] * from(k)[c], c < width.
template <class S, class T, class From>
OPSIN_INLINE void pixel(S* y, From from, const T* w, int64_t taps, int64_t width) {
  constexpr int lanes = lanes_of<T>;
  if (width < lanes) {
    Vector<T> sum = {};
    for (int64_t k = 0; k < taps; ++k) sum = fma(broadcast(w[k]), load_some<T>(from(k), width), sum);
    store_some(y, sum, width);
    return;
  }
  int64_t c = 0;
  for (; c + 4 * lanes <= width; c += 4 * lanes) pixel_of<4>(y, from, w, taps, c, c + 3 * lanes);
  // The last vector ends where the channels do: some it makes once more.
  const int64_t rest = width - c, last = width - lanes;
  if (rest == 0) return;
  if (rest <= lanes) {
    pixel_of<1>(y, from, w, taps, c, last);
  } else if (rest <= 2 * lanes) {
    pixel_of<2>(y, from, w, taps, c, last);
  } else if (rest <= 3 * lanes) {
    pixel_of<3>(y, from, w, taps, c, last);
  } else {
    pixel_of<4>(y, from, w, taps, c, last);
  }
}

/// A row of the output from all taps of its pixels at once.
template <class S, class T>
OPSIN_INLINE void row_at_once(const ResampleRows& a, S* y, const S* image, int64_t o0, int64_t o1,
                              int64_t width) {
  const ResampleAxis &u = a.axis[0], &v = a.axis[1], &last = a.axis[2];
  const T* wu = static_cast<const T*>(u.weights) + o0 * u.most;
  const T* wv = static_cast<const T*>(v.weights) + o1 * v.most;
  const S* rows[kMostAtOnce];
  T of_row[kMostAtOnce];
  int count = 0;
  for (int64_t i = 0; i < u.count[o0]; ++i) {
    for (int64_t j = 0; j < v.count[o1]; ++j) {
      rows[count] = image + ((u.first[o0] + i) * v.in + v.first[o1] + j) * last.in * a.inner;
      of_row[count++] = wu[i] * wv[j];
    }
  }
  for (int64_t o = 0; o < last.out; ++o) {
    const T* ww = static_cast<const T*>(last.weights) + o * last.most;
    const int64_t first = last.first[o] * a.inner;
    const S* from[kMostAtOnce];
    T weight[kMostAtOnce];
    int taps = 0;
    for (int r = 0; r < count; ++r) {
      for (int64_t k = 0; k < last.count[o]; ++k) {
        from[taps] = rows[r] + first + k * a.inner;
        weight[taps++] = of_row[r] * ww[k];
      }
    }
    pixel(y + o * a.inner, [&](int64_t k) OPSIN_INLINED { return from[k]; }, weight, taps, width);
  }
}

/// Elements [begin, end) of a row, wherever their taps lie.
template <class S, class T>
OPSIN_INLINE void gathered(const ResampleRows& a, S* y, const T* x, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 512;
  constexpr int lanes = lanes_of<T>;
  const int64_t n = a.axis[2].out * a.inner, taps = a.axis[2].most;
  if (end - begin < lanes) {
    for (int64_t j = begin; j < end; ++j) {
      T sum = 0;
      for (int64_t i = j; i < taps * n; i += n) {
        sum = fma(static_cast<const T*>(a.weights)[i], x[a.places[i]], sum);
      }
      narrow(sum, y + j);
    }
    return;
  }
  alignas(64) T sum[kBlock];
  for (; begin < end; begin += kBlock) {
    const int64_t m = end - begin < kBlock ? end - begin : kBlock;
    const int32_t* place = a.places + begin;
    const T* weight = static_cast<const T*>(a.weights) + begin;
    if (taps == 2) {
#pragma GCC ivdep
      for (int64_t j = 0; j < m; ++j) sum[j] = weight[j] * x[place[j]] + weight[n + j] * x[place[n + j]];
    } else {
#pragma GCC ivdep
      for (int64_t j = 0; j < m; ++j) sum[j] = weight[j] * x[place[j]];
      for (int64_t k = 1; k < taps; ++k) {
        const int32_t* at = place + k * n;
        const T* w = weight + k * n;
#pragma GCC ivdep
        for (int64_t j = 0; j < m; ++j) sum[j] += w[j] * x[at[j]];
      }
    }
    for (int64_t j = 0; j < m; j += lanes) store_some(y + begin + j, load_some<T>(sum + j, m - j), m - j);
  }
}

/// A vector of pixels whose windows are two apart, the first at x: loads that are taken apart, no gathers.
template <class S, class T>
OPSIN_INLINE void every_second(S* y, const T* x, const T* w, int64_t n, int64_t taps) {
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum = {};
  for (int64_t k = 0; k < taps; k += 2) {
    const Vector<T> a = load(x + k), b = load(x + k + lanes);
    sum = fma(load(w + k * n), halve<T>(a, b, 0), sum);
    if (k + 1 < taps) sum = fma(load(w + (k + 1) * n), halve<T>(a, b, 1), sum);
  }
  store_some(y, sum, lanes);
}

/// A row of pixels of few elements.
template <class S, class T>
OPSIN_INLINE void few(const ResampleRows& a, S* y, const T* x) {
  constexpr int lanes = lanes_of<T>;
  const int64_t n = a.axis[2].out * a.inner, begin = a.apart_begin, end = a.apart_end;
  if (end - begin < lanes) {
    gathered(a, y, x, 0, n);
    return;
  }
  gathered(a, y, x, 0, begin);
  for (int64_t j = begin; j < end; j += lanes) {
    // The last vector ends where the range does: some pixels it makes once more.
    const int64_t o = j + lanes <= end ? j : end - lanes;
    every_second(y + o, x + a.axis[2].first[o], static_cast<const T*>(a.weights) + o, n, a.axis[2].most);
  }
  gathered(a, y, x, end, n);
}

template <class S>
void run(const ResampleRows& a, const ResamplePart& part) {
  using T = Compute<S>;
  const int64_t rows = a.axis[0].out * a.axis[1].out, width = part.c1 - part.c0;
  const ResampleAxis& last = a.axis[2];
  const int64_t image = a.axis[0].in * a.axis[1].in * last.in * a.inner;
  for (int64_t i = part.begin; i < part.end; ++i) {
    const int64_t o0 = i % rows / a.axis[1].out, o1 = i % a.axis[1].out;
    int64_t step = 0;
    const S* from = static_cast<const S*>(a.x) + i / rows * image;
    S* y = static_cast<S*>(a.y) + i * last.out * a.inner + part.c0;
    if (a.at_once) {
      row_at_once<S, T>(a, y, from + part.c0, o0, o1, width);
      continue;
    }
    const T* row = merged<S, T>(a, part, from, o0, o1, step);
    if (a.places != nullptr) {
      static_cast<T*>(part.buffer)[last.in * a.inner] = 0;
      few(a, y, row);
      continue;
    }
    for (int64_t o = 0; o < last.out; ++o) {
      const T* first = row + last.first[o] * step;
      pixel(
          y + o * a.inner, [=](int64_t k) OPSIN_INLINED { return first + k * step; },
          static_cast<const T*>(last.weights) + o * last.most, last.count[o], width);
    }
  }
}

constexpr ResampleTable kTable{run<float>, run<double>, run<Float16>, run<BFloat16>};

}  // namespace

const ResampleTable& resample_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
