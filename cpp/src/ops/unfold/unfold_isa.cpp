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
void add(const void* row, int64_t n, int64_t step, void* sums) {
  const auto* x = static_cast<const S*>(row);
  auto* to = static_cast<S*>(sums);
  if (step == 1) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) to[i] += x[i];
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * step] += x[i];
  }
}

template <void (*kWiden)(const uint16_t*, float*, int64_t)>
void add_wide(const void* row, int64_t n, int64_t step, void* sums) {
  constexpr int64_t kBlock = 256;
  float wide[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    kWiden(static_cast<const uint16_t*>(row) + i, wide, count);
    add<float>(wide, count, step, static_cast<float*>(sums) + i * step);
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
