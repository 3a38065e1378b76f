// Sampling loops, compiled once per instruction set. For a tile of points the pixels that they read and the
// weights are written out first; channels, or points where channels lie far apart, are then the lanes of
// vectors.
#include "grid_sample_table.h"

#include "cpu/kernels/gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

// For lambdas, whose loops need constants.
#define OPSIN_INLINED __attribute__((always_inline))

constexpr int kTile = 64;
constexpr int kMostTaps = 16;

/// The taps of a tile along each axis.
template <class T>
struct AxisTile {
  int32_t index[3][4][kTile];
  T weight[3][4][kTile];
  T slope[3][4][kTile];  ///< The weights differentiated once more.
};

/// The taps of a tile: pixels, -1 for none, and weights.
template <class T>
struct Tile {
  int count, taps;
  int32_t pixel[kMostTaps][kTile];
  T weight[kMostTaps][kTile];
};

template <bool kSlopes, class S, class T>
OPSIN_INLINE void fill_axes(const GridCall& a, int64_t begin, int count, AxisTile<T>& tile) {
  const S* grid = static_cast<const S*>(a.grid) + begin * a.rank;
  for (int axis = 3 - a.rank; axis < 3; ++axis) {
    alignas(64) T at[kTile];
    for (int i = 0; i < count; ++i) at[i] = widen(grid[i * a.rank + 2 - axis]);
    const int size = a.size[axis], order = a.order[axis];
    const bool align = a.align_corners;
    grid::dispatch(a.mode, a.padding, [&]<grid::Mode kMode, grid::Padding kPadding>() OPSIN_INLINED {
      constexpr int taps = grid::taps_per_axis(kMode);
#pragma GCC ivdep
      for (int i = 0; i < count; ++i) {
        int32_t index[4];
        T weight[4];
        grid::find_taps(kMode, kPadding, at[i], size, align, order, index, weight);
        for (int k = 0; k < taps; ++k) {
          tile.index[axis][k][i] = index[k];
          tile.weight[axis][k][i] = weight[k];
        }
      }
      if constexpr (kSlopes) {
#pragma GCC ivdep
        for (int i = 0; i < count; ++i) {
          int32_t index[4];
          T weight[4];
          grid::find_taps(kMode, kPadding, at[i], size, align, order + 1, index, weight);
          for (int k = 0; k < taps; ++k) tile.slope[axis][k][i] = weight[k];
        }
      }
    });
  }
}

/// Calls body(tap, k0, k1, k2) for the taps of all axes.
template <class F>
OPSIN_INLINE int for_taps(const GridCall& a, F&& body) {
  const int taps = grid::taps_per_axis(a.mode);
  int t = 0;
  for (int k0 = 0; k0 < (a.rank == 3 ? taps : 1); ++k0) {
    for (int k1 = 0; k1 < taps; ++k1) {
      for (int k2 = 0; k2 < taps; ++k2) body(t++, k0, k1, k2);
    }
  }
  return t;
}

template <class T>
OPSIN_INLINE void join_axes(const GridCall& a, const AxisTile<T>& axes, int count, Tile<T>& tile) {
  tile.count = count;
  tile.taps = for_taps(a, [&](int t, int k0, int k1, int k2) OPSIN_INLINED {
    const int32_t *i0 = axes.index[0][k0], *i1 = axes.index[1][k1], *i2 = axes.index[2][k2];
    const T *w0 = axes.weight[0][k0], *w1 = axes.weight[1][k1], *w2 = axes.weight[2][k2];
    int32_t* pixel = tile.pixel[t];
    T* weight = tile.weight[t];
    if (a.rank == 2) {
      for (int i = 0; i < count; ++i) {
        pixel[i] = (i1[i] | i2[i]) < 0 ? -1 : i1[i] * a.size[2] + i2[i];
        weight[i] = w1[i] * w2[i];
      }
    } else {
      for (int i = 0; i < count; ++i) {
        pixel[i] = (i0[i] | i1[i] | i2[i]) < 0 ? -1 : (i0[i] * a.size[1] + i1[i]) * a.size[2] + i2[i];
        weight[i] = w0[i] * w1[i] * w2[i];
      }
    }
  });
}

/// Calls body(first point, tile, axes) for all points.
template <bool kSlopes, class S, class F>
OPSIN_INLINE void for_tiles(const GridCall& a, F&& body) {
  using T = Compute<S>;
  AxisTile<T> axes;
  Tile<T> tile;
  for (int64_t p = a.begin; p < a.end; p += kTile) {
    const int count = static_cast<int>(a.end - p < kTile ? a.end - p : kTile);
    fill_axes<kSlopes, S>(a, p, count, axes);
    join_axes(a, axes, count, tile);
    body(p, tile, axes);
  }
}

/// y[c] = the sum of w[k] * from[k][c].
template <int kTaps, class S, class T>
OPSIN_INLINE void mix(S* y, const S* const* from, const T* w, int taps, int64_t n) {
  constexpr int lanes = lanes_of<T>;
  for (int64_t c = 0; c < n; c += lanes) {
    Vector<T> sum = {};
#pragma GCC unroll 4
    for (int k = 0; k < (kTaps > 0 ? kTaps : taps); ++k) {
      sum = fma(broadcast(w[k]), load_some<T>(from[k] + c, n - c), sum);
    }
    store_some(y + c, sum, n - c);
  }
}

/// to[i] += factor[i] * the value of a channel at pixel[i], where there is one.
template <class S, class T>
OPSIN_INLINE void add_tap(T* to, const S* plane, const int32_t* pixel, int64_t step, const T* factor,
                          int count) {
  if (step == 1) {
    int i = 0;
    if constexpr (__is_same(S, float)) {
      // Compilers take gathers for dear.
#if defined(__AVX512F__)
      for (; i + 16 <= count; i += 16) {
        const __m512i at = _mm512_loadu_si512(pixel + i);
        const __mmask16 there = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
        const __m512 value = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, at, plane, 4);
        store(to + i, fma(load(factor + i), Float(value), load(to + i)));
      }
#elif defined(__AVX2__)
      for (; i + 8 <= count; i += 8) {
        const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixel + i));
        const __m256i there = _mm256_cmpgt_epi32(at, _mm256_set1_epi32(-1));
        const __m256 value =
            _mm256_mask_i32gather_ps(_mm256_setzero_ps(), plane, at, _mm256_castsi256_ps(there), 4);
        store(to + i, fma(load(factor + i), Float(value), load(to + i)));
      }
#endif
    }
#pragma GCC ivdep
    for (; i < count; ++i) {
      const T value = widen(plane[pixel[i] < 0 ? 0 : pixel[i]]);
      to[i] += pixel[i] < 0 ? T(0) : factor[i] * value;
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    if (pixel[i] >= 0) to[i] += factor[i] * widen(plane[pixel[i] * step]);
  }
}

template <class S>
void forward(const GridCall& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const S* image = static_cast<const S*>(a.image);
  S* out = static_cast<S*>(a.out);
  const int64_t channels = a.c1 - a.c0;
  const auto body = [&](int64_t first, const Tile<T>& tile, const AxisTile<T>&) OPSIN_INLINED {
    if (a.channel_step == 1 && channels >= 8) {
      for (int i = 0; i < tile.count; ++i) {
        const S* from[kMostTaps];
        T weight[kMostTaps];
        int held = 0;
        for (int t = 0; t < tile.taps; ++t) {
          if (tile.pixel[t][i] < 0) continue;
          from[held] = image + tile.pixel[t][i] * a.pixel_step + a.c0;
          weight[held++] = tile.weight[t][i];
        }
        S* y = out + (first + i) * a.point_step + a.c0;
        if (held == 4) {
          mix<4>(y, from, weight, held, channels);
        } else {
          mix<0>(y, from, weight, held, channels);
        }
      }
      return;
    }
    for (int64_t c = a.c0; c < a.c1; ++c) {
      const S* plane = image + c * a.channel_step;
      alignas(64) T sum[kTile];
      for (int i = 0; i < tile.count; ++i) sum[i] = 0;
      for (int t = 0; t < tile.taps; ++t) {
        add_tap(sum, plane, tile.pixel[t], a.pixel_step, tile.weight[t], tile.count);
      }
      S* y = out + first * a.point_step + c * a.value_step;
      if (a.point_step == 1) {
        for (int i = 0; i < tile.count; i += lanes) {
          store_some(y + i, load_some<T>(sum + i, tile.count - i), tile.count - i);
        }
      } else {
        for (int i = 0; i < tile.count; ++i) narrow(sum[i], y + i * a.point_step);
      }
    }
  };
  for_tiles<false, S>(a, body);
}

template <class S>
void scatter(const GridCall& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const S* values = static_cast<const S*>(a.values);
  T* out = static_cast<T*>(a.out);
  const int64_t channels = a.c1 - a.c0;
  const auto body = [&](int64_t first, const Tile<T>& tile, const AxisTile<T>&) OPSIN_INLINED {
    if (a.channel_step == 1 && channels >= 8) {
      for (int i = 0; i < tile.count; ++i) {
        const S* from = values + (first + i) * a.point_step + a.c0;
        for (int t = 0; t < tile.taps; ++t) {
          if (tile.pixel[t][i] < 0) continue;
          T* to = out + tile.pixel[t][i] * a.pixel_step + a.c0;
          const Vector<T> weight = broadcast(tile.weight[t][i]);
          for (int64_t c = 0; c < channels; c += lanes) {
            const Vector<T> sum =
                fma(weight, load_some<T>(from + c, channels - c), load_some<T>(to + c, channels - c));
            store_some(to + c, sum, channels - c);
          }
        }
      }
      return;
    }
    for (int64_t c = a.c0; c < a.c1; ++c) {
      T* plane = out + c * a.channel_step;
      const S* from = values + first * a.point_step + c * a.value_step;
      for (int i = 0; i < tile.count; ++i) {
        const T value = widen(from[i * a.point_step]);
        for (int t = 0; t < tile.taps; ++t) {
          const int32_t pixel = tile.pixel[t][i];
          if (pixel >= 0) plane[pixel * a.pixel_step] += tile.weight[t][i] * value;
        }
      }
    }
  };
  for_tiles<false, S>(a, body);
}

template <class S>
void slopes(const GridCall& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const S* image = static_cast<const S*>(a.image);
  const S* values = static_cast<const S*>(a.values);
  S* out = static_cast<S*>(a.out);
  const int64_t channels = a.c1 - a.c0;
  const auto body = [&](int64_t first, const Tile<T>& tile, const AxisTile<T>& axes) OPSIN_INLINED {
    T product[kMostTaps][kTile];
    for (int t = 0; t < tile.taps; ++t) {
      for (int i = 0; i < tile.count; ++i) product[t][i] = 0;
    }
    if (a.channel_step == 1 && channels >= 8) {
      for (int i = 0; i < tile.count; ++i) {
        const S* g = values + (first + i) * a.point_step + a.c0;
        for (int t = 0; t < tile.taps; ++t) {
          if (tile.pixel[t][i] < 0) continue;
          const S* x = image + tile.pixel[t][i] * a.pixel_step + a.c0;
          Vector<T> sum = {};
          for (int64_t c = 0; c < channels; c += lanes) {
            sum = fma(load_some<T>(g + c, channels - c), load_some<T>(x + c, channels - c), sum);
          }
          T total = 0;
          for (int l = 0; l < lanes; ++l) total += sum[l];
          product[t][i] = total;
        }
      }
    } else {
      for (int64_t c = a.c0; c < a.c1; ++c) {
        const S* plane = image + c * a.channel_step;
        const S* g = values + first * a.point_step + c * a.value_step;
        alignas(64) T value[kTile];
        for (int i = 0; i < tile.count; ++i) value[i] = widen(g[i * a.point_step]);
        for (int t = 0; t < tile.taps; ++t) {
          add_tap(product[t], plane, tile.pixel[t], a.pixel_step, value, tile.count);
        }
      }
    }
    for (int axis = 3 - a.rank; axis < 3; ++axis) {
      T sum[kTile] = {};
      for_taps(a, [&](int t, int k0, int k1, int k2) OPSIN_INLINED {
        const T* w[3] = {axes.weight[0][k0], axes.weight[1][k1], axes.weight[2][k2]};
        w[axis] = axes.slope[axis][axis == 0 ? k0 : axis == 1 ? k1 : k2];
        for (int i = 0; i < tile.count; ++i) {
          const T weight = w[1][i] * w[2][i];
          sum[i] += product[t][i] * (a.rank == 3 ? weight * w[0][i] : weight);
        }
      });
      for (int i = 0; i < tile.count; ++i) narrow(sum[i], out + (first + i) * a.rank + 2 - axis);
    }
  };
  for_tiles<true, S>(a, body);
}

template <class S>
constexpr GridTable::Kernels kernels{forward<S>, scatter<S>, slopes<S>};

constexpr GridTable kTable{kernels<float>, kernels<double>, kernels<Float16>, kernels<BFloat16>};

}  // namespace

const GridTable& grid_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
