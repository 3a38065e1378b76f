// Which algorithm a product of a convolution runs with: the one that is asked for, or by shape and dtype.
#include "conv_algorithm.h"

#include "conv_fft_plan.h"
#include "conv_plan.h"

#include <algorithm>
#include <utility>

namespace opsin::cpu {
namespace conv {
namespace {

// Nanoseconds, measured with AVX2 on one core at 56 x 56, 14 x 14 and 224 x 224, one image, 3 to 384
// channels: of a vector of multiply-adds in the direct loops (most of the loads of a depthwise product are
// not shared, of fewer channels than lanes none), and of an instruction of the transforms.
constexpr double kDenseTime = 0.18, kDepthwiseTime = 0.4, kFewChannelsTime = 0.9, kWeightFactor = 1.5;
constexpr double kFewChannelsWeightFactor = 5;
constexpr double kTransformTime = 0.26;
/// Smaller kernels stay direct, whose sums are more accurate and in which a NaN stays where it is.
constexpr int64_t kLeastTaps = 31;
constexpr double kLeastGain = 1.15;
/// Shorter direct products are not worth a look at tiles.
constexpr double kLeastTime = 1e5;

template <class T>
bool fft_pays(const ConvGeometry& g, DType dtype, Product product) {
  const int64_t lanes = fft_kernels<T>().lanes;
  // One image at a time, so that it has the same bits in any batch; gradients of weights are sums over it.
  ConvGeometry one = g;
  if (product != Product::kBackwardWeight) one.batch = 1;
  int64_t inputs = g.in_channels / g.groups, outputs = g.out_channels / g.groups;
  if (product == Product::kBackwardInput) std::swap(inputs, outputs);
  double direct = work(one);
  bool few = false;
  if (is_depthwise<T>(g) || is_narrow<T>(g)) {
    const int64_t channels = std::max(g.in_channels, g.out_channels);
    few = channels < lanes;
    direct *= (few ? kFewChannelsTime : kDepthwiseTime) / static_cast<double>(lanes);
  } else {
    direct *= kDenseTime / static_cast<double>(outputs) * static_cast<double>(ceil_div(outputs, lanes));
  }
  if (product == Product::kBackwardWeight) direct *= few ? kFewChannelsWeightFactor : kWeightFactor;
  // Pairs of bfloat16 products in one instruction; or tiles of them, by the rates of the two prototypes that
  // were compared with oneDNN (3,430 and 333 GFLOP/s).
  if (dtype == kBFloat16 && has_bf16_kernels() && !is_depthwise<BFloat16>(g)) {
    direct /= isa() == Isa::amx_bf16 ? 10 : 3;
  }
  if (direct < kLeastTime) return false;
  const T* none = nullptr;
  const FftProblem<T> p =
      product == Product::kForward         ? fft_forward_problem<T>(one, none, none, none, nullptr)
      : product == Product::kBackwardInput ? fft_backward_input_problem<T>(one, none, none, nullptr)
                                           : fft_backward_weight_problem<T>(one, none, none, nullptr, false);
  const FftTiles tiles = choose_tiles(p, lanes);
  const double cost = product == Product::kBackwardWeight ? tiles.cost : tiles.image_cost;
  return direct > kLeastGain * kTransformTime * cost;
}

}  // namespace

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
  // Strides are paid for as if they were 1.
  if (volume(g.kernel) >= kLeastTaps && volume(g.stride) == 1 &&
      (dtype == kFloat64 ? fft_pays<double>(g, dtype, product) : fft_pays<float>(g, dtype, product))) {
    return ConvAlgorithm::kFft;
  }
  return ConvAlgorithm::kDirect;
}

}  // namespace conv

std::string conv_obstacle(const ConvGeometry& g, DType dtype) {
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
