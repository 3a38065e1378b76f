// Which kernels a convolution runs with, by shape and dtype. 16-bit floats have kernels of their own where
// these pay; elsewhere they are computed in float32 copies of a few images at a time.
#include "conv.h"

#include "conv_algorithm.h"
#include "conv_plan.h"

#include <algorithm>

#include <opsin/error.h>

#include "cpu/packed_cache.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {
namespace conv {
namespace {

void check(const char* op, const ConvGeometry& g, DType dtype) {
  OPSIN_CHECK(TypeError, is_floating_point(dtype), op,
              ": expected a floating-point dtype (float32, float64, float16, bfloat16), got ", name(dtype));
  const std::string obstacle = conv_obstacle(g, dtype);
  OPSIN_CHECK(ValueError, obstacle.empty(), op, ": the algorithm ", obstacle);
}

// float32 copies of 16-bit tensors, of a few images at a time.
class HalfCopies {
 public:
  HalfCopies(const ConvGeometry& g, DType dtype)
      : convert_(dtype == kFloat16 ? OPSIN_ISA_SELECT(conv_table).f16 : OPSIN_ISA_SELECT(conv_table).bf16),
        x_(volume(g.in) * g.in_channels),
        y_(volume(g.out) * g.out_channels),
        step_(std::clamp<int64_t>((int64_t{8} << 20) / std::max<int64_t>(1, x_ + y_), 1,
                                  std::max<int64_t>(1, g.batch))) {}

  int64_t x() const { return x_; }
  int64_t y() const { return y_; }
  int64_t step() const { return step_; }

  void widen(const void* in, int64_t first, int64_t count, float* out) const {
    const auto* from = static_cast<const uint16_t*>(in) + first;
    parallel_for(count, 32768,
                 [&](int64_t begin, int64_t end) { convert_.widen(from + begin, out + begin, end - begin); });
  }
  void narrow(const float* in, int64_t first, int64_t count, void* out) const {
    auto* to = static_cast<uint16_t*>(out) + first;
    parallel_for(count, 32768,
                 [&](int64_t begin, int64_t end) { convert_.narrow(in + begin, to + begin, end - begin); });
  }

 private:
  ConvConvert convert_;
  int64_t x_, y_, step_;
};

// A float32 copy of a bias, null for null.
class Widened {
 public:
  Widened(const HalfCopies& half, const void* in, int64_t count) : copy_(in == nullptr ? 0 : count), in_(in) {
    if (in != nullptr) half.widen(in, 0, count, copy_.get());
  }
  const float* get() const { return in_ == nullptr ? nullptr : copy_.get(); }

 private:
  Scratch<float> copy_;
  const void* in_;
};

int64_t weight_elements(const ConvGeometry& g) {
  return g.out_channels * (g.in_channels / g.groups) * volume(g.kernel);
}

// A float32 copy of the weights, which is kept where what kernels pack of it may be.
class WidenedWeight {
 public:
  WidenedWeight(const HalfCopies& half, const ConvGeometry& g, DType dtype, const void* in) {
    const int64_t count = weight_elements(g);
    // Memory of 16-bit elements could be a weight of either dtype.
    const int64_t identity = 32 * key_of(in) + static_cast<int64_t>(dtype) + 1;
    if (g.weight != nullptr) kept_ = {g.weight->cache, g.weight->version, identity};
    copy_ = packed_weight(g.weight, {-1, identity, count}, static_cast<size_t>(count) * sizeof(float),
                          [&](void* out) { half.widen(in, 0, count, static_cast<float*>(out)); });
  }
  const float* get() const { return static_cast<const float*>(copy_->data()); }
  // The geometry of a product that reads the copy.
  ConvGeometry geometry(const ConvGeometry& g) const {
    ConvGeometry copied = g;
    if (g.weight != nullptr) copied.weight = &kept_;
    return copied;
  }

 private:
  KeptWeight kept_{};
  Ref<PackedBlock> copy_;
};

// float32 sums that become a 16-bit gradient, null for null.
class Sums {
 public:
  Sums(const HalfCopies& half, void* out, int64_t count)
      : half_(half), sums_(out == nullptr ? 0 : count), out_(out), count_(out == nullptr ? 0 : count) {
    std::fill(sums_.get(), sums_.get() + count_, 0.0f);
  }
  float* get() const { return out_ == nullptr ? nullptr : sums_.get(); }
  void round() const {
    if (out_ != nullptr) half_.narrow(sums_.get(), 0, count_, out_);
  }

 private:
  const HalfCopies& half_;
  Scratch<float> sums_;
  void* out_;
  int64_t count_;
};

// Whether there may be dense kernels for a 16-bit type, at the level that has_bf16_kernels() asks for.
#if defined(__x86_64__)
template <class S>
constexpr bool has_dense_kernels = std::is_same_v<S, BFloat16>;
#else
template <class S>
constexpr bool has_dense_kernels = false;
#endif

// Calls run(images, first image) for runs of images.
template <class F>
void for_images(const ConvGeometry& g, const HalfCopies& half, F&& run) {
  ConvGeometry part = g;
  for (int64_t image = 0; image < g.batch; image += half.step()) {
    part.batch = std::min(half.step(), g.batch - image);
    run(part, image);
  }
}

// Several outputs per channel are repeated and summed channels, in float32.
template <class S>
bool converts_depthwise(const ConvGeometry& g) {
  return is_depthwise<S>(g) && g.in_channels == g.out_channels;
}

template <class T>
void forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y) {
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype_of<T>, Product::kForward);
  if constexpr (std::is_same_v<T, float>) {
    if (algorithm == ConvAlgorithm::kWinograd) return winograd_forward(g, x, weight, bias, y);
  }
  if (algorithm == ConvAlgorithm::kIm2col) return im2col_forward(g, x, weight, bias, y);
  if (algorithm == ConvAlgorithm::kFft) return fft_forward(g, x, weight, bias, y);
  if (is_depthwise<T>(g) || is_narrow<T>(g)) return depthwise_forward(g, x, weight, bias, y);
  dense_forward(g, x, weight, bias, y);
}

template <class S>
void forward_half(const ConvGeometry& g, DType dtype, const S* x, const S* weight, const S* bias, S* y) {
  const HalfCopies half(g, dtype);
  const Widened wide_bias(half, bias, g.out_channels);
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype, Product::kForward);
  if (algorithm == ConvAlgorithm::kWinograd) return winograd_forward(g, x, weight, wide_bias.get(), y);
  const bool direct = algorithm == ConvAlgorithm::kDirect;
  const bool depthwise = direct && (converts_depthwise<S>(g) || is_narrow<S>(g));
  if constexpr (has_dense_kernels<S>) {
    if (direct && !depthwise && !is_depthwise<S>(g) && has_bf16_kernels()) {
      return dense_forward(g, x, weight, wide_bias.get(), y);
    }
  }
  const WidenedWeight wide_weight(half, g, dtype, weight);
  ConvGeometry wide = wide_weight.geometry(g);
  // What one image takes, whatever several would in float32.
  wide.algorithm = algorithm;
  if (depthwise) return depthwise_forward(wide, x, wide_weight.get(), wide_bias.get(), y);
  const Scratch<float> wide_x(half.step() * half.x()), wide_y(half.step() * half.y());
  for_images(wide, half, [&](const ConvGeometry& part, int64_t image) {
    half.widen(x, image * half.x(), part.batch * half.x(), wide_x.get());
    forward<float>(part, wide_x.get(), wide_weight.get(), wide_bias.get(), wide_y.get());
    half.narrow(wide_y.get(), image * half.y(), part.batch * half.y(), y);
  });
}

template <class T>
void backward_input(const ConvGeometry& g, const T* grad_y, const T* weight, T* grad_x) {
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype_of<T>, Product::kBackwardInput);
  if constexpr (std::is_same_v<T, float>) {
    if (algorithm == ConvAlgorithm::kWinograd) return winograd_backward_input(g, grad_y, weight, grad_x);
  }
  if (algorithm == ConvAlgorithm::kIm2col) return im2col_backward_input(g, grad_y, weight, grad_x);
  if (algorithm == ConvAlgorithm::kFft) return fft_backward_input(g, grad_y, weight, grad_x);
  if (is_depthwise<T>(g) || is_narrow<T>(g)) return depthwise_backward_input(g, grad_y, weight, grad_x);
  dense_backward_input(g, grad_y, weight, grad_x);
}

template <class S>
void backward_input_half(const ConvGeometry& g, DType dtype, const S* grad_y, const S* weight, S* grad_x) {
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype, Product::kBackwardInput);
  if (algorithm == ConvAlgorithm::kWinograd) return winograd_backward_input(g, grad_y, weight, grad_x);
  const HalfCopies half(g, dtype);
  const bool direct = algorithm == ConvAlgorithm::kDirect;
  const bool depthwise = direct && (converts_depthwise<S>(g) || is_narrow<S>(g));
  if constexpr (has_dense_kernels<S>) {
    if (direct && !depthwise && !is_depthwise<S>(g) && has_bf16_kernels()) {
      return dense_backward_input(g, grad_y, weight, grad_x);
    }
  }
  const WidenedWeight wide_weight(half, g, dtype, weight);
  ConvGeometry wide = wide_weight.geometry(g);
  wide.algorithm = algorithm;
  if (depthwise) return depthwise_backward_input(wide, grad_y, wide_weight.get(), grad_x);
  const Scratch<float> wide_x(half.step() * half.x()), wide_y(half.step() * half.y());
  for_images(wide, half, [&](const ConvGeometry& part, int64_t image) {
    half.widen(grad_y, image * half.y(), part.batch * half.y(), wide_y.get());
    backward_input<float>(part, wide_y.get(), wide_weight.get(), wide_x.get());
    half.narrow(wide_x.get(), image * half.x(), part.batch * half.x(), grad_x);
  });
}

template <class T>
void backward_weight_of(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                        bool accumulate) {
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype_of<T>, Product::kBackwardWeight);
  if constexpr (std::is_same_v<T, float>) {
    if (algorithm == ConvAlgorithm::kWinograd) {
      return winograd_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
    }
  }
  if (algorithm == ConvAlgorithm::kIm2col) {
    return im2col_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
  }
  if (algorithm == ConvAlgorithm::kFft) {
    return fft_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
  }
  if (has_depthwise_sums<T>(g) || sums_narrow<T>(g)) {
    return depthwise_backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
  }
  backward_weight(g, x, grad_y, grad_weight, grad_bias, accumulate);
}

template <class S>
void backward_weight_half(const ConvGeometry& g, DType dtype, const S* x, const S* grad_y, S* grad_weight,
                          S* grad_bias) {
  const HalfCopies half(g, dtype);
  const Sums bias(half, grad_bias, g.out_channels);
  const ConvAlgorithm algorithm = choose_algorithm(g, dtype, Product::kBackwardWeight);
  if (algorithm == ConvAlgorithm::kWinograd) {
    winograd_backward_weight(g, x, grad_y, grad_weight, bias.get(), false);
    return bias.round();
  }
  const bool direct = algorithm == ConvAlgorithm::kDirect;
  if constexpr (has_dense_kernels<S>) {
    if (direct && !has_depthwise_sums<S>(g) && !sums_narrow<S>(g) && has_bf16_kernels()) {
      backward_weight(g, x, grad_y, grad_weight, bias.get(), false);
      return bias.round();
    }
  }
  const Sums weight(half, grad_weight, weight_elements(g));
  if (direct && ((converts_depthwise<S>(g) && has_depthwise_sums<S>(g)) || sums_narrow<S>(g))) {
    depthwise_backward_weight(g, x, grad_y, weight.get(), bias.get(), false);
  } else {
    const Scratch<float> wide_x(half.step() * half.x()), wide_y(half.step() * half.y());
    for_images(g, half, [&](const ConvGeometry& part, int64_t image) {
      half.widen(x, image * half.x(), part.batch * half.x(), wide_x.get());
      half.widen(grad_y, image * half.y(), part.batch * half.y(), wide_y.get());
      backward_weight_of<float>(part, wide_x.get(), wide_y.get(), weight.get(), bias.get(), true);
    });
  }
  weight.round();
  bias.round();
}

template <class S>
const S* as(const void* p) {
  return static_cast<const S*>(p);
}
template <class S>
S* as(void* p) {
  return static_cast<S*>(p);
}

template <class T>
bool applies(const ConvGeometry& g, DType dtype) {
  if (choose_algorithm(g, dtype, Product::kForward) != ConvAlgorithm::kDirect) return false;
  if (is_narrow<T>(g)) return false;
  if (is_depthwise<T>(g)) return depthwise_applies<T>(g);
  return dense_applies(g);
}

}  // namespace
}  // namespace conv

bool conv_applies(const ConvGeometry& g, DType dtype) {
  if (dtype == kFloat32) return conv::applies<float>(g, dtype);
  if (dtype == kBFloat16) return conv::has_bf16_kernels() && conv::applies<BFloat16>(g, dtype);
  return dtype == kFloat64 && conv::applies<double>(g, dtype);
}

void conv_forward(const ConvGeometry& g, DType dtype, const void* x, const void* weight, const void* bias,
                  void* y) {
  using namespace conv;
  check("conv", g, dtype);
  const auto run = [&]<class S>(S, auto&& function, auto... first) {
    function(g, first..., as<S>(x), as<S>(weight), as<S>(bias), as<S>(y));
  };
  if (dtype == kFloat32) return run(float{}, forward<float>);
  if (dtype == kFloat64) return run(double{}, forward<double>);
  if (dtype == kBFloat16) return run(BFloat16{}, forward_half<BFloat16>, dtype);
  run(Float16{}, forward_half<Float16>, dtype);
}

void conv_backward_input(const ConvGeometry& g, DType dtype, const void* grad_y, const void* weight,
                         void* grad_x) {
  using namespace conv;
  check("conv_backward_input", g, dtype);
  const auto run = [&]<class S>(S, auto&& function, auto... first) {
    function(g, first..., as<S>(grad_y), as<S>(weight), as<S>(grad_x));
  };
  if (dtype == kFloat32) return run(float{}, backward_input<float>);
  if (dtype == kFloat64) return run(double{}, backward_input<double>);
  if (dtype == kBFloat16) return run(BFloat16{}, backward_input_half<BFloat16>, dtype);
  run(Float16{}, backward_input_half<Float16>, dtype);
}

void conv_backward_weight(const ConvGeometry& g, DType dtype, const void* x, const void* grad_y,
                          void* grad_weight, void* grad_bias) {
  using namespace conv;
  check("conv_backward_weight", g, dtype);
  const auto run = [&]<class S>(S, auto&& function, auto... first) {
    function(g, first..., as<S>(x), as<S>(grad_y), as<S>(grad_weight), as<S>(grad_bias));
  };
  if (dtype == kFloat32) {
    return run(float{}, [](auto... args) { backward_weight_of(args..., false); });
  }
  if (dtype == kFloat64) {
    return run(double{}, [](auto... args) { backward_weight_of(args..., false); });
  }
  if (dtype == kBFloat16) return run(BFloat16{}, backward_weight_half<BFloat16>, dtype);
  run(Float16{}, backward_weight_half<Float16>, dtype);
}

}  // namespace opsin::cpu
