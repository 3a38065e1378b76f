// Selection loops, compiled once per instruction set. Values are moved, not computed, so only their size
// matters.
#include "where_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

struct Bits128 {
  uint64_t low, high;
};

template <class S>
void loop(char* const* data, const int64_t* strides, int64_t n, const void*) {
  const int64_t c = strides[1], a = strides[2], b = strides[3];
  if (strides[0] == sizeof(S) && c == 1 && (a == sizeof(S) || a == 0) && (b == sizeof(S) || b == 0)) {
    auto* y = reinterpret_cast<S*>(data[0]);
    const auto* condition = reinterpret_cast<const uint8_t*>(data[1]);
    const auto* yes = reinterpret_cast<const S*>(data[2]);
    const auto* no = reinterpret_cast<const S*>(data[3]);
    const int64_t step_a = a != 0, step_b = b != 0;
    if (step_a && step_b) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) y[i] = condition[i] ? yes[i] : no[i];
    } else {
      for (int64_t i = 0; i < n; ++i) y[i] = condition[i] ? yes[i * step_a] : no[i * step_b];
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const bool condition = *reinterpret_cast<const uint8_t*>(data[1] + i * c) != 0;
    *reinterpret_cast<S*>(data[0] + i * strides[0]) =
        *reinterpret_cast<const S*>(condition ? data[2] + i * a : data[3] + i * b);
  }
}

constexpr WhereTable kTable{{loop<uint8_t>, loop<uint16_t>, loop<uint32_t>, loop<uint64_t>, loop<Bits128>}};

}  // namespace

const WhereTable& where_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
