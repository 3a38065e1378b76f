// Matrix multiplication of the CPU backend: the one routine behind matmul, bmm, linear and 1x1 convolution.
#pragma once

#include <cstdint>

namespace opsin::cpu {

struct KeptWeight;

/// C[m, n] (+)= A[m, k] * B[k, n] + bias[n], `batch` times. All strides count elements and may be anything,
/// zero and negative included (any transposition, any broadcast of A and B); the columns of C are adjacent. C
/// must not overlap A, B or bias.
struct GemmParams {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t a_row = 0, a_col = 0;
  const void* b = nullptr;
  int64_t b_row = 0, b_col = 0;
  void* c = nullptr;
  int64_t c_row = 0;
  /// [n] in the dtype of C, or null.
  const void* bias = nullptr;
  /// Adds to what C holds instead of replacing it.
  bool accumulate = false;
  int64_t batch = 1;
  int64_t a_batch = 0, b_batch = 0, c_batch = 0;
  /// Set where B is a weight whose panels may be kept.
  const KeptWeight* weight = nullptr;
};

/// What every element is, on every path and for any number of threads:
///
///     p_s = the products of slice s of k (256 steps; 128 in float64, 512 of bfloat16 with AVX512-BF16 or
///           AMX), added one after the other from zero, each with one rounding where the CPU has FMA;
///     c   = (((p_0 + bias) + c) + p_1) + p_2 + ...        (bias and the old c only where asked for)
///
/// It depends on k, the dtype and the instruction set alone. So results are bit-identical for 1 to N threads,
/// for transposed and for sliced operands, and batch invariant: a row of C does not depend on how many rows
/// or columns were computed with it. k = 0 gives the bias or zeros. float16 and bfloat16 are summed in
/// float32 (bias and old c included) and rounded once, to nearest even. With AVX512-BF16, pairs of bfloat16
/// products are added, the second before the first, and subnormal operands count as zeros, as the
/// instruction VDPBF16PS does it. With AMX, whose operands have no subnormals either, the even and the odd
/// steps of every 32 are added apart, from zero, then both sums to each other and to the rest, as TDPBF16PS
/// does it. Raises OutOfMemoryError when no scratch memory is left.
void gemm_f32(const GemmParams& params);
void gemm_f64(const GemmParams& params);
void gemm_bf16(const GemmParams& params);
void gemm_f16(const GemmParams& params);

}  // namespace opsin::cpu
