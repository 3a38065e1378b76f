// Loops over channels, compiled once per instruction set. Blocks of constant length keep their sums in
// registers while the taps go by.
#include "tap_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

/// A length that the compiler knows.
template <int kLength>
struct Block {
  static constexpr int length = kLength;
};
/// Calls body(first channel, block) for blocks of 32 channels, then of 8, then for single ones.
template <class F>
OPSIN_FN void for_blocks(int64_t channels, F&& body) {
  int64_t c = 0;
  for (; c + 32 <= channels; c += 32) body(c, Block<32>());
  for (; c + 8 <= channels; c += 8) body(c, Block<8>());
  for (; c < channels; ++c) body(c, Block<1>());
}

template <class S, class B>
OPSIN_FN void sum_taps(const TapParams& p, int64_t c, B, Compute<S>* sum) {
  using T = Compute<S>;
  const auto* x = static_cast<const S*>(p.x) + c;
  const auto* weights = static_cast<const T*>(p.weights);
  for (int j = 0; j < B::length; ++j) sum[j] = T(0);
  for (int64_t t = 0; t < p.taps; ++t) {
    const S* row = x + p.at[t];
    const T w = weights[t];
#pragma GCC ivdep
    for (int j = 0; j < B::length; ++j) sum[j] += w * static_cast<T>(row[j]);
  }
}

template <class S>
void gather(const TapParams& p, void* y) {
  for_blocks(p.channels, [&]<class B>(int64_t c, B block) __attribute__((always_inline)) {
    alignas(64) Compute<S> sum[B::length];
    sum_taps<S>(p, c, block, sum);
    S* out = static_cast<S*>(y) + c;
    for (int j = 0; j < B::length; ++j) out[j] = static_cast<S>(sum[j]);
  });
}

template <class S, class Keep>
OPSIN_FN void spread_where(const TapParams& p, void* y, Keep keep) {
  using T = Compute<S>;
  const auto* weights = static_cast<const T*>(p.weights);
  for_blocks(p.channels, [&]<class B>(int64_t c, B) __attribute__((always_inline)) {
    const S* x = static_cast<const S*>(p.x) + c;
    alignas(64) T g[B::length];
#pragma GCC ivdep
    for (int j = 0; j < B::length; ++j) g[j] = keep(c + j) ? static_cast<T>(x[j]) : T(0);
    for (int64_t t = 0; t < p.taps; ++t) {
      T* out = static_cast<T*>(y) + p.at[t] + c;
      const T w = weights[t];
#pragma GCC ivdep
      for (int j = 0; j < B::length; ++j) out[j] += w * g[j];
    }
  });
}
template <class S>
void spread(const TapParams& p, void* y) {
  spread_where<S>(p, y, [](int64_t) { return true; });
}
template <class S>
void spread_taken(const TapParams& p, int32_t number, const int32_t* taken, void* y) {
  spread_where<S>(p, y, [&](int64_t c) __attribute__((always_inline)) { return taken[c] == number; });
}

template <class S>
void products(const TapParams& p, const void* gradient, void* result) {
  using T = Compute<S>;
  constexpr int kLanes = 16;
  const auto* g = static_cast<const S*>(gradient);
  for (int64_t t = 0; t < p.taps; ++t) {
    const S* x = static_cast<const S*>(p.x) + p.at[t];
    alignas(64) T lanes[kLanes] = {};
    int64_t c = 0;
    for (; c + kLanes <= p.channels; c += kLanes) {
#pragma GCC ivdep
      for (int j = 0; j < kLanes; ++j) lanes[j] += static_cast<T>(g[c + j]) * static_cast<T>(x[c + j]);
    }
    for (int64_t j = 0; c + j < p.channels; ++j) {
      lanes[j] += static_cast<T>(g[c + j]) * static_cast<T>(x[c + j]);
    }
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
    }
    static_cast<T*>(result)[t] = lanes[0];
  }
}

template <class S>
void largest(const TapParams& p, int32_t number, void* best, int32_t* taken) {
  using T = Compute<S>;
  for_blocks(p.channels, [&]<class B>(int64_t c, B block) __attribute__((always_inline)) {
    alignas(64) T sum[B::length];
    sum_taps<S>(p, c, block, sum);
    T* most = static_cast<T*>(best) + c;
    int32_t* which = taken + c;
#pragma GCC ivdep
    for (int j = 0; j < B::length; ++j) {
      const bool more = sum[j] > most[j] || sum[j] != sum[j];
      most[j] = more ? sum[j] : most[j];
      which[j] = more ? number : which[j];
    }
  });
}

template <class S>
void narrow(const void* values, int64_t channels, void* y) {
  const auto* from = static_cast<const Compute<S>*>(values);
  auto* to = static_cast<S*>(y);
#pragma GCC ivdep
  for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<S>(from[c]);
}

constexpr TapTable make_table() {
  TapTable table{};
  const auto set = [&]<class S>(DType dtype) {
    const int d = static_cast<int>(dtype);
    table.gather[d] = gather<S>;
    table.spread[d] = spread<S>;
    table.spread_taken[d] = spread_taken<S>;
    table.products[d] = products<S>;
    table.largest[d] = largest<S>;
    table.narrow[d] = narrow<S>;
  };
  set.template operator()<float16>(kFloat16);
  set.template operator()<bfloat16>(kBFloat16);
  set.template operator()<float>(kFloat32);
  set.template operator()<double>(kFloat64);
  return table;
}

}  // namespace

const TapTable& tap_table() {
  static constexpr TapTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
