// Products of few steps of k that make more than a cache holds, such as the weight gradient of a linear layer
// of thousands by thousands of features from a small batch. Writing C is all the time they take, so that what
// counts is to write whole lines, long runs of them, and past the caches: a store into a cache would fetch
// the line first.
#pragma once

#include "gemm_table.h"
#include "gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

/// Columns whose part of B stays in the first cache.
constexpr int64_t outer_columns = 1024;

template <class T>
void multiply_outer(const GemmBlock& g) {
  constexpr int lanes = lanes_of<T>, together = 64 / static_cast<int>(sizeof(T)) / lanes;
  for (int64_t first = 0; first < g.n; first += outer_columns) {
    const int64_t columns = g.n - first < outer_columns ? g.n - first : outer_columns;
    const T* const b = static_cast<const T*>(g.b) + first;
    for (int64_t i = 0; i < g.m; ++i) {
      const T* const a = static_cast<const T*>(g.a) + i * g.a_lane;
      T* const c = static_cast<T*>(g.c) + i * g.c_row + first;
      Vector<T> x[outer_depth];
      for (int64_t p = 0; p < g.depth; ++p) x[p] = broadcast(a[p * g.a_step]);
      for (int64_t j = 0; j < columns; j += together * lanes) {
        Vector<T> sum[together] = {};
        for (int64_t p = 0; p < g.depth; ++p) {
#pragma GCC unroll 4
          for (int v = 0; v < together; ++v)
            sum[v] = fma(x[p], load(b + p * g.b_step + j + v * lanes), sum[v]);
        }
#pragma GCC unroll 4
        for (int v = 0; v < together; ++v) stream(c + j + v * lanes, sum[v]);
      }
    }
  }
  stream_fence();
}

}  // namespace
}  // namespace opsin::cpu::OPSIN_ISA_NS
