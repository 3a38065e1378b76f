// Which algorithm a product of a convolution runs with: the one that is asked for, or by shape and dtype.
#include "conv_algorithm.h"

#include "conv_plan.h"

namespace opsin::cpu {
namespace conv {

ConvAlgorithm choose_algorithm(const ConvGeometry& g, DType dtype, Product product) {
  // Nothing to multiply.
  if (g.batch * volume(g.in) * volume(g.out) * g.in_channels * g.out_channels == 0) {
    return ConvAlgorithm::kDirect;
  }
  if (g.algorithm == ConvAlgorithm::kWinograd && product == Product::kBackwardWeight) {
    return ConvAlgorithm::kDirect;
  }
  if (g.algorithm != ConvAlgorithm::kAuto) return g.algorithm;
  if (winograd_pays(g, dtype, product)) return ConvAlgorithm::kWinograd;
  return ConvAlgorithm::kDirect;
}

}  // namespace conv

std::string conv_obstacle(const ConvGeometry& g, DType dtype) {
  if (g.algorithm == ConvAlgorithm::kFft) return "has no kernels yet";
  if (g.algorithm == ConvAlgorithm::kWinograd && !conv::winograd_fits(g, dtype)) {
    const auto sizes = [&](const int64_t(&values)[3]) {
      std::string text = "[";
      for (int axis = 3 - g.spatial; axis < 3; ++axis) {
        text += (text.size() > 1 ? ", " : "") + std::to_string(values[axis]);
      }
      return text + "]";
    };
    return conv::winograd_needs() + (", got kernel " + sizes(g.kernel)) + ", stride " + sizes(g.stride) +
           ", dilation " + sizes(g.dilation) + ", groups=" + std::to_string(g.groups) + " and " +
           std::string(name(dtype));
  }
  return {};
}

}  // namespace opsin::cpu
