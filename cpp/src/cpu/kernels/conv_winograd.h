// The transforms of Winograd convolution F(m x m, 3 x 3), m = 2, 4 or 6: vectors run over the channels.
// Source of the constants and error bound: cpu/conv_winograd.cpp.
#pragma once

#include "conv_tile.h"
#include "conv_winograd_table.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// One axis of each transform. Points 0, 1, -1, infinity.
struct Winograd2 {
  static constexpr int m = 2, n = 4;
  OPSIN_INLINE static void input(const Float (&d)[n], Float (&out)[n]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[1] - d[3];
  }
  OPSIN_INLINE static void weight(const Float (&g)[3], Float (&out)[n]) {
    const Float half = broadcast(0.5f), even = half * (g[0] + g[2]);
    out[0] = g[0];
    out[1] = fma(half, g[1], even);
    out[2] = fma(-half, g[1], even);
    out[3] = g[2];
  }
  OPSIN_INLINE static void output(const Float (&s)[n], Float (&out)[m]) {
    out[0] = s[0] + s[1] + s[2];
    out[1] = s[1] - s[2] - s[3];
  }
};

// Points 0, a, -a, b, -b, infinity. Powers and products of a = 5/8 and b = 3/2 are exact.
struct Winograd4 {
  static constexpr int m = 4, n = 6;
  static constexpr float a = 0.625f, b = 1.5f, a2 = a * a, b2 = b * b;
  static constexpr float at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));
  OPSIN_INLINE static void input(const Float (&d)[n], Float (&out)[n]) {
    const Float product = broadcast(a2 * b2), sum = broadcast(a2 + b2);
    const Float near = broadcast(a), far = broadcast(b), near2 = broadcast(a2), far2 = broadcast(b2);
    out[0] = fma(product, d[0], fma(-sum, d[2], d[4]));
    const Float even_a = fma(-far2, d[2], d[4]), odd_a = fma(-far2, d[1], d[3]);
    out[1] = fma(near, odd_a, even_a);
    out[2] = fma(-near, odd_a, even_a);
    const Float even_b = fma(-near2, d[2], d[4]), odd_b = fma(-near2, d[1], d[3]);
    out[3] = fma(far, odd_b, even_b);
    out[4] = fma(-far, odd_b, even_b);
    out[5] = fma(product, d[1], fma(-sum, d[3], d[5]));
  }
  OPSIN_INLINE static void weight(const Float (&g)[3], Float (&out)[n]) {
    out[0] = broadcast(1 / (a2 * b2)) * g[0];
    const Float even_a = fma(broadcast(a2), g[2], g[0]), even_b = fma(broadcast(b2), g[2], g[0]);
    out[1] = broadcast(at_a) * fma(broadcast(a), g[1], even_a);
    out[2] = broadcast(at_a) * fma(broadcast(-a), g[1], even_a);
    out[3] = broadcast(at_b) * fma(broadcast(b), g[1], even_b);
    out[4] = broadcast(at_b) * fma(broadcast(-b), g[1], even_b);
    out[5] = g[2];
  }
  OPSIN_INLINE static void output(const Float (&s)[n], Float (&out)[m]) {
    const Float even_a = s[1] + s[2], odd_a = s[1] - s[2], even_b = s[3] + s[4], odd_b = s[3] - s[4];
    out[0] = s[0] + even_a + even_b;
    out[1] = fma(broadcast(b), odd_b, broadcast(a) * odd_a);
    out[2] = fma(broadcast(b2), even_b, broadcast(a2) * even_a);
    out[3] = fma(broadcast(b2 * b), odd_b, fma(broadcast(a2 * a), odd_a, s[5]));
  }
  // The transposes of output() and weight().
  OPSIN_INLINE static void output_grad(const Float (&d)[m], Float (&out)[n]) {
    const Float even_a = fma(broadcast(a2), d[2], d[0]), even_b = fma(broadcast(b2), d[2], d[0]);
    const Float odd_a = fma(broadcast(a2 * a), d[3], broadcast(a) * d[1]),
                odd_b = fma(broadcast(b2 * b), d[3], broadcast(b) * d[1]);
    out[0] = d[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = d[3];
  }
  OPSIN_INLINE static void weight_grad(const Float (&s)[n], Float (&out)[3]) {
    const Float even_a = broadcast(at_a) * (s[1] + s[2]), odd_a = broadcast(at_a) * (s[1] - s[2]),
                even_b = broadcast(at_b) * (s[3] + s[4]), odd_b = broadcast(at_b) * (s[3] - s[4]);
    out[0] = fma(broadcast(1 / (a2 * b2)), s[0], even_a + even_b);
    out[1] = fma(broadcast(a), odd_a, broadcast(b) * odd_b);
    out[2] = fma(broadcast(a2), even_a, fma(broadcast(b2), even_b, s[5]));
  }
};

// Points 0, 1/2, -1/2, 1, -1, 2, -2, infinity.
struct Winograd6 {
  static constexpr int m = 6, n = 8;
  OPSIN_INLINE static void input(const Float (&d)[n], Float (&out)[n]) {
    const Float sum = broadcast(5.25f);
    out[0] = fma(sum, d[2] - d[4], d[6] - d[0]);
    out[7] = fma(sum, d[3] - d[5], d[7] - d[1]);
    // x (x + p) (x^2 - q^2) (x^2 - r^2) for the pairs of points p.
    const auto pair = [&](float p, float s, float t, Float& plus, Float& minus) {
      const Float even = fma(broadcast(t), d[2], fma(broadcast(-s), d[4], d[6]));
      const Float odd = fma(broadcast(t), d[1], fma(broadcast(-s), d[3], d[5]));
      plus = fma(broadcast(p), odd, even);
      minus = fma(broadcast(-p), odd, even);
    };
    pair(0.5f, 5, 4, out[1], out[2]);
    pair(1, 4.25f, 1, out[3], out[4]);
    pair(2, 1.25f, 0.25f, out[5], out[6]);
  }
  OPSIN_INLINE static void weight(const Float (&g)[3], Float (&out)[n]) {
    const auto pair = [&](float p, Float& plus, Float& minus) {
      const float p2 = p * p, a2 = p == 0.5f ? 1 : 0.25f, b2 = p == 2 ? 1 : 4;
      const Float scale = broadcast(1 / (2 * p2 * (p2 - a2) * (p2 - b2))),
                  even = fma(broadcast(p2), g[2], g[0]);
      plus = scale * fma(broadcast(p), g[1], even);
      minus = scale * fma(broadcast(-p), g[1], even);
    };
    out[0] = -g[0];
    pair(0.5f, out[1], out[2]);
    pair(1, out[3], out[4]);
    pair(2, out[5], out[6]);
    out[7] = g[2];
  }
  OPSIN_INLINE static void output(const Float (&s)[n], Float (&out)[m]) {
    const Float even_a = s[1] + s[2], odd_a = s[1] - s[2], even_b = s[3] + s[4], odd_b = s[3] - s[4],
                even_c = s[5] + s[6], odd_c = s[5] - s[6];
    const auto sum = [&](float a, Float at_a, Float at_b, float c, Float at_c) {
      return fma(broadcast(c), at_c, fma(broadcast(a), at_a, at_b));
    };
    out[0] = s[0] + even_a + even_b + even_c;
    out[1] = sum(0.5f, odd_a, odd_b, 2, odd_c);
    out[2] = sum(0.25f, even_a, even_b, 4, even_c);
    out[3] = sum(0.125f, odd_a, odd_b, 8, odd_c);
    out[4] = sum(0.0625f, even_a, even_b, 16, even_c);
    out[5] = sum(0.03125f, odd_a, odd_b + s[7], 32, odd_c);
  }
};

// Transforms the columns, then the rows, of a square [From][From] to [To][To].
template <int From, int To, class Read, class Axis, class Write>
OPSIN_INLINE void transform(Read&& read, Axis&& axis, Write&& write) {
  Float middle[To][From];
#pragma GCC unroll 8
  for (int j = 0; j < From; ++j) {
    Float column[From], out[To];
#pragma GCC unroll 8
    for (int i = 0; i < From; ++i) column[i] = read(i, j);
    axis(column, out);
#pragma GCC unroll 8
    for (int i = 0; i < To; ++i) middle[i][j] = out[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < To; ++i) {
    Float out[To];
    axis(middle[i], out);
#pragma GCC unroll 8
    for (int j = 0; j < To; ++j) write(i, j, out[j]);
  }
}

// Calls some(first, count) for vectors of channels. The last one overlaps the one before: the same values are
// computed twice, which costs less than to pick lanes.
template <class F>
OPSIN_INLINE void for_vectors(int64_t channels, F&& some) {
  constexpr int lanes = lanes_of<float>;
  if (channels < lanes) return some(0, channels);
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) some(c, lanes);
  if (c < channels) some(channels - lanes, lanes);
}

template <class W, class S>
void winograd_input(const WinogradPixels<S>& a) {
  constexpr int n = W::n;
  const auto some = [&](int64_t c, int64_t count) {
    transform<n, n>(
        [&](int i, int j) { return load_some<float>(a.source[i * n + j] + a.source_offset + c, count); },
        [](const Float(&d)[n], Float(&out)[n]) { W::input(d, out); },
        [&](int i, int j, Float v) { store(a.out + (i * n + j) * a.stride + c, v); });
  };
  for_vectors(a.channels, some);
}

template <class W, class S>
void winograd_output_grad(const WinogradPixels<S>& a) {
  constexpr int m = W::m, n = W::n, lanes = lanes_of<float>;
  for (int64_t c = 0; c < a.channels; c += lanes) {
    const int64_t count = a.channels - c;
    transform<m, n>(
        [&](int i, int j) { return load_some<float>(a.source[i * m + j] + a.source_offset + c, count); },
        [](const Float(&d)[m], Float(&out)[n]) { W::output_grad(d, out); },
        [&](int i, int j, Float v) { store(a.out + (i * n + j) * a.stride + c, v); });
  }
}

template <class W>
void winograd_weight(const WinogradWeight& a) {
  constexpr int n = W::n, lanes = lanes_of<float>;
  for (int64_t i = 0; i < a.rows; i += lanes) {
    transform<3, n>([&](int r, int s) { return load(a.in + (r * 3 + s) * a.rows + i); },
                    [](const Float(&g)[3], Float(&out)[n]) { W::weight(g, out); },
                    [&](int r, int s, Float v) { store(a.out + (r * n + s) * a.stride + i, v); });
  }
}

template <class W>
void winograd_weight_grad(const WinogradWeight& a) {
  constexpr int n = W::n, lanes = lanes_of<float>;
  for (int64_t i = 0; i < a.rows; i += lanes) {
    transform<n, 3>([&](int r, int s) { return load(a.in + (r * n + s) * a.stride + i); },
                    [](const Float(&s)[n], Float(&out)[3]) { W::weight_grad(s, out); },
                    [&](int r, int s, Float v) { store(a.out + (r * 3 + s) * a.rows + i, v); });
  }
}

template <class W, class S>
void winograd_output(const WinogradOutput<S>& a) {
  constexpr int m = W::m, n = W::n;
  for_vectors(a.channels, [&](int64_t c, int64_t count) {
    const Float bias = a.bias == nullptr ? Float{} : load_some<float>(a.bias + c, count);
    transform<n, m>([&](int i, int j) { return load(a.in + (i * n + j) * a.stride + c); },
                    [](const Float(&s)[n], Float(&out)[m]) { W::output(s, out); },
                    [&](int i, int j, Float v) {
                      store_some(a.target[i * m + j] + a.target_offset + c, v + bias, count);
                    });
  });
}

template <class W, class S>
constexpr WinogradKernels<S> winograd = {W::m, winograd_input<W, S>, conv_pack<float, S>, winograd_weight<W>,
                                         winograd_output<W, S>};
template <class S>
constexpr WinogradGradKernels<S> winograd_grad = {winograd_output_grad<Winograd4, S>,
                                                  winograd_weight_grad<Winograd4>, conv_unpack<S>};
template <class S>
constexpr WinogradTable<S> winograd_half = {winograd<Winograd2, S>, winograd<Winograd4, S>,
                                            winograd<Winograd6, S>, winograd_grad<S>};

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
