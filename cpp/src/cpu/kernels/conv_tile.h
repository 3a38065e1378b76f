// The register tiles of convolution, for one storage type S. See conv.cpp for the blocking around them.
//
// The register tile is `rows` pixels x two vectors of output channels; every step loads two vectors of
// weights and broadcasts one step of channels per pixel. Pixels come as a list of addresses, so one tile
// spans image rows and images, and an edge is an address of zeros. A tile starts from zero and joins its
// target once: sums stay blocked, which is both cheaper and more accurate than one long chain.
#pragma once

#include "conv_vector.h"
#include "dot.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// Columns of vector v of NV, of which the last may be half of one.
template <class T, bool HALF>
OPSIN_INLINE constexpr int columns_of(int v, int count) {
  return HALF && v == count - 1 ? lanes_of<T> / 2 : lanes_of<T>;
}

// What follows the sums of whole vectors. A vector of columns at a time, whose numbers are in registers then.
// All of the residual is read before the first store: where pixels are a multiple of 4 KiB apart, the
// processor takes each load for that of the store before it.
template <class S, int P, int NV, bool HALF, bool RESIDUAL, bool CLAMP>
OPSIN_INLINE void finish_with(const ConvTiles<S>& a, Vector<Compute<S>> (&sum)[P][NV], S* const* target) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const int64_t offset = a.target_offset, stride = a.after.stride;
  const T* numbers = a.after.numbers;
  const S *residual = a.after.residual, *start = a.after.target;
  const Vector<T> most = broadcast(a.after.ceiling);
  const bool past_caches = a.stream;
  // Past the caches, the parts of a line have to come one after the other.
  constexpr bool at_once = !RESIDUAL && lanes * sizeof(S) == 64;
  const auto write = [&](int p, int v) {
    S* out = target[p] + offset + v * lanes;
    if (past_caches) {
      stream(out, sum[p][v]);
    } else {
      store_some(out, sum[p][v], columns_of<T, HALF>(v, NV));
    }
  };
#pragma GCC unroll 2
  for (int v = 0; v < NV; ++v) {
    const int columns = columns_of<T, HALF>(v, NV);
    const Vector<T> mean = load_some<T>(numbers + v * lanes, columns),
                    scale = load_some<T>(numbers + stride + v * lanes, columns),
                    shift = load_some<T>(numbers + 2 * stride + v * lanes, columns);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      sum[p][v] = fma(rounded_to<S>(sum[p][v]) - mean, scale, shift);
      if constexpr (RESIDUAL) {
        sum[p][v] = rounded_to<S>(sum[p][v]) +
                    load_some<T>(residual + (target[p] - start) + offset + v * lanes, columns);
      }
      if constexpr (CLAMP) sum[p][v] = kept_below<S>(sum[p][v], most);
      if constexpr (at_once) write(p, v);
    }
  }
  if constexpr (at_once) return;
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) write(p, v);
  }
}
template <class S, int P, int NV, bool HALF>
OPSIN_INLINE void finish(const ConvTiles<S>& a, Vector<Compute<S>> (&sum)[P][NV], S* const* target) {
  using T = Compute<S>;
  if (a.bias != nullptr) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v)
        sum[p][v] += load_some<T>(a.bias + v * lanes_of<T>, columns_of<T, HALF>(v, NV));
    }
  }
  const bool clamps = a.after.ceiling > 0;
  if (a.after.residual == nullptr) {
    clamps ? finish_with<S, P, NV, HALF, false, true>(a, sum, target)
           : finish_with<S, P, NV, HALF, false, false>(a, sum, target);
  } else {
    clamps ? finish_with<S, P, NV, HALF, true, true>(a, sum, target)
           : finish_with<S, P, NV, HALF, true, false>(a, sum, target);
  }
}

// AFTER: something follows the sums. HALF: the last vector of columns is the first half of one, and there is
// nothing to add to.
template <class S, bool AFTER, int P, int NV, bool HALF = false>
void tile(const ConvTiles<S>& a, const S* const* source, S* const* target, int64_t pixel) {
  using T = Compute<S>;
  using D = Dot<S>;
  constexpr int lanes = lanes_of<T>, whole = HALF ? NV - 1 : NV;
  Vector<T> sum[P][NV] = {};
  [[maybe_unused]] HalfSums<S, HALF ? P : 1> halves;
  if constexpr (std::is_same_v<S, T> && !AFTER && !HALF) {
    if (a.continues) {
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[p][v] = load(target[p] + a.target_offset + v * lanes);
      }
    }
  }
  // By the end of the loop the lines have come that are written then.
  if (!a.stream) {
    constexpr int line = 64 / static_cast<int>(sizeof(S));
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int j = 0; j < NV * lanes; j += line) __builtin_prefetch(target[p] + a.target_offset + j, 1);
    }
  }
  const S* weight = a.weight;
  const S* ahead = a.ahead + pixel * a.ahead_pixel;
  int64_t line = a.ahead_pixel == 0 ? 0 : 64 / static_cast<int64_t>(sizeof(S));
  // More addresses than registers: beside a single vector per pixel the compiler would keep the rest of them
  // in vectors, from where they come slower than from memory.
  const auto address = [&](int p) {
    if constexpr (P > 8 && NV == 1) return *static_cast<const S* const volatile*>(source + p);
    return source[p];
  };
  for (int64_t t = 0; t < a.taps; ++t, source += tile_rows) {
    for (int64_t c = a.source_offset; c < a.source_offset + a.channels;
         c += D::step, weight += NV * lanes * D::step) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += line;
      typename D::Steps w[NV];
#pragma GCC unroll 2
      for (int v = 0; v < whole; ++v) w[v] = D::load(weight + v * lanes * D::step);
      if constexpr (HALF) halves.load(weight + whole * lanes * D::step);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        if constexpr (whole == 0) {
          halves.add(p, address(p) + c);
        } else {
          const typename D::Steps x = D::broadcast(address(p) + c);
#pragma GCC unroll 2
          for (int v = 0; v < whole; ++v) sum[p][v] = D::fma(x, w[v], sum[p][v]);
          if constexpr (HALF) halves.add(p, x);
        }
      }
    }
    line = 0;
  }
  if constexpr (HALF) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) sum[p][whole] = halves.whole(p);
  }
  // Most tiles replace whole vectors: without the checks of each they are written at once.
  const int64_t offset = a.target_offset;
  if (HALF || (a.columns >= NV * lanes && !a.accumulate)) {
    if constexpr (AFTER) return finish<S, P, NV, HALF>(a, sum, target);
    const bool past_caches = a.stream;
    Vector<T> bias[NV] = {};
    if (a.bias != nullptr) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) bias[v] = load_some<T>(a.bias + v * lanes, columns_of<T, HALF>(v, NV));
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      S* out = target[p] + offset;
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        if (past_caches) {
          stream(out + v * lanes, sum[p][v] + bias[v]);
        } else {
          store_some(out + v * lanes, sum[p][v] + bias[v], columns_of<T, HALF>(v, NV));
        }
      }
    }
    return;
  }
  // A copy: the loop below indexes it, and an array that is indexed lives in memory, from its first zeros on.
  Vector<T> rest[P][NV];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) rest[p][v] = sum[p][v];
  }
  for (int p = 0; p < P; ++p) {
    S* out = target[p] + offset;
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const int64_t columns = a.columns - v * lanes;
      if (a.accumulate) {
        rest[p][v] += load_some<T>(out + v * lanes, columns);
      } else if (a.bias != nullptr) {
        rest[p][v] += load_some<T>(a.bias + v * lanes, columns);
      }
      if constexpr (AFTER) {
        rest[p][v] = after_sum<S>(a.after, rest[p][v], v * lanes, out + v * lanes,
                                  [&](const auto* from) { return load_some<T>(from, columns); });
      }
      store_some(out + v * lanes, rest[p][v], columns);
    }
  }
}

template <class S, bool AFTER, int NV>
void tiles_of(const ConvTiles<S>& a) {
  const S* const* source = a.source;
  int64_t p = 0;
  if constexpr (has_halves<S>) {
    // Of 8 or 24 columns, say, those beyond would take as long as the rest.
    const bool halves = 2 * a.columns == (2 * NV - 1) * lanes_of<Compute<S>> && !a.accumulate && !a.continues;
    for (; halves && p + tile_rows <= a.pixels; p += tile_rows, source += a.taps * tile_rows) {
      tile<S, AFTER, tile_rows, NV, true>(a, source, a.target + p, p);
    }
  }
  for (; p + tile_rows <= a.pixels; p += tile_rows, source += a.taps * tile_rows) {
    tile<S, AFTER, tile_rows, NV>(a, source, a.target + p, p);
  }
  int64_t rest = a.pixels - p;
  const auto step = [&](int64_t count) {
    source += count;
    p += count;
    rest -= count;
  };
  if constexpr (tile_rows > 8) {
    if (rest >= 8) {
      tile<S, AFTER, 8, NV>(a, source, a.target + p, p);
      step(8);
    }
  }
  if constexpr (tile_rows > 4) {
    if (rest >= 4) {
      tile<S, AFTER, 4, NV>(a, source, a.target + p, p);
      step(4);
    }
  }
  if (rest >= 2) {
    tile<S, AFTER, 2, NV>(a, source, a.target + p, p);
    step(2);
  }
  if (rest >= 1) tile<S, AFTER, 1, NV>(a, source, a.target + p, p);
}

template <class S>
void tiles(const ConvTiles<S>& a) {
  const bool pair = a.columns > lanes_of<Compute<S>>;
  if constexpr (takes_after<S>) {
    if (a.after.numbers != nullptr) {
      pair ? tiles_of<S, true, 2>(a) : tiles_of<S, true, 1>(a);
      if (a.stream) stream_fence();
      return;
    }
  }
  pair ? tiles_of<S, false, 2>(a) : tiles_of<S, false, 1>(a);
  if (a.stream) stream_fence();
}

template <class S, int R, int NV>
void outer_of(const ConvOuter<S>& a, int64_t channel, const S* ahead) {
  using T = Compute<S>;
  using D = Dot<S>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[R][NV] = {};
  const S* grad = a.grad;
  const S* x = a.source + channel * D::step;
  const int64_t out_stride = a.out_stride, ahead_stride = a.ahead_stride;
  const int64_t x_step = a.source_stride * D::step, grad_step = a.grad_stride;
  const bool accumulate = a.accumulate;
  T* out = a.out + channel * out_stride;
  // By the end of the loop they have come.
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) __builtin_prefetch(out + r * out_stride, 1);
  constexpr int64_t together = fetch_steps * D::step;
  for (int64_t left = a.pixels; left > 0; left -= together, ahead += ahead_stride) {
    __builtin_prefetch(ahead, 0, 2);
    // Unrolled, the sums would move from register to register.
#pragma GCC unroll 1
    for (int64_t p = left < together ? left : together; p > 0; p -= D::step) {
      typename D::Steps g[NV];
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) g[v] = D::load(grad + v * lanes * D::step);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const typename D::Steps value = D::broadcast(x + r * D::step);
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) sum[r][v] = D::fma(value, g[v], sum[r][v]);
      }
      grad += grad_step;
      x += x_step;
    }
  }
  if (accumulate) {
    const T* old = out;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, old += out_stride) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sum[r][v] += load(old + v * lanes);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, out += out_stride) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) store(out + v * lanes, sum[r][v]);
  }
}

template <class S, int NV, int... R>
void outer_rows(const ConvOuter<S>& a, std::integer_sequence<int, R...>) {
  using Function = void (*)(const ConvOuter<S>&, int64_t, const S*);
  static constexpr Function functions[] = {outer_of<S, R + 1, NV>...};
  constexpr int64_t most = sizeof...(R);
  // Even shares: 16 rows are 8 + 8, not 14 + 2, of which the second would wait for its own sums.
  const int64_t count = (a.channels + most - 1) / most;
  const int64_t lines = (a.pixels + fetch_steps * Dot<S>::step - 1) / (fetch_steps * Dot<S>::step);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = a.channels * i / count, end = a.channels * (i + 1) / count;
    functions[end - begin - 1](a, begin, a.ahead + i * lines * a.ahead_stride);
  }
}

template <class S>
void outer(const ConvOuter<S>& a) {
  if (a.width > lanes_of<Compute<S>>) {
    outer_rows<S, 2>(a, std::make_integer_sequence<int, tile_rows>{});
  } else {
    outer_rows<S, 1>(a, std::make_integer_sequence<int, tile_rows>{});
  }
}

// Puts a vector of weights of channel c where a step of channels is kept together.
template <class T>
OPSIN_INLINE void put_weights(T* out, [[maybe_unused]] int64_t c, Vector<T> v) {
  store(out, v);
}
#if defined(__AVX512BF16__)
// The values are exact, so the other half of each is zero; channel 0 of a pair comes before channel 1.
OPSIN_INLINE void put_weights(BFloat16* out, int64_t c, Float v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i pair =
      c % 2 == 0 ? _mm512_srli_epi32(bits, 16) : _mm512_or_si512(bits, _mm512_loadu_si512(out));
  _mm512_storeu_si512(out, pair);
}
#endif

template <class S, class From = S>
void conv_pack(const ConvPack<S, From>& a) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>, step = Dot<S>::step;
  const int64_t steps = (a.channels + step - 1) / step;
  const auto place = [&](int64_t t, int64_t c) {
    return a.out + (a.slot[t] * steps + c / step) * a.width * step;
  };
  if (a.lane_stride == 1) {
    for (int64_t c = 0; c < a.channels; ++c) {
      for (int64_t t = 0; t < a.taps; ++t) {
        S* out = place(t, c);
        for (int64_t j = 0; j < a.width; j += lanes) {
          const From* in = a.in + c * a.channel_stride + t + j;
          put_weights(out + j * step, c, a.lanes > j ? load_some<T>(in, a.lanes - j) : Vector<T>{});
        }
      }
    }
    return;
  }
  // Columns that are adjacent in memory: all of (c, t), or t alone.
  const bool joined = a.channel_stride == a.taps;
  const int64_t outer = joined ? 1 : a.channels, columns = joined ? a.channels * a.taps : a.taps;
  const int64_t tap_stride = steps * a.width * step;
  // Where a next call goes on.
  const int64_t ahead = a.channels * a.channel_stride;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t lane = 0; lane < a.width; lane += lanes) {
      const From* in = a.in + o * a.channel_stride + lane * a.lane_stride;
      const int64_t rows = a.lanes - lane;
      int64_t c = o, t = 0;
      for (int64_t j = 0; j < columns; j += lanes) {
        const int64_t count = columns - j;
        Vector<T> square[lanes];
        const auto read = [&](auto&& load_row) {
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) {
            const From* row = in + i * a.lane_stride + j;
            __builtin_prefetch(row + ahead, 0, 2);
            square[i] = i < rows ? load_row(row) : Vector<T>{};
          }
        };
        if (count >= lanes) {
          read([](const From* row) { return load_wide(row); });
        } else {
          read([&](const From* row) { return load_some<T>(row, count); });
        }
        transpose<T>(square);
        S* out = a.out + c / step * a.width * step + lane * step;
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          if (i >= count) break;
          put_weights(out + a.slot[t] * tap_stride, c, square[i]);
          if (++t == a.taps) {
            t = 0;
            if (++c % step == 0) out += a.width * step;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
