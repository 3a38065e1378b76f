// Pooling of float32 images that lie row by row, compiled once per instruction set. Windows that are whole
// along a row and one or two pixels apart are done a vector of neighbours at a time, the others one by one.
// Pixels come in the order of the channels-last kernels, so that both give the same bits.
#include "lanes.h"
#include "pool_pixels.h"
#include "pool_planar_table.h"

#include <cstdint>

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

constexpr int lanes = lanes_of<float>;

enum class Kind { kMax, kPlaces, kSum };

/// The result of one window, or of `lanes` neighbouring ones, so far.
template <Kind kind, class Value, class Index>
struct Window {
  Value value;
  Index place;

  Window(Value start, Index first) : value(start), place(first) {}

  OPSIN_INLINE void add(Value x, int32_t at) {
    if constexpr (kind == Kind::kSum) {
      value = value + x;
    } else {
      const auto take = (x > value) | (x != x);
      value = take ? x : value;
      if constexpr (kind == Kind::kPlaces) place = take ? Index{} + at : place;
    }
  }
};

/// One row of outputs.
struct Row {
  const PoolPart& part;
  const PoolWindows& w;
  const float* plane;
  int64_t o0, o1, out;
  int32_t first, step[3];  // What places count from, and by.

  explicit Row(const PoolPart& a) : part(a), w(*a.windows) {
    const PoolAxis(&axis)[3] = w.axis;
    plane = static_cast<const float*>(a.in) + a.image * axis[0].in * axis[1].in * axis[2].in;
    o0 = a.row / axis[1].out;
    o1 = a.row % axis[1].out;
    out = ((a.image * axis[0].out + o0) * axis[1].out + o1) * axis[2].out;
    const bool taps = a.taps != nullptr;
    const int64_t line = taps ? axis[2].kernel : axis[2].in,
                  sheet = line * (taps ? axis[1].kernel : axis[1].in);
    step[0] = static_cast<int32_t>(sheet * (taps ? 1 : axis[0].step));
    step[1] = static_cast<int32_t>(line * (taps ? 1 : axis[1].step));
    step[2] = static_cast<int32_t>(taps ? 1 : axis[2].step);
    first = taps
                ? 0
                : static_cast<int32_t>((inside(axis[0], o0) * axis[1].in + inside(axis[1], o1)) * axis[2].in);
  }

  static int64_t inside(const PoolAxis& axis, int64_t o) {
    return axis.begin[o] < axis.in ? axis.begin[o] : axis.in - 1;
  }
  bool empty() const {
    return w.axis[0].begin[o0] >= w.axis[0].end[o0] || w.axis[1].begin[o1] >= w.axis[1].end[o1];
  }
  float divisor(int64_t o2) const {
    return static_cast<float>(
        w.divisor != 0 ? w.divisor : w.axis[0].length[o0] * w.axis[1].length[o1] * w.axis[2].length[o2]);
  }

  /// Calls body(line of the input, place of its first pixel) for the lines of the windows of this row.
  template <class F>
  OPSIN_INLINE void for_lines(F&& body) const {
    int32_t at0 = first;
    for (int64_t i0 = w.axis[0].begin[o0]; i0 < w.axis[0].end[o0]; i0 += w.axis[0].step, at0 += step[0]) {
      int32_t at1 = at0;
      for (int64_t i1 = w.axis[1].begin[o1]; i1 < w.axis[1].end[o1]; i1 += w.axis[1].step, at1 += step[1]) {
        body(plane + (i0 * w.axis[1].in + i1) * w.axis[2].in, at1);
      }
    }
  }
};

constexpr float lowest = -__builtin_inff();

/// Window o of a row, of any extent.
template <Kind kind>
OPSIN_INLINE void single(const Row& row, int64_t o) {
  const PoolAxis& axis = row.w.axis[2];
  const int64_t begin = Row::inside(axis, o);
  Window<kind, float, int32_t> window(kind == Kind::kSum ? 0 : lowest, row.first);
  row.for_lines([&](const float* line, int32_t at) {
    for (int64_t i = axis.begin[o]; i < axis.end[o]; i += axis.step, at += row.step[2])
      window.add(line[i], at);
  });
  if constexpr (kind == Kind::kSum) {
    if (!row.empty() && axis.begin[o] < axis.end[o]) window.value /= row.divisor(o);
  }
  static_cast<float*>(row.part.out)[row.out + o] = window.value;
  if constexpr (kind == Kind::kPlaces) {
    if (row.part.taps != nullptr) {
      row.part.taps[row.out + o] = static_cast<uint8_t>(window.place);
    } else {
      row.part.indices[row.out + o] = window.place + begin;
    }
  }
}

/// The elements of a and b in turn, the lower or the upper half of them.
OPSIN_INLINE Float in_turn(Float a, Float b, bool upper) {
  Int32 from{};
  for (int i = 0; i < lanes; ++i) from[i] = i / 2 + (upper ? lanes / 2 : 0) + (i % 2 == 0 ? 0 : lanes);
  return __builtin_shuffle(a, b, from);
}

/// Windows o to o + vectors * lanes - 1, all of them whole and `stride` apart; with stride 2 they have at
/// least two pixels without a step between them.
template <Kind kind, int stride, int vectors>
OPSIN_INLINE void several(const Row& row, int64_t o, Float divisor) {
  const PoolAxis& axis = row.w.axis[2];
  const int64_t begin = axis.begin[o], kernel = axis.kernel;
  constexpr int64_t apart = stride * lanes;
  Float value[vectors];
  Int32 place[vectors];
  for (int v = 0; v < vectors; ++v) {
    value[v] = broadcast(kind == Kind::kSum ? 0.0f : lowest);
    place[v] = Int32{} + row.first;
  }
  const auto add = [&](int v, Float x, int32_t at) OPSIN_INLINED {
    Window<kind, Float, Int32> window(value[v], place[v]);
    window.add(x, at);
    value[v] = window.value;
    place[v] = window.place;
  };
  row.for_lines([&](const float* line, int32_t at) OPSIN_INLINED {
    const float* x = line + begin;
    if constexpr (stride == 1) {
      for (int64_t t = 0; t < kernel; ++t, at += row.step[2]) {
        for (int v = 0; v < vectors; ++v) add(v, load(x + v * apart + t * axis.step), at);
      }
    } else {
      int64_t t = 0;
      for (; t + 2 <= kernel; t += 2, at += 2 * row.step[2]) {
        for (int v = 0; v < vectors; ++v) {
          const Float a = load(x + v * apart + t), b = load(x + v * apart + t + lanes);
          add(v, halve<float>(a, b, 0), at);
          add(v, halve<float>(a, b, 1), at + row.step[2]);
        }
      }
      // One pixel earlier, so that nothing beyond the last window is read.
      for (int v = 0; v < vectors && t < kernel; ++v) {
        const float* last = x + v * apart + t - 1;
        add(v, halve<float>(load(last), load(last + lanes), 1), at);
      }
    }
  });
  for (int v = 0; v < vectors; ++v, o += lanes) {
    if constexpr (kind == Kind::kSum) value[v] = value[v] / divisor;
    store(static_cast<float*>(row.part.out) + row.out + o, value[v]);
    if constexpr (kind == Kind::kPlaces) {
      int32_t at[lanes];
      __builtin_memcpy(at, &place[v], sizeof at);
      if (row.part.taps != nullptr) {
        uint8_t* taps = row.part.taps + row.out + o;
        for (int i = 0; i < lanes; ++i) taps[i] = static_cast<uint8_t>(at[i]);
      } else {
        int64_t* indices = row.part.indices + row.out + o;
        for (int i = 0; i < lanes; ++i) indices[i] = at[i] + begin + v * apart + i * stride;
      }
    }
  }
}

template <Kind kind>
OPSIN_INLINE void pool_row(const PoolPart& part) {
  const Row row(part);
  const PoolWindows& w = row.w;
  const PoolAxis& axis = w.axis[2];
  const bool pairs = w.stride == 2 && axis.step == 1 && axis.kernel >= 2;
  int64_t low = w.low, high = w.high;
  if (high - low < lanes || !(w.stride == 1 || pairs)) low = high = 0;
  for (int64_t i = 0; i < low; ++i) single<kind>(row, i);
  const Float divisor = broadcast(kind != Kind::kSum || low == high || row.empty() ? 1.0f : row.divisor(low));
  constexpr int vectors = 4;
  int64_t o = low;
  for (; o + vectors * lanes <= high; o += vectors * lanes) {
    if (w.stride == 1) {
      several<kind, 1, vectors>(row, o, divisor);
    } else {
      several<kind, 2, vectors>(row, o, divisor);
    }
  }
  for (; o < high; o += lanes) {
    // The last vector begins earlier and repeats what the one before did.
    const int64_t from = o + lanes <= high ? o : high - lanes;
    if (w.stride == 1) {
      several<kind, 1, 1>(row, from, divisor);
    } else {
      several<kind, 2, 1>(row, from, divisor);
    }
  }
  for (o = high; o < axis.out; ++o) single<kind>(row, o);
}

void max_row(const PoolPart& part) {
  if (part.taps == nullptr && part.indices == nullptr) {
    pool_row<Kind::kMax>(part);
  } else {
    pool_row<Kind::kPlaces>(part);
  }
}

void avg_row(const PoolPart& part) { pool_row<Kind::kSum>(part); }

constexpr int64_t chunk = 512;

/// One row of the gradient: the rows of windows that cover it are added up, then spread over the pixels of
/// each window.
void avg_backward_row(const PoolPart& part) {
  const PoolWindows& w = *part.windows;
  const PoolAxis(&axis)[3] = w.axis;
  const int64_t i0 = part.row / axis[1].in, i1 = part.row % axis[1].in, width = axis[2].in;
  float* __restrict to =
      static_cast<float*>(part.out) + ((part.image * axis[0].in + i0) * axis[1].in + i1) * width;
  const float* grad =
      static_cast<const float*>(part.in) + part.image * axis[0].out * axis[1].out * axis[2].out;
  for (int64_t i = 0; i < width; ++i) to[i] = 0;
  for (int64_t start = 0; start < axis[2].out; start += chunk) {
    const int64_t stop = start + chunk < axis[2].out ? start + chunk : axis[2].out;
    const auto within = [&](int64_t o) { return o < start ? start : o > stop ? stop : o; };
    const int64_t low = within(w.low), high = within(w.high);
    float sums[chunk];
    for (int64_t o = start; o < stop; ++o) sums[o - start] = 0;
    for (int64_t o0 = axis[0].first[i0]; o0 < axis[0].last[i0]; ++o0) {
      for (int64_t o1 = axis[1].first[i1]; o1 < axis[1].last[i1]; ++o1) {
        const float* from = grad + (o0 * axis[1].out + o1) * axis[2].out;
        const int64_t sheet = axis[0].length[o0] * axis[1].length[o1];
        const auto scale = [&](int64_t o) {
          return 1 / static_cast<float>(w.divisor != 0 ? w.divisor : sheet * axis[2].length[o]);
        };
        for (int64_t o = start; o < low; ++o) sums[o - start] += from[o] * scale(o);
        const float whole = low < high ? scale(low) : 0;
        for (int64_t o = low; o < high; ++o) sums[o - start] += from[o] * whole;
        for (int64_t o = high; o < stop; ++o) sums[o - start] += from[o] * scale(o);
      }
    }
    const auto spread = [&](int64_t from, int64_t end) {
      for (int64_t o = from; o < end; ++o) {
        for (int64_t i = axis[2].begin[o]; i < axis[2].end[o]; ++i) to[i] += sums[o - start];
      }
    };
    spread(start, low);
    if (w.stride == 1 && low < high) {
      for (int64_t t = 0; t < axis[2].kernel; ++t) {
        float* first = to + axis[2].begin[low] + t;
        const float* sum = sums + (low - start);
        for (int64_t o = 0; o < high - low; ++o) first[o] += sum[o];
      }
    } else if (w.stride == 2 && axis[2].kernel == 2 && low < high) {
      float* first = to + axis[2].begin[low];
      const float* sum = sums + (low - start);
      for (int64_t o = 0; o < high - low; ++o) first[2 * o] = first[2 * o + 1] = sum[o];
    } else {
      spread(low, high);
    }
    spread(high, stop);
  }
}

/// One plane of the gradient. Where windows of two pixels per row stand apart, every pixel has one window and
/// asks whether it was the one.
void max_backward_plane(const PoolPart& part) {
  const PoolWindows& w = *part.windows;
  const PoolAxis(&axis)[3] = w.axis;
  const int64_t height = axis[1].in, width = axis[2].in, in = axis[0].in * height * width;
  const int64_t outs = axis[0].out * axis[1].out * axis[2].out;
  float* __restrict to = static_cast<float*>(part.out) + part.image * in;
  const float* grad = static_cast<const float*>(part.in) + part.image * outs;
  for (int64_t i = 0; i < in; ++i) to[i] = 0;
  if (part.taps == nullptr) {
    const int64_t* indices = part.indices + part.image * outs;
    for (int64_t o = 0; o < outs; ++o) to[indices[o]] += grad[o];
    return;
  }
  const uint8_t* taps = part.taps + part.image * outs;
  int64_t offset[256], count = 0;
  for (int64_t t0 = 0; t0 < axis[0].kernel; ++t0) {
    for (int64_t t1 = 0; t1 < axis[1].kernel; ++t1) {
      for (int64_t t2 = 0; t2 < axis[2].kernel; ++t2) {
        offset[count++] = (t0 * axis[0].step * height + t1 * axis[1].step) * width + t2 * axis[2].step;
      }
    }
  }
  const bool asks = w.apart && w.stride == 2 && axis[2].kernel == 2;
  for (int64_t o0 = 0; o0 < axis[0].out; ++o0) {
    for (int64_t o1 = 0; o1 < axis[1].out; ++o1, grad += axis[2].out, taps += axis[2].out) {
      float* line = to + (Row::inside(axis[0], o0) * height + Row::inside(axis[1], o1)) * width;
      const auto scatter = [&](int64_t from, int64_t end) {
        for (int64_t o = from; o < end; ++o) line[Row::inside(axis[2], o) + offset[taps[o]]] += grad[o];
      };
      scatter(0, w.low);
      if (asks) {
        const int64_t n = w.high - w.low;
        const float* g = grad + w.low;
        const uint8_t* at = taps + w.low;
        for (int64_t i0 = axis[0].begin[o0]; i0 < axis[0].end[o0]; ++i0) {
          for (int64_t i1 = axis[1].begin[o1]; i1 < axis[1].end[o1]; ++i1) {
            const auto first = static_cast<int32_t>(
                ((i0 - axis[0].begin[o0]) * axis[1].kernel + i1 - axis[1].begin[o1]) * 2);
            float* x = to + (i0 * height + i1) * width + (n > 0 ? axis[2].begin[w.low] : 0);
            int64_t o = 0;
            for (; o + lanes <= n; o += lanes) {
              const Int32 tap = load_taps<float>(at + o), value = (Int32)load(g + o);
              const auto even = (Float)((tap == Int32{} + first) & value),
                         odd = (Float)((tap == Int32{} + (first + 1)) & value);
              store(x + 2 * o, in_turn(even, odd, false));
              store(x + 2 * o + lanes, in_turn(even, odd, true));
            }
            for (; o < n; ++o) {
              x[2 * o] = at[o] == first ? g[o] : 0;
              x[2 * o + 1] = at[o] == first + 1 ? g[o] : 0;
            }
          }
        }
      } else if (w.low < w.high) {
        float* x = line + axis[2].begin[w.low];
        for (int64_t o = w.low; o < w.high; ++o, x += w.stride) x[offset[taps[o]]] += grad[o];
      }
      scatter(w.high, axis[2].out);
    }
  }
}

}  // namespace

const PoolPlanarTable& pool_planar_table() {
  static constexpr PoolPlanarTable table = {max_row, max_backward_plane, avg_row, avg_backward_row};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
