// Channels that become pixels, pixels that become channels, and channels in another order. Images whose
// memory has the channels last stay so.
#include "../copy/copy_kernels.h"

#include <algorithm>
#include <array>

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/interpolate.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/registry.h"
#include "cpu/thread_pool.h"

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

/// Memory in another order: to[sum of i * to] = from[sum of i * from] over 0 <= i < size of each dimension.
/// The first has neighbours in `to`, the second in `from`.
struct Dimension {
  int64_t size, to, from;
};
struct Order {
  Dimension first, second, third;
  Dimension rest[3] = {{1, 0, 0}, {1, 0, 0}, {1, 0, 0}};
};

/// kFirst and kSecond are sizes that the compiler may know, or 0.
template <class T, int kFirst, int kSecond>
void move_tile(const Order& order, const T* from, T* to) {
  const int64_t first = kFirst ? kFirst : order.first.size, second = kSecond ? kSecond : order.second.size;
  const int64_t step = order.first.from, row = order.second.to;
  if constexpr (kFirst > 0) {
    for (int64_t j = 0; j < second; ++j) {
      for (int64_t i = 0; i < first; ++i) to[j * row + i] = from[i * step + j];
    }
  } else {
    for (int64_t i = 0; i < first; ++i) {
      for (int64_t j = 0; j < second; ++j) to[j * row + i] = from[i * step + j];
    }
  }
}

template <class T>
void move_on_cpu(const Order& order, const void* from, void* to) {
  const int64_t first = order.first.size, second = order.second.size;
  const auto tile = first == 2    ? move_tile<T, 2, 0>
                    : first == 3  ? move_tile<T, 3, 0>
                    : first == 4  ? move_tile<T, 4, 0>
                    : second == 2 ? move_tile<T, 0, 2>
                    : second == 3 ? move_tile<T, 0, 3>
                    : second == 4 ? move_tile<T, 0, 4>
                                  : move_tile<T, 0, 0>;
  const auto& rest = order.rest;
  const int64_t each = std::max<int64_t>(1, first * second * order.third.size);
  cpu::parallel_for(rest[0].size * rest[1].size * rest[2].size, std::max<int64_t>(1, 32768 / each),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t row = begin; row < end; ++row) {
                        const int64_t i = row % rest[0].size, j = row / rest[0].size % rest[1].size,
                                      k = row / rest[0].size / rest[1].size;
                        const T* source = static_cast<const T*>(from) + i * rest[0].from + j * rest[1].from +
                                          k * rest[2].from;
                        T* target = static_cast<T*>(to) + i * rest[0].to + j * rest[1].to + k * rest[2].to;
                        for (int64_t t = 0; t < order.third.size; ++t) {
                          tile(order, source + t * order.third.from, target + t * order.third.to);
                        }
                      }
                    });
}

void move_on_device(const Order& order, DType dtype, Device device, const void* from, void* to) {
  const auto item = static_cast<int64_t>(item_size(dtype));
  DevicePlan plan{};
  plan.operands = 2;
  plan.numel = 1;
  plan.dtype[0] = plan.dtype[1] = dtype;
  const auto add = [&](const Dimension& d) {
    if (d.size == 1) return;
    plan.sizes[plan.rank] = d.size;
    plan.strides[0][plan.rank] = d.to * item;
    plan.strides[1][plan.rank++] = d.from * item;
    plan.numel *= d.size;
  };
  for (const Dimension& d : {order.first, order.second, order.third, order.rest[0], order.rest[1]}) add(d);
  if (plan.rank == 0) add({1, 1, 1});
  const auto launch = copy_forward[static_cast<int>(dtype)].get(device, dtype).device();
  const Dimension& images = order.rest[2];
  for (int64_t i = 0; i < images.size; ++i) {
    plan.data[0] = static_cast<char*>(to) + i * images.to * item;
    plan.data[1] = const_cast<char*>(static_cast<const char*>(from)) + i * images.from * item;
    launch(plan, nullptr);
  }
}

/// A tensor of `sizes` with what the channels-last memory of `x` has, in another order.
Tensor moved(const Order& order, const Tensor& x, const Dims& sizes) {
  const Tensor y = empty_channels_last(sizes, x.dtype(), x.device());
  if (y.numel() == 0) return y;
  const void* from = x.impl()->physical_data();
  void* to = y.impl()->mutable_physical_data();
  if (!x.device().is_cpu()) {
    move_on_device(order, x.dtype(), x.device(), from, to);
    return y;
  }
  switch (item_size(x.dtype())) {
    case 1:
      move_on_cpu<uint8_t>(order, from, to);
      break;
    case 2:
      move_on_cpu<uint16_t>(order, from, to);
      break;
    case 4:
      move_on_cpu<uint32_t>(order, from, to);
      break;
    case 8:
      move_on_cpu<uint64_t>(order, from, to);
      break;
    default:
      move_on_cpu<std::array<uint64_t, 2>>(order, from, to);
  }
  return y;
}

struct Factor {
  int64_t factor;
};

/// Memory [n, h, w, k, ri, rj] becomes [n, h, ri, w, rj, k].
struct PixelShuffle {
  static constexpr const char* kName = "pixel_shuffle";
  using Params = Factor;
  static Tensor forward(const Factor& p, const Tensor& x) {
    const int64_t r = p.factor, n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3), k = c / (r * r);
    const Order order{{k, 1, r * r},
                      {r, k, 1},
                      {w, r * k, c},
                      {{r, w * r * k, r}, {h, r * w * r * k, w * c}, {n, h * w * c, h * w * c}}};
    return moved(order, x, {n, k, h * r, w * r});
  }
  static void backward(Backward& ctx, const Factor& p) { ctx.set(0, pixel_unshuffle(ctx.grad(), p.factor)); }
};

/// Memory [n, h, ri, w, rj, k] becomes [n, h, w, k, ri, rj].
struct PixelUnshuffle {
  static constexpr const char* kName = "pixel_unshuffle";
  using Params = Factor;
  static Tensor forward(const Factor& p, const Tensor& x) {
    const int64_t r = p.factor, n = x.size(0), k = x.size(1), h = x.size(2) / r, w = x.size(3) / r,
                  c = k * r * r;
    const Order order{{r, 1, k},
                      {k, r * r, 1},
                      {w, c, r * k},
                      {{r, r, w * r * k}, {h, w * c, r * w * r * k}, {n, h * w * c, h * w * c}}};
    return moved(order, x, {n, c, h, w});
  }
  static void backward(Backward& ctx, const Factor& p) { ctx.set(0, pixel_shuffle(ctx.grad(), p.factor)); }
};

/// Memory [n, pixels, groups, i] becomes [n, pixels, i, groups].
struct ChannelShuffle {
  static constexpr const char* kName = "channel_shuffle";
  using Params = Factor;
  static Tensor forward(const Factor& p, const Tensor& x) {
    const int64_t c = x.size(1), each = c / p.factor, image = x.numel() / std::max<int64_t>(1, x.size(0));
    const Order order{{p.factor, 1, each},
                      {each, p.factor, 1},
                      {x.size(-1), c, c},
                      {{image / std::max<int64_t>(1, c * x.size(-1)), x.size(-1) * c, x.size(-1) * c},
                       {1, 0, 0},
                       {x.size(0), image, image}}};
    return moved(order, x, x.sizes());
  }
  static void backward(Backward& ctx, const Factor& p) {
    ctx.set(0, channel_shuffle(ctx.grad(), ctx.grad().size(1) / p.factor));
  }
};

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
  if (input.dim() == 4 && input.impl()->is_hidden()) return call<PixelShuffle>({r}, input);
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
  if (input.dim() == 4 && input.impl()->is_hidden()) return call<PixelUnshuffle>({r}, input);
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
  if (input.impl()->is_hidden()) return call<ChannelShuffle>({groups}, input);
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
