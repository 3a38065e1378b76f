// How the binary ops run and are recorded. Values are in binary_functors.h, gradients in binary_gradients.h.
#include "binary_call.h"

#include "binary_gradients.h"

#include <opsin/ops/reduce.h>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/promotion.h"
#include "ops/norm/normalised.h"

namespace opsin {

constinit ElementwiseSlot binary_forward[kBinaryCount] = {
#define OPSIN_ROW(Functor, function, doc) ElementwiseSlot(#function),
    OPSIN_BINARY_OPS(OPSIN_ROW) OPSIN_BINARY_PURE_OPS(OPSIN_ROW) OPSIN_BINARY_SPECIAL_OPS(OPSIN_ROW)
        OPSIN_INTEGER_OPS(OPSIN_ROW) OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
};

void register_binary_cpu() { fill_dense_slots(binary_forward, OPSIN_ISA_SELECT(cpu::binary_table).kernel); }

namespace binary {

namespace {

struct Info {
  const char* name;
  Kind kind;
  const Gradients* gradients;
};

constexpr Info kInfo[] = {
#define OPSIN_ROW(Functor, function, doc) {#function, Functor::kKind, &k##Functor##Gradients},
    OPSIN_BINARY_OPS(OPSIN_ROW) OPSIN_BINARY_PURE_OPS(OPSIN_ROW) OPSIN_BINARY_SPECIAL_OPS(OPSIN_ROW)
#undef OPSIN_ROW
#define OPSIN_ROW(Functor, function, doc) {#function, Functor::kKind, nullptr},
        OPSIN_INTEGER_OPS(OPSIN_ROW) OPSIN_COMPARISON_OPS(OPSIN_ROW)
#undef OPSIN_ROW
};

const Info& info(BinaryOp op) { return kInfo[static_cast<int>(op)]; }

bool divides(BinaryOp op) {
  return op == BinaryOp::DivTrunc || op == BinaryOp::DivFloor || op == BinaryOp::Remainder ||
         op == BinaryOp::Fmod;
}

/// Integer division by zero traps, so it is looked for first.
void check_divisor(const Tensor& divisor, const char* op) {
  if (!is_integral(divisor.dtype())) return;
  OPSIN_CHECK(Error, divisor.numel() == 0 || all(divisor.detach()).item<bool>(), op,
              ": ZeroDivisionError, integer division by zero");
}

void run_forward(Tensor& y, BinaryOp op, const Tensor& a, const Tensor& b) {
  if (op == BinaryOp::Add && (Tails::is_pending(a) || Tails::is_pending(b)) && join_add(y, a, b)) return;
  const Info& row = info(op);
  DType dtype = a.dtype() == b.dtype() && !a.impl()->wrapped_number ? a.dtype() : result_type({&a, &b});
  if (row.kind == Kind::kFloat) dtype = floating_type(dtype);
  if (__builtin_expect(divides(op), 0) && is_integral(dtype)) check_divisor(b, row.name);
  const Device device = a.device().is_cpu() ? b.device() : a.device();
  const ElementwiseFn kernel = binary_forward[static_cast<int>(op)].get(device, dtype);
  Elementwise plan(row.name, y, row.kind == Kind::kComparison ? kBool : dtype);
  plan.input(a, dtype);
  plan.input(b, dtype);
  plan.build();
  plan.run_dense(kernel);
}

struct Smooth {
  using Params = BinaryOp;
  static const char* name(BinaryOp op) { return info(op).name; }
  static bool saves_self(BinaryOp op) {
    return ((info(op).gradients->reads[0] | info(op).gradients->reads[1]) & kA) != 0;
  }

  static void forward_into(Tensor& y, const Params& op, const Tensor& a, const Tensor& b) {
    run_forward(y, op, a, b);
  }
  static void save(Saver& saver, const Params& op, const Tensor& a, const Tensor& b, const Tensor& y) {
    const Gradients& rule = *info(op).gradients;
    const unsigned reads = (saver.needs(0) ? rule.reads[0] : 0) | (saver.needs(1) ? rule.reads[1] : 0);
    if (reads & kA) saver.save(0, a);
    if (reads & kB) saver.save(1, b);
    if (reads & kY) saver.save_output(2, y);
  }
  static void backward(Backward& ctx, const Params& op) {
    const Gradients& rule = *info(op).gradients;
    const Var g(ctx.grad()), a(ctx.saved(0)), b(ctx.saved(1)), y(ctx.saved(2));
    if (ctx.needs(0)) ctx.set(0, rule.grad_a(g, a, b, y).tensor);
    if (ctx.needs(1)) ctx.set(1, rule.grad_b(g, a, b, y).tensor);
  }
};

struct Discrete {
  using Params = BinaryOp;
  static const char* name(BinaryOp op) { return info(op).name; }
  static void forward_into(Tensor& y, const Params& op, const Tensor& a, const Tensor& b) {
    run_forward(y, op, a, b);
  }
};

}  // namespace

Tensor apply(BinaryOp op, const Tensor& a, const Tensor& b) {
  if (op == BinaryOp::Atan2 && autocast::is_on(DeviceType::kCUDA, a, b))
    return autocast::call<autocast::kWidest>(&apply, op, a, b);
  return info(op).gradients ? call<Smooth>(op, a, b) : call<Discrete>(op, a, b);
}

Tensor apply_(BinaryOp op, const Tensor& a, const Tensor& b) {
  return info(op).gradients ? call_inplace<Smooth>(op, a, b) : call_inplace<Discrete>(op, a, b);
}

}  // namespace binary

}  // namespace opsin
