// Rows between the storage type and the type of computation.
#pragma once

#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class S, class T>
void widen_all(const void* in, void* out, int64_t count) {
  constexpr int lanes = lanes_of<T>;
  const S* from = static_cast<const S*>(in);
  T* to = static_cast<T*>(out);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load_wide(from + i));
  for (; i < count; ++i) to[i] = widen(from[i]);
}

template <class S, class T>
void narrow_all(const void* in, void* out, int64_t count) {
  const T* from = static_cast<const T*>(in);
  S* to = static_cast<S*>(out);
  constexpr int lanes = lanes_of<T>;
  for (int64_t i = 0; i < count; i += lanes) store_some(to + i, load_some<T>(from + i, count - i), count - i);
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
