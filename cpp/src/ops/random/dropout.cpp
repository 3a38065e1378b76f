// Random zeroing. No mask is kept: the backward pass draws the same numbers again.
#include "random.h"
#include "random_kernels.h"

#include <cmath>

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/random.h>

#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const DropoutParams&)> dropout_forward("dropout");

namespace {

/// y = keep ? x / (1 - p) : 0, where keep is drawn from (seed, offset) for each position in memory order. The
/// gradient is the same op on grad_y, so nothing but the two numbers is saved.
struct Dropout {
  static constexpr const char* kName = "dropout";
  struct Params {
    double p;
    PhiloxSeed random;
    bool channels_last;
  };
  static void forward_into(Tensor& y, const Params& params, const Tensor& input) {
    const Tensor x = in_layout(input.detach(), params.channels_last);
    const Tensor out =
        y.defined() && is_in_layout(y, params.channels_last) ? y.detach() : allocate(x, params.channels_last);
    const auto kernel = dropout_forward.get(x.device(), x.dtype());
    // Kept where the upper 24 bits of the word, as a fraction, are not below p rounded to float32.
    const auto least = static_cast<uint32_t>(std::ceil(static_cast<float>(params.p) * 0x1p24f));
    const double scale = params.p == 1 ? 0 : 1 / (1 - params.p);
    kernel({x.impl()->physical_data(), out.impl()->mutable_physical_data(), x.numel(), x.dtype(),
            params.random, least, scale});
    if (!y.defined()) {
      y = out;
    } else if (out.impl()->storage.get() != y.impl()->storage.get()) {
      copy_(y.detach(), out);
    }
  }
  static void backward(Backward& ctx, const Params& params) { ctx.set(0, call<Dropout>(params, ctx.grad())); }

 private:
  static bool is_in_layout(const Tensor& x, bool channels_last) {
    return x.is_contiguous() && x.impl()->is_hidden() == channels_last;
  }
  static Tensor allocate(const Tensor& x, bool channels_last) {
    return channels_last ? empty_channels_last(x.sizes(), x.dtype(), x.device())
                         : empty(x.sizes(), x.dtype(), x.device());
  }
  static Tensor in_layout(const Tensor& x, bool channels_last) {
    if (is_in_layout(x, channels_last)) return x;
    const Tensor y = allocate(x, channels_last);
    copy_(y, x);
    return y;
  }
};

void check_probability(double p, const char* op) {
  OPSIN_CHECK(ValueError, p >= 0 && p <= 1, op, ": dropout probability has to be between 0 and 1, but got ",
              p);
}

/// Whole channels [N, C] are kept or zeroed.
Tensor channel_dropout(const Tensor& input, double p, bool training, bool inplace, int64_t spatial,
                       const char* op) {
  check_probability(p, op);
  OPSIN_CHECK(ShapeError, input.dim() == spatial + 1 || input.dim() == spatial + 2, op,
              ": expected input of rank ", spatial + 1, " or ", spatial + 2, ", got ", str(input.sizes()));
  if (!training || p == 0) return input;
  Dims sizes(input.sizes().size(), 1);
  const size_t kept = input.sizes().size() - static_cast<size_t>(spatial);
  for (size_t i = 0; i < kept; ++i) sizes[i] = input.sizes()[i];
  const Tensor mask = dropout(ones(sizes, input.dtype(), input.device()), p);
  return inplace ? mul_(input, mask) : mul(input, mask);
}
Tensor dropout1d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 1, "dropout1d");
}
Tensor dropout2d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 2, "dropout2d");
}
Tensor dropout3d(const Tensor& input, double p, bool training, bool inplace) {
  return channel_dropout(input, p, training, inplace, 3, "dropout3d");
}

}  // namespace

Tensor dropout(const Tensor& input, double p, bool training, bool inplace) {
  check_probability(p, "dropout");
  if (!training || p == 0) return input;
  const bool channels_last = input.is_contiguous() && input.impl()->is_hidden();
  const PhiloxSeed random =
      reserve_philox(generator_for(input.device(), nullptr), philox_blocks<4>(input.numel()));
  const Dropout::Params params{p, random, channels_last};
  return inplace ? call_inplace<Dropout>(params, input) : call<Dropout>(params, input);
}

void register_dropout(Registry& registry) {
  registry.add<&dropout>(
      "nn.functional.dropout(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "In training, zeroes each element with probability p and multiplies the others by 1 / (1 - p).");
  registry.add<&dropout1d>(
      "nn.functional.dropout1d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, L] or [C, L].");
  registry.add<&dropout2d>(
      "nn.functional.dropout2d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, H, W] or [C, H, W].");
  registry.add<&dropout3d>(
      "nn.functional.dropout3d(Tensor input, float p=0.5, bool training=True, bool inplace=False) -> Tensor",
      "dropout() of whole channels of input [N, C, D, H, W] or [C, D, H, W].");
}

}  // namespace opsin
