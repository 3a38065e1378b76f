// The contract between the scans and their kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"

namespace opsin {

/// Row-major arrays of outer x n x inner elements; each of the outer * inner lines is scanned along n, from
/// its end if `reverse`.
struct ScanParams {
  const void* x;
  const void* a;  ///< linear_scan
  void* y;
  int64_t* positions;  ///< cummax, cummin
  int64_t outer, n, inner;
  bool reverse;
  DType dtype;
};
using ScanSlot = KernelSlot<void (*)(const ScanParams&)>;

/// y_k = x_k + y_{k-1} and x_k * y_{k-1}. Values of floating point are kept in float64 on the way.
extern OPSIN_API ScanSlot cumsum_forward, cumprod_forward;
/// y_k = x_k + a_k y_{k-1}; the first a of a line is not used.
extern OPSIN_API ScanSlot linear_scan_forward;
/// y_k = log(exp(x_k) + exp(y_{k-1}))
extern OPSIN_API ScanSlot logcumsumexp_forward;
/// The extreme value so far and the last position where it is; NaN is more extreme than everything.
extern OPSIN_API ScanSlot cummax_forward, cummin_forward;

void register_scan_cpu();

}  // namespace opsin
