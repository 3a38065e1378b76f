// Normalizations that are made of other ops.
#include "parts.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/norm.h>
#include <opsin/ops/pool.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "autograd/autocast.h"

namespace opsin {

Tensor local_response_norm(const Tensor& input, int64_t size, double alpha, double beta, double k) {
  // PyTorch averages in three dimensions.
  if (input.dim() > 3 && autocast::is_on(DeviceType::kCPU, input)) {
    return autocast::call<autocast::kFull>(local_response_norm, input, size, alpha, beta, k);
  }
  OPSIN_CHECK(ShapeError, input.dim() >= 3,
              "local_response_norm: Expected 3D or higher dimensionality input (got ", input.dim(),
              " dimensions)");
  OPSIN_CHECK(ValueError, size > 0, "local_response_norm: expected size to be positive, got ", size);
  if (input.numel() == 0) return input;
  // Windows of channels, as pooling has them of places. With this padding, output c begins at channel
  // c - size / 2, and an even size has one too many.
  const int64_t channels = input.size(1);
  const Tensor flat = transpose(reshape(square(input), Dims{input.size(0), channels, -1}), 1, 2);
  const Tensor all = avg_pool1d(flat, Dims{size}, Dims{1}, Dims{size / 2});
  const Tensor means = size % 2 == 0 ? narrow(all, 2, 0, channels) : all;
  const Tensor around = reshape(contiguous(transpose(means, 1, 2)), input.sizes());
  return input / pow(around * Scalar(alpha) + Scalar(k), wrap_number(beta));
}

Tensor normalize(const Tensor& input, double p, IntSpan dim, double eps) {
  for (const int64_t d : dim) wrap_dim(d, input.dim(), "normalize");
  return input / clamp_min(norm(input, p, dim, true), wrap_number(eps));
}

void register_composed_norms(Registry& registry) {
  registry.add<&local_response_norm>(
      "nn.functional.local_response_norm(Tensor input, int size, float alpha=0.0001, float beta=0.75, float "
      "k=1.0) -> Tensor",
      "Divides by (k + alpha mean(x^2))^beta over `size` channels around each of [N, C, spatial...].");
  registry.add<&normalize>(
      "nn.functional.normalize(Tensor input, float p=2.0, int[1] dim=1, float eps=1e-12) -> Tensor",
      "x / max(||x||_p, eps) along a dimension.");
}

}  // namespace opsin
