// Micro-kernels of convolution, compiled once per instruction set; see conv.cpp for the blocking around them.
//
// The register tile is `rows` pixels x two vectors of output channels; every step loads two vectors of
// weights and broadcasts one value per pixel. Pixels come as a list of addresses, so one tile spans image
// rows and images, and an edge is an address of zeros. A tile starts from zero and joins its target once:
// sums stay blocked, which is both cheaper and more accurate than one long chain.
#include "conv_grouped.h"
#include "conv_table.h"
#include "conv_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T, int P, int NV>
OPSIN_INLINE void tile(const ConvTiles<T>& a, const T* const* source, T* const* target) {
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[P][NV] = {};
  const T* weight = a.weight;
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows) {
    for (int64_t c = a.source_offset; c < a.source_offset + a.channels; ++c, weight += NV * lanes) {
      Vector<T> w[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) w[v] = load(weight + v * lanes);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const Vector<T> x = broadcast(source[p][c]);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[p][v] = fma(x, w[v], sum[p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    T* out = target[p] + a.target_offset;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const int64_t columns = a.columns - v * lanes;
      if (a.accumulate) {
        sum[p][v] += load_some<T>(out + v * lanes, columns);
      } else if (a.bias != nullptr) {
        sum[p][v] += load_some<T>(a.bias + v * lanes, columns);
      }
      store_some(out + v * lanes, sum[p][v], columns);
    }
  }
}

template <class T, int P, int NV>
void tile_of(const ConvTiles<T>& a, const T* const* source, T* const* target) {
  tile<T, P, NV>(a, source, target);
}

template <class T, int NV>
void tiles_of(const ConvTiles<T>& a) {
  const T* const* source = a.source;
  int64_t p = 0;
  for (; p + tile_rows <= a.pixels; p += tile_rows, source += a.taps * tile_rows) {
    tile_of<T, tile_rows, NV>(a, source, a.target + p);
  }
  int64_t rest = a.pixels - p;
  const auto step = [&](int64_t count) {
    source += count;
    p += count;
    rest -= count;
  };
  if constexpr (tile_rows > 8) {
    if (rest >= 8) {
      tile_of<T, 8, NV>(a, source, a.target + p);
      step(8);
    }
  }
  if constexpr (tile_rows > 4) {
    if (rest >= 4) {
      tile_of<T, 4, NV>(a, source, a.target + p);
      step(4);
    }
  }
  if (rest >= 2) {
    tile_of<T, 2, NV>(a, source, a.target + p);
    step(2);
  }
  if (rest >= 1) tile_of<T, 1, NV>(a, source, a.target + p);
}

template <class T>
void tiles(const ConvTiles<T>& a) {
  if (a.columns > lanes_of<T>) {
    tiles_of<T, 2>(a);
  } else {
    tiles_of<T, 1>(a);
  }
}

template <class T, int R, int NV>
void outer_of(const ConvOuter<T>& a, int64_t channel) {
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[R][NV] = {};
  const T* grad = a.grad;
  const T* x = a.source + channel;
  for (int64_t p = 0; p < a.pixels; ++p, grad += NV * lanes, x += a.source_stride) {
    Vector<T> g[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) g[v] = load(grad + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector<T> value = broadcast(x[r]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sum[r][v] = fma(value, g[v], sum[r][v]);
    }
  }
  T* out = a.out + channel * NV * lanes;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v, out += lanes) {
      if (a.accumulate) sum[r][v] += load(out);
      store(out, sum[r][v]);
    }
  }
}

template <class T, int NV, int... R>
void outer_rows(const ConvOuter<T>& a, std::integer_sequence<int, R...>) {
  using Function = void (*)(const ConvOuter<T>&, int64_t);
  static constexpr Function functions[] = {outer_of<T, R + 1, NV>...};
  constexpr int64_t most = sizeof...(R);
  // Even shares: 16 rows are 8 + 8, not 14 + 2, of which the second would wait for its own sums.
  const int64_t count = (a.channels + most - 1) / most;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = a.channels * i / count, end = a.channels * (i + 1) / count;
    functions[end - begin - 1](a, begin);
  }
}

template <class T>
void outer(const ConvOuter<T>& a) {
  if (a.width > lanes_of<T>) {
    outer_rows<T, 2>(a, std::make_integer_sequence<int, tile_rows>{});
  } else {
    outer_rows<T, 1>(a, std::make_integer_sequence<int, tile_rows>{});
  }
}

template <class T>
constexpr ConvKernels<T> kernels = {
    lanes_of<T>, tile_rows,    tiles<T>,    conv_pack<T>,      conv_unpack<T>,  gather<T>,
    outer<T>,    copy_rows<T>, sum_rows<T>, conv_depthwise<T>, conv_grouped<T>, conv_depthwise_outer<T>};

}  // namespace

const ConvTable& conv_table() {
  static constexpr ConvKernels<float> f32 = kernels<float>;
  static constexpr ConvKernels<double> f64 = kernels<double>;
  static constexpr ConvTable table = {
      &f32, &f64, {conv_widen<Float16>, conv_narrow<Float16>}, {conv_widen<BFloat16>, conv_narrow<BFloat16>}};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
