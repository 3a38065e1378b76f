// Pooling of the CPU backend in 1 to 3 dimensions, channels last.
#pragma once

#include <cstdint>

#include <opsin/dtype.h>

namespace opsin::cpu {

/// Sizes of a pooling. There are always three axes; with fewer, the leading ones are 1 with kernel and
/// stride 1. The caller chooses `out` (floor or ceil mode). Window o of an axis covers o * stride - pad_begin
/// + t * dilation for 0 <= t < kernel. Adaptive windows are [floor(o * in / out), ceil((o + 1) * in / out)),
/// not longer than kernel; they need nothing else.
struct PoolGeometry {
  bool adaptive = false;
  int64_t batch = 0, channels = 0;
  int64_t in[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, out[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int64_t pad_begin[3] = {0, 0, 0}, pad_end[3] = {0, 0, 0};
};

inline constexpr int64_t kMostPoolTaps = 256;

/// Where the maxima are, in one of two forms, or in none if nobody asks for it.
struct PoolPositions {
  /// d * H * W + h * W + w.
  int64_t* indices = nullptr;
  /// (t0 * kernel[1] + t1) * kernel[2] + t2 for pixel t of the window, counted from the first one inside the
  /// input; for kernels of at most kMostPoolTaps pixels.
  uint8_t* taps = nullptr;
};

// Everything below is dense and channels last: x and grad_x [N, D, H, W, C], y, grad_y and positions [N, OD,
// OH, OW, C]. Outputs are overwritten and must not overlap inputs. dtypes: float32, float64, float16,
// bfloat16; max_pool_forward also uint8, int8, int16, int32 and int64; others raise
// TypeError. 16-bit types are summed in float32 and rounded once. Results are bit-identical for any number of
// threads.

/// y = max over the window; padding never wins, the last NaN does. The position is that of the first maximum,
/// or of the last NaN. A window that covers no pixel gives the lowest value and a clamped pixel, which is its
/// first.
void max_pool_forward(const PoolGeometry& geometry, DType dtype, const void* x, void* y,
                      PoolPositions positions);
/// grad_x[position] = sum of grad_y over the outputs with that position, in the order of the outputs.
void max_pool_backward(const PoolGeometry& geometry, DType dtype, const void* grad_y, PoolPositions positions,
                       void* grad_x);
/// y[o] = x[position of o]: the gradient of max_pool_backward.
void max_pool_gather(const PoolGeometry& geometry, DType dtype, const void* x, PoolPositions positions,
                     void* y);

/// y = sum over the window / divisor. The divisor is `divisor_override` unless 0, else the pixels of the
/// window: those inside the padded input where `count_include_pad`, those inside the input if not. An empty
/// window gives 0. Dilation must be 1.
void avg_pool_forward(const PoolGeometry& geometry, DType dtype, bool count_include_pad,
                      int64_t divisor_override, const void* x, void* y);
void avg_pool_backward(const PoolGeometry& geometry, DType dtype, bool count_include_pad,
                       int64_t divisor_override, const void* grad_y, void* grad_x);

// The same of float32 images that lie row by row: x and grad_x [N, C, D, H, W], y, grad_y and positions [N,
// C, OD, OH, OW]. Results have the bits of those above, but for avg_pool_planes_backward, which adds in
// another order.

/// Whether these are the faster ones for data of that layout; if not, they are not to be used.
bool pools_planes(const PoolGeometry& geometry, DType dtype);
void max_pool_planes(const PoolGeometry& geometry, const void* x, void* y, PoolPositions positions);
void max_pool_planes_backward(const PoolGeometry& geometry, const void* grad_y, PoolPositions positions,
                              void* grad_x);
void max_pool_planes_gather(const PoolGeometry& geometry, const void* x, PoolPositions positions, void* y);
void avg_pool_planes(const PoolGeometry& geometry, bool count_include_pad, int64_t divisor_override,
                     const void* x, void* y);
void avg_pool_planes_backward(const PoolGeometry& geometry, bool count_include_pad, int64_t divisor_override,
                              const void* grad_y, void* grad_x);

}  // namespace opsin::cpu
