// The gates of recurrent layers, compiled once per instruction set.
#include "rnn_kernels.h"
#include "rnn_math.h"

#include "core/isa_loops.h"

namespace opsin::cpu::OPSIN_ISA_NS {

namespace {

template <class S>
void lstm_forward(const RnnForwardTile& p) {
  using T = Compute<S>;
  const int64_t n = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    T* x = static_cast<T*>(p.kept) + row * p.kept_row;
    T* c = static_cast<T*>(p.c) + row * p.state_row;
    S* out = static_cast<S*>(p.out) + row * p.out_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j) {
      rnn::LstmGates<T> gates{x[j], x[j + n], x[j + 2 * n], x[j + 3 * n]};
      T state = c[j];
      x[j + 4 * n] = state;
      out[j] = static_cast<S>(rnn::lstm_forward(gates, state));
      c[j] = state;
      x[j] = gates.i;
      x[j + n] = gates.f;
      x[j + 2 * n] = gates.g;
      x[j + 3 * n] = gates.o;
    }
  }
}

template <class S>
void gru_forward(const RnnForwardTile& p) {
  using T = Compute<S>;
  const int64_t n = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    T* x = static_cast<T*>(p.kept) + row * p.kept_row;
    const S* h = static_cast<const S*>(p.h) + row * p.state_row;
    S* out = static_cast<S*>(p.out) + row * p.out_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j) {
      rnn::GruGates<T> gates{x[j], x[j + n], x[j + 2 * n], x[j + 3 * n]};
      out[j] = static_cast<S>(rnn::gru_forward(gates, static_cast<T>(h[j])));
      x[j] = gates.r;
      x[j + n] = gates.z;
      x[j + 2 * n] = gates.n;
    }
  }
}

template <class S, bool kRelu>
void rnn_forward(const RnnForwardTile& p) {
  using T = Compute<S>;
  for (int64_t row = 0; row < p.rows; ++row) {
    T* x = static_cast<T*>(p.kept) + row * p.kept_row;
    S* out = static_cast<S*>(p.out) + row * p.out_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j) {
      const T h = rnn::rnn_forward(x[j], kRelu);
      x[j] = h;
      out[j] = static_cast<S>(h);
    }
  }
}

/// The gradient of h after the step.
template <class S>
OPSIN_FN Compute<S> total(const Compute<S>* grad_h, const S* grad_y, int64_t j) {
  return grad_y ? grad_h[j] + static_cast<Compute<S>>(grad_y[j]) : grad_h[j];
}
template <class S>
OPSIN_FN const S* grad_y_of(const RnnBackwardTile& p, int64_t row) {
  return p.grad_y ? static_cast<const S*>(p.grad_y) + row * p.grad_y_row : nullptr;
}

template <class S>
void lstm_backward(const RnnBackwardTile& p) {
  using T = Compute<S>;
  const int64_t n = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    const T* x = static_cast<const T*>(p.kept) + row * p.kept_row;
    const T* dh = static_cast<const T*>(p.grad_h) + row * p.state_row;
    T* dc = static_cast<T*>(p.grad_c) + row * p.state_row;
    const S* dy = grad_y_of<S>(p, row);
    S* out = static_cast<S*>(p.grad_x_gates) + row * p.gates_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j) {
      T state = dc[j];
      const rnn::LstmGates<T> slopes = rnn::lstm_backward({x[j], x[j + n], x[j + 2 * n], x[j + 3 * n]},
                                                          x[j + 4 * n], total(dh, dy, j), state);
      dc[j] = state;
      out[j] = static_cast<S>(slopes.i);
      out[j + n] = static_cast<S>(slopes.f);
      out[j + 2 * n] = static_cast<S>(slopes.g);
      out[j + 3 * n] = static_cast<S>(slopes.o);
    }
  }
}

template <class S>
void gru_backward(const RnnBackwardTile& p) {
  using T = Compute<S>;
  const int64_t n = p.hidden;
  for (int64_t row = 0; row < p.rows; ++row) {
    const T* x = static_cast<const T*>(p.kept) + row * p.kept_row;
    const S* h = static_cast<const S*>(p.h) + row * p.h_row;
    T* dh = static_cast<T*>(p.grad_h) + row * p.state_row;
    const S* dy = grad_y_of<S>(p, row);
    S* of_x = static_cast<S*>(p.grad_x_gates) + row * p.gates_row;
    S* of_h = static_cast<S*>(p.grad_h_gates) + row * p.gates_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j) {
      const T g = total(dh, dy, j);
      const rnn::GruGates<T> slopes =
          rnn::gru_backward({x[j], x[j + n], x[j + 2 * n], x[j + 3 * n]}, static_cast<T>(h[j]), g);
      dh[j] = g * x[j + n];
      of_x[j] = of_h[j] = static_cast<S>(slopes.r);
      of_x[j + n] = of_h[j + n] = static_cast<S>(slopes.z);
      of_x[j + 2 * n] = static_cast<S>(slopes.n);
      of_h[j + 2 * n] = static_cast<S>(slopes.hn);
    }
  }
}

template <class S, bool kRelu>
void rnn_backward(const RnnBackwardTile& p) {
  using T = Compute<S>;
  for (int64_t row = 0; row < p.rows; ++row) {
    const T* x = static_cast<const T*>(p.kept) + row * p.kept_row;
    const T* dh = static_cast<const T*>(p.grad_h) + row * p.state_row;
    const S* dy = grad_y_of<S>(p, row);
    S* out = static_cast<S*>(p.grad_x_gates) + row * p.gates_row;
#pragma GCC ivdep
    for (int64_t j = 0; j < p.count; ++j)
      out[j] = static_cast<S>(rnn::rnn_backward(x[j], total(dh, dy, j), kRelu));
  }
}

template <class S>
constexpr void set(RnnTable& table) {
  constexpr int kType = static_cast<int>(dtype_of<S>);
  const auto at = [](RnnKind kind) { return static_cast<int>(kind); };
  table.forward[at(RnnKind::kLstm)][kType] = lstm_forward<S>;
  table.forward[at(RnnKind::kGru)][kType] = gru_forward<S>;
  table.forward[at(RnnKind::kTanh)][kType] = rnn_forward<S, false>;
  table.forward[at(RnnKind::kRelu)][kType] = rnn_forward<S, true>;
  table.backward[at(RnnKind::kLstm)][kType] = lstm_backward<S>;
  table.backward[at(RnnKind::kGru)][kType] = gru_backward<S>;
  table.backward[at(RnnKind::kTanh)][kType] = rnn_backward<S, false>;
  table.backward[at(RnnKind::kRelu)][kType] = rnn_backward<S, true>;
}
constexpr RnnTable make_table() {
  RnnTable table{};
  set<float>(table);
  set<double>(table);
  set<float16>(table);
  set<bfloat16>(table);
  return table;
}

}  // namespace

const RnnTable& rnn_table() {
  static constexpr RnnTable table = make_table();
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
