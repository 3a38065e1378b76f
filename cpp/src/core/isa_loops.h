// Row loops for files that are compiled once per instruction set. Everything is always inlined or in an
// unnamed namespace, because a shared symbol would be merged across instruction sets.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

#include "core/math.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class S>
struct ComputeOf {
  using type = S;
};
template <>
struct ComputeOf<float16> {
  using type = float;
};
template <>
struct ComputeOf<bfloat16> {
  using type = float;
};
/// The type in which values stored as S are computed.
template <class S>
using Compute = typename ComputeOf<S>::type;

template <class S>
OPSIN_FN Compute<S> load(const char* data) {
  return static_cast<Compute<S>>(*reinterpret_cast<const S*>(data));
}

/// out[i] = f(in1[i], ...) over one row. Dense rows and rows with a broadcast operand get loops of their own,
/// which compilers vectorise; others step by their strides. `f` takes and gives compute types.
template <class Out, class In, class F>
OPSIN_FN void map_rows(char* const* data, const int64_t* strides, int64_t n, F f) {
  char* out = data[0];
  const char* in = data[1];
  if (strides[0] == sizeof(Out) && strides[1] == sizeof(In)) {
    auto* o = reinterpret_cast<Out*>(out);
    const auto* x = reinterpret_cast<const In*>(in);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(static_cast<Compute<In>>(x[i])));
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    *reinterpret_cast<Out*>(out + i * strides[0]) = static_cast<Out>(f(load<In>(in + i * strides[1])));
  }
}

template <class Out, class In1, class In2, class F>
OPSIN_FN void map_rows(char* const* data, const int64_t* strides, int64_t n, F f) {
  if (strides[0] == sizeof(Out)) {
    auto* o = reinterpret_cast<Out*>(data[0]);
    const auto* x = reinterpret_cast<const In1*>(data[1]);
    const auto* y = reinterpret_cast<const In2*>(data[2]);
    if (strides[1] == sizeof(In1) && strides[2] == sizeof(In2)) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        o[i] = static_cast<Out>(f(static_cast<Compute<In1>>(x[i]), static_cast<Compute<In2>>(y[i])));
      }
      return;
    }
    if (strides[1] == sizeof(In1) && strides[2] == 0) {
      const auto b = static_cast<Compute<In2>>(*y);
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(static_cast<Compute<In1>>(x[i]), b));
      return;
    }
    if (strides[1] == 0 && strides[2] == sizeof(In2)) {
      const auto a = static_cast<Compute<In1>>(*x);
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) o[i] = static_cast<Out>(f(a, static_cast<Compute<In2>>(y[i])));
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    *reinterpret_cast<Out*>(data[0] + i * strides[0]) =
        static_cast<Out>(f(load<In1>(data[1] + i * strides[1]), load<In2>(data[2] + i * strides[2])));
  }
}

template <class Out, class In1, class In2, class In3, class F>
OPSIN_FN void map_rows(char* const* data, const int64_t* strides, int64_t n, F f) {
  if (strides[0] == sizeof(Out) && strides[1] == sizeof(In1) && strides[2] == sizeof(In2) &&
      strides[3] == sizeof(In3)) {
    auto* o = reinterpret_cast<Out*>(data[0]);
    const auto* x = reinterpret_cast<const In1*>(data[1]);
    const auto* y = reinterpret_cast<const In2*>(data[2]);
    const auto* z = reinterpret_cast<const In3*>(data[3]);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      o[i] = static_cast<Out>(f(static_cast<Compute<In1>>(x[i]), static_cast<Compute<In2>>(y[i]),
                                static_cast<Compute<In3>>(z[i])));
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    *reinterpret_cast<Out*>(data[0] + i * strides[0]) =
        static_cast<Out>(f(load<In1>(data[1] + i * strides[1]), load<In2>(data[2] + i * strides[2]),
                           load<In3>(data[3] + i * strides[3])));
  }
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
