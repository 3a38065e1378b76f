// The contract of the kernels of the RoI ops. All of them see features as rows of channels: x is
// [planes, size..., channels], y and g are [rois, bins..., channels].
#pragma once

#include "roi_samples.h"

#include "core/kernel.h"

namespace opsin {

/// One pooling of regions. Boxes are [rois, 1 + 2 axes], of the compute type.
struct RoiParams {
  const char* op;
  RoiGeometry geometry;
  DType dtype;  ///< Of x, y and g; sums are of its compute type.
  /// Of means by bin on the CPU: x is [images, channels, bins, size...] as it came, y and g are
  /// [rois, channels, bins...].
  bool planar = false;
};

/// x, boxes, y; taken [rois, bins..., channels] says which sample of each bin was the largest, -1 for none;
/// null if nobody asks, and for means.
extern OPSIN_API KernelSlot<void (*)(const RoiParams&, const void*, const void*, void*, int32_t*)>
    roi_forward;
/// boxes, g, taken, grad_x (of the compute type)
extern OPSIN_API KernelSlot<void (*)(const RoiParams&, const void*, const void*, const int32_t*, void*)>
    roi_backward_input;
/// x, boxes, g, taken, grad_boxes (of the compute type; zeros before)
extern OPSIN_API
    KernelSlot<void (*)(const RoiParams&, const void*, const void*, const void*, const int32_t*, void*)>
        roi_backward_boxes;

void register_roi_cpu();

}  // namespace opsin
