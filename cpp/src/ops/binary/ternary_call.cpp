// How the ternary ops run and are recorded, with their gradients.
#include "binary_call.h"

#include <opsin/ops/binary.h>

#include "autograd/var.h"
#include "core/call.h"
#include "core/dispatch.h"
#include "core/promotion.h"

namespace opsin {

constinit ElementwiseSlot ternary_forward[kTernaryCount] = {
#define OPSIN_ROW(Functor, function) ElementwiseSlot(#function),
    OPSIN_TERNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
};

void register_ternary_cpu() {
  fill_dense_slots(ternary_forward, OPSIN_ISA_SELECT(cpu::ternary_table).kernel);
}

namespace ternary {

namespace {

struct Params {
  TernaryOp op;
  Value value;
};

constexpr const char* kNames[] = {
#define OPSIN_ROW(Functor, function) #function,
    OPSIN_TERNARY_OPS(OPSIN_ROW)
#undef OPSIN_ROW
};

Var one_if(const Var& condition) { return math::select(condition, Var(1.0), Var(0.0)); }

struct Ternary {
  using Params = ternary::Params;
  static const char* name(const Params& p) { return kNames[static_cast<int>(p.op)]; }
  static bool saves_self(const Params& p) { return p.op == TernaryOp::Lerp || p.op == TernaryOp::Clamp; }

  static void forward_into(Tensor& y, const Params& p, const Tensor& a, const Tensor& b, const Tensor& c) {
    const DType dtype = result_type({&a, &b, &c});
    Device device = a.device().is_cpu() ? b.device() : a.device();
    if (device.is_cpu()) device = c.device();
    const ElementwiseFn kernel = ternary_forward[static_cast<int>(p.op)].get(device, dtype);
    Elementwise plan(name(p), y, dtype);
    plan.input(a, dtype);
    plan.input(b, dtype);
    plan.input(c, dtype);
    plan.build();
    plan.run_dense(kernel, &p.value);
  }
  static void save(Saver& saver, const Params& p, const Tensor& a, const Tensor& b, const Tensor& c,
                   const Tensor&) {
    if (saves_self(p)) saver.save(0, a);
    saver.save(1, b);
    saver.save(2, c);
  }
  static void backward(Backward& ctx, const Params& p) {
    const Var g(ctx.grad()), a(ctx.saved(0)), b(ctx.saved(1)), c(ctx.saved(2)), v(p.value.real);
    const auto set = [&](size_t i, auto&& rule) {
      if (ctx.needs(i)) ctx.set(i, rule().tensor);
    };
    switch (p.op) {
      case TernaryOp::Lerp:  // y = a + c (b - a)
        set(0, [&] { return g * (Var(1.0) - c); });
        set(1, [&] { return g * c; });
        set(2, [&] { return g * (b - a); });
        return;
      case TernaryOp::Addcmul:  // y = a + v b c
        set(0, [&] { return g; });
        set(1, [&] { return g * (c * v); });
        set(2, [&] { return g * (b * v); });
        return;
      case TernaryOp::Addcdiv:  // y = a + v b / c
        set(0, [&] { return g; });
        set(1, [&] { return g * (v / c); });
        set(2, [&] { return -g * (v * b / (c * c)); });
        return;
      default:  // y = min(max(a, b), c)
        set(0, [&] { return g * one_if(a >= b && a <= c); });
        set(1, [&] { return g * one_if(a < b && b < c); });
        set(2, [&] { return g * one_if(a > c || b >= c); });
        return;
    }
  }
};

Value value_of(const Scalar& value) { return {value.to_double(), value.to_int()}; }

}  // namespace

Tensor apply(TernaryOp op, const Tensor& a, const Tensor& b, const Tensor& c, const Scalar& value) {
  return call<Ternary>({op, value_of(value)}, a, b, c);
}

Tensor apply_(TernaryOp op, const Tensor& a, const Tensor& b, const Tensor& c, const Scalar& value) {
  return call_inplace<Ternary>({op, value_of(value)}, a, b, c);
}

}  // namespace ternary

}  // namespace opsin
