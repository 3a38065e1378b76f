// Losses of pairs of elements, composed of differentiable functions.
#include "pair_kernels.h"
#include "parts.h"
#include "reduction.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/loss.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>

#include "autograd/autocast.h"
#include "autograd/var.h"
#include "core/call.h"
#include "core/registry.h"

namespace opsin {

constinit KernelSlot<void (*)(const PairParams&)> squared_error{"mse_loss"};

namespace {

Tensor weighted(const Tensor& loss, const Tensor& weight, const char* op) {
  if (!weight.defined()) return loss;
  OPSIN_CHECK(ShapeError, broadcast_shapes(loss.sizes(), weight.sizes(), op) == loss.sizes(), op, ": weight ",
              str(weight.sizes()), " doesn't broadcast to the loss ", str(loss.sizes()));
  return mul(loss, weight);
}

/// With a weight, "mean" divides by the total weight, as mse_loss, l1_loss and huber_loss of PyTorch do.
Tensor reduce_pair(const Tensor& loss, const Tensor& weight, std::string_view reduction, const char* op) {
  const Reduction way = parse_reduction(reduction, op);
  const Tensor terms = weighted(loss, weight, op);
  if (weight.defined() && way == Reduction::kMean) return div(sum(terms), sum(weight));
  return reduce_loss(terms, way);
}

/// x - y; shapes that don't broadcast are the fault of the loss that is named.
Tensor difference(const Tensor& input, const Tensor& target, const char* op) {
  if (!(input.sizes() == target.sizes())) broadcast_shapes(input.sizes(), target.sizes(), op);
  return sub(input, target);
}

/// y = scale sum((a - b)^2), so da = 2 scale (a - b) dy and db = -da.
struct SquaredError {
  static constexpr const char* kName = "mse_loss";
  struct Params {
    double scale;
  };
  static Tensor forward(const Params& p, const Tensor& a, const Tensor& b) {
    const Tensor y = empty(Dims{}, a.dtype(), a.device());
    squared_error.get(a.device(),
                      a.dtype())({a.impl()->physical_data(), b.impl()->physical_data(),
                                  y.impl()->mutable_physical_data(), a.numel(), p.scale, a.dtype()});
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& a, const Tensor& b, const Tensor&) {
    saver.save(0, a);
    saver.save(1, b);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor slope =
        mul(sub(ctx.saved(0), ctx.saved(1)), mul(ctx.grad(), wrap_number(2 * p.scale, ctx.grad().dtype())));
    if (ctx.needs(0)) ctx.set(0, slope);
    if (ctx.needs(1)) ctx.set(1, neg(slope));
  }
};

/// Of differences d: d^2 / 2 up to |d| = bound and bound (|d| - bound / 2) beyond, which is c (|d| - c / 2)
/// with c = min(|d|, bound); divided by the bound if `smooth`. The gradient is that of a parabola, cut off.
struct Huber {
  struct Params {
    const char* op;
    double bound;
    bool smooth;
  };
  static const char* name(const Params& p) { return p.op; }
  static Tensor forward(const Params& p, const Tensor& d) {
    const Tensor size = abs(d.detach()), bound = wrap_number(p.bound), cut = clamp_max(size, bound);
    return mul(p.smooth ? div(cut, bound) : cut, sub(size, cut, 0.5));
  }
  static void save(Saver& saver, const Params&, const Tensor& d, const Tensor&) { saver.save(0, d); }
  static void backward(Backward& ctx, const Params& p) {
    const double most = p.smooth ? 1 : p.bound;
    const Tensor d = p.smooth ? ctx.saved(0) * Scalar(1 / p.bound) : ctx.saved(0);
    ctx.set(0, mul(clamp(d, wrap_number(-most, d.dtype()), wrap_number(most, d.dtype())), ctx.grad()));
  }
};

/// Whether neighbours in the memory of `a` and `b` are the pairs.
bool lie_alike(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && a.dtype() == b.dtype() && is_floating_point(a.dtype()) &&
         a.device() == b.device() && a.is_contiguous() && b.is_contiguous() &&
         a.impl()->is_hidden() == b.impl()->is_hidden();
}

void check_same_shape(const Tensor& input, const Tensor& target, const char* op) {
  OPSIN_CHECK(ShapeError, input.sizes() == target.sizes(), op, ": expected target of the shape of input ",
              str(input.sizes()), ", got ", str(target.sizes()));
}

Tensor kl_div_call(const Tensor& input, const Tensor& target, std::optional<bool> size_average,
                   std::optional<bool> reduce, std::string_view reduction, bool log_target) {
  return kl_div(input, target, legacy_reduction(size_average, reduce, reduction), log_target);
}
Tensor mse_loss_call(const Tensor& input, const Tensor& target, std::optional<bool> size_average,
                     std::optional<bool> reduce, std::string_view reduction, const Tensor& weight) {
  return mse_loss(input, target, legacy_reduction(size_average, reduce, reduction), weight);
}
Tensor l1_loss_call(const Tensor& input, const Tensor& target, std::optional<bool> size_average,
                    std::optional<bool> reduce, std::string_view reduction, const Tensor& weight) {
  return l1_loss(input, target, legacy_reduction(size_average, reduce, reduction), weight);
}
Tensor smooth_l1_loss_call(const Tensor& input, const Tensor& target, std::optional<bool> size_average,
                           std::optional<bool> reduce, std::string_view reduction, double beta) {
  return smooth_l1_loss(input, target, legacy_reduction(size_average, reduce, reduction), beta);
}
Tensor binary_cross_entropy_call(const Tensor& input, const Tensor& target, const Tensor& weight,
                                 std::optional<bool> size_average, std::optional<bool> reduce,
                                 std::string_view reduction) {
  return binary_cross_entropy(input, target, weight, legacy_reduction(size_average, reduce, reduction));
}
Tensor binary_cross_entropy_with_logits_call(const Tensor& input, const Tensor& target, const Tensor& weight,
                                             std::optional<bool> size_average, std::optional<bool> reduce,
                                             std::string_view reduction, const Tensor& pos_weight) {
  return binary_cross_entropy_with_logits(input, target, weight,
                                          legacy_reduction(size_average, reduce, reduction), pos_weight);
}

}  // namespace

Tensor mse_loss(const Tensor& input, const Tensor& target, std::string_view reduction, const Tensor& weight) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(mse_loss, input, target, reduction, weight);
  const Reduction way = parse_reduction(reduction, "mse_loss");
  if (way != Reduction::kNone && !weight.defined() && lie_alike(input, target)) {
    return call<SquaredError>({way == Reduction::kMean ? 1 / static_cast<double>(input.numel()) : 1}, input,
                              target);
  }
  const Tensor d = difference(input, target, "mse_loss");
  return reduce_pair(mul(d, d), weight, reduction, "mse_loss");
}

Tensor l1_loss(const Tensor& input, const Tensor& target, std::string_view reduction, const Tensor& weight) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(l1_loss, input, target, reduction, weight);
  return reduce_pair(abs(difference(input, target, "l1_loss")), weight, reduction, "l1_loss");
}

Tensor smooth_l1_loss(const Tensor& input, const Tensor& target, std::string_view reduction, double beta) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(smooth_l1_loss, input, target, reduction, beta);
  OPSIN_CHECK(Error, beta >= 0, "smooth_l1_loss: does not support negative values for beta, got ", beta);
  if (beta == 0) return l1_loss(input, target, reduction);
  const Tensor loss =
      call<Huber>({"smooth_l1_loss", beta, true}, difference(input, target, "smooth_l1_loss"));
  return reduce_loss(loss, parse_reduction(reduction, "smooth_l1_loss"));
}

Tensor huber_loss(const Tensor& input, const Tensor& target, std::string_view reduction, double delta,
                  const Tensor& weight) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(huber_loss, input, target, reduction, delta, weight);
  OPSIN_CHECK(Error, delta > 0, "huber_loss: does not support non-positive values for delta, got ", delta);
  const Tensor loss = call<Huber>({"huber_loss", delta, false}, difference(input, target, "huber_loss"));
  return reduce_pair(loss, weight, reduction, "huber_loss");
}

Tensor binary_cross_entropy(const Tensor& input, const Tensor& target, const Tensor& weight,
                            std::string_view reduction) {
  OPSIN_CHECK(
      Error, !autocast::is_on(DeviceType::kCUDA, input),
      "binary_cross_entropy: torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to "
      "autocast, because float16 holds no probability close to 1 (use "
      "binary_cross_entropy_with_logits or BCEWithLogitsLoss on what the sigmoid gets)");
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(binary_cross_entropy, input, target, weight, reduction);
  constexpr const char* kName = "binary_cross_entropy";
  check_same_shape(input, target, kName);
  // A GPU is not waited for: there, what lies outside gives NaN, as the logarithm of a negative number does.
  if (const Tensor x = input.detach(); x.device().is_cpu()) {
    OPSIN_CHECK(Error, all(logical_and(ge(x, wrap_number(0.0)), le(x, wrap_number(1.0)))).item<bool>(), kName,
                ": all elements of input should be between 0 and 1 (use binary_cross_entropy_with_logits for "
                "scores)");
  }
  const Tensor least = wrap_number(-100.0), one = wrap_number(1.0);
  const Tensor yes = maximum(log(input), least), no = maximum(log(sub(one, input)), least);
  const Tensor loss = sub(mul(sub(target, one), no), mul(target, yes));
  return reduce_loss(weighted(loss, weight, kName), parse_reduction(reduction, kName));
}

// -y log s(x) - (1 - y) log(1 - s(x)) = (1 - y) x - log s(x), with the last term times 1 + (pos_weight - 1)
// y.
Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target, const Tensor& weight,
                                        std::string_view reduction, const Tensor& pos_weight) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(binary_cross_entropy_with_logits, input, target, weight, reduction,
                                           pos_weight);
  constexpr const char* kName = "binary_cross_entropy_with_logits";
  check_same_shape(input, target, kName);
  const Tensor one = wrap_number(1.0);
  Tensor tail = neg(logsigmoid(input));
  if (pos_weight.defined()) tail = mul(tail, add(mul(sub(pos_weight, one), target), one));
  const Tensor loss = add(mul(sub(one, target), input), tail);
  return reduce_loss(weighted(loss, weight, kName), parse_reduction(reduction, kName));
}

Tensor kl_div(const Tensor& input, const Tensor& target, std::string_view reduction, bool log_target) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(kl_div, input, target, reduction, log_target);
  Tensor loss;
  if (log_target) {
    loss = mul(exp(target), sub(target, input));
  } else {
    // y log y is 0 for y = 0; the logarithm sees a 1 there, so that its derivative stays finite.
    const Tensor none = eq(target, wrap_number(0.0));
    const Tensor entropy = mul(target, log(where(none, wrap_number(1.0), target)));
    loss = sub(entropy, mul(target, input));
  }
  if (reduction == "batchmean") {
    return div(sum(loss), wrap_number(static_cast<double>(input.dim() == 0 ? 1 : input.size(0))));
  }
  return reduce_loss(loss, parse_reduction(reduction, "kl_div"));
}

namespace {
Tensor huber_loss_call(const Tensor& input, const Tensor& target, std::string_view reduction, double delta,
                       const Tensor& weight) {
  return huber_loss(input, target, reduction, delta, weight);
}
}  // namespace

void register_loss(Registry& registry) {
  register_pair_cpu();
  register_cross_entropy(registry);
  register_focal(registry);
  registry.add<&mse_loss_call>(
      "nn.functional.mse_loss(Tensor input, Tensor target, bool? size_average=None, bool? reduce=None, "
      "str reduction='mean', Tensor? weight=None) -> Tensor",
      "The squared difference (x - y)^2.");
  registry.add<&l1_loss_call>(
      "nn.functional.l1_loss(Tensor input, Tensor target, bool? size_average=None, bool? reduce=None, "
      "str reduction='mean', Tensor? weight=None) -> Tensor",
      "The absolute difference |x - y|.");
  registry.add<&smooth_l1_loss_call>(
      "nn.functional.smooth_l1_loss(Tensor input, Tensor target, bool? size_average=None, bool? reduce=None, "
      "str reduction='mean', float beta=1.0) -> Tensor",
      "(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2.");
  registry.add<&huber_loss_call>(
      "nn.functional.huber_loss(Tensor input, Tensor target, str reduction='mean', float delta=1.0, "
      "Tensor? weight=None) -> Tensor",
      "(x - y)^2 / 2 where |x - y| <= delta, else delta (|x - y| - delta / 2).");
  registry.add<&binary_cross_entropy_call>(
      "nn.functional.binary_cross_entropy(Tensor input, Tensor target, Tensor? weight=None, bool? "
      "size_average=None, "
      "bool? reduce=None, str reduction='mean') -> Tensor",
      "-(y log x + (1 - y) log(1 - x)) for probabilities x.");
  registry.add<&binary_cross_entropy_with_logits_call>(
      "nn.functional.binary_cross_entropy_with_logits(Tensor input, Tensor target, Tensor? weight=None, "
      "bool? size_average=None, bool? reduce=None, str reduction='mean', Tensor? pos_weight=None) -> Tensor",
      "binary_cross_entropy() of sigmoid(x), without overflow.");
  registry.add<&kl_div_call>(
      "nn.functional.kl_div(Tensor input, Tensor target, bool? size_average=None, bool? reduce=None, "
      "str reduction='mean', bool log_target=False) -> Tensor",
      "The divergence y (log y - x) of log-probabilities x from probabilities y.");
}

}  // namespace opsin
