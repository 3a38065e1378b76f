// The focal loss: one pass forward and one backward.
#include "focal_kernels.h"
#include "parts.h"
#include "reduction.h"

#include <opsin/ops/binary.h>
#include <opsin/ops/loss.h>
#include <opsin/ops/unary.h>

#include "core/call.h"
#include "core/promotion.h"

namespace opsin {

constinit ElementwiseSlot focal_forward("sigmoid_focal_loss");
constinit ElementwiseSlot focal_backward("sigmoid_focal_loss_backward");

namespace {

/// The terms of the loss as differentiable functions; `miss` is 1 - p_t.
struct Terms {
  Tensor p, q, other, cross, miss;
  Terms(const Tensor& x, const Tensor& t)
      : p(sigmoid(x)),
        q(sigmoid(neg(x))),
        other(sub(wrap_number(1.0), t)),
        cross(sub(mul(other, x), logsigmoid(x))),
        miss(add(mul(p, other), mul(q, t))) {}
};

Tensor balanced(const Tensor& loss, const Tensor& t, const Tensor& other, double alpha) {
  if (alpha < 0) return loss;
  return mul(loss, add(mul(t, wrap_number(alpha)), mul(other, wrap_number(1 - alpha))));
}

/// y = balance(t) cross miss^gamma with d cross / dx = p - t and d miss / dx = p q (1 - 2 t).
Tensor composed_slope(const FocalArgs& args, const Tensor& dy, const Tensor& x, const Tensor& t) {
  const Terms terms(x, t);
  Tensor slope = mul(sub(terms.p, t), pow(terms.miss, wrap_number(args.gamma)));
  if (args.gamma != 0) {
    const Tensor turn = mul(mul(terms.p, terms.q), sub(terms.other, t));
    const Tensor power = mul(pow(terms.miss, wrap_number(args.gamma - 1)), wrap_number(args.gamma));
    slope = add(slope, mul(mul(terms.cross, power), turn));
  }
  return mul(balanced(slope, t, terms.other, args.alpha), dy);
}

struct FocalLoss {
  static constexpr const char* kName = "sigmoid_focal_loss";
  using Params = FocalArgs;

  static Tensor forward(const Params& p, const Tensor& x, const Tensor& t) {
    const DType dtype = floating_type(result_type({&x, &t}));
    Tensor y;
    Elementwise plan(kName, y, dtype);
    plan.input(x, dtype);
    plan.input(t, dtype);
    plan.build();
    plan.run_dense(focal_forward.get(plan.device(), dtype), &p);
    return y;
  }
  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& t, const Tensor&) {
    saver.save(0, x);
    saver.save(1, t);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0), t = ctx.saved(1), dy = ctx.grad();
    if (ctx.create_graph()) return ctx.set(0, composed_slope(p, dy, x, t));
    const DType dtype = dy.dtype();
    Tensor dx;
    Elementwise plan(kName, dx, dtype);
    plan.input(dy, dtype);
    plan.input(x, dtype);
    plan.input(t, dtype);
    plan.build();
    plan.run_dense(focal_backward.get(plan.device(), dtype), &p);
    ctx.set(0, dx);
  }
};

/// Targets that take part in gradients are rare.
Tensor composed_loss(const FocalArgs& args, const Tensor& x, const Tensor& t) {
  const Terms terms(x, t);
  return balanced(mul(terms.cross, pow(terms.miss, wrap_number(args.gamma))), t, terms.other, args.alpha);
}

}  // namespace

Tensor sigmoid_focal_loss(const Tensor& inputs, const Tensor& targets, double alpha, double gamma,
                          std::string_view reduction) {
  if (autocast::is_active())
    return autocast::call<autocast::kFull>(sigmoid_focal_loss, inputs, targets, alpha, gamma, reduction);
  constexpr const char* kName = FocalLoss::kName;
  OPSIN_CHECK(ShapeError, inputs.sizes() == targets.sizes(), kName,
              ": expected targets of the shape of inputs ", str(inputs.sizes()), ", got ",
              str(targets.sizes()), " (one_hot() makes them from classes)");
  OPSIN_CHECK(ValueError, (alpha >= 0 && alpha <= 1) || alpha == -1, kName,
              ": expected alpha in [0, 1], or -1 for no balance, got ", alpha);
  OPSIN_CHECK(ValueError, gamma >= 0, kName, ": expected gamma >= 0, got ", gamma);
  const Reduction way = parse_reduction(reduction, kName);
  const FocalArgs args{alpha, gamma};
  const bool composed = GradMode::is_enabled() && needs_grad(targets);
  return reduce_loss(composed ? composed_loss(args, inputs, targets) : call<FocalLoss>(args, inputs, targets),
                     way);
}

void register_focal(Registry& registry) {
  const auto& table = OPSIN_ISA_SELECT(cpu::focal_table);
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    focal_forward.set(DeviceType::kCPU, dtype, table.forward[dtype == kFloat64]);
    focal_backward.set(DeviceType::kCPU, dtype, table.backward[dtype == kFloat64]);
  }
  registry.add<&sigmoid_focal_loss>(
      "ops.sigmoid_focal_loss(Tensor inputs, Tensor targets, float alpha=0.25, float gamma=2, str "
      "reduction='none') -> Tensor",
      "-alpha_t (1 - p_t)^gamma log p_t with p = sigmoid(inputs), element by element.");
}

}  // namespace opsin
