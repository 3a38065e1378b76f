// The transforms of Winograd convolution F(m x m, 3 x 3), m = 2 or 4: vectors run over the channels. Source
// of the constants and error bound: cpu/conv_winograd.cpp.
#pragma once

#include "conv_vector.h"

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
    constexpr float at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));
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
};

// Transforms the columns, then the rows, of a square [From][From] to [To][To].
template <int From, int To, class Read, class Axis, class Write>
OPSIN_INLINE void transform(Read&& read, Axis&& axis, Write&& write) {
  Float middle[To][From];
#pragma GCC unroll 6
  for (int j = 0; j < From; ++j) {
    Float column[From], out[To];
#pragma GCC unroll 6
    for (int i = 0; i < From; ++i) column[i] = read(i, j);
    axis(column, out);
#pragma GCC unroll 6
    for (int i = 0; i < To; ++i) middle[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < To; ++i) {
    Float out[To];
    axis(middle[i], out);
#pragma GCC unroll 6
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

template <class W>
void winograd_input(const WinogradInput& a) {
  constexpr int n = W::n;
  const auto some = [&](int64_t c, int64_t count) {
    transform<n, n>([&](int i, int j) { return load_some<float>(a.source[i * n + j] + c, count); },
                    [](const Float(&d)[n], Float(&out)[n]) { W::input(d, out); },
                    [&](int i, int j, Float v) { store(a.out + (i * n + j) * a.stride + c, v); });
  };
  for_vectors(a.channels, some);
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
void winograd_output(const WinogradOutput& a) {
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

template <class W>
constexpr WinogradKernels winograd = {W::m, winograd_input<W>, winograd_weight<W>, winograd_output<W>};

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
