// Power-average pooling: an average of powers and a root.
#include <cmath>

#include <opsin/autograd.h>
#include <opsin/ops/binary.h>
#include <opsin/ops/compare.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/lp_pool.h>
#include <opsin/ops/unary.h>

#include "../pool/pool_named.h"
#include "autograd/autocast.h"
#include "core/registry.h"

namespace opsin {

namespace {

/// sum^(1 / p). The root of zero has no gradient, or an infinite one: it counts as zero.
Tensor root(const Tensor& sum, double p) {
  if (p < 0 || !GradMode::is_enabled() || !sum.requires_grad()) return pow(sum, wrap_number(1 / p));
  const Tensor nothing = eq(sum.detach(), wrap_number(0));
  return masked_fill(pow(masked_fill(sum, nothing, wrap_number(1)), wrap_number(1 / p)), nothing,
                     wrap_number(0));
}

Tensor lp_pool(const char* op, size_t axes, const Tensor& input, double p, IntSpan kernel_size,
               IntSpan stride, bool ceil_mode, PoolPadding padding) {
  // The policy is that of pow().
  if (!std::isinf(p) && autocast::is_on(DeviceType::kCUDA, input)) {
    return autocast::call<autocast::kFull>(lp_pool, op, axes, input, p, kernel_size, stride, ceil_mode,
                                           padding);
  }
  OPSIN_CHECK(ValueError, p != 0 && !std::isnan(p), op, ": expected a norm_type other than 0, got ", p,
              " (2 gives the Euclidean norm, infinity the largest magnitude)");
  const auto rank = static_cast<int64_t>(axes);
  OPSIN_CHECK(ShapeError, input.dim() == rank + 1 || input.dim() == rank + 2, op, ": expected input of ",
              rank + 1, " (unbatched) or ", rank + 2, " dimensions, got ", str(input.sizes()));
  OPSIN_CHECK(TypeError, is_floating_point(input.dtype()), op,
              ": expected a floating-point dtype (float32, float64, float16, bfloat16), got ",
              name(input.dtype()));
  const Dims kernel = per_axis(kernel_size, axes, 1, 1, op, "kernel_size");
  if (std::isinf(p)) {
    const Tensor size = abs(input);
    if (p > 0) return max_pool_named(op, axes, size, kernel, stride, padding, ceil_mode);
    return neg(max_pool_named(op, axes, neg(size), kernel, stride, padding, ceil_mode));
  }
  int64_t pixels = 1;
  for (const int64_t k : kernel) pixels *= k;
  const Tensor powers = p == 1 ? input : pow(input, wrap_number(p));
  // Without ceil_mode all windows are whole.
  Tensor sum = avg_pool_named(op, axes, powers, kernel, stride, padding, ceil_mode, true,
                              ceil_mode ? std::nullopt : std::optional<int64_t>(1));
  if (ceil_mode && pixels > 1) sum = mul(sum, wrap_number(pixels));
  return p == 1 ? sum : root(sum, p);
}

template <size_t kAxes, class Padding>
Tensor lp_pool_schema(const Tensor& input, double norm_type, IntSpan kernel_size,
                      std::optional<IntSpan> stride, bool ceil_mode, Padding padding) {
  constexpr const char* kNames[] = {"", "lp_pool1d", "lp_pool2d", "lp_pool3d"};
  return lp_pool(kNames[kAxes], kAxes, input, norm_type, kernel_size, stride.value_or(IntSpan()), ceil_mode,
                 padding);
}

}  // namespace

#define OPSIN_LP_POOL(n, Padding)                                                                   \
  Tensor lp_pool##n##d(const Tensor& input, double norm_type, IntSpan kernel_size, IntSpan stride,  \
                       bool ceil_mode, Padding padding) {                                           \
    return lp_pool("lp_pool" #n "d", n, input, norm_type, kernel_size, stride, ceil_mode, padding); \
  }
OPSIN_LP_POOL(1, IntSpan)
OPSIN_LP_POOL(2, IntSpan)
OPSIN_LP_POOL(3, IntSpan)
OPSIN_LP_POOL(1, std::string_view)
OPSIN_LP_POOL(2, std::string_view)
OPSIN_LP_POOL(3, std::string_view)
#undef OPSIN_LP_POOL

void register_lp_pool(Registry& registry) {
#define OPSIN_LP_POOL(n, Padding, padding)                                                               \
  registry.add<&lp_pool_schema<n, Padding>>(                                                             \
      "nn.functional.lp_pool" #n "d(Tensor input, float norm_type, int[" #n "] kernel_size, int[" #n     \
      "]? stride=None, bool ceil_mode=False, *, " padding ") -> Tensor",                                 \
      "The norm of each window: (sum of x^norm_type)^(1 / norm_type). padding, which adds nothing: one " \
      "entry, one or (before, behind) for each axis, or a name as convolution takes it.");
  OPSIN_LP_POOL(1, IntSpan, "int[1] padding=0")
  OPSIN_LP_POOL(1, std::string_view, "str padding='valid'")
  OPSIN_LP_POOL(2, IntSpan, "int[2] padding=0")
  OPSIN_LP_POOL(2, std::string_view, "str padding='valid'")
  OPSIN_LP_POOL(3, IntSpan, "int[3] padding=0")
  OPSIN_LP_POOL(3, std::string_view, "str padding='valid'")
#undef OPSIN_LP_POOL
}

}  // namespace opsin
