// Channels that become pixels, pixels that become channels, and channels in another order.
#include <opsin/ops/copy.h>
#include <opsin/ops/interpolate.h>
#include <opsin/ops/view.h>

#include "core/registry.h"

namespace opsin {

namespace {

/// reshape(permute(reshape(x, parts), order), sizes) as memory of its own.
Tensor rearranged(const Tensor& x, const Dims& parts, const Dims& order, const Dims& sizes) {
  return reshape(contiguous(permute(reshape(x, parts), order)), sizes);
}

/// What is in front of channels and pixels, as one number.
int64_t images_of(const Tensor& x) {
  int64_t images = 1;
  for (int64_t d = 0; d < x.dim() - 3; ++d) images *= x.size(d);
  return images;
}

Dims with_image(const Tensor& x, int64_t channels, int64_t height, int64_t width) {
  Dims sizes = x.sizes();
  const size_t rank = sizes.size();
  sizes[rank - 3] = channels;
  sizes[rank - 2] = height;
  sizes[rank - 1] = width;
  return sizes;
}

}  // namespace

Tensor pixel_shuffle(const Tensor& input, int64_t upscale_factor) {
  constexpr const char* op = "pixel_shuffle";
  OPSIN_CHECK(ShapeError, input.dim() >= 3, op, ": expected input to have at least 3 dimensions, got ",
              str(input.sizes()));
  OPSIN_CHECK(ShapeError, upscale_factor > 0, op, ": expected a positive upscale_factor, got ",
              upscale_factor);
  const int64_t r = upscale_factor, c = input.size(-3), h = input.size(-2), w = input.size(-1);
  OPSIN_CHECK(ShapeError, r <= INT32_MAX && c % (r * r) == 0, op,
              ": expected channels divisible by the square of upscale_factor, got ", c, " channels of ",
              str(input.sizes()), " for upscale_factor ", r);
  const int64_t n = images_of(input), k = c / (r * r);
  return rearranged(input, {n, k, r, r, h, w}, {0, 1, 4, 2, 5, 3}, with_image(input, k, h * r, w * r));
}

Tensor pixel_unshuffle(const Tensor& input, int64_t downscale_factor) {
  constexpr const char* op = "pixel_unshuffle";
  OPSIN_CHECK(ShapeError, input.dim() >= 3, op, ": expected input to have at least 3 dimensions, got ",
              str(input.sizes()));
  OPSIN_CHECK(ShapeError, downscale_factor > 0, op, ": expected a positive downscale_factor, got ",
              downscale_factor);
  const int64_t r = downscale_factor, c = input.size(-3), h = input.size(-2), w = input.size(-1);
  OPSIN_CHECK(ShapeError, h % r == 0 && w % r == 0, op,
              ": expected height and width divisible by downscale_factor, got ", str(input.sizes()),
              " for downscale_factor ", r);
  const int64_t n = images_of(input);
  return rearranged(input, {n, c, h / r, r, w / r, r}, {0, 1, 3, 5, 2, 4},
                    with_image(input, c * r * r, h / r, w / r));
}

Tensor channel_shuffle(const Tensor& input, int64_t groups) {
  constexpr const char* op = "channel_shuffle";
  OPSIN_CHECK(ShapeError, input.dim() > 2, op, ": expected input with more than 2 dimensions, got ",
              str(input.sizes()));
  OPSIN_CHECK(ShapeError, groups > 0, op, ": expected a positive number of groups, got ", groups);
  const int64_t n = input.size(0), c = input.size(1);
  OPSIN_CHECK(ShapeError, c % groups == 0, op, ": expected channels divisible by groups, got ", c,
              " channels of ", str(input.sizes()), " and ", groups, " groups");
  int64_t pixels = 1;
  for (int64_t d = 2; d < input.dim(); ++d) pixels *= input.size(d);
  return rearranged(input, {n, groups, c / groups, pixels}, {0, 2, 1, 3}, input.sizes());
}

void register_shuffle(Registry& registry);

void register_shuffle(Registry& registry) {
  registry.add<&pixel_shuffle>("nn.functional.pixel_shuffle(Tensor input, int upscale_factor) -> Tensor",
                               "[..., C r^2, H, W] -> [..., C, H r, W r] with r = upscale_factor.");
  registry.add<&pixel_unshuffle>(
      "nn.functional.pixel_unshuffle(Tensor input, int downscale_factor) -> Tensor",
      "[..., C, H r, W r] -> [..., C r^2, H, W] with r = downscale_factor.");
  registry.add<&channel_shuffle>("nn.functional.channel_shuffle(Tensor input, int groups) -> Tensor",
                                 "Channels taken from each of `groups` groups in turn.");
}

}  // namespace opsin
