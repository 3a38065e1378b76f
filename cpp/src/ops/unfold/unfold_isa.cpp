// Rows of windows, compiled once per instruction set.
#include "unfold_kernels.h"

#include "core/half_rows.h"
#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
void take(const void* from, int64_t n, int64_t step, void* to) {
  const auto* x = static_cast<const S*>(from);
  auto* y = static_cast<S*>(to);
  if (step == 1) {
    __builtin_memcpy(y, x, static_cast<size_t>(n) * sizeof(S));
  } else if (step == 2) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = x[2 * i];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * step];
  }
}

template <class S>
OPSIN_FN void add_row(const S* row, int64_t n, int64_t step, S* sums) {
  if (step == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) sums[i] += row[i];
  } else {
    for (int64_t i = 0; i < n; ++i) sums[i * step] += row[i];
  }
}

template <class S>
void add(const void* rows, const UnfoldReach* reach, int64_t taps, int64_t apart, int64_t step, void* sums) {
  for (int64_t tap = 0; tap < taps; ++tap) {
    const UnfoldReach& r = reach[tap];
    add_row(static_cast<const S*>(rows) + tap * apart + r.begin, r.end - r.begin, step,
            static_cast<S*>(sums) + r.first);
  }
}

template <void (*kWiden)(const uint16_t*, float*, int64_t)>
void add_wide(const void* rows, const UnfoldReach* reach, int64_t taps, int64_t apart, int64_t step,
              void* sums) {
  constexpr int64_t kBlock = 256;
  float wide[kBlock];
  for (int64_t tap = 0; tap < taps; ++tap) {
    const UnfoldReach& r = reach[tap];
    const auto* row = static_cast<const uint16_t*>(rows) + tap * apart;
    for (int64_t i = r.begin; i < r.end; i += kBlock) {
      const int64_t count = r.end - i < kBlock ? r.end - i : kBlock;
      kWiden(row + i, wide, count);
      add_row<float>(wide, count, step, static_cast<float*>(sums) + r.first + (i - r.begin) * step);
    }
  }
}

template <void (*kNarrow)(const float*, uint16_t*, int64_t)>
void round(const float* sums, int64_t n, void* to) {
  kNarrow(sums, static_cast<uint16_t*>(to), n);
}

constexpr UnfoldTable kTable{{take<uint16_t>, take<uint32_t>, take<uint64_t>},
                             {add<float>, add<double>, add_wide<widen_half>, add_wide<widen_bfloat>},
                             {round<narrow_half>, round<narrow_bfloat>}};

}  // namespace

const UnfoldTable& unfold_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
