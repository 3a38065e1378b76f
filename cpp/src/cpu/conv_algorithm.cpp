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
// Of a product of pairs of bfloat16, beside one of float32: measured with AVX-512 BF16.
constexpr double kPairTime = 0.54;
// Bytes of transformed weights up to which tiles of 6 x 6 pay: beyond, what they save in products is lost in
// memory.
constexpr double kMostWeights6 = 9e6;
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
    direct /= has_bf16_tiles() ? 10 : 3;
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

// What a product takes, in units of C * K multiplications of a group at the speed of the direct kernel.
struct Work {
  double images, source_channels, target_channels, depth_taps;
  int64_t height, width;
  DType dtype;
  bool pairs;  // the direct kernel multiplies pairs of bfloat16
  bool grouped;

  Work(const ConvGeometry& g, DType type, Product product)
      : dtype(type), pairs(type == kBFloat16 && has_bf16_kernels()), grouped(g.groups > 1) {
    const bool forward = product != Product::kBackwardInput;
    const auto& size = forward ? g.out : g.in;
    // One image of a 16-bit type at a time, so that it has the same bits in any batch.
    const bool together = dtype == kFloat32 || product == Product::kBackwardWeight;
    images = static_cast<double>((together ? g.batch : 1) * std::max<int64_t>(size[0], 0));
    height = std::max<int64_t>(size[1], 0);
    width = std::max<int64_t>(size[2], 0);
    source_channels = static_cast<double>((forward ? g.in_channels : g.out_channels) / g.groups);
    target_channels = static_cast<double>((forward ? g.out_channels : g.in_channels) / g.groups);
    depth_taps = static_cast<double>(g.kernel[0]);
  }

  double direct() const {
    const double products = 9 * depth_taps * images * static_cast<double>(height * width);
    return pairs ? kPairTime * products : products;
  }
  // Measured, per element of a tile: products run at 4/5 of the speed (nearly all of it with AVX-512, where
  // alone there are pairs); then the transforms of the source and of the sums, and that of the weights or
  // what it takes to read it, which does not depend on the number of tiles.
  double winograd(int64_t m) const {
    const double tiles = images * static_cast<double>(ceil_div(height, m) * ceil_div(width, m));
    const double tile = (pairs ? 1.05 : 1.25) * depth_taps + 10 / target_channels + 15 / source_channels;
    return static_cast<double>((m + 2) * (m + 2)) * (tile * tiles + (pairs ? 5 : 9) * depth_taps);
  }
  int64_t choose_m() const {
    const int64_t m = winograd(4) < winograd(2) ? 4 : 2;
    if (dtype == kFloat32 || 64 * 4 * depth_taps * source_channels * target_channels > kMostWeights6)
      return m;
    return winograd(6) < winograd(m) ? 6 : m;
  }
  // Of the gradient of the weights, measured: the products, the transforms of the source for each tap of the
  // depth and of the gradients of the outputs; then that of the sums.
  double winograd_weight() const {
    const double tiles = images * static_cast<double>(ceil_div(height, 4) * ceil_div(width, 4));
    const double tile = (1.1 + 8 / target_channels) * depth_taps + 8 / source_channels;
    return 36 * (tile * tiles + 8 * depth_taps);
  }
  bool winograd_weight_pays() const {
    // Groups of fewer channels, or of pairs, repay the transforms too seldom.
    if (grouped && (pairs || std::min(source_channels, target_channels) < 32)) return false;
    return std::min(source_channels, target_channels) >= 8 && winograd_weight() <= 0.9 * direct();
  }
  bool winograd_pays() const { return winograd(choose_m()) <= (pairs ? 0.95 : 5.0 / 6) * direct(); }
};

}  // namespace

bool winograd_pays(const ConvGeometry& g, DType dtype, Product product) {
  if (!winograd_fits(g, dtype) || (dtype == kBFloat16 && has_bf16_tiles())) return false;
  const Work work(g, dtype, product);
  return product == Product::kBackwardWeight ? work.winograd_weight_pays() : work.winograd_pays();
}

int64_t winograd_tile(const ConvGeometry& g, DType dtype, Product product) {
  return Work(g, dtype, product).choose_m();
}

ConvAlgorithm choose_algorithm(const ConvGeometry& g, DType dtype, Product product) {
  // Nothing to multiply.
  if (g.batch * volume(g.in) * volume(g.out) * g.in_channels * g.out_channels == 0) {
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
