// How the unary ops run and are recorded. The mathematics is in unary_functors.h.
// The functors are templates that find the mathematics of tensors only if it is declared before them.
// clang-format off
#include "autograd/var.h"
#include "unary_functors.h"
// clang-format on

#include "unary_call.h"

#include <limits>

#include "core/call.h"
#include "core/dispatch.h"
#include "core/promotion.h"
#include "ops/norm/normalised.h"

namespace opsin {

constinit ElementwiseSlot unary_forward[kUnaryCount] = {
#define OPSIN_ROW(Functor, function, doc) ElementwiseSlot(#function),
    OPSIN_UNARY_OPS(OPSIN_ROW) OPSIN_UNARY_PARAM_OPS(OPSIN_ROW) OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
};
constinit ElementwiseSlot unary_backward[kUnaryCount] = {
#define OPSIN_ROW(Functor, function, doc) ElementwiseSlot(#function "_backward"),
    OPSIN_UNARY_OPS(OPSIN_ROW) OPSIN_UNARY_PARAM_OPS(OPSIN_ROW) OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
};

void register_unary_cpu() {
  fill_dense_slots(unary_forward, OPSIN_ISA_SELECT(cpu::unary_table).kernel);
  fill_dense_slots(unary_backward, OPSIN_ISA_SELECT(cpu::unary_backward_table).kernel);
}

namespace unary {

namespace {

using Derivative = Var (*)(const Var& x, const Var& y, const Args<Var>& args);

struct Info {
  const char* name;
  Kind kind;
  bool input, output;  // What the derivative reads.
  Derivative derivative;
};

template <class F>
constexpr Info info_of(const char* name) {
  if constexpr (F::kSmooth) {
    return {name, F::kKind, F::kInput, F::kOutput,
            [](const Var& x, const Var& y, const Args<Var>& args) { return F::derivative(x, y, args); }};
  } else {
    return {name, F::kKind, false, false, nullptr};
  }
}

constexpr Info kInfo[] = {
#define OPSIN_ROW(Functor, function, doc) info_of<Functor>(#function),
    OPSIN_UNARY_OPS(OPSIN_ROW) OPSIN_UNARY_PARAM_OPS(OPSIN_ROW) OPSIN_QUESTIONS(OPSIN_ROW)
#undef OPSIN_ROW
};

const Info& info(UnaryOp op) { return kInfo[static_cast<int>(op)]; }

struct Params {
  UnaryOp op;
  UnaryArgs args;
};

/// What a ReLU keeps x below, or 0: it is none.
double ceiling_of(UnaryOp op) {
  if (op == UnaryOp::Relu) return std::numeric_limits<double>::infinity();
  return op == UnaryOp::Relu6 ? 6 : 0;
}

void run_forward(Tensor& y, const Params& p, const Tensor& x) {
  const double ceiling = ceiling_of(p.op);
  if (ceiling > 0 && Tails::is_pending(x) && join_relu(y, x, ceiling)) return;
  const Kind kind = info(p.op).kind;
  DType dtype = x.dtype();
  if (!is_differentiable(dtype) && (kind == Kind::kFloat || kind == Kind::kBoolean)) dtype = default_dtype();
  const ElementwiseFn kernel = unary_forward[static_cast<int>(p.op)].get(x.device(), dtype);
  Elementwise plan(info(p.op).name, y, kind == Kind::kBoolean ? kBool : dtype);
  plan.input(x, dtype);
  plan.build();
  plan.run_dense(kernel, &p.args);
}

Tensor gradient(const Params& p, const Tensor& grad_y, const Tensor& x, const Tensor& y) {
  const DType dtype = grad_y.dtype();
  const Tensor& some = x.defined() ? x : y.defined() ? y : grad_y;
  Tensor grad_x;
  Elementwise plan(info(p.op).name, grad_x, dtype);
  plan.input(grad_y, dtype);
  plan.input(x.defined() ? x : some, dtype);
  plan.input(y.defined() ? y : some, dtype);
  plan.build();
  plan.run_dense(unary_backward[static_cast<int>(p.op)].get(grad_y.device(), dtype), &p.args);
  return grad_x;
}

/// The gradient of a ReLU, pending, in case that a batch norm takes it; undefined where it cannot be.
Tensor leave_masked(UnaryOp op, const Tensor& grad_y, const Tensor& y) {
  if (!Tails::are_on() || grad_y.dtype() != y.dtype() || grad_y.numel() == 0) return {};
  const Tail tail{Tail::Kind::kMasked,
                  ceiling_of(op),
                  alias_without_history(grad_y),
                  alias_without_history(y),
                  {},
                  [](const Tail& masked, bool, const Tail*) {
                    const UnaryOp relu =
                        masked.ceiling == ceiling_of(UnaryOp::Relu6) ? UnaryOp::Relu6 : UnaryOp::Relu;
                    return gradient({relu, {}}, masked.base, {}, masked.other);
                  },
                  {}};
  return Tails::leave(tail, grad_y);
}

struct Smooth {
  using Params = unary::Params;
  static const char* name(const Params& p) { return info(p.op).name; }
  static bool saves_self(const Params& p) { return info(p.op).input; }

  static void forward_into(Tensor& y, const Params& p, const Tensor& x) { run_forward(y, p, x); }
  static void save(Saver& saver, const Params& p, const Tensor& x, const Tensor& y) {
    if (info(p.op).input) saver.save(0, x);
    if (info(p.op).output) saver.save_output(1, y);
  }
  // dx = dy f'(x): in one pass, or by differentiable functions when it will be differentiated itself.
  static void backward(Backward& ctx, const Params& p) {
    const Tensor x = ctx.saved(0), y = ctx.saved(1);
    const Tensor& grad_y = ctx.grad();
    if (ctx.create_graph()) {
      const Args<Var> args{Var(p.args.a), Var(p.args.b), Var(p.args.c)};
      ctx.set(0, (Var(grad_y) * info(p.op).derivative(Var(x), Var(y), args)).tensor);
      return;
    }
    Tensor grad_x;
    if (ceiling_of(p.op) > 0) grad_x = leave_masked(p.op, grad_y, y);
    ctx.set(0, grad_x.defined() ? std::move(grad_x) : gradient(p, grad_y, x, y));
  }
};

struct Question {
  using Params = unary::Params;
  static const char* name(const Params& p) { return info(p.op).name; }
  static void forward_into(Tensor& y, const Params& p, const Tensor& x) { run_forward(y, p, x); }
};

}  // namespace

namespace {

/// Functions that amplify errors or leave the range of float16.
bool runs_in_float32_on_gpu(UnaryOp op) {
  switch (op) {
    case UnaryOp::Acos:
    case UnaryOp::Asin:
    case UnaryOp::Cosh:
    case UnaryOp::Erfinv:
    case UnaryOp::Exp:
    case UnaryOp::Expm1:
    case UnaryOp::Log:
    case UnaryOp::Log10:
    case UnaryOp::Log1p:
    case UnaryOp::Log2:
    case UnaryOp::Reciprocal:
    case UnaryOp::Rsqrt:
    case UnaryOp::Sinh:
    case UnaryOp::Softplus:
    case UnaryOp::Tan:
      return true;
    default:
      return false;
  }
}

}  // namespace

Tensor apply(UnaryOp op, const Tensor& x, const UnaryArgs& args) {
  if (autocast::is_on(DeviceType::kCUDA, x) && runs_in_float32_on_gpu(op)) {
    const Tensor full = autocast::cast(x, autocast::kFull);
    if (!full.is_same(x)) return apply(op, full, args);
  }
  return info(op).derivative ? call<Smooth>({op, args}, x) : call<Question>({op, args}, x);
}

Tensor apply_(UnaryOp op, const Tensor& x, const UnaryArgs& args) {
  return info(op).derivative ? call_inplace<Smooth>({op, args}, x) : call_inplace<Question>({op, args}, x);
}

}  // namespace unary

}  // namespace opsin
