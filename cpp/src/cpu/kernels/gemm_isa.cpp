// Packing of GEMM and its kernels for thin and small products, compiled once per instruction set into the
// namespace OPSIN_ISA_NS.
//
// All here is local to the object but gemm_table(): objects of different instruction sets share no symbol
// that the linker could merge. float16 and bfloat16 are widened while packing and use the float32 tile.
#include "cpu/kernels/gemm_convert.h"
#include "cpu/kernels/gemm_outer.h"
#include "cpu/kernels/gemm_table.h"
#include "cpu/kernels/gemm_thin.h"
#include "cpu/kernels/gemm_tile.h"
#include "cpu/kernels/gemm_vector.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

// A few steps of k of as many rows of B as vectors have lanes: column[q] holds step q of all rows.
#if defined(__AVX2__) && !defined(__AVX512F__)
template <class T>
constexpr int transposed_steps = 4;
OPSIN_INLINE __m128 load_half(const float* p) { return _mm_loadu_ps(p); }
OPSIN_INLINE __m128 load_half(const BFloat16* p) {
  const __m128i half = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(half), 16));
}
OPSIN_INLINE __m128 load_half(const Float16* p) {
  return _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
#else
template <class T>
constexpr int transposed_steps = lanes_of<T>;
#endif
template <class S, class T>
OPSIN_INLINE void load_transposed(const S* b, int64_t stride, Vector<T>* column) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  // Halves are joined by the load, which leaves two steps of the transposition instead of three.
  if constexpr (__is_same(T, float)) {
    Float row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(load_half(b + i * stride)),
                                    load_half(b + (i + 4) * stride), 1);
    }
    const Float low01 = _mm256_unpacklo_ps(row[0], row[1]), high01 = _mm256_unpackhi_ps(row[0], row[1]);
    const Float low23 = _mm256_unpacklo_ps(row[2], row[3]), high23 = _mm256_unpackhi_ps(row[2], row[3]);
    column[0] = _mm256_shuffle_ps(low01, low23, 0x44);
    column[1] = _mm256_shuffle_ps(low01, low23, 0xee);
    column[2] = _mm256_shuffle_ps(high01, high23, 0x44);
    column[3] = _mm256_shuffle_ps(high01, high23, 0xee);
    return;
  }
#endif
#pragma GCC unroll 16
  for (int i = 0; i < transposed_steps<T>; ++i) column[i] = load_wide(b + i * stride);
  transpose<T>(column);
}

// A square of at most `rows` x `depth` elements, transposed and filled up with zeros.
template <class S, class T>
[[gnu::noinline]] void transpose_edge(const S* in, int64_t stride, int64_t rows, int64_t depth,
                                      Vector<T>* square) {
  for (int i = 0; i < lanes_of<T>; ++i)
    square[i] = i < rows ? load_some<T>(in + i * stride, depth) : Vector<T>{};
  transpose<T>(square);
}

// For a few rows the packing of B would cost more than the product. So B is read where it is, once, and the
// sums are kept in vectors along the columns all the same, while squares of B are transposed in registers.
// For a B whose columns are adjacent see gemm_thin.h.
template <class S, class T, int R>
void multiply_thin_columns(const GemmBlock& g) {
  constexpr int lanes = lanes_of<T>;
  constexpr int steps = transposed_steps<T>;
  const S* b = static_cast<const S*>(g.b);
  const T* a = static_cast<const T*>(g.a);
  for (int64_t col = 0; col < g.n; col += lanes, b += lanes * g.b_panel) {
    const int64_t cols = g.n - col < lanes ? g.n - col : lanes;
    Vector<T> sum[R] = {};
    int64_t p = 0;
    if (cols == lanes) {
      for (; p + steps <= g.depth; p += steps) {
        Vector<T> column[steps];
        load_transposed<S, T>(b + p, g.b_panel, column);
#pragma GCC unroll 16
        for (int q = 0; q < steps; ++q)
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) sum[r] = fma(broadcast(a[(p + q) * R + r]), column[q], sum[r]);
      }
    }
    for (; p < g.depth; p += lanes) {
      const int64_t depth = g.depth - p < lanes ? g.depth - p : lanes;
      Vector<T> square[lanes];
      transpose_edge<S, T>(b + p, g.b_panel, cols, depth, square);
      for (int q = 0; q < depth; ++q)
        for (int r = 0; r < R; ++r) sum[r] = fma(broadcast(a[(p + q) * R + r]), square[q], sum[r]);
    }
    finish_edge(g, reinterpret_cast<const T*>(sum), lanes, 0, g.m, col, cols);
  }
}

// Panels of A are filled up with zeros, so that rows can be rounded up.
template <class S, class T>
void multiply_thin(const GemmBlock& g) {
  if (g.b_panel == 1) return multiply_thin_rows<S, T>(g);
  if (g.m == 1) return multiply_thin_columns<S, T, 1>(g);
  if (g.m == 2) return multiply_thin_columns<S, T, 2>(g);
  if (g.m <= 4) return multiply_thin_columns<S, T, 4>(g);
  multiply_thin_columns<S, T, thin_transposed>(g);
}

// Lanes lie side by side in memory: copy row by row, and fetch ahead, because rows far apart are not foreseen
// by the hardware.
template <class S, class T>
void pack_rows(const GemmPack& g) {
  constexpr int lanes = lanes_of<T>;
  constexpr int64_t ahead = 16;
  const S* in = static_cast<const S*>(g.in);
  T* out = static_cast<T*>(g.out);
  const int64_t vectors = (g.step + lanes - 1) / lanes * lanes;
  const int64_t depth = g.depth, stride = g.depth_stride, step = g.step;
  if (g.lanes == vectors) {
    for (int64_t p = 0; p < depth; ++p, in += stride, out += step) {
      __builtin_prefetch(in + ahead * stride);
      for (int64_t i = 0; i < vectors; i += lanes) store(out + i, load_wide(in + i));
    }
    return;
  }
  if (depth == 0) return;
  // A vector that overhangs `step` is overwritten by the next row.
  if (vectors == lanes) {
    const int64_t count = g.lanes;
    for (int64_t p = 1; p < depth; ++p, in += stride, out += step) {
      __builtin_prefetch(in + ahead * stride);
      store(out, load_some<T>(in, count));
    }
  } else {
    for (int64_t p = 1; p < depth; ++p, in += stride, out += step) {
      __builtin_prefetch(in + ahead * stride);
      for (int64_t i = 0; i < step; i += lanes) {
        const int64_t rest = g.lanes - i;
        store(out + i, rest > 0 ? load_some<T>(in + i, rest) : Vector<T>{});
      }
    }
  }
  for (int64_t i = 0; i < g.step; i += lanes) {
    const int64_t rest = g.lanes - i;
    store_some(out + i, rest > 0 ? load_some<T>(in + i, rest) : Vector<T>{}, g.step - i);
  }
}

// Steps of k lie side by side in memory: transpose squares of vectors in registers.
template <class S, class T>
void pack_columns(const GemmPack& g) {
  constexpr int lanes = lanes_of<T>;
  const S* in = static_cast<const S*>(g.in);
  for (int64_t p = 0; p < g.depth; p += lanes) {
    const int64_t depth = g.depth - p < lanes ? g.depth - p : lanes;
    T* out = static_cast<T*>(g.out) + p * g.step;
    // From the last group of lanes to the first: what overhangs `step` lands in the next row, which is
    // written after it.
    for (int64_t i = (g.step - 1) / lanes * lanes; i >= 0; i -= lanes) {
      Vector<T> square[lanes];
      if (depth == lanes && g.lanes - i >= lanes) {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) square[r] = load_wide(in + (i + r) * g.lane_stride + p);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) {
          square[r] = i + r < g.lanes ? load_some<T>(in + (i + r) * g.lane_stride + p, depth) : Vector<T>{};
        }
      }
      transpose<T>(square);
#pragma GCC unroll 16
      for (int r = 0; r < lanes; ++r)
        if (r < depth) store(out + r * g.step + i, square[r]);
    }
  }
}

template <class S, class T>
void pack(const GemmPack& g) {
  if (g.lane_stride == 1) return pack_rows<S, T>(g);
  if (g.depth_stride == 1 && g.lanes > 2) return pack_columns<S, T>(g);
  const S* in = static_cast<const S*>(g.in);
  T* out = static_cast<T*>(g.out);
  for (int64_t p = 0; p < g.depth; ++p, in += g.depth_stride, out += g.step) {
    for (int64_t i = 0; i < g.lanes; ++i) out[i] = widen(in[i * g.lane_stride]);
    for (int64_t i = g.lanes; i < g.step; ++i) out[i] = 0;
  }
}

template <class S, class T>
OPSIN_INLINE void finish(const GemmParams& g, S* c, int64_t j, T value) {
  if (g.bias) value += widen(static_cast<const S*>(g.bias)[j]);
  if (g.accumulate) value += widen(*c);
  narrow(value, c);
}

template <class S, class T>
void multiply_direct(const GemmParams& g) {
  constexpr int lanes = lanes_of<T>;
  // A few independent sums hide the latency of the multiply-add.
  constexpr int columns = 4;
  for (int64_t item = 0; item < g.batch; ++item) {
    const S* b = static_cast<const S*>(g.b) + item * g.b_batch;
    for (int64_t i = 0; i < g.m; ++i) {
      const S* a = static_cast<const S*>(g.a) + item * g.a_batch + i * g.a_row;
      S* c = static_cast<S*>(g.c) + item * g.c_batch + i * g.c_row;
      int64_t j = 0;
      if (g.b_col == 1) {
        for (; j + lanes <= g.n; j += lanes) {
          Vector<T> sum{};
          for (int64_t p = 0; p < g.k; ++p)
            sum = fma(broadcast(widen(a[p * g.a_col])), load_wide(b + p * g.b_row + j), sum);
          for (int l = 0; l < lanes; ++l) finish(g, c + j + l, j + l, sum[l]);
        }
      }
      for (; j + columns <= g.n; j += columns) {
        T sum[columns] = {};
        for (int64_t p = 0; p < g.k; ++p) {
          const T x = widen(a[p * g.a_col]);
#pragma GCC unroll 4
          for (int l = 0; l < columns; ++l)
            sum[l] = fma(x, widen(b[p * g.b_row + (j + l) * g.b_col]), sum[l]);
        }
        for (int l = 0; l < columns; ++l) finish(g, c + j + l, j + l, sum[l]);
      }
      for (; j < g.n; ++j) {
        T sum = 0;
        for (int64_t p = 0; p < g.k; ++p)
          sum = fma(widen(a[p * g.a_col]), widen(b[p * g.b_row + j * g.b_col]), sum);
        finish(g, c + j, j, sum);
      }
    }
  }
}

template <class S, class T>
constexpr GemmKernels kernels_for() {
  return {tile_rows,
          1,
          tile_cols<T>,
          slice_depth<T>,
          thin_rows,
          thin_transposed,
          outer_rows,
          sizeof(S),
          sizeof(T),
          sizeof(T),
          1,
          reads_rows<S>,
          pack<S, T>,
          pack<S, T>,
          multiply_block<T>,
          multiply_thin<S, T>,
          multiply_outer<S, T>,
          multiply_direct<S, T>,
          widen_all<S, T>,
          narrow_all<S, T>};
}

constexpr GemmTable table = {kernels_for<float, float>(), kernels_for<double, double>(),
                             kernels_for<BFloat16, float>(), kernels_for<Float16, float>()};

}  // namespace

const GemmTable& gemm_table() { return table; }

}  // namespace opsin::cpu::OPSIN_ISA_NS
