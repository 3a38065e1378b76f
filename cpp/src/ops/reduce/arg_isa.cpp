// Positions of extrema, compiled once per instruction set.
#include "arg_kernels.h"

#include "core/half_rows.h"
#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

struct Max {
  template <class T>
  OPSIN_FN static bool better(T a, T b) {
    return a > b;
  }
};
struct Min {
  template <class T>
  OPSIN_FN static bool better(T a, T b) {
    return a < b;
  }
};

/// Whether a comes before b: more extreme, or the first NaN.
template <class Order, class T>
OPSIN_FN bool beats(T a, T b) {
  return Order::better(a, b) | ((a != a) & (b == b));
}

/// In lanes first, for the value alone; the position is found by a second look.
template <class Order, class S>
OPSIN_FN int64_t find(const S* x, int64_t n) {
  using T = Compute<S>;
  constexpr int kLanes = 64;
  if (n < 2 * kLanes) {
    int64_t best = 0;
    T value = static_cast<T>(x[0]);
    for (int64_t i = 1; i < n; ++i) {
      const T candidate = static_cast<T>(x[i]);
      if (beats<Order>(candidate, value)) {
        value = candidate;
        best = i;
      }
    }
    return best;
  }
  alignas(64) T lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = static_cast<T>(x[j]);
  int64_t i = kLanes;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const T candidate = static_cast<T>(x[i + j]);
      lanes[j] = beats<Order>(candidate, lanes[j]) ? candidate : lanes[j];
    }
  }
  T value = lanes[0];
  for (int j = 1; j < kLanes; ++j) value = beats<Order>(lanes[j], value) ? lanes[j] : value;
  for (; i < n; ++i) value = beats<Order>(static_cast<T>(x[i]), value) ? static_cast<T>(x[i]) : value;
  const bool is_nan = value != value;
  int64_t at = 0;
  for (; at + kLanes <= n; at += kLanes) {
    int hits = 0;
    for (int j = 0; j < kLanes; ++j) {
      const T candidate = static_cast<T>(x[at + j]);
      hits |= (candidate == value) | (is_nan & (candidate != candidate));
    }
    if (hits) break;
  }
  while (at + 1 < n && static_cast<T>(x[at]) != value &&
         !(is_nan && static_cast<T>(x[at]) != static_cast<T>(x[at])))
    ++at;
  return at;
}

template <class Order, class S>
void rows(char* values, int64_t* positions, const char* data, int64_t count, int64_t step, int64_t n) {
  auto* y = reinterpret_cast<S*>(values);
  for (int64_t c = 0; c < count; ++c) {
    const S* x = reinterpret_cast<const S*>(data + c * step);
    positions[c] = find<Order>(x, n);
    y[c] = x[positions[c]];
  }
}

/// Outputs side by side, as many as the first cache holds; positions as wide as the values make vectors.
template <class Order, class S, class Index>
void column_blocks(char* values, int64_t* positions, const char* data, int64_t count, int64_t step,
                   int64_t n) {
  using T = Compute<S>;
  constexpr int64_t kBlock = 256;
  alignas(64) T best[kBlock], buffer[kBlock];
  alignas(64) Index where[kBlock];
  const auto element = [&](int64_t i) { return reinterpret_cast<const S*>(data + i * step); };
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t width = count - begin < kBlock ? count - begin : kBlock;
    const auto read = [&](int64_t i, T* to) {
      if constexpr (std::is_same_v<S, float16>) {
        widen_half(reinterpret_cast<const uint16_t*>(element(i) + begin), to, width);
      } else {
        for (int64_t c = 0; c < width; ++c) to[c] = static_cast<T>(element(i)[begin + c]);
      }
    };
    read(0, best);
    for (int64_t c = 0; c < width; ++c) where[c] = 0;
    for (int64_t i = 1; i < n; ++i) {
      const T* x = buffer;
      if constexpr (std::is_same_v<S, T>) {
        x = element(i) + begin;
      } else {
        read(i, buffer);
      }
#pragma GCC ivdep
      for (int64_t c = 0; c < width; ++c) {
        const bool take = beats<Order>(x[c], best[c]);
        best[c] = take ? x[c] : best[c];
        where[c] = take ? static_cast<Index>(i) : where[c];
      }
    }
    auto* y = reinterpret_cast<S*>(values) + begin;
    for (int64_t c = 0; c < width; ++c) {
      positions[begin + c] = where[c];
      y[c] = element(where[c])[begin + c];
    }
  }
}

template <class Order, class S>
void columns(char* values, int64_t* positions, const char* data, int64_t count, int64_t step, int64_t n) {
  constexpr bool kWide = sizeof(Compute<S>) == 8;
  if (kWide || n > std::numeric_limits<int32_t>::max()) {
    column_blocks<Order, S, int64_t>(values, positions, data, count, step, n);
  } else {
    column_blocks<Order, S, int32_t>(values, positions, data, count, step, n);
  }
}

template <class Order>
constexpr void fill(ArgKernel (&kernels)[kNumDTypes]) {
  const auto set = [&]<class S>(DType dtype) {
    kernels[static_cast<int>(dtype)] = {rows<Order, S>, columns<Order, S>};
  };
  set.template operator()<uint8_t>(kBool);
  set.template operator()<uint8_t>(kUInt8);
  set.template operator()<int8_t>(kInt8);
  set.template operator()<int16_t>(kInt16);
  set.template operator()<int32_t>(kInt32);
  set.template operator()<int64_t>(kInt64);
  set.template operator()<float16>(kFloat16);
  set.template operator()<bfloat16>(kBFloat16);
  set.template operator()<float>(kFloat32);
  set.template operator()<double>(kFloat64);
}

constexpr ArgTable make_table() {
  ArgTable table{};
  fill<Max>(table.max);
  fill<Min>(table.min);
  return table;
}

}  // namespace

const ArgTable& arg_table() {
  static constexpr ArgTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
