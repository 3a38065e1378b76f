// Pooling of the CPU backend in 1 to 3 dimensions, channels last.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

namespace opsin::cpu {

/// Sizes of a pooling. There are always three axes; with fewer, the leading ones are 1 with kernel and
/// stride 1. The caller chooses `out` (floor or ceil mode). Window o of an axis covers o * stride - pad_begin
/// + t * dilation for 0 <= t < kernel. The adaptive and index-driven functions use batch, channels, in and
/// out alone.
struct PoolGeometry {
  int64_t batch = 0, channels = 0;
  int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int64_t pad_begin[3] = {0, 0, 0}, pad_end[3] = {0, 0, 0};
};

// Everything below is dense and channels last: x and grad_x [N, D, H, W, C], y, grad_y and indices [N, OD,
// OH, OW, C]. Outputs are overwritten and must not overlap inputs. dtypes: float32, float64, float16,
// bfloat16; the two forward functions of max pooling also uint8, int8, int16, int32 and int64; others raise
// TypeError. 16-bit types are summed in float32 and rounded once. Results are bit-identical for any number of
// threads.

/// y = max over the window; padding never wins, the last NaN does. `indices` (or null) get d * H * W + h * W
/// + w of the first maximum, or of the last NaN. A window that covers no pixel gives the lowest value and the
/// index of a clamped pixel.
void max_pool_forward(const PoolGeometry& geometry, DType dtype, const void* x, void* y, int64_t* indices);
/// The same with windows [floor(o * in / out), ceil((o + 1) * in / out)).
void adaptive_max_pool_forward(const PoolGeometry& geometry, DType dtype, const void* x, void* y,
                               int64_t* indices);
/// grad_x[index] = sum of grad_y over the outputs with that index, in the order of the outputs.
void max_pool_backward(const PoolGeometry& geometry, DType dtype, const void* grad_y, const int64_t* indices,
                       void* grad_x);
/// y[o] = x[index of o]: the gradient of max_pool_backward.
void max_pool_gather(const PoolGeometry& geometry, DType dtype, const void* x, const int64_t* indices,
                     void* y);

/// y = sum over the window / divisor. The divisor is `divisor_override` unless 0, else the pixels of the
/// window: those inside the padded input where `count_include_pad`, those inside the input if not. An empty
/// window gives 0. Dilation must be 1.
void avg_pool_forward(const PoolGeometry& geometry, DType dtype, bool count_include_pad,
                      int64_t divisor_override, const void* x, void* y);
void avg_pool_backward(const PoolGeometry& geometry, DType dtype, bool count_include_pad,
                       int64_t divisor_override, const void* grad_y, void* grad_x);

/// y = mean over the window [floor(o * in / out), ceil((o + 1) * in / out)).
void adaptive_avg_pool_forward(const PoolGeometry& geometry, DType dtype, const void* x, void* y);
void adaptive_avg_pool_backward(const PoolGeometry& geometry, DType dtype, const void* grad_y, void* grad_x);

}  // namespace opsin::cpu
