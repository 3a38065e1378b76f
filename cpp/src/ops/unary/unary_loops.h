// What both files of unary kernels share.
#pragma once

#include "unary_functors.h"
#include "unary_kernels.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T>
OPSIN_FN unary::Args<T> read_args(const void* params) {
  if constexpr (std::is_integral_v<T>) {
    // No op on integers has parameters, and infinite bounds have no integer value.
    return {};
  } else {
    const auto* args = static_cast<const UnaryArgs*>(params);
    return {static_cast<T>(args->a), static_cast<T>(args->b), static_cast<T>(args->c)};
  }
}

/// Calls `fast` on blocks whose angles all are within math::kTrigonometricBound, `slow` on the others.
template <class T, class Fast, class Slow>
OPSIN_FN void for_bounded_blocks(const T* x, int64_t n, Fast fast, Slow slow) {
  constexpr int64_t kBlock = 1024;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = n - begin < kBlock ? n : begin + kBlock;
    int outside = 0;
    for (int64_t i = begin; i < end; ++i) outside |= !(std::fabs(x[i]) <= math::kTrigonometricBound<T>);
    if (outside) {
      slow(begin, end);
    } else {
      fast(begin, end);
    }
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
