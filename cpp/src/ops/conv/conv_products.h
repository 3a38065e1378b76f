// What the forms of convolution are made of: the three products, and the padding and sizes that they share.
#pragma once

#include "conv_kernels.h"
#include "conv_padding.h"

#include <string>

#include <opsin/tensor.h>

namespace opsin {

class Registry;

/// One convolution, the parameter of all three ops.
struct ConvParams {
  ConvGeometry geometry;
  Dims x_sizes, weight_sizes, y_sizes;
  bool keeps_weight = false;  ///< what is packed of it
  bool may_wait = false;      ///< nothing is recorded, so that a batch norm may join

  /// The same for all three products: every weight meets every position of the output once.
  int64_t flops() const;
};

Tensor conv_product(const ConvParams& p, const Tensor& x, const Tensor& weight, const Tensor& bias);
/// The gradient of the input, which is the transposed convolution.
Tensor conv_input_product(const ConvParams& p, const Tensor& grad_y, const Tensor& weight);

/// The arguments that all forms share. Padding is given by name or, where that is empty, in numbers.
struct ConvSettings {
  const char* op;
  size_t axes;
  Dims stride, dilation;
  ConvSides padding;
  std::string_view padding_name;
  int64_t groups;
  ConvAlgorithm algorithm = ConvAlgorithm::kAuto;
};

/// Lists with one entry or one for each axis.
ConvSettings conv_settings(const char* op, size_t axes, IntSpan stride, IntSpan dilation, int64_t groups,
                           std::string_view algorithm);

/// Positions that a kernel of `size` covers.
inline int64_t conv_reach(const ConvSettings& s, size_t axis, int64_t size) {
  return s.dilation[axis] * (size - 1) + 1;
}

/// Checks ranks, dtypes, groups and kernel sizes; `channels` are those of the input and dimension 0 or 1 of
/// the weight, whichever `weight_sizes` says.
void check_conv_operands(const ConvSettings& s, bool transposed, const Tensor& input, const Tensor& weight,
                         const Tensor& bias);

/// Raises ValueError unless the device has the algorithm for that geometry.
void check_conv_algorithm(const ConvSettings& s, const ConvGeometry& geometry, DType dtype, Device device);

/// The parameters for sizes without padding and output.
ConvParams conv_params(const ConvSettings& s, const Dims& x_sizes, const Tensor& weight);

/// The transposed convolution of `x` [N, C, ...] with `weight` [C, K / groups, kernel...] to [N, K,
/// sizes...], without bias.
Tensor transposed_product(const ConvSettings& s, const Tensor& x, const Tensor& weight,
                          const ConvSides& padding, const Dims& sizes);
/// y + bias over channels; `y` is written over.
Tensor add_conv_bias(const Tensor& y, const Tensor& bias);

void register_conv_transpose(Registry& registry);

}  // namespace opsin
