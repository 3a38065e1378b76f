// The transforms of cpu/conv_weight_winograd.cpp, which says what they are; vectors run over the channels.
#pragma once

#include "conv_vector.h"
#include "conv_weight_winograd_table.h"
#include "dot.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// A vector of channels of each tile of a step, rounded.
OPSIN_INLINE void put_steps(BFloat16* out, const Float (&v)[2]) {
  alignas(64) static constexpr auto index = [] {
    struct {
      uint16_t lane[32];
    } all{};
    for (uint16_t i = 0; i < 32; ++i) all.lane[i] = static_cast<uint16_t>(i / 2 + (i % 2 == 0 ? 0 : 16));
    return all;
  }();
  const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(v[1], v[0]));
  _mm512_storeu_si512(out, _mm512_permutexvar_epi16(_mm512_load_si512(index.lane), both));
}

template <class S, int From, class Axis>
OPSIN_INLINE void transform_steps(const WinogradSteps<S>& a, int64_t c, int64_t count, Axis&& axis) {
  using T = Compute<S>;
  constexpr int step = Dot<S>::step;
  Vector<T> middle[step][4][From];
#pragma GCC unroll 2
  for (int s = 0; s < step; ++s) {
#pragma GCC unroll 4
    for (int j = 0; j < From; ++j) {
      Vector<T> column[From], out[4];
#pragma GCC unroll 4
      for (int i = 0; i < From; ++i) {
        column[i] = load_some<T>(a.source[(s * From + i) * From + j] + a.source_offset + c, count);
      }
      axis(column, out);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) middle[s][i][j] = out[i];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Vector<T> row[step][4];
#pragma GCC unroll 2
    for (int s = 0; s < step; ++s) axis(middle[s][i], row[s]);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Vector<T> both[step];
#pragma GCC unroll 2
      for (int s = 0; s < step; ++s) both[s] = row[s][j];
      put_steps(a.out + (i * 4 + j) * a.stride + c * step, both);
    }
  }
}

template <class S, int From, class Axis>
OPSIN_INLINE void transform_all_steps(const WinogradSteps<S>& a, Axis&& axis) {
  constexpr int lanes = lanes_of<Compute<S>>;
  int64_t c = 0;
  for (; c + lanes <= a.channels; c += lanes) transform_steps<S, From>(a, c, lanes, axis);
  if (c < a.channels) transform_steps<S, From>(a, c, a.channels - c, axis);
}

template <class S>
void winograd_source_steps(const WinogradSteps<S>& a) {
  using V = Vector<Compute<S>>;
  transform_all_steps<S, 4>(a, [](const V(&d)[4], V(&out)[4]) {
    out[0] = d[0] - d[2];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[3] - d[1];
  });
}

template <class S>
void winograd_grad_steps(const WinogradSteps<S>& a) {
  using V = Vector<Compute<S>>;
  transform_all_steps<S, 2>(a, [](const V(&d)[2], V(&out)[4]) {
    out[0] = d[0];
    out[1] = d[0] + d[1];
    out[2] = d[0] - d[1];
    out[3] = d[1];
  });
}

template <class T>
void winograd_taps(const WinogradTaps<T>& a) {
  using V = Vector<T>;
  const V half = broadcast(static_cast<T>(0.5));
  const auto axis = [&](const V(&d)[4], V(&out)[3]) {
    const V sum = half * (d[1] + d[2]);
    out[0] = d[0] + sum;
    out[1] = half * (d[1] - d[2]);
    out[2] = sum + d[3];
  };
  for (int64_t i = 0; i < a.count; i += lanes_of<T>) {
    V middle[3][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      V column[4], out[3];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) column[k] = load(a.in + (k * 4 + j) * a.count + i);
      axis(column, out);
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) middle[k][j] = out[k];
    }
#pragma GCC unroll 3
    for (int k = 0; k < 3; ++k) {
      V out[3];
      axis(middle[k], out);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) store(a.out + (k * 3 + j) * a.count + i, out[j]);
    }
  }
}

template <class S>
constexpr WinogradWeightKernels<S> winograd_weight = {winograd_source_steps<S>, winograd_grad_steps<S>,
                                                      winograd_taps<Compute<S>>};

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
