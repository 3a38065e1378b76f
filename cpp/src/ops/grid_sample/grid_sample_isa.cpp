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

/// The taps of a tile: pixels, -1 for none, and weights. For vectors of points `safe` is a pixel everywhere
/// and `there` has the bits of those that count.
template <class T>
struct Tile {
  using Lane = typename VectorOf<T>::Lane;
  struct Tap {
    int32_t pixel[kTile], safe[kTile];
    Lane there[kTile];
    T weight[kTile];
  };
  int count, taps;
  alignas(64) Tap tap[kMostTaps];
};

/// The taps of all points of a tile, whose loops so have constant lengths, along one axis.
template <class T>
[[gnu::noinline]] void fill_axis(const GridCall& a, const T* at, int size, int order,
                                 int32_t (*index_of)[kTile], T (*weight_of)[kTile]) {
  const bool align = a.align_corners;
  grid::dispatch(a.mode, a.padding, [=]<grid::Mode kMode, grid::Padding kPadding>() OPSIN_INLINED {
    const auto fill = [=](int times) OPSIN_INLINED {
#pragma GCC ivdep
      for (int i = 0; i < kTile; ++i) {
        int32_t index[4];
        T weight[4];
        grid::find_taps(kMode, kPadding, at[i], size, align, times, index, weight);
        for (int k = 0; k < grid::taps_per_axis(kMode); ++k) {
          index_of[k][i] = index[k];
          weight_of[k][i] = weight[k];
        }
      }
    };
    // Vectors of points need the order as a constant.
    if (order == 0) {
      fill(0);
    } else if (order == 1) {
      fill(1);
    } else {
      fill(order);
    }
  });
}

template <bool kSlopes, class S, class T>
OPSIN_INLINE void fill_axes(const GridCall& a, int64_t begin, int count, AxisTile<T>& tile) {
  const S* grid = static_cast<const S*>(a.grid) + begin * a.rank;
  for (int axis = 3 - a.rank; axis < 3; ++axis) {
    alignas(64) T at[kTile];
    if (a.rank == 2) {
      for (int i = 0; i < count; ++i) at[i] = widen(grid[i * 2 + 2 - axis]);
    } else {
      for (int i = 0; i < count; ++i) at[i] = widen(grid[i * 3 + 2 - axis]);
    }
    for (int i = count; i < kTile; ++i) at[i] = 0;
    const int size = a.size[axis], order = a.order[axis];
    fill_axis(a, at, size, order, tile.index[axis], tile.weight[axis]);
    if (kSlopes) fill_axis(a, at, size, order + 1, tile.index[axis], tile.slope[axis]);
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
[[gnu::noinline]] void join_axes(const GridCall& a, const AxisTile<T>& axes, Tile<T>& tile) {
  const int height = a.size[1], width = a.size[2];
  tile.taps = for_taps(a, [&](int t, int k0, int k1, int k2) OPSIN_INLINED {
    const int32_t *i0 = axes.index[0][k0], *i1 = axes.index[1][k1], *i2 = axes.index[2][k2];
    const T *w0 = axes.weight[0][k0], *w1 = axes.weight[1][k1], *w2 = axes.weight[2][k2];
    auto& tap = tile.tap[t];
    const auto put = [&tap](int i, bool none, int32_t at, T factor) OPSIN_INLINED {
      tap.pixel[i] = none ? -1 : at;
      tap.safe[i] = none ? 0 : at;
      tap.there[i] = none ? 0 : -1;
      tap.weight[i] = factor;
    };
    // Products of what is not there are computed too: unsigned, which may overflow.
    const auto u = [](int32_t x) OPSIN_INLINED { return static_cast<uint32_t>(x); };
    if (a.rank == 2) {
#pragma GCC ivdep
      for (int i = 0; i < kTile; ++i) {
        put(i, (i1[i] | i2[i]) < 0, static_cast<int32_t>(u(i1[i]) * u(width) + u(i2[i])), w1[i] * w2[i]);
      }
    } else {
#pragma GCC ivdep
      for (int i = 0; i < kTile; ++i) {
        const uint32_t row = u(i0[i]) * u(height) + u(i1[i]);
        put(i, (i0[i] | i1[i] | i2[i]) < 0, static_cast<int32_t>(row * u(width) + u(i2[i])),
            w0[i] * w1[i] * w2[i]);
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
    join_axes(a, axes, tile);
    tile.count = count;
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

using Bits = uint16_t __attribute__((vector_size(vector_bytes / 2)));

/// A vector of plane[at[i] * step]. Gathering instructions are slower than loads of the elements.
template <class S>
OPSIN_INLINE Vector<Compute<S>> pick(const S* plane, const int32_t* at, int64_t step) {
  using T = Compute<S>;
  return [=]<int... i>(std::integer_sequence<int, i...>) OPSIN_INLINED {
    if constexpr (sizeof(S) == 2) {
      const Bits bits{plane[at[i] * step].bits...};
      S values[lanes_of<T>];
      __builtin_memcpy(values, &bits, sizeof bits);
      return load_wide(values);
    } else {
      return Vector<T>{plane[at[i] * step]...};
    }
  }(std::make_integer_sequence<int, lanes_of<T>>{});
}

/// Asks for the pixels of a tile in all channels at once, where loads would wait for one after the other.
/// Every eighth point and two taps tell about all.
template <class S, class T>
OPSIN_INLINE void prefetch(const GridCall& a, const S* image, const Tile<T>& tile) {
  for (int64_t c = a.c0; c < a.c1; ++c) {
    const S* plane = image + c * a.channel_step;
    for (int i = 0; i < tile.count; i += 8) {
      __builtin_prefetch(plane + tile.tap[0].safe[i] * a.pixel_step);
      __builtin_prefetch(plane + tile.tap[tile.taps - 1].safe[i] * a.pixel_step);
    }
  }
}

/// The values of one channel that a tap of points [i, i + lanes) reads, 0 where there is none.
template <bool kDense, class S, class Tap>
OPSIN_INLINE Vector<Compute<S>> read_tap(const S* plane, int64_t step, const Tap& tap, int i) {
  using Index = typename VectorOf<Compute<S>>::Index;
  Index there;
  __builtin_memcpy(&there, tap.there + i, sizeof there);
  const auto value = __builtin_bit_cast(Index, pick(plane, tap.safe + i, kDense ? 1 : step));
  return __builtin_bit_cast(Vector<Compute<S>>, value & there);
}

/// The values of one channel at the points of a tile, zeros after them.
template <class S, class T>
OPSIN_INLINE void load_values(const S* from, int64_t stride, int count, T (&value)[kTile]) {
  constexpr int lanes = lanes_of<T>;
  if (stride == 1) {
    for (int i = 0; i < count; i += lanes) store(value + i, load_some<T>(from + i, count - i));
  } else {
    for (int i = 0; i < kTile; ++i) value[i] = i < count ? widen(from[i * stride]) : T(0);
  }
}

/// The samples of one channel.
template <int kTaps, bool kDense, class S, class T>
OPSIN_INLINE void sample(const GridCall& a, const S* plane, const Tile<T>& tile, S* y) {
  constexpr int lanes = lanes_of<T>;
  const int count = tile.count, taps = kTaps > 0 ? kTaps : tile.taps;
  const int64_t step = a.pixel_step, stride = a.point_step;
  for (int i = 0; i < count; i += lanes) {
    Vector<T> sum = {};
    if constexpr (kTaps == 1) {
      sum = read_tap<kDense>(plane, step, tile.tap[0], i);
    } else {
#pragma GCC unroll 4
      for (int t = 0; t < taps; ++t) {
        sum = fma(load(tile.tap[t].weight + i), read_tap<kDense>(plane, step, tile.tap[t], i), sum);
      }
    }
    if (kDense) {
      store_some(y + i, sum, count - i);
    } else {
      for (int l = 0; l < lanes && i + l < count; ++l) narrow(sum[l], y + (i + l) * stride);
    }
  }
}

template <class S>
void forward(const GridCall& a) {
  using T = Compute<S>;
  const S* image = static_cast<const S*>(a.image);
  S* out = static_cast<S*>(a.out);
  const int64_t channels = a.c1 - a.c0;
  const bool is_copy = a.mode == grid::Mode::kNearest && (a.order[0] | a.order[1] | a.order[2]) == 0;
  const auto body = [&](int64_t first, const Tile<T>& tile, const AxisTile<T>&) OPSIN_INLINED {
    if (a.channel_step == 1 && channels >= 8) {
      for (int i = 0; i < tile.count; ++i) {
        const S* from[kMostTaps];
        T weight[kMostTaps];
        int held = 0;
        for (int t = 0; t < tile.taps; ++t) {
          if (tile.tap[t].pixel[i] < 0) continue;
          from[held] = image + tile.tap[t].pixel[i] * a.pixel_step + a.c0;
          weight[held++] = tile.tap[t].weight[i];
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
    prefetch(a, image, tile);
    for (int64_t c = a.c0; c < a.c1; ++c) {
      const S* plane = image + c * a.channel_step;
      S* y = out + first * a.point_step + c * a.value_step;
      const auto run = [&]<bool kDense>() OPSIN_INLINED {
        if (is_copy) {
          sample<1, kDense>(a, plane, tile, y);
        } else if (tile.taps == 4) {
          sample<4, kDense>(a, plane, tile, y);
        } else {
          sample<0, kDense>(a, plane, tile, y);
        }
      };
      if (a.point_step == 1) {
        run.template operator()<true>();
      } else {
        run.template operator()<false>();
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
          if (tile.tap[t].pixel[i] < 0) continue;
          T* to = out + tile.tap[t].pixel[i] * a.pixel_step + a.c0;
          const Vector<T> weight = broadcast(tile.tap[t].weight[i]);
          for (int64_t c = 0; c < channels; c += lanes) {
            const Vector<T> sum =
                fma(weight, load_some<T>(from + c, channels - c), load_some<T>(to + c, channels - c));
            store_some(to + c, sum, channels - c);
          }
        }
      }
      return;
    }
    prefetch(a, out, tile);
    for (int64_t c = a.c0; c < a.c1; ++c) {
      T* plane = out + c * a.channel_step;
      const S* from = values + first * a.point_step + c * a.value_step;
      alignas(64) T value[kTile];
      load_values(from, a.point_step, tile.count, value);
      // Neighbouring points share pixels, so taps are outside: a sum would wait for the one just stored.
      for (int t = 0; t < tile.taps; ++t) {
        for (int i = 0; i < tile.count; ++i) {
          const int32_t pixel = tile.tap[t].pixel[i];
          if (pixel >= 0) plane[pixel * a.pixel_step] += tile.tap[t].weight[i] * value[i];
        }
      }
    }
  };
  for_tiles<false, S>(a, body);
}

/// The slopes of the points of a tile of two axes with kTaps taps each, where points are the lanes: rows of
/// taps are joined along x first.
template <int kTaps, bool kDense, class S, class T>
OPSIN_INLINE void slopes_of_planes(const GridCall& a, const S* image, const S* values, const Tile<T>& tile,
                                   const AxisTile<T>& axes, S* out) {
  constexpr int lanes = lanes_of<T>;
  constexpr int64_t kMostChannels = 8;
  alignas(64) T value[kDense ? 1 : kMostChannels][kTile], slope[2 * kTile];
  if (!kDense) {
    for (int64_t c = a.c0; c < a.c1; ++c) {
      load_values(values + c * a.value_step, a.point_step, tile.count, value[c - a.c0]);
    }
  }
  for (int i = 0; i < tile.count; i += lanes) {
    Vector<T> along_x = {}, along_y = {};
    for (int64_t c = a.c0; c < a.c1; ++c) {
      const S* plane = image + c * a.channel_step;
      Vector<T> dx = {}, dy = {};
#pragma GCC unroll 4
      for (int y = 0; y < kTaps; ++y) {
        Vector<T> mean = {}, rise = {};
#pragma GCC unroll 4
        for (int x = 0; x < kTaps; ++x) {
          const Vector<T> read = read_tap<kDense>(plane, a.pixel_step, tile.tap[y * kTaps + x], i);
          mean = fma(load(axes.weight[2][x] + i), read, mean);
          rise = fma(load(axes.slope[2][x] + i), read, rise);
        }
        dx = fma(load(axes.weight[1][y] + i), rise, dx);
        dy = fma(load(axes.slope[1][y] + i), mean, dy);
      }
      const Vector<T> g =
          kDense ? load_some<T>(values + c * a.value_step + i, tile.count - i) : load(value[c - a.c0] + i);
      along_x = fma(g, dx, along_x);
      along_y = fma(g, dy, along_y);
    }
    for (int l = 0; l < lanes; ++l) {
      slope[2 * (i + l)] = along_x[l];
      slope[2 * (i + l) + 1] = along_y[l];
    }
  }
  const int all = 2 * tile.count;
  for (int i = 0; i < all; i += lanes) store_some(out + i, load(slope + i), all - i);
}

template <class S>
void slopes(const GridCall& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const S* image = static_cast<const S*>(a.image);
  const S* values = static_cast<const S*>(a.values);
  S* out = static_cast<S*>(a.out);
  const int64_t channels = a.c1 - a.c0;
  // The other way round few channels would leave vectors of them empty.
  const bool planes = a.channel_step != 1 || channels < 8;
  const auto body = [&](int64_t first, const Tile<T>& tile, const AxisTile<T>& axes) OPSIN_INLINED {
    if (planes && a.rank == 2) {
      prefetch(a, image, tile);
      const S* g = values + first * a.point_step;
      S* y = out + first * 2;
      const auto run = [&]<int kTaps>() OPSIN_INLINED {
        if (a.pixel_step == 1) {
          slopes_of_planes<kTaps, true>(a, image, g, tile, axes, y);
        } else {
          slopes_of_planes<kTaps, false>(a, image, g, tile, axes, y);
        }
      };
      if (a.mode == grid::Mode::kLinear) {
        run.template operator()<2>();
      } else {
        run.template operator()<4>();
      }
      return;
    }
    alignas(64) T product[kMostTaps][kTile];
    if (!planes) {
      for (int i = 0; i < tile.count; ++i) {
        const S* g = values + (first + i) * a.point_step + a.c0;
        for (int t = 0; t < tile.taps; ++t) {
          product[t][i] = 0;
          if (tile.tap[t].pixel[i] < 0) continue;
          const S* x = image + tile.tap[t].pixel[i] * a.pixel_step + a.c0;
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
      prefetch(a, image, tile);
      for (int64_t c = a.c0; c < a.c1; ++c) {
        const S* plane = image + c * a.channel_step;
        const S* g = values + first * a.point_step + c * a.value_step;
        alignas(64) T value[kTile];
        load_values(g, a.point_step, tile.count, value);
        const auto add = [&]<bool kDense>() OPSIN_INLINED {
          for (int t = 0; t < tile.taps; ++t) {
            T* sums = product[t];
            for (int i = 0; i < tile.count; i += lanes) {
              const Vector<T> sum = c == a.c0 ? Vector<T>{} : load(sums + i);
              store(sums + i,
                    fma(load(value + i), read_tap<kDense>(plane, a.pixel_step, tile.tap[t], i), sum));
            }
          }
        };
        if (a.pixel_step == 1) {
          add.template operator()<true>();
        } else {
          add.template operator()<false>();
        }
      }
    }
    for (int axis = 3 - a.rank; axis < 3; ++axis) {
      for (int i = 0; i < tile.count; i += lanes) {
        Vector<T> sum = {};
        for_taps(a, [&](int t, int k0, int k1, int k2) OPSIN_INLINED {
          const T* w[3] = {axes.weight[0][k0], axes.weight[1][k1], axes.weight[2][k2]};
          w[axis] = axes.slope[axis][axis == 0 ? k0 : axis == 1 ? k1 : k2];
          const Vector<T> weight = load(w[1] + i) * load(w[2] + i);
          sum = fma(load(product[t] + i), a.rank == 3 ? weight * load(w[0] + i) : weight, sum);
        });
        for (int l = 0; l < lanes && i + l < tile.count; ++l) {
          narrow(sum[l], out + (first + i + l) * a.rank + 2 - axis);
        }
      }
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
