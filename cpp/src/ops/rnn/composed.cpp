#include "layer.h"

#include <algorithm>

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/matmul.h>
#include <opsin/ops/unary.h>
#include <opsin/ops/view.h>

namespace opsin {

namespace {

/// Sequences [begin, end) of a state; itself where that is all.
Tensor sequences(const Tensor& x, int64_t begin, int64_t end) {
  return begin == 0 && end == x.sizes()[0] ? x : narrow(x, 0, begin, end - begin);
}

/// A state for `n` sequences: some of `x`, or all of it and others of `first`.
Tensor fit(const Tensor& x, const Tensor& first, int64_t n) {
  const int64_t rows = x.sizes()[0];
  return n <= rows ? sequences(x, 0, n) : cat(TensorList{x, sequences(first, rows, n)});
}

struct State {
  Tensor h, c;
};

State step(RnnKind kind, const Tensor& of_x, const State& state, const RnnWeights& w) {
  const Tensor of_h = linear(state.h, w.w_hh, w.b_hh);
  if (kind == RnnKind::kTanh) return {tanh(of_x + of_h), {}};
  if (kind == RnnKind::kRelu) return {relu(of_x + of_h), {}};
  if (kind == RnnKind::kGru) {
    const TensorList a = chunk(of_x, 3, 1), b = chunk(of_h, 3, 1);
    const Tensor r = sigmoid(a[0] + b[0]), z = sigmoid(a[1] + b[1]), n = tanh(a[2] + r * b[2]);
    return {n + z * (state.h - n), {}};
  }
  const TensorList gates = chunk(of_x + of_h, 4, 1);
  const Tensor c = sigmoid(gates[1]) * state.c + sigmoid(gates[0]) * tanh(gates[2]);
  const Tensor h = sigmoid(gates[3]) * tanh(c);
  return {w.w_hr.defined() ? linear(h, w.w_hr) : h, c};
}

/// The last states of the sequences, of which some end at each step.
class Last {
 public:
  void add(const Tensor& state, int64_t begin, int64_t end) {
    parts_.push_back(sequences(state, begin, end));
  }
  Tensor all() {
    std::reverse(parts_.begin(), parts_.end());
    return parts_.size() == 1 ? parts_[0] : cat(parts_);
  }

 private:
  TensorList parts_;
};

}  // namespace

RnnStates composed_rnn_layer(RnnKind kind, const std::vector<int64_t>& batch_sizes, bool reverse,
                             const Tensor& x, const Tensor& h, const Tensor& c, const RnnWeights& weights) {
  RnnShape shape;
  shape.reverse = reverse;
  shape.steps = static_cast<int64_t>(batch_sizes.size());
  shape.batch_sizes = batch_sizes.data();
  shape.rows = x.sizes()[0];
  const bool has_cell = kind == RnnKind::kLstm;
  const Tensor of_x = linear(x, weights.w_ih, weights.b_ih);
  TensorList outputs(batch_sizes.size());
  Last last_h, last_c;
  State state{h, c};
  for_rnn_steps(shape, false, [&](int64_t t, int64_t first) {
    const auto at = static_cast<size_t>(t);
    const int64_t n = batch_sizes[at];
    state.h = fit(state.h, h, n);
    if (has_cell) state.c = fit(state.c, c, n);
    state = step(kind, narrow(of_x, 0, first, n), state, weights);
    outputs[at] = state.h;
    const int64_t left = reverse ? (t == 0 ? 0 : n) : at + 1 < batch_sizes.size() ? batch_sizes[at + 1] : 0;
    if (left == n && n > 0) return;
    last_h.add(state.h, left, n);
    if (has_cell) last_c.add(state.c, left, n);
  });
  return {cat(outputs), last_h.all(), has_cell ? last_c.all() : Tensor()};
}

}  // namespace opsin
