// Kernels of FFT convolution: transforms of mixed radix, one per lane, and products of spectra.
//
// The transforms are Stockham's (autosort, no bit reversal) with radix 2, 3, 4 and 5; a real one of length 2n
// is a complex one of length n and a pass over pairs of frequencies (Sorensen et al. 1987).
#include "conv_fft_table.h"
#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T>
struct Complex {
  Vector<T> re, im;
};

template <class T>
OPSIN_INLINE Complex<T> operator+(Complex<T> a, Complex<T> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class T>
OPSIN_INLINE Complex<T> operator-(Complex<T> a, Complex<T> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class T>
OPSIN_INLINE Complex<T> conj(Complex<T> a) {
  return {a.re, -a.im};
}
/// a * i
template <class T>
OPSIN_INLINE Complex<T> turned(Complex<T> a) {
  return {-a.im, a.re};
}
template <class T>
OPSIN_INLINE Complex<T> scaled(Complex<T> a, T by) {
  const Vector<T> v = broadcast(by);
  return {a.re * v, a.im * v};
}
template <class T>
OPSIN_INLINE Complex<T> times(Complex<T> a, Vector<T> re, Vector<T> im) {
  return {a.re * re - a.im * im, a.re * im + a.im * re};
}
template <class T>
OPSIN_INLINE Complex<T> get(const T* re, const T* im, int64_t at) {
  return {load(re + at), load(im + at)};
}
template <class T>
OPSIN_INLINE void put(T* re, T* im, int64_t at, Complex<T> v) {
  store(re + at, v.re);
  store(im + at, v.im);
}

template <class T, int Radix>
OPSIN_INLINE void butterfly(Complex<T>* v) {
  if constexpr (Radix == 2) {
    const Complex<T> a = v[0];
    v[0] = a + v[1];
    v[1] = a - v[1];
  } else if constexpr (Radix == 3) {
    const Complex<T> sum = v[1] + v[2], middle = v[0] - scaled(sum, T(0.5));
    const Complex<T> side = turned(scaled(v[2] - v[1], T(0.86602540378443864676)));
    v[0] = v[0] + sum;
    v[1] = middle + side;
    v[2] = middle - side;
  } else if constexpr (Radix == 4) {
    const Complex<T> a = v[0] + v[2], b = v[0] - v[2], c = v[1] + v[3], d = turned(v[3] - v[1]);
    v[0] = a + c;
    v[1] = b + d;
    v[2] = a - c;
    v[3] = b - d;
  } else {
    constexpr T c1 = T(0.30901699437494742410), c2 = T(-0.80901699437494742410);
    constexpr T s1 = T(0.95105651629515357212), s2 = T(0.58778525229247312917);
    const Complex<T> a = v[1] + v[4], b = v[2] + v[3], c = v[4] - v[1], d = v[3] - v[2];
    const Complex<T> m1 = v[0] + scaled(a, c1) + scaled(b, c2), m2 = v[0] + scaled(a, c2) + scaled(b, c1);
    const Complex<T> n1 = turned(scaled(c, s1) + scaled(d, s2));
    const Complex<T> n2 = turned(scaled(c, s2) - scaled(d, s1));
    v[0] = v[0] + a + b;
    v[1] = m1 + n1;
    v[2] = m2 + n2;
    v[3] = m2 - n2;
    v[4] = m1 - n1;
  }
}

/// Where the elements of a transform lie.
template <class T>
struct Line {
  T *re, *im;
  int64_t stride;
};

template <class T, int Radix>
void run_pass(const FftPass<T>& pass, Line<const T> x, Line<T> y) {
  const int64_t apart = pass.stride * pass.parts * x.stride, next = pass.stride * y.stride;
  for (int64_t p = 0; p < pass.parts; ++p) {
    Vector<T> w[2 * Radix];
    for (int j = 0; j < 2 * (Radix - 1); ++j) w[j] = broadcast(pass.twiddle[p * 2 * (Radix - 1) + j]);
    for (int64_t q = 0; q < pass.stride; ++q) {
      const int64_t from = (q + pass.stride * p) * x.stride, to = (q + pass.stride * Radix * p) * y.stride;
      Complex<T> v[Radix];
#pragma GCC unroll 5
      for (int j = 0; j < Radix; ++j) v[j] = get(x.re, x.im, from + j * apart);
      butterfly<T, Radix>(v);
      put(y.re, y.im, to, v[0]);
#pragma GCC unroll 5
      for (int j = 1; j < Radix; ++j) {
        put(y.re, y.im, to + j * next, p == 0 ? v[j] : times(v[j], w[2 * j - 2], w[2 * j - 1]));
      }
    }
  }
}

template <class T>
void transform(const FftPlan<T>& plan, Line<const T> in, int64_t first, int64_t count, Line<T> out,
               T* scratch) {
  constexpr int64_t lanes = lanes_of<T>;
  Line<T> buffers[2];
  for (int i = 0; i < 2; ++i) {
    T* at = scratch + i * plan.n * 2 * lanes;
    buffers[i] = {at, at + lanes, 2 * lanes};
  }
  int next = 0;
  if (plan.passes == 0 || count < plan.n) {
    const Line<T> to = plan.passes == 0 ? out : buffers[next++];
    for (int64_t i = 0; i < plan.n; ++i) {
      const bool inside = i >= first && i < first + count;
      put(to.re, to.im, i * to.stride, inside ? get(in.re, in.im, i * in.stride) : Complex<T>{});
    }
    in = {to.re, to.im, to.stride};
  }
  for (int64_t i = 0; i < plan.passes; ++i) {
    const FftPass<T>& pass = plan.pass[i];
    const Line<T> to = i == plan.passes - 1 ? out : buffers[next];
    if (pass.radix == 4) {
      run_pass<T, 4>(pass, in, to);
    } else if (pass.radix == 2) {
      run_pass<T, 2>(pass, in, to);
    } else if (pass.radix == 3) {
      run_pass<T, 3>(pass, in, to);
    } else {
      run_pass<T, 5>(pass, in, to);
    }
    in = {to.re, to.im, to.stride};
    next ^= 1;
  }
}

template <class T>
void lines(const FftLines<T>& a) {
  for (int64_t i = 0; i < a.columns; ++i) {
    const int64_t from = i * a.in_step, to = i * a.out_step;
    transform<T>(*a.plan, {a.in_re + from, a.in_im + from, a.in_stride}, a.first, a.count,
                 {a.out_re + to, a.out_im + to, a.out_stride}, a.scratch);
  }
}

template <class T>
void row_forward(const FftRow<T>& a) {
  constexpr int64_t lanes = lanes_of<T>, pair = 2 * lanes;
  const int64_t n = a.plan->n;
  T* z = a.scratch + 2 * n * pair;
  transform<T>(*a.plan, {a.row, a.row + lanes, pair}, 0, n, {z, z + lanes, pair}, a.scratch);
  const Complex<T> z0 = get(z, z + lanes, 0);
  put(a.re, a.im, 0, {z0.re + z0.im, Vector<T>{}});
  put(a.re, a.im, n * a.stride, {z0.re - z0.im, Vector<T>{}});
  for (int64_t f = 1; 2 * f <= n; ++f) {
    const Complex<T> x = get(z, z + lanes, f * pair), y = conj(get(z, z + lanes, (n - f) * pair));
    const Complex<T> even = scaled(x + y, T(0.5)), odd = scaled(turned(y - x), T(0.5));
    const Complex<T> moved = times(odd, broadcast(a.plan->half[2 * f]), broadcast(a.plan->half[2 * f + 1]));
    put(a.re, a.im, f * a.stride, even + moved);
    put(a.re, a.im, (n - f) * a.stride, conj(even - moved));
  }
}

template <class T>
void row_inverse(const FftRow<T>& a) {
  constexpr int64_t lanes = lanes_of<T>, pair = 2 * lanes;
  const int64_t n = a.plan->n;
  T* z = a.scratch + 2 * n * pair;
  const Vector<T> low = load(a.re), high = load(a.re + n * a.stride);
  put(z, z + lanes, 0, {low + high, low - high});
  for (int64_t f = 1; 2 * f <= n; ++f) {
    const Complex<T> x = get(a.re, a.im, f * a.stride), y = conj(get(a.re, a.im, (n - f) * a.stride));
    const Complex<T> even = x + y;
    const Complex<T> odd = times(x - y, broadcast(a.plan->half[2 * f]), broadcast(-a.plan->half[2 * f + 1]));
    put(z, z + lanes, f * pair, even + turned(odd));
    put(z, z + lanes, (n - f) * pair, conj(even) + turned(conj(odd)));
  }
  transform<T>(*a.plan, {z + lanes, z, pair}, 0, n, {a.row + lanes, a.row, pair}, a.scratch);
}

template <class T>
void load_lanes(const FftAccess<T>& a) {
  constexpr int64_t lanes = lanes_of<T>;
  if (a.adjacent) {
    T* out = a.row + a.first[0] * lanes;
    for (int64_t i = 0; i < a.count[0]; ++i) {
      store(out + i * a.every * lanes, load_some<T>(a.memory[0] + i * a.stride, a.lanes));
    }
    return;
  }
  for (int64_t l = 0; l < a.lanes; ++l) {
    T* out = a.row + a.first[l] * lanes + l;
    for (int64_t i = 0; i < a.count[l]; ++i) out[i * a.every * lanes] = a.memory[l][i * a.stride];
  }
}

template <class T>
void store_lanes(const FftAccess<T>& a) {
  constexpr int64_t lanes = lanes_of<T>;
  if (a.adjacent) {
    const T* in = a.row + a.first[0] * lanes;
    const Vector<T> scale = broadcast(a.scale);
    const Vector<T> bias = a.bias == nullptr ? Vector<T>{} : load_some<T>(a.bias, a.lanes);
    for (int64_t i = 0; i < a.count[0]; ++i) {
      T* to = a.memory[0] + i * a.stride;
      Vector<T> v = load(in + i * a.every * lanes) * scale + bias;
      if (a.accumulate) v += load_some<T>(to, a.lanes);
      store_some(to, v, a.lanes);
    }
    return;
  }
  for (int64_t l = 0; l < a.lanes; ++l) {
    const T* in = a.row + a.first[l] * lanes + l;
    const T bias = a.bias == nullptr ? T{} : a.bias[l];
    for (int64_t i = 0; i < a.count[l]; ++i) {
      const T v = in[i * a.every * lanes] * a.scale + bias;
      T* to = a.memory[l] + i * a.stride;
      *to = a.accumulate ? *to + v : v;
    }
  }
}

template <class T, int Rows>
void product_tile(const FftProduct<T>& a, const T* from, const T* b, T* z) {
  constexpr int64_t lanes = lanes_of<T>, pair = 2 * lanes;
  Complex<T> sum[Rows] = {};
  if (a.accumulate) {
    for (int r = 0; r < Rows; ++r) sum[r] = get(z, z + lanes, r * pair);
  }
  for (int64_t s = 0; s < a.sums; ++s, from += a.a_sum, b += pair) {
    const Vector<T> re = load(b), im = load(b + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const Vector<T> x = broadcast(from[r * a.a_row]), y = broadcast(from[r * a.a_row + a.a_imag]);
      sum[r].re += x * re;
      sum[r].im += y * re;
      sum[r].re += y * im;
      sum[r].im -= x * im;
    }
  }
  for (int r = 0; r < Rows; ++r) put(z, z + lanes, r * pair, sum[r]);
}

template <class T>
void product(const FftProduct<T>& a) {
  constexpr int64_t pair = 2 * lanes_of<T>;
  for (int64_t f = 0; f < a.frequencies; ++f) {
    const T *from = a.a + f * a.a_frequency, *b = a.b + f * a.sums * pair;
    T* z = a.z + f * a.rows * pair;
    int64_t r = 0;
    for (; r + 4 <= a.rows; r += 4) product_tile<T, 4>(a, from + r * a.a_row, b, z + r * pair);
    if (a.rows - r == 3) product_tile<T, 3>(a, from + r * a.a_row, b, z + r * pair);
    if (a.rows - r == 2) product_tile<T, 2>(a, from + r * a.a_row, b, z + r * pair);
    if (a.rows - r == 1) product_tile<T, 1>(a, from + r * a.a_row, b, z + r * pair);
  }
}

template <class T>
void lanewise(const FftLanes<T>& a) {
  constexpr int64_t lanes = lanes_of<T>, pair = 2 * lanes;
  for (int64_t i = 0; i < a.frequencies * pair; i += pair) {
    const Complex<T> b = get(a.b + i, a.b + i + lanes, 0);
    Complex<T> v = times(get(a.a + i, a.a + i + lanes, 0), b.re, -b.im);
    if (a.accumulate) v = v + get<T>(a.z + i, a.z + i + lanes, 0);
    put(a.z + i, a.z + i + lanes, 0, v);
  }
}

template <class T>
constexpr FftKernels<T> kernels_of = {lanes_of<T>,    load_lanes<T>,  store_lanes<T>, lines<T>,
                                      row_forward<T>, row_inverse<T>, product<T>,     lanewise<T>};

}  // namespace

const FftTable& fft_table() {
  static constexpr FftTable table = {kernels_of<float>, kernels_of<double>};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
