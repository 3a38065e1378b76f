// The map of a deformable convolution in both directions, and its gradients: in blocks of rows, for speed,
// and as a composition of differentiable functions, for gradients of gradients.
#pragma once

#include "deform_conv_kernels.h"

#include <opsin/tensor.h>

namespace opsin {

/// One deformable convolution; x is on its input's side and y on its output's.
struct DeformParams {
  DeformGeometry geometry;
  Dims x_sizes, y_sizes, weight_sizes;

  int64_t positions() const { return geometry.out[0] * geometry.out[1] * geometry.out[2]; }
  int64_t rows() const { return geometry.batch * positions(); }
  int64_t taps() const { return geometry.kernel[0] * geometry.kernel[1] * geometry.kernel[2]; }
  int64_t channels() const { return geometry.channels / geometry.groups; }  ///< Of a group.
  int64_t filters() const { return y_sizes[1] / geometry.groups; }          ///< Of a group.
  bool is_empty() const { return rows() == 0 || count_elements(x_sizes) == 0 || y_sizes[1] == 0; }
};

/// The operands of the map, of which y is the gradient of the output, or the input of the transposed map. In
/// gradients: what was asked for.
struct DeformOperands {
  Tensor x, y, offset, weight, mask;
};
struct DeformNeeds {
  bool x = false, y = false, offset = false, weight = false, mask = false;
};

/// What numbers of `dtype` are added in.
inline DType deform_sum_type(DType dtype) { return dtype == kFloat64 ? kFloat64 : kFloat32; }
/// y [N, K, ...] plus bias [K] if it is defined.
Tensor add_bias(const Tensor& y, const Tensor& bias);
Tensor zeros_channels_last(IntSpan sizes, DType dtype, Device device);

/// y = the columns of x times weight, plus bias [K] if it is defined. Not recorded.
Tensor deform_map(const DeformParams& p, const Tensor& x, const Tensor& offset, const Tensor& weight,
                  const Tensor& bias, const Tensor& mask);

/// The gradients of <y, map(x)>. Not recorded.
DeformOperands deform_gradients(const DeformParams& p, const DeformOperands& operands, DeformNeeds needs);

/// The same by differentiable functions.
DeformOperands deform_gradients_recorded(const DeformParams& p, const DeformOperands& operands,
                                         DeformNeeds needs);

}  // namespace opsin
