// The focal loss over rows, compiled once per instruction set.
#include "focal_kernels.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class T, bool kSquare>
void values(void* const* data, int64_t n, T alpha, T gamma) {
  const Focal<T> focal{alpha, gamma};
  auto* y = static_cast<T*>(data[0]);
  const auto* x = static_cast<const T*>(data[1]);
  const auto* t = static_cast<const T*>(data[2]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = focal.value(x[i], t[i], kSquare);
}

template <class T, bool kSquare>
void slopes(void* const* data, int64_t n, T alpha, T gamma) {
  const Focal<T> focal{alpha, gamma};
  auto* dx = static_cast<T*>(data[0]);
  const auto* dy = static_cast<const T*>(data[1]);
  const auto* x = static_cast<const T*>(data[2]);
  const auto* t = static_cast<const T*>(data[3]);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) dx[i] = focal.slope(dy[i], x[i], t[i], kSquare);
}

template <class T>
void forward(void* const* data, int64_t n, const void* params) {
  const auto& args = *static_cast<const FocalArgs*>(params);
  const auto alpha = static_cast<T>(args.alpha), gamma = static_cast<T>(args.gamma);
  args.gamma == 2 ? values<T, true>(data, n, alpha, gamma) : values<T, false>(data, n, alpha, gamma);
}

template <class T>
void backward(void* const* data, int64_t n, const void* params) {
  const auto& args = *static_cast<const FocalArgs*>(params);
  const auto alpha = static_cast<T>(args.alpha), gamma = static_cast<T>(args.gamma);
  args.gamma == 2 ? slopes<T, true>(data, n, alpha, gamma) : slopes<T, false>(data, n, alpha, gamma);
}

constexpr FocalTable kTable{{forward<float>, forward<double>}, {backward<float>, backward<double>}};

}  // namespace

const FocalTable& focal_table() { return kTable; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
