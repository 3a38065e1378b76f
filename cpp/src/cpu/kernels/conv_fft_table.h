// The contract between the blocking of FFT convolution (cpu/conv_fft*.cpp, compiled once) and its kernels
// (conv_fft_isa.cpp, compiled once per instruction set). Plain data and function pointers only.
//
// All lanes of a vector are transforms of their own: a real number is a vector [lanes], a complex one a
// vector of real and one of imaginary parts, at addresses `re` and `im`. Strides and steps count elements of
// T.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// One pass of a Stockham transform of length n: y[q + stride * (radix * p + j)] = w^(p j) sum over i of
/// x[q + stride * (p + parts * i)] v^(i j), w = exp(-2 pi i / (radix * parts)), v = exp(-2 pi i / radix).
template <class T>
struct FftPass {
  int64_t radix, parts, stride;
  const T* twiddle;  ///< [parts][radix - 1][re, im]
};

template <class T>
struct FftPlan {
  int64_t n, passes;
  FftPass<T> pass[40];
  const T* half;  ///< [n / 2 + 1][re, im] of exp(-2 pi i f / (2 n)), for real transforms of length 2 n
};

/// `columns` complex transforms of plan.n elements each. Elements before `first` and from first + count on
/// are zeros, which are not read. Input and output may be the same. An inverse transform has re and im
/// exchanged, in input and output.
template <class T>
struct FftLines {
  const FftPlan<T>* plan;
  const T *in_re, *in_im;
  int64_t in_stride, in_step;  ///< from element to element and from column to column
  int64_t first, count, columns;
  T *out_re, *out_im;
  int64_t out_stride, out_step;
  T* scratch;  ///< [2][n] complex
};

/// A real transform of length 2 * plan.n, `row` [2 n], to or from n + 1 frequencies; the way back multiplies
/// by 2 n and needs no imaginary parts of the first and the last frequency.
template <class T>
struct FftRow {
  const FftPlan<T>* plan;
  T* row;
  T *re, *im;
  int64_t stride;
  T* scratch;  ///< [3][n] complex
};

/// row[(first[l] + i * every)][l] = or -> memory[l][i * stride], i < count[l], l < lanes. `adjacent`: lanes
/// are adjacent in memory, first and count are those of lane 0.
template <class T>
struct FftAccess {
  T* row;
  int64_t every, stride, lanes;
  bool adjacent;
  T* const* memory;
  const int64_t *first, *count;
  T scale;
  const T* bias;  ///< [lanes] or null
  bool accumulate;
};

/// z[f][r] (+)= sum over s of a(f, r, s) * conj(b[f][s]), a scalar with its imaginary part at a + a_imag.
template <class T>
struct FftProduct {
  int64_t frequencies, rows, sums;
  const T* a;
  int64_t a_frequency, a_row, a_sum, a_imag;
  const T* b;  ///< [frequencies][sums] complex
  T* z;        ///< [frequencies][rows] complex
  bool accumulate;
};

/// z[f] (+)= a[f] * conj(b[f]), lane by lane.
template <class T>
struct FftLanes {
  int64_t frequencies;
  const T *a, *b;
  T* z;
  bool accumulate;
};

template <class T>
struct FftKernels {
  int64_t lanes;
  void (*load)(const FftAccess<T>&);
  /// row * scale + bias, added to memory where `accumulate`; lanes one after the other unless adjacent.
  void (*store)(const FftAccess<T>&);
  void (*lines)(const FftLines<T>&);
  void (*row_forward)(const FftRow<T>&);
  void (*row_inverse)(const FftRow<T>&);
  void (*product)(const FftProduct<T>&);
  void (*lanewise)(const FftLanes<T>&);
};

struct FftTable {
  FftKernels<float> f32;
  FftKernels<double> f64;
};

OPSIN_ISA_TABLE(FftTable, fft_table)

}  // namespace opsin::cpu
