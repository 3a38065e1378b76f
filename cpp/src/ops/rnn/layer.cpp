#include "layer.h"

#include <algorithm>

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/reduce.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

#include "core/call.h"
#include "core/weight.h"

namespace opsin {

constinit KernelSlot<void (*)(const RnnForwardParams&)> rnn_forward{"rnn"};
constinit KernelSlot<void (*)(const RnnBackwardParams&)> rnn_backward{"rnn_backward"};

namespace {

const void* data_of(const Tensor& x) { return x.defined() ? x.impl()->data() : nullptr; }
void* writable(const Tensor& x) { return x.defined() ? x.impl()->mutable_data() : nullptr; }
Tensor dense(const Tensor& x) { return x.defined() ? contiguous(x) : x; }

/// Inputs are x, h, c and the weights in the order of RnnWeights; outputs are y, h and c after the last step,
/// and what is kept for the gradient.
struct RnnLayer {
  struct Params {
    RnnKind kind;
    bool reverse;
    bool keeps;  ///< what is packed of the weights
    std::vector<int64_t> batch_sizes;
  };
  static const char* name(const Params& p) { return rnn_name(p.kind); }

  static int64_t flops(const Params&, const Tensor& x, const Tensor&, const Tensor&, const Tensor& w_ih,
                       const Tensor& w_hh, const Tensor&, const Tensor&, const Tensor& w_hr) {
    return 2 * x.sizes()[0] * (w_ih.numel() + w_hh.numel() + (w_hr.defined() ? w_hr.numel() : 0));
  }

  static std::array<Tensor, 4> forward(const Params& p, const Tensor& x, const Tensor& h, const Tensor& c,
                                       const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih,
                                       const Tensor& b_hh, const Tensor& w_hr) {
    RnnForwardParams params;
    set_shape(params, p, x, w_ih, w_hh);
    const DType dtype = x.dtype();
    const Device device = x.device();
    const Tensor y = empty({params.rows, params.outputs}, dtype, device),
                 h_n = empty(h.sizes(), dtype, device);
    const Tensor c_n = c.defined() ? empty(c.sizes(), dtype, device) : Tensor();
    const Tensor kept = empty({params.rows, params.kept_size()}, compute_type(dtype), device);
    const auto kernel = rnn_forward.get(device, dtype);
    if (y.numel() == 0) return {y, h_n, c_n, kept};
    const Tensor dense_x = dense(x), dense_h = dense(h), dense_c = dense(c), ih = dense(w_ih),
                 hh = dense(w_hh), bias_ih = dense(b_ih), bias_hh = dense(b_hh), hr = dense(w_hr);
    params.x = data_of(dense_x);
    params.h0 = data_of(dense_h);
    params.c0 = data_of(dense_c);
    params.w_ih = data_of(ih);
    params.w_hh = data_of(hh);
    params.b_ih = data_of(bias_ih);
    params.b_hh = data_of(bias_hh);
    params.w_hr = data_of(hr);
    params.y = writable(y);
    params.h_n = writable(h_n);
    params.c_n = writable(c_n);
    params.kept = writable(kept);
    const WeightScope kept_ih(ih, p.keeps && ih.is_same(w_ih)), kept_hh(hh, p.keeps && hh.is_same(w_hh)),
        kept_hr(hr.defined() ? hr : hh, p.keeps && hr.defined() && hr.is_same(w_hr));
    params.kept_ih = kept_ih.get();
    params.kept_hh = kept_hh.get();
    params.kept_hr = kept_hr.get();
    kernel(params);
    return {y, h_n, c_n, kept};
  }

  static void save(Saver& saver, const Params&, const Tensor& x, const Tensor& h, const Tensor& c,
                   const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh,
                   const Tensor& w_hr, const std::array<Tensor, 4>& outputs) {
    const Tensor* const inputs[] = {&x, &h, &c, &w_ih, &w_hh, &b_ih, &b_hh, &w_hr};
    for (size_t i = 0; i < kInputs; ++i)
      if (inputs[i]->defined()) saver.save(i, *inputs[i]);
    saver.save_output(kInputs, outputs[0]);
    saver.save_output(kInputs + 1, outputs[3]);
  }

  // The kernel goes through the steps against time and gives the gradients a and b of the sums of the gates,
  // as far as they come from x and from h. With h' the states before each step and s = o tanh(c) what a
  // projection reads:
  //   dx = a w_ih, dw_ih = a^T x, db_ih = sum(a), dw_hh = b^T h', db_hh = sum(b), dw_hr = dy^T s over all
  //   rows.
  static void backward(Backward& ctx, const Params& p) {
    if (ctx.create_graph()) return composed(ctx, p);
    const Tensor x = ctx.saved(0), h = ctx.saved(1), c = ctx.saved(2), w_ih = ctx.saved(3),
                 w_hh = dense(ctx.saved(4)), w_hr = dense(ctx.saved(7)), y = ctx.saved(kInputs),
                 kept = ctx.saved(kInputs + 1);
    RnnBackwardParams params;
    set_shape(params, p, x, w_ih, w_hh);
    const DType dtype = x.dtype(), compute = compute_type(dtype);
    const Device device = x.device();
    const auto gates_like = [&] { return empty({params.rows, params.gates()}, dtype, device); };
    // A copy, because the kernel writes to it.
    const auto state = [&](const Tensor& grad, const Tensor& like) {
      return grad.defined() ? clone(contiguous(to(grad, compute))) : zeros(like.sizes(), compute, device);
    };
    const Tensor of_x = gates_like(), of_h = p.kind == RnnKind::kGru ? gates_like() : of_x;
    const Tensor grad_h = state(ctx.grad(1), h), grad_c = c.defined() ? state(ctx.grad(2), c) : Tensor();
    const Tensor grad_y = ctx.grad(0).defined() ? contiguous(to(ctx.grad(0), dtype)) : Tensor();
    const Tensor grad_outputs = w_hr.defined() ? empty(y.sizes(), dtype, device) : Tensor();
    const Tensor before = ctx.needs(4) || p.kind == RnnKind::kGru ? previous(params, y, h) : Tensor();
    if (y.numel() > 0) {
      params.kept = data_of(kept);
      params.previous = data_of(before);
      params.w_hh = data_of(w_hh);
      params.w_hr = data_of(w_hr);
      params.grad_y = data_of(grad_y);
      params.grad_h = writable(grad_h);
      params.grad_c = writable(grad_c);
      params.wants_h0 = ctx.needs(1);
      params.grad_x_gates = writable(of_x);
      params.grad_h_gates = writable(of_h);
      params.grad_outputs = writable(grad_outputs);
      rnn_backward.get(device, dtype)(params);
    }
    if (ctx.needs(0)) ctx.set(0, mm(of_x, w_ih));
    if (ctx.needs(1)) ctx.set(1, to(grad_h, dtype));
    if (ctx.needs(2)) ctx.set(2, to(grad_c, dtype));
    if (ctx.needs(3)) ctx.set(3, mm(transpose(of_x, 0, 1), x));
    if (ctx.needs(4)) ctx.set(4, mm(transpose(of_h, 0, 1), before));
    Tensor biases;
    if (ctx.needs(5)) ctx.set(5, biases = sum(of_x, Dims{0}));
    if (ctx.needs(6)) ctx.set(6, biases.defined() && of_h.is_same(of_x) ? clone(biases) : sum(of_h, Dims{0}));
    if (ctx.needs(7)) {
      const TensorList values = chunk(kept, rnn_kept(p.kind), 1);
      const Tensor inner = values[3] * tanh(values[1] * values[4] + values[0] * values[2]);
      ctx.set(7, mm(transpose(grad_outputs, 0, 1), to(inner, dtype)));
    }
  }

 private:
  static constexpr size_t kInputs = 8;

  static void set_shape(RnnShape& shape, const Params& p, const Tensor& x, const Tensor& w_ih,
                        const Tensor& w_hh) {
    shape.kind = p.kind;
    shape.dtype = x.dtype();
    shape.reverse = p.reverse;
    shape.steps = static_cast<int64_t>(p.batch_sizes.size());
    shape.batch_sizes = p.batch_sizes.data();
    shape.rows = x.sizes()[0];
    shape.inputs = x.sizes()[1];
    shape.hidden = w_ih.sizes()[0] / rnn_gates(p.kind);
    shape.outputs = w_hh.sizes()[1];
  }

  /// h before each step, [rows, outputs].
  static Tensor previous(const RnnShape& shape, const Tensor& y, const Tensor& h) {
    const int64_t n = shape.batch(), others = shape.rows - n;
    if (others == 0 || shape.batch_sizes[shape.steps - 1] == n) {
      return shape.reverse ? cat(TensorList{narrow(y, 0, n, others), h})
                           : cat(TensorList{h, narrow(y, 0, 0, others)});
    }
    const Tensor index = empty({shape.rows}, kInt64, kCPU);
    int64_t* const from = index.mutable_data<int64_t>();
    int64_t before = 0, count = 0;
    for_rnn_steps(shape, false, [&](int64_t t, int64_t first) {
      for (int64_t i = 0; i < shape.batch_sizes[t]; ++i)
        from[first + i] = i < count ? before + i : shape.rows + i;
      before = first;
      count = shape.batch_sizes[t];
    });
    return index_select(cat(TensorList{y, h}), 0, to(index, y.device()));
  }

  /// The gradients of the same layer in differentiable functions, found by going back through these.
  static void composed(Backward& ctx, const Params& p) {
    Tensor inputs[kInputs];
    TensorList targets;
    for (size_t i = 0; i < kInputs; ++i) {
      const Tensor saved = ctx.saved(i);
      if (!saved.defined()) continue;
      // An input may be made from another one: their own histories are left out.
      const Tensor own = view(saved, saved.sizes());
      if (ctx.needs(i)) targets.push_back(own);
      inputs[i] = to(own, compute_type(own.dtype()));
    }
    const RnnStates states =
        composed_rnn_layer(p.kind, p.batch_sizes, p.reverse, inputs[0], inputs[1], inputs[2],
                           {inputs[3], inputs[4], inputs[5], inputs[6], inputs[7]});
    const Tensor* const made[] = {&states.y, &states.h, &states.c};
    TensorList outputs, gradients;
    for (size_t i = 0; i < 3; ++i) {
      if (!ctx.grad(i).defined() || !made[i]->requires_grad()) continue;
      outputs.push_back(*made[i]);
      gradients.push_back(to(ctx.grad(i), made[i]->dtype()));
    }
    if (outputs.empty() || targets.empty()) return;
    const TensorList found = grad(outputs, targets, gradients, true, true, true);
    for (size_t i = 0, next = 0; i < kInputs; ++i)
      if (ctx.needs(i)) ctx.set(i, found[next++]);
  }
};

}  // namespace

const char* rnn_name(RnnKind kind) {
  constexpr const char* kNames[] = {"lstm", "gru", "rnn_tanh", "rnn_relu"};
  return kNames[static_cast<int>(kind)];
}

RnnStates rnn_layer(RnnKind kind, const std::vector<int64_t>& batch_sizes, bool reverse, const Tensor& x,
                    const Tensor& h, const Tensor& c, const RnnWeights& weights) {
  const bool keeps = is_constant(weights.w_ih) && is_constant(weights.w_hh) &&
                     (!weights.w_hr.defined() || is_constant(weights.w_hr));
  const auto states = call<RnnLayer>({kind, reverse, keeps, batch_sizes}, x, h, c, weights.w_ih, weights.w_hh,
                                     weights.b_ih, weights.b_hh, weights.w_hr);
  return {states[0], states[1], states[2]};
}

}  // namespace opsin
