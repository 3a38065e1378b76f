// Corner pooling: a running maximum from one side or the other.
#include <opsin/ops/corner_pool.h>
#include <opsin/ops/rearrange.h>
#include <opsin/ops/scan.h>

#include "core/registry.h"

namespace opsin {

Tensor corner_pool(const Tensor& input, std::string_view direction) {
  const bool top = direction == "top", left = direction == "left", bottom = direction == "bottom";
  OPSIN_CHECK(ValueError, top || left || bottom || direction == "right",
              "corner_pool: expected direction 'top', 'left', 'bottom' or 'right', got '", direction, "'");
  OPSIN_CHECK(ShapeError, input.dim() >= 2, "corner_pool: expected input [..., H, W], got ",
              str(input.sizes()));
  const int64_t dim = input.dim() - (top || bottom ? 2 : 1);
  if (!top && !left) return cummax(input, dim)[0];
  return flip(cummax(flip(input, Dims{dim}), dim)[0], Dims{dim});
}

void register_corner_pool(Registry& registry) {
  registry.add<&corner_pool>(
      "nn.functional.corner_pool(Tensor input, str direction) -> Tensor",
      "The largest value from each pixel down ('top'), up ('bottom'), to the right ('left') or to the left "
      "('right').");
}

}  // namespace opsin
