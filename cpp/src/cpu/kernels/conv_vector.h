// What the convolution kernels add to the vectors of gemm_vector.h: the tile height, partial stores, packing
// and row operations.
#pragma once

#include "conv_table.h"
#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// The tile with two vectors of output channels fills the registers: 28 + 3 of 32, 12 + 3 of 16; without FMA
// the product needs a register too.
#if defined(__AVX512F__)
constexpr int tile_rows = 14;
#elif defined(__AVX2__)
constexpr int tile_rows = 6;
#else
constexpr int tile_rows = 4;
#endif

// Writes the first `count` lanes, nothing if it is not positive.
template <class T>
OPSIN_INLINE void store_some(T* p, Vector<T> v, int64_t count) {
  if (count >= lanes_of<T>) {
    store(p, v);
    return;
  }
#if defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << (count > 0 ? count : 0)) - 1u);
  if constexpr (__is_same(T, float)) {
    _mm512_mask_storeu_ps(p, mask, v);
  } else {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask), v);
  }
#else
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

template <class T>
void conv_pack(const ConvPack<T>& a) {
  constexpr int lanes = lanes_of<T>;
  if (a.lane_stride == 1) {
    for (int64_t c = 0; c < a.channels; ++c) {
      for (int64_t t = 0; t < a.taps; ++t) {
        T* out = a.out + (a.slot[t] * a.channels + c) * a.width;
        for (int64_t j = 0; j < a.width; j += lanes) {
          store(out + j, load_some<T>(a.in + c * a.channel_stride + t + j, a.lanes > j ? a.lanes - j : 0));
        }
      }
    }
    return;
  }
  // Columns that are adjacent in memory: all of (c, t), or t alone.
  const bool joined = a.channel_stride == a.taps;
  const int64_t outer = joined ? 1 : a.channels, columns = joined ? a.channels * a.taps : a.taps;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t lane = 0; lane < a.width; lane += lanes) {
      const T* in = a.in + o * a.channel_stride + lane * a.lane_stride;
      const int64_t rows = a.lanes - lane;
      int64_t c = o, t = 0;
      for (int64_t j = 0; j < columns; j += lanes) {
        Vector<T> square[lanes];
        for (int i = 0; i < lanes; ++i) {
          square[i] = i < rows ? load_some<T>(in + i * a.lane_stride + j, columns - j) : Vector<T>{};
        }
        transpose<T>(square);
        for (int i = 0; i < lanes && j + i < columns; ++i) {
          store(a.out + (a.slot[t] * a.channels + c) * a.width + lane, square[i]);
          if (++t == a.taps) {
            t = 0;
            ++c;
          }
        }
      }
    }
  }
}

template <class T>
void conv_unpack(const ConvUnpack<T>& a) {
  constexpr int lanes = lanes_of<T>;
  const int64_t columns = a.channels * a.taps;
  for (int64_t lane = 0; lane < a.width; lane += lanes) {
    int64_t c = 0, t = 0;
    for (int64_t j = 0; j < columns; j += lanes) {
      Vector<T> square[lanes] = {};
      for (int i = 0; i < lanes && j + i < columns; ++i) {
        const T* in = a.in + (t * a.channels + c) * a.width + lane;
        Vector<T> sum = load(in);
        for (int64_t s = 1; s < a.splits; ++s) sum += load(in + s * a.split_stride);
        square[i] = sum;
        if (++t == a.taps) {
          t = 0;
          ++c;
        }
      }
      transpose<T>(square);
      for (int i = 0; i < lanes && lane + i < a.lanes; ++i) {
        T* out = a.out + (lane + i) * a.lane_stride + j;
        if (a.accumulate) square[i] += load_some<T>(out, columns - j);
        store_some(out, square[i], columns - j);
      }
    }
  }
}

template <class T>
void copy_rows(const ConvRows<T>& a) {
  constexpr int lanes = lanes_of<T>;
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t j = 0; j < a.width; j += lanes) {
      store(a.out + r * a.width + j,
            load_some<T>(a.in + r * a.stride + j, a.columns > j ? a.columns - j : 0));
    }
  }
}

template <class T>
void gather(const ConvGather<T>& a) {
  constexpr int lanes = lanes_of<T>;
  T* out = a.out;
  for (int64_t p = 0; p < a.pixels; ++p, out += a.channels) {
    const T* in = a.source[p] + a.source_offset;
    int64_t c = 0;
    for (; c + lanes <= a.channels; c += lanes) store(out + c, load(in + c));
    for (; c < a.channels; ++c) out[c] = in[c];
  }
}

template <class T>
void sum_rows(const ConvRows<T>& a) {
  constexpr int lanes = lanes_of<T>;
  for (int64_t j = 0; j < a.columns; j += lanes) {
    Vector<T> sum = {};
    for (int64_t r = 0; r < a.rows; ++r) sum += load_some<T>(a.in + r * a.stride + j, a.columns - j);
    if (a.accumulate) sum += load_some<T>(a.out + j, a.columns - j);
    store_some(a.out + j, sum, a.columns - j);
  }
}

// Pixels share a load of the weights; the row list of `tiles` is read in parts.
#if defined(__AVX512F__)
constexpr int depthwise_rows = 7;
#else
constexpr int depthwise_rows = tile_rows;
#endif

template <class T, int P, int NV>
OPSIN_INLINE void depthwise_tile(const ConvDepthwise<T>& a, const T* const* source, T* const* target,
                                 int64_t c, int64_t count) {
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[P][NV];
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
    const Vector<T> bias =
        a.bias != nullptr ? load_some<T>(a.bias + c + v * lanes, count - v * lanes) : Vector<T>{};
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) sum[p][v] = bias;
  }
  const T* weight = a.weight + c;
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows, weight += a.weight_stride) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const Vector<T> w = load_some<T>(weight + v * lanes, count - v * lanes);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        sum[p][v] = fma(load_some<T>(source[p] + c + v * lanes, count - v * lanes), w, sum[p][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store_some(target[p] + c + v * lanes, sum[p][v], count - v * lanes);
  }
}

template <class T, int P>
void depthwise_pixels(const ConvDepthwise<T>& a, const T* const* source, T* const* target) {
  constexpr int lanes = lanes_of<T>;
  const int64_t end = a.offset + a.channels;
  int64_t c = a.offset;
  for (; c + 2 * lanes <= end; c += 2 * lanes) depthwise_tile<T, P, 2>(a, source, target, c, 2 * lanes);
  for (; c + lanes <= end; c += lanes) depthwise_tile<T, P, 1>(a, source, target, c, lanes);
  if (c < end) depthwise_tile<T, P, 1>(a, source, target, c, end - c);
}

template <class T>
void conv_depthwise(const ConvDepthwise<T>& a) {
  const T* const* source = a.source;
  for (int64_t p = 0; p < a.pixels; p += tile_rows, source += a.taps * tile_rows) {
    const int64_t rows = a.pixels - p < tile_rows ? a.pixels - p : tile_rows;
    int64_t i = 0;
    for (; i + depthwise_rows <= rows; i += depthwise_rows) {
      depthwise_pixels<T, depthwise_rows>(a, source + i, a.target + p + i);
    }
    for (; i < rows; ++i) depthwise_pixels<T, 1>(a, source + i, a.target + p + i);
  }
}

template <class T, int N>
OPSIN_INLINE void depthwise_outer_taps(const ConvDepthwiseOuter<T>& a, int64_t t, int64_t c, int64_t count) {
  Vector<T> sum[N] = {};
  const T* const* source = a.source + t * a.pixels;
  for (int64_t p = 0; p < a.pixels; ++p) {
    const Vector<T> g = load_some<T>(a.grad + p * a.grad_stride + c, count);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) sum[i] = fma(load_some<T>(source[i * a.pixels + p] + c, count), g, sum[i]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    T* out = a.out + (t + i) * a.out_stride + c;
    if (a.accumulate) sum[i] += load_some<T>(out, count);
    store_some(out, sum[i], count);
  }
}

template <class T>
OPSIN_INLINE void depthwise_outer_channels(const ConvDepthwiseOuter<T>& a, int64_t c, int64_t count) {
  int64_t t = 0;
  for (; t + 9 <= a.taps; t += 9) depthwise_outer_taps<T, 9>(a, t, c, count);
  for (; t + 3 <= a.taps; t += 3) depthwise_outer_taps<T, 3>(a, t, c, count);
  for (; t < a.taps; ++t) depthwise_outer_taps<T, 1>(a, t, c, count);
}

template <class T>
void conv_depthwise_outer(const ConvDepthwiseOuter<T>& a) {
  constexpr int lanes = lanes_of<T>;
  const int64_t end = a.offset + a.channels;
  int64_t c = a.offset;
  for (; c + lanes <= end; c += lanes) depthwise_outer_channels(a, c, lanes);
  if (c < end) depthwise_outer_channels(a, c, end - c);
}

template <class S>
void conv_widen(const void* in, float* out, int64_t count) {
  constexpr int lanes = lanes_of<float>;
  const S* from = static_cast<const S*>(in);
  for (int64_t i = 0; i < count; i += lanes) {
    store_some(out + i, load_some<float>(from + i, count - i), count - i);
  }
}

template <class S>
void conv_narrow(const float* in, void* out, int64_t count) {
  S* to = static_cast<S*>(out);
  for (int64_t i = 0; i < count; ++i) narrow(in[i], to + i);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
