// Pooling kernels, compiled once per instruction set. Loops over `block` channels have a constant length and
// no branches, so that the compiler turns them into vectors for every type.
#include "gemm_vector.h"
#include "pool_table.h"

#include <cstdint>

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int block = 32;

// For lambdas: a block must be compiled for its constant length.
#define OPSIN_INLINED __attribute__((always_inline))

template <class S>
constexpr bool is_half = __is_same(S, Float16) || __is_same(S, BFloat16);

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

// `count` values in the type of computation, in `buffer` if they need conversion.
template <class S>
OPSIN_INLINE const Compute<S>* read(const S* in, int64_t count, Compute<S>* buffer) {
  if constexpr (is_half<S>) {
    constexpr int lanes = lanes_of<float>;
    for (int64_t i = 0; i < count; i += lanes) store(buffer + i, load_some<float>(in + i, count - i));
    return buffer;
  } else {
    return in;
  }
}

template <class S>
OPSIN_INLINE void write(S* out, const Compute<S>* values, int64_t count) {
  if constexpr (is_half<S>) {
    for (int64_t i = 0; i < count; ++i) narrow(values[i], out + i);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = values[i];
  }
}

struct Position {
  int64_t index[3];
};

// Calls body(position) for the pixels of a row.
template <class F>
OPSIN_INLINE void for_pixels(int64_t row, int64_t size1, int64_t size2, F&& body) {
  Position at{{row / size1, row % size1, 0}};
  for (; at.index[2] < size2; ++at.index[2]) body(at);
}

// The first pixel of window o of an axis; inside the input even if the window is not.
OPSIN_INLINE int64_t first_of(const PoolAxis& axis, int64_t o) {
  return axis.begin[o] < axis.in ? axis.begin[o] : axis.in - 1;
}
OPSIN_INLINE int64_t first_pixel(const PoolWindows& w, int64_t o0, int64_t o1, int64_t o2) {
  return (first_of(w.axis[0], o0) * w.axis[1].in + first_of(w.axis[1], o1)) * w.axis[2].in +
         first_of(w.axis[2], o2);
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

template <class S>
void max_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
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

OPSIN_INLINE int64_t divisor_of(const PoolWindows& w, int64_t o0, int64_t o1, int64_t o2) {
  return w.divisor != 0 ? w.divisor : w.axis[0].length[o0] * w.axis[1].length[o1] * w.axis[2].length[o2];
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
    const Vector<T> divisor = broadcast(static_cast<T>(divisor_of(w, o0, o1, o2)));
    for (int v = 0; v < vectors; ++v) sum[v] /= divisor;
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
    for (; c + 4 * lanes <= a.last; c += 4 * lanes) avg_vectors<S, 4>(a, at, c);
    for (; c + lanes <= a.last; c += lanes) avg_vectors<S, 1>(a, at, c);
    if (c < a.last) avg_block<S>(a, at, c, a.last - c);
  });
}

/// Where the gradients of one input pixel come from, and by what they are scaled.
template <class T>
struct Taps {
  static constexpr int kMost = 64;
  int count = 0;
  int64_t offset[kMost];
  T scale[kMost];
};

// sums[i] = sum over the taps, added to what is there unless `first`. In explicit vectors: GCC merges the
// taps of a plain loop by twos and then leaves the channels scalar.
template <class S, int vectors>
OPSIN_INLINE void add_taps(const Taps<Compute<S>>& taps, const S* from, Compute<S>* sums, bool first) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[vectors];
  T buffer[vectors * lanes];
  for (int v = 0; v < vectors; ++v) sum[v] = first ? Vector<T>{} : load(sums + v * lanes);
  for (int t = 0; t < taps.count; ++t) {
    const T* grad = read(from + taps.offset[t], vectors * lanes, buffer);
    const Vector<T> scale = broadcast(taps.scale[t]);
    for (int v = 0; v < vectors; ++v) sum[v] = fma(load(grad + v * lanes), scale, sum[v]);
  }
  for (int v = 0; v < vectors; ++v) store(sums + v * lanes, sum[v]);
}

template <class S>
void add_all_taps(const Taps<Compute<S>>& taps, const S* from, Compute<S>* sums, int64_t count, bool first) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  int64_t c = 0;
  for (; c + block <= count; c += block) add_taps<S, block / lanes>(taps, from + c, sums + c, first);
  for (; c + lanes <= count; c += lanes) add_taps<S, 1>(taps, from + c, sums + c, first);
  for (; c < count; ++c) {
    T sum = first ? 0 : sums[c];
    for (int t = 0; t < taps.count; ++t) sum = fma(widen(from[taps.offset[t] + c]), taps.scale[t], sum);
    sums[c] = sum;
  }
}

template <class S>
OPSIN_INLINE void avg_backward_pixel(const PoolPart& a, const Position& at) {
  using T = Compute<S>;
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].out, width = w.axis[2].out;
  const S* image = static_cast<const S*>(a.in) + a.image * w.axis[0].out * height * width * w.channels;
  alignas(64) T sums[kPoolChannels];
  bool first = true;
  Taps<T> taps;
  const auto flush = [&] {
    add_all_taps<S>(taps, image + a.first, sums, a.last - a.first, first);
    first = false;
    taps.count = 0;
  };
  T scale = 0;
  int64_t previous = 0;
  for (int64_t o0 = w.axis[0].first[at.index[0]]; o0 < w.axis[0].last[at.index[0]]; ++o0) {
    for (int64_t o1 = w.axis[1].first[at.index[1]]; o1 < w.axis[1].last[at.index[1]]; ++o1) {
      for (int64_t o2 = w.axis[2].first[at.index[2]]; o2 < w.axis[2].last[at.index[2]]; ++o2) {
        // Neighbouring windows mostly have the same size, and a division costs as much as all the rest.
        const int64_t divisor = divisor_of(w, o0, o1, o2);
        if (divisor != previous) {
          previous = divisor;
          scale = 1 / static_cast<T>(divisor);
        }
        if (taps.count == Taps<T>::kMost) flush();
        taps.offset[taps.count] = ((o0 * height + o1) * width + o2) * w.channels;
        taps.scale[taps.count++] = scale;
      }
    }
  }
  flush();
  const int64_t pixel =
      ((a.image * w.axis[0].in + at.index[0]) * w.axis[1].in + at.index[1]) * w.axis[2].in + at.index[2];
  write(static_cast<S*>(a.out) + pixel * w.channels + a.first, sums, a.last - a.first);
}

template <class S>
void avg_backward_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  const PoolAxis& axis = w.axis[2];
  for_pixels(a.row, w.axis[1].in, axis.in, [&](const Position& at) OPSIN_INLINED {
    const int64_t i = at.index[2];
    if (i == 0 || axis.first[i] != axis.first[i - 1] || axis.last[i] != axis.last[i - 1]) {
      return avg_backward_pixel<S>(a, at);
    }
    // The same windows as those of the pixel before.
    const int64_t row = (a.image * w.axis[0].in + at.index[0]) * w.axis[1].in + at.index[1];
    S* to = static_cast<S*>(a.out) + (row * axis.in + i) * w.channels + a.first;
    __builtin_memcpy(to, to - w.channels, static_cast<size_t>(a.last - a.first) * sizeof(S));
  });
}

// Calls body(element of y, element of x in its image) for the outputs of a row and the channels of a part.
class Located {
 public:
  explicit Located(const PoolPart& part) : a(part), w(*part.windows) {
    if (a.taps == nullptr) return;
    int64_t count = 0;
    for (int64_t t0 = 0; t0 < w.axis[0].kernel; ++t0) {
      for (int64_t t1 = 0; t1 < w.axis[1].kernel; ++t1) {
        for (int64_t t2 = 0; t2 < w.axis[2].kernel; ++t2) {
          offset[count++] = pixel(t0 * w.axis[0].step, t1 * w.axis[1].step, t2 * w.axis[2].step) * w.channels;
        }
      }
    }
  }

  template <class F>
  OPSIN_INLINE void for_row(int64_t o0, int64_t o1, F&& body) const {
    const int64_t first = a.first, last = a.last, channels = w.channels;
    const int64_t row = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out;
    const int64_t start = pixel(first_of(w.axis[0], o0), first_of(w.axis[1], o1), 0);
    for (int64_t o2 = 0; o2 < w.axis[2].out; ++o2) {
      const int64_t from = (row + o2) * channels;
      if (a.taps == nullptr) {
        const int64_t* indices = a.indices + from;
        for (int64_t c = first; c < last; ++c) body(from + c, indices[c] * channels + c);
      } else {
        const uint8_t* taps = a.taps + from;
        const int64_t to = (start + first_of(w.axis[2], o2)) * channels;
        for (int64_t c = first; c < last; ++c) body(from + c, to + offset[taps[c]] + c);
      }
    }
  }

 private:
  int64_t pixel(int64_t i0, int64_t i1, int64_t i2) const {
    return (i0 * w.axis[1].in + i1) * w.axis[2].in + i2;
  }

  const PoolPart& a;
  const PoolWindows& w;
  int64_t offset[256];  // In elements, of every tap from the first pixel of its window.
};

// `out` is in the type of computation; its channels of this image are overwritten.
template <class S>
void scatter_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  const int64_t in = w.axis[0].in * w.axis[1].in * w.axis[2].in;
  Compute<S>* to = static_cast<Compute<S>*>(a.out) + a.image * in * w.channels;
  for (int64_t p = 0; p < in; ++p) {
    for (int64_t c = a.first; c < a.last; ++c) to[p * w.channels + c] = 0;
  }
  const S* grad = static_cast<const S*>(a.in);
  const Located located(a);
  for (int64_t o0 = 0; o0 < w.axis[0].out; ++o0) {
    for (int64_t o1 = 0; o1 < w.axis[1].out; ++o1) {
      located.for_row(o0, o1, [&](int64_t from, int64_t at) OPSIN_INLINED { to[at] += widen(grad[from]); });
    }
  }
}

template <class S>
void gather_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  const int64_t in = w.axis[0].in * w.axis[1].in * w.axis[2].in;
  const S* x = static_cast<const S*>(a.in) + a.image * in * w.channels;
  S* y = static_cast<S*>(a.out);
  Located(a).for_row(a.row / w.axis[1].out, a.row % w.axis[1].out,
                     [&](int64_t to, int64_t at) OPSIN_INLINED { y[to] = x[at]; });
}

template <class S>
constexpr PoolFloating floating = {avg_part<S>, avg_backward_part<S>, scatter_part<S>, gather_part<S>};

}  // namespace

const PoolTable& pool_table() {
  static constexpr PoolTable table = {
      max_part<float>,  max_part<double>,  max_part<Float16>, max_part<BFloat16>, max_part<uint8_t>,
      max_part<int8_t>, max_part<int16_t>, max_part<int32_t>, max_part<int64_t>,  floating<float>,
      floating<double>, floating<Float16>, floating<BFloat16>};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
