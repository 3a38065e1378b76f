// The gradients of pooling, compiled once per instruction set.
#include "pool_pixels.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

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
  const int64_t pixel =
      ((a.image * w.axis[0].in + at.index[0]) * w.axis[1].in + at.index[1]) * w.axis[2].in + at.index[2];
  S* const out = static_cast<S*>(a.out) + pixel * w.channels + a.first;
  alignas(64) T buffer[is_half<S> ? kPoolChannels : 1];
  T* sums = buffer;
  if constexpr (!is_half<S>) sums = out;
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
  if constexpr (is_half<S>) write(out, sums, a.last - a.first);
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

/// The windows of one input pixel: where they are, and its tap in each.
struct Owners {
  static constexpr int kMost = 64;
  int count = 0;
  int64_t offset[kMost];
  uint8_t tap[kMost];
};

// sums[i] = the gradients of the owners whose maximum is this pixel, added to what is there unless `first`.
template <class S, int vectors>
OPSIN_INLINE void add_owners(const Owners& owners, const S* from, const uint8_t* taps, Compute<S>* sums,
                             bool first) {
  using T = Compute<S>;
  using Index = typename VectorOf<T>::Index;
  using Lane = typename VectorOf<T>::Lane;
  constexpr int lanes = lanes_of<T>;
  Vector<T> sum[vectors];
  T buffer[vectors * lanes];
  for (int v = 0; v < vectors; ++v) sum[v] = first ? Vector<T>{} : load(sums + v * lanes);
  for (int o = 0; o < owners.count; ++o) {
    const T* grad = read(from + owners.offset[o], vectors * lanes, buffer);
    const uint8_t* tap = taps + owners.offset[o];
    const Index wanted = Index{} + static_cast<Lane>(owners.tap[o]);
    for (int v = 0; v < vectors; ++v) {
      const Index mine = load_taps<T>(tap + v * lanes) == wanted;
      sum[v] += (Vector<T>)(mine & (Index)load(grad + v * lanes));
    }
  }
  for (int v = 0; v < vectors; ++v) store(sums + v * lanes, sum[v]);
}

template <class S>
void add_all_owners(const Owners& owners, const S* from, const uint8_t* taps, Compute<S>* sums, int64_t count,
                    bool first) {
  using T = Compute<S>;
  constexpr int lanes = lanes_of<T>;
  int64_t c = 0;
  for (; c + 8 * lanes <= count; c += 8 * lanes)
    add_owners<S, 8>(owners, from + c, taps + c, sums + c, first);
  for (; c + 4 * lanes <= count; c += 4 * lanes)
    add_owners<S, 4>(owners, from + c, taps + c, sums + c, first);
  for (; c + lanes <= count; c += lanes) add_owners<S, 1>(owners, from + c, taps + c, sums + c, first);
  for (; c < count; ++c) {
    T sum = first ? 0 : sums[c];
    for (int o = 0; o < owners.count; ++o) {
      if (taps[owners.offset[o] + c] == owners.tap[o]) sum += widen(from[owners.offset[o] + c]);
    }
    sums[c] = sum;
  }
}

/// A row of input pixels, each gathered from the windows that hold it, in their order; needs taps and windows
/// of step 1, none of them empty.
template <class S>
void max_backward_part(const PoolPart& a) {
  using T = Compute<S>;
  const PoolWindows& w = *a.windows;
  const int64_t height = w.axis[1].out, width = w.axis[2].out, count = a.last - a.first;
  const int64_t image = a.image * w.axis[0].out * height * width * w.channels + a.first;
  const S* from = static_cast<const S*>(a.in) + image;
  const uint8_t* taps = a.taps + image;
  alignas(64) T buffer[is_half<S> ? kPoolChannels : 1];
  for_pixels(a.row, w.axis[1].in, w.axis[2].in, [&](const Position& at) OPSIN_INLINED {
    const int64_t i0 = at.index[0], i1 = at.index[1], i2 = at.index[2];
    const int64_t pixel = ((a.image * w.axis[0].in + i0) * w.axis[1].in + i1) * w.axis[2].in + i2;
    S* const out = static_cast<S*>(a.out) + pixel * w.channels + a.first;
    T* sums = buffer;
    if constexpr (!is_half<S>) sums = out;
    bool first = true;
    Owners owners;
    for (int64_t o0 = w.axis[0].first[i0]; o0 < w.axis[0].last[i0]; ++o0) {
      const int64_t t0 = (i0 - w.axis[0].begin[o0]) * w.axis[1].kernel;
      for (int64_t o1 = w.axis[1].first[i1]; o1 < w.axis[1].last[i1]; ++o1) {
        const int64_t t1 = (t0 + i1 - w.axis[1].begin[o1]) * w.axis[2].kernel;
        for (int64_t o2 = w.axis[2].first[i2]; o2 < w.axis[2].last[i2]; ++o2) {
          if (owners.count == Owners::kMost) {
            add_all_owners<S>(owners, from, taps, sums, count, first);
            first = false;
            owners.count = 0;
          }
          owners.offset[owners.count] = ((o0 * height + o1) * width + o2) * w.channels;
          owners.tap[owners.count++] = static_cast<uint8_t>(t1 + i2 - w.axis[2].begin[o2]);
        }
      }
    }
    add_all_owners<S>(owners, from, taps, sums, count, first);
    if constexpr (is_half<S>) write(out, sums, count);
  });
}

/// What the pixels of a window get: an equal share of its gradient, or all of it where the maximum is, which
/// may be added to what other windows gave.
enum class Spread { kMean, kMax, kMaxAdded };

// The pixels of one window. `out` is in the type of computation.
template <class S, int vectors, Spread kind>
OPSIN_INLINE void spread(const PoolPart& a, const Position& at, int64_t channel, int64_t count) {
  using T = Compute<S>;
  using Index = typename VectorOf<T>::Index;
  using Lane = typename VectorOf<T>::Lane;
  constexpr int lanes = lanes_of<T>;
  constexpr bool mean = kind == Spread::kMean;
  const PoolWindows& w = *a.windows;
  const int64_t o0 = at.index[0], o1 = at.index[1], o2 = at.index[2];
  const int64_t height = w.axis[1].in, width = w.axis[2].in;
  const int64_t out = ((a.image * w.axis[0].out + o0) * w.axis[1].out + o1) * w.axis[2].out + o2;
  const int64_t begin = w.axis[2].begin[o2], end = w.axis[2].end[o2];
  const S* const from = static_cast<const S*>(a.in) + out * w.channels + channel;
  const uint8_t* const marks = a.taps + (mean ? 0 : out * w.channels + channel);
  T* const image = static_cast<T*>(a.out) + a.image * w.axis[0].in * height * width * w.channels + channel;
  const T share = mean ? 1 / static_cast<T>(divisor_of(w, o0, o1, o2)) : T{1};
  Vector<T> grad[vectors];
  Index taps[vectors] = {};
  for (int v = 0; v < vectors && count == vectors * lanes; ++v) {
    grad[v] = load_wide(from + v * lanes);
    if constexpr (mean) grad[v] *= broadcast(share);
    if constexpr (!mean) taps[v] = load_taps<T>(marks + v * lanes);
  }
  int64_t tap0 = 0;
  for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; ++i0, tap0 += w.axis[1].kernel) {
    int64_t tap1 = tap0 * w.axis[2].kernel;
    for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; ++i1, tap1 += w.axis[2].kernel) {
      T* to = image + ((i0 * height + i1) * width + begin) * w.channels;
      Lane tap = static_cast<Lane>(tap1);
      for (int64_t i2 = begin; i2 < end; ++i2, ++tap, to += w.channels) {
        if (count != vectors * lanes) {
          for (int64_t c = 0; c < count; ++c) {
            const T value = widen(from[c]);
            to[c] = mean ? value * share : marks[c] == tap ? value : 0;
          }
          continue;
        }
        for (int v = 0; v < vectors; ++v) {
          if constexpr (mean) {
            store(to + v * lanes, grad[v]);
          } else {
            const auto mine = (Vector<T>)((taps[v] == Index{} + tap) & (Index)grad[v]);
            store(to + v * lanes, kind == Spread::kMax ? mine : load(to + v * lanes) + mine);
          }
        }
      }
    }
  }
}

/// A row of outputs whose windows tile the input.
template <class S, Spread kind>
void spread_part(const PoolPart& a) {
  constexpr int lanes = lanes_of<S>;
  const PoolWindows& w = *a.windows;
  for_pixels(a.row, w.axis[1].out, w.axis[2].out, [&](const Position& at) OPSIN_INLINED {
    int64_t c = a.first;
    for (; c + 4 * lanes <= a.last; c += 4 * lanes) spread<S, 4, kind>(a, at, c, 4 * lanes);
    for (; c + lanes <= a.last; c += lanes) spread<S, 1, kind>(a, at, c, lanes);
    if (c < a.last) spread<S, 1, kind>(a, at, c, a.last - c);
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
        some(first, last, from, [=](int64_t c) OPSIN_INLINED { return indices[c] * channels + c; }, body);
      } else {
        const uint8_t* taps = a.taps + from;
        const int64_t to = (start + first_of(w.axis[2], o2)) * channels;
        some(
            first, last, from, [=, this](int64_t c) OPSIN_INLINED { return to + offset[taps[c]] + c; }, body);
      }
    }
  }

 private:
  template <class At, class F>
  OPSIN_INLINE static void some(int64_t c, int64_t last, int64_t from, At&& place, F&& body) {
    constexpr int together = 4;
    for (; c + together <= last; c += together) {
      int64_t at[together];
      for (int k = 0; k < together; ++k) at[k] = place(c + k);
      body.template operator()<together>(from + c, at);
    }
    for (; c < last; ++c) {
      const int64_t at = place(c);
      body.template operator()<1>(from + c, &at);
    }
  }
  int64_t pixel(int64_t i0, int64_t i1, int64_t i2) const {
    return (i0 * w.axis[1].in + i1) * w.axis[2].in + i2;
  }

  const PoolPart& a;
  const PoolWindows& w;
  int64_t offset[256];  // In elements, of every tap from the first pixel of its window.
};

/// The windows of one image, for channels up to `last`, a multiple of the lanes from the first.
template <class S>
void spread_image(const PoolPart& a, int64_t last) {
  constexpr int lanes = lanes_of<Compute<S>>;
  const PoolAxis(&axis)[3] = a.windows->axis;
  for (int64_t row = 0; row < axis[0].out * axis[1].out; ++row) {
    for_pixels(row, axis[1].out, axis[2].out, [&](const Position& at) OPSIN_INLINED {
      int64_t c = a.first;
      for (; c + 4 * lanes <= last; c += 4 * lanes) spread<S, 4, Spread::kMaxAdded>(a, at, c, 4 * lanes);
      for (; c < last; c += lanes) spread<S, 1, Spread::kMaxAdded>(a, at, c, lanes);
    });
  }
}

/// Every maximum gets its gradient. Not inlined: GCC would have no registers left for the inner loop.
template <class S>
[[gnu::noinline]] void add_maxima(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  Compute<S>* to =
      static_cast<Compute<S>*>(a.out) + a.image * w.axis[0].in * w.axis[1].in * w.axis[2].in * w.channels;
  const S* grad = static_cast<const S*>(a.in);
  const Located located(a);
  for (int64_t o0 = 0; o0 < w.axis[0].out; ++o0) {
    for (int64_t o1 = 0; o1 < w.axis[1].out; ++o1) {
      located.for_row(o0, o1, [&]<int n>(int64_t from, const int64_t* at) OPSIN_INLINED {
        // All loads first: the processor does not know that no two channels share an element.
        Compute<S> sum[n];
        for (int k = 0; k < n; ++k) sum[k] = to[at[k]] + widen(grad[from + k]);
        for (int k = 0; k < n; ++k) to[at[k]] = sum[k];
      });
    }
  }
}

// `out` is in the type of computation; its channels of this image are overwritten.
template <class S>
void scatter_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  const int64_t in = w.axis[0].in * w.axis[1].in * w.axis[2].in;
  Compute<S>* to = static_cast<Compute<S>*>(a.out) + a.image * in * w.channels;
  for (int64_t p = 0; p < in; ++p) {
    for (int64_t c = a.first; c < a.last; ++c) to[p * w.channels + c] = 0;
  }
  // Every pixel of a window is asked whether it is the maximum, which vectors do, or every maximum gets its
  // gradient, which they cannot: faster from some size on, measured with vectors of 8.
  constexpr int lanes = lanes_of<Compute<S>>;
  PoolPart rest = a;
  if (w.dense && 2 * w.axis[0].kernel * w.axis[1].kernel * w.axis[2].kernel <= 3 * lanes) {
    rest.first = a.last - (a.last - a.first) % lanes;
    spread_image<S>(a, rest.first);
  }
  if (rest.first < rest.last) add_maxima<S>(rest);
}

template <class S>
void gather_part(const PoolPart& a) {
  const PoolWindows& w = *a.windows;
  const int64_t in = w.axis[0].in * w.axis[1].in * w.axis[2].in;
  const S* x = static_cast<const S*>(a.in) + a.image * in * w.channels;
  S* y = static_cast<S*>(a.out);
  Located(a).for_row(a.row / w.axis[1].out, a.row % w.axis[1].out,
                     [&]<int n>(int64_t to, const int64_t* at) OPSIN_INLINED {
                       for (int k = 0; k < n; ++k) y[to + k] = x[at[k]];
                     });
}

template <class S>
constexpr auto spread_of(bool mean) -> void (*)(const PoolPart&) {
  if constexpr (is_half<S>) {
    return nullptr;
  } else {
    return mean ? spread_part<S, Spread::kMean> : spread_part<S, Spread::kMax>;
  }
}

template <class S>
constexpr PoolGradients gradients = {avg_backward_part<S>, max_backward_part<S>, spread_of<S>(true),
                                     spread_of<S>(false),  scatter_part<S>,      gather_part<S>};

}  // namespace

const PoolGradientTable& pool_gradient_table() {
  static constexpr PoolGradientTable table = {gradients<float>, gradients<double>, gradients<Float16>,
                                              gradients<BFloat16>};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
