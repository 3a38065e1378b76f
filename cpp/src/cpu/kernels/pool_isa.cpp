// Pooling kernels, compiled once per instruction set. Loops over `block` channels have a constant length and
// no branches, so that the compiler turns them into vectors for every type.
#include "pool_pixels.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T>
constexpr T lowest_of() {
  if constexpr (__is_same(T, float) || __is_same(T, double)) {
    return -static_cast<T>(__builtin_inf());
  } else if constexpr (static_cast<T>(-1) > static_cast<T>(0)) {
    return 0;
  } else {
    return static_cast<T>(uint64_t{1} << (8 * sizeof(T) - 1));
  }
}

/// How positions are counted: in taps of the window, or in pixels of the image.
struct Counting {
  bool taps;
  int64_t step[3];

  explicit Counting(const PoolPart& a) : taps(a.taps != nullptr) {
    const PoolAxis(&axis)[3] = a.windows->axis;
    const int64_t row = taps ? axis[2].kernel : axis[2].in,
                  plane = row * (taps ? axis[1].kernel : axis[1].in);
    step[0] = plane * (taps ? 1 : axis[0].step);
    step[1] = row * (taps ? 1 : axis[1].step);
    step[2] = taps ? 1 : axis[2].step;
  }
};

template <class S, class Index>
OPSIN_INLINE void max_block(const PoolPart& a, const Counting& counting, const Position& at, int64_t channel,
                            int64_t count) {
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].in, width = w.axis[2].in;
  const int64_t o0 = at.index[0], o1 = at.index[1], o2 = at.index[2];
  const int64_t place = counting.taps ? 0 : first_pixel(w, o0, o1, o2);
  const int64_t step0 = counting.step[0], step1 = counting.step[1], step2 = counting.step[2];
  Compute<S> best[block];
  Compute<S> buffer[block];
  Index where[block];
  for (int i = 0; i < block; ++i) {
    best[i] = lowest_of<Compute<S>>();
    where[i] = static_cast<Index>(place);
  }
  const S* image =
      static_cast<const S*>(a.in) + a.image * w.axis[0].in * height * width * w.channels + channel;
  int64_t at0 = place;
  for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; i0 += w.axis[0].step, at0 += step0) {
    int64_t at1 = at0;
    for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; i1 += w.axis[1].step, at1 += step1) {
      int64_t at2 = at1;
      for (int64_t i2 = w.axis[2].begin[o2]; i2 < w.axis[2].end[o2]; i2 += w.axis[2].step, at2 += step2) {
        const Compute<S>* x = read(image + ((i0 * height + i1) * width + i2) * w.channels, count, buffer);
        // Unrolled, a short block would be scalars with a branch each.
#pragma GCC unroll 1
        for (int64_t i = 0; i < count; ++i) {
          const Compute<S> value = x[i];
          const bool take = (value > best[i]) | (value != value);
          best[i] = take ? value : best[i];
          where[i] = take ? static_cast<Index>(at2) : where[i];
        }
      }
    }
  }
  const int64_t out = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out + o2;
  write(static_cast<S*>(a.out) + out * w.channels + channel, best, count);
  if (a.indices != nullptr) {
    int64_t* indices = a.indices + out * w.channels + channel;
    for (int64_t i = 0; i < count; ++i) indices[i] = where[i];
  } else if (a.taps != nullptr) {
    uint8_t* taps = a.taps + out * w.channels + channel;
    for (int64_t i = 0; i < count; ++i) taps[i] = static_cast<uint8_t>(where[i]);
  }
}

// A constant length is what makes the loops vectors.
template <class F>
OPSIN_INLINE void for_blocks(const PoolPart& a, F&& body) {
  int64_t c = a.first;
  for (; c + block <= a.last; c += block) body(c, int64_t{block});
  for (; c + block / 2 <= a.last; c += block / 2) body(c, int64_t{block / 2});
  for (; c + block / 4 <= a.last; c += block / 4) body(c, int64_t{block / 4});
  if (c < a.last) body(c, a.last - c);
}

// As many bytes as a vector has lanes.
template <class T>
struct BytesOf;
template <>
struct BytesOf<float> {
  using Type = uint8_t __attribute__((vector_size(lanes_of<float>)));
};
template <>
struct BytesOf<double> {
  using Type = uint8_t __attribute__((vector_size(lanes_of<double>)));
};

template <class T>
OPSIN_INLINE void store_taps(uint8_t* to, typename VectorOf<T>::Index taps) {
  const auto bytes = __builtin_convertvector(taps, typename BytesOf<T>::Type);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

// As max_block without indices, in explicit vectors.
template <class S, int vectors, bool taps>
OPSIN_INLINE void max_vectors(const PoolPart& a, const Counting& counting, const Position& at,
                              int64_t channel) {
  using T = Compute<S>;
  using Index = typename VectorOf<T>::Index;
  using Lane = typename VectorOf<T>::Lane;
  constexpr int lanes = lanes_of<T>;
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].in, width = w.axis[2].in;
  const int64_t o0 = at.index[0], o1 = at.index[1], o2 = at.index[2];
  const int64_t begin = w.axis[2].begin[o2], end = w.axis[2].end[o2], step = w.axis[2].step;
  const S* image =
      static_cast<const S*>(a.in) + a.image * w.axis[0].in * height * width * w.channels + channel;
  Vector<T> best[vectors];
  Index where[vectors] = {};
  T buffer[vectors * lanes];
  for (int v = 0; v < vectors; ++v) best[v] = broadcast(lowest_of<T>());
  int64_t at0 = 0;
  for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; i0 += w.axis[0].step) {
    int64_t at1 = at0;
    for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; i1 += w.axis[1].step) {
      const S* line = image + ((i0 * height + i1) * width + begin) * w.channels;
      Lane tap = static_cast<Lane>(at1);
      for (int64_t i2 = begin; i2 < end; i2 += step, ++tap, line += step * w.channels) {
        const T* values = read(line, vectors * lanes, buffer);
        for (int v = 0; v < vectors; ++v) {
          const Vector<T> x = load(values + v * lanes);
          const Index take = (x > best[v]) | (x != x);
          best[v] = take ? x : best[v];
          if constexpr (taps) where[v] = take ? Index{} + tap : where[v];
        }
      }
      at1 += counting.step[1];
    }
    at0 += counting.step[0];
  }
  const int64_t out = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out + o2;
  for (int v = 0; v < vectors; ++v) store(buffer + v * lanes, best[v]);
  write(static_cast<S*>(a.out) + out * w.channels + channel, buffer, vectors * lanes);
  if constexpr (taps) {
    uint8_t* to = a.taps + out * w.channels + channel;
    for (int v = 0; v < vectors; ++v) store_taps<T>(to + v * lanes, where[v]);
  }
}

template <class S, bool taps>
void max_vectors_part(const PoolPart& a) {
  constexpr int lanes = lanes_of<Compute<S>>, wide = taps ? 4 : 8;
  const PoolWindows& w = *a.windows;
  const Counting counting(a);
  for_pixels(a.row, w.axis[1].out, w.axis[2].out, [&](const Position& at) OPSIN_INLINED {
    int64_t c = a.first;
    for (; c + wide * lanes <= a.last; c += wide * lanes) max_vectors<S, wide, taps>(a, counting, at, c);
    for (; c + wide / 2 * lanes <= a.last; c += wide / 2 * lanes) {
      max_vectors<S, wide / 2, taps>(a, counting, at, c);
    }
    for (; c + lanes <= a.last; c += lanes) max_vectors<S, 1, taps>(a, counting, at, c);
    if (c < a.last) max_block<S, int32_t>(a, counting, at, c, a.last - c);
  });
}

template <class S>
void max_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  if constexpr (is_half<S> || __is_same(S, float) || __is_same(S, double)) {
    if (a.indices == nullptr && a.taps == nullptr) return max_vectors_part<S, false>(a);
    if (a.indices == nullptr) return max_vectors_part<S, true>(a);
  }
  const bool narrow =
      sizeof(Compute<S>) < 8 && w.axis[0].in * w.axis[1].in * w.axis[2].in < (int64_t{1} << 31);
  const Counting counting(a);
  for_pixels(a.row, w.axis[1].out, w.axis[2].out, [&](const Position& at) OPSIN_INLINED {
    if (narrow) {
      for_blocks(a, [&](int64_t c, int64_t count)
                        OPSIN_INLINED { max_block<S, int32_t>(a, counting, at, c, count); });
    } else {
      for_blocks(a, [&](int64_t c, int64_t count)
                        OPSIN_INLINED { max_block<S, int64_t>(a, counting, at, c, count); });
    }
  });
}

template <class S>
OPSIN_INLINE void avg_block(const PoolPart& a, const Position& at, int64_t channel, int64_t count) {
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].in, width = w.axis[2].in;
  Compute<S> sum[block] = {};
  Compute<S> buffer[block];
  const S* image =
      static_cast<const S*>(a.in) + a.image * w.axis[0].in * height * width * w.channels + channel;
  const int64_t o0 = at.index[0], o1 = at.index[1], o2 = at.index[2];
  bool empty = true;
  for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; ++i0) {
    for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; ++i1) {
      for (int64_t i2 = w.axis[2].begin[o2]; i2 < w.axis[2].end[o2]; ++i2) {
        const Compute<S>* x = read(image + ((i0 * height + i1) * width + i2) * w.channels, count, buffer);
        for (int64_t i = 0; i < count; ++i) sum[i] += x[i];
        empty = false;
      }
    }
  }
  if (!empty) {
    const auto divisor = static_cast<Compute<S>>(divisor_of(w, o0, o1, o2));
    for (int64_t i = 0; i < count; ++i) sum[i] /= divisor;
  }
  const int64_t out = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out + o2;
  write(static_cast<S*>(a.out) + out * w.channels + channel, sum, count);
}

// As avg_block, in explicit vectors.
template <class S, int vectors>
OPSIN_INLINE void avg_vectors(const PoolPart& a, const Position& at, int64_t channel) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].in, width = w.axis[2].in;
  const int64_t o0 = at.index[0], o1 = at.index[1], o2 = at.index[2];
  const int64_t begin = w.axis[2].begin[o2], end = w.axis[2].end[o2];
  const S* image =
      static_cast<const S*>(a.in) + a.image * w.axis[0].in * height * width * w.channels + channel;
  Vector<T> sum[vectors] = {};
  T buffer[vectors * lanes];
  bool empty = true;
  for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; ++i0) {
    for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; ++i1) {
      const S* line = image + ((i0 * height + i1) * width + begin) * w.channels;
      for (int64_t i2 = begin; i2 < end; ++i2, line += w.channels) {
        const T* x = read(line, vectors * lanes, buffer);
        for (int v = 0; v < vectors; ++v) sum[v] += load(x + v * lanes);
        empty = false;
      }
    }
  }
  if (!empty) {
    const int64_t divisor = divisor_of(w, o0, o1, o2);
    const Vector<T> number = broadcast(static_cast<T>(divisor));
    if ((divisor & (divisor - 1)) == 0) {
      // Exact for powers of two, and much faster than a division.
      const Vector<T> share = broadcast(T{1}) / number;
      for (int v = 0; v < vectors; ++v) sum[v] *= share;
    } else {
      for (int v = 0; v < vectors; ++v) sum[v] /= number;
    }
  }
  for (int v = 0; v < vectors; ++v) store(buffer + v * lanes, sum[v]);
  const int64_t out = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out + o2;
  write(static_cast<S*>(a.out) + out * w.channels + channel, buffer, vectors * lanes);
}

template <class S>
void avg_part(const PoolPart& a) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const PoolWindows& w = *a.windows;
  for_pixels(a.row, w.axis[1].out, w.axis[2].out, [&](const Position& at) OPSIN_INLINED {
    int64_t c = a.first;
    for (; c + 8 * lanes <= a.last; c += 8 * lanes) avg_vectors<S, 8>(a, at, c);
    for (; c + 4 * lanes <= a.last; c += 4 * lanes) avg_vectors<S, 4>(a, at, c);
    for (; c + lanes <= a.last; c += lanes) avg_vectors<S, 1>(a, at, c);
    if (c < a.last) avg_block<S>(a, at, c, a.last - c);
  });
}

}  // namespace

const PoolTable& pool_table() {
  static constexpr PoolTable table = {
      max_part<float>,  max_part<double>,  max_part<Float16>, max_part<BFloat16>, max_part<uint8_t>,
      max_part<int8_t>, max_part<int16_t>, max_part<int32_t>, max_part<int64_t>,  avg_part<float>,
      avg_part<double>, avg_part<Float16>, avg_part<BFloat16>};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
