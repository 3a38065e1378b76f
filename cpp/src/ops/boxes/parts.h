// What the functions of boxes share.
#pragma once

#include "overlap_pairs.h"

#include <opsin/tensor.h>

#include "core/registry.h"

namespace opsin {

/// What sides and areas are computed in: float32 for 16-bit floats, int32 for narrower integers.
Tensor wide_boxes(const Tensor& boxes);
/// float32, or float64 as it is.
Tensor floating_boxes(const Tensor& boxes);
/// How many dimensions boxes [..., 2], [..., 4] or [..., 6] have; ShapeError otherwise.
int rank_of_boxes(const Tensor& boxes, const char* op, const char* name);

/// The overlap of two broadcast tensors of floating boxes, composed of differentiable functions. `loss`: eps
/// is added to every divisor, and sides are not clamped, so that flipped boxes have a gradient.
Tensor composed_overlap(Overlap kind, const Tensor& a, const Tensor& b, double eps, bool loss);

void register_overlap(Registry& registry);
void register_box_loss(Registry& registry);
void register_assignment(Registry& registry);

}  // namespace opsin
