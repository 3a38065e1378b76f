// The contract between the recurrent ops and their kernels.
#pragma once

#include <opsin/dtype.h>

#include "core/kernel.h"
#include "cpu/dispatch.h"

namespace opsin {

namespace cpu {
struct KeptWeight;
}

enum class RnnKind : uint8_t { kLstm, kGru, kTanh, kRelu };
inline constexpr int kRnnKinds = 4;

constexpr int64_t rnn_gates(RnnKind kind) {
  return kind == RnnKind::kLstm ? 4 : kind == RnnKind::kGru ? 3 : 1;
}
/// What is kept of each hidden unit and step for the gradient: activated gates, then for LSTM the state c
/// before the step, for GRU the part of the sum of n that comes from h.
constexpr int64_t rnn_kept(RnnKind kind) {
  return kind == RnnKind::kLstm || kind == RnnKind::kGru ? rnn_gates(kind) + 1 : 1;
}

/// One layer in one direction. All matrices are dense; what is not said to be of the type of computation is
/// of `dtype`. The rows of step t are the first batch_sizes[t] sequences, steps one after the other. No size
/// but `inputs` is 0.
struct RnnShape {
  RnnKind kind = RnnKind::kTanh;
  DType dtype = kFloat32;
  bool reverse = false;  ///< The last step comes first.
  int64_t steps = 0;
  const int64_t* batch_sizes = nullptr;  ///< [steps], never growing, the last at least 1
  int64_t rows = 0;                      ///< Their sum.
  int64_t inputs = 0, hidden = 0;
  int64_t outputs = 0;  ///< Size of h: `hidden` without a projection.

  int64_t batch() const { return batch_sizes[0]; }
  int64_t gates() const { return rnn_gates(kind) * hidden; }
  int64_t kept_size() const { return rnn_kept(kind) * hidden; }
};

struct RnnForwardParams : RnnShape {
  const void* x;            ///< [rows, inputs]
  const void* h0;           ///< [batch, outputs]
  const void* c0;           ///< [batch, hidden], for LSTM
  const void *w_ih, *w_hh;  ///< [gates, inputs], [gates, outputs]
  const void *b_ih, *b_hh;  ///< [gates] or null
  const void* w_hr;         ///< [outputs, hidden] or null
  void* y;                  ///< [rows, outputs]
  void* h_n;                ///< [batch, outputs]
  void* c_n;                ///< [batch, hidden], for LSTM
  void* kept;               ///< [rows, kept] of the type of computation
  /// Set for weights whose panels may be kept.
  const cpu::KeptWeight *kept_ih = nullptr, *kept_hh = nullptr, *kept_hr = nullptr;
};

struct RnnBackwardParams : RnnShape {
  const void* kept;
  const void* previous;  ///< h before each step, [rows, outputs]; for GRU
  const void *w_hh, *w_hr;
  const void* grad_y;  ///< [rows, outputs] or null
  /// [batch, outputs] and [batch, hidden] of the type of computation: gradients of the last states, which
  /// become those of the first ones. grad_c for LSTM.
  void *grad_h, *grad_c;
  bool wants_h0;       ///< Whether grad_h is read in the end.
  void* grad_x_gates;  ///< [rows, gates]: of the sums, as far as they come from x.
  void* grad_h_gates;  ///< [rows, gates]: from h. The same memory but for GRU.
  void* grad_outputs;  ///< [rows, outputs]: the whole gradient of h after each step; with a projection.
};

extern OPSIN_API KernelSlot<void (*)(const RnnForwardParams&)> rnn_forward;
extern OPSIN_API KernelSlot<void (*)(const RnnBackwardParams&)> rnn_backward;

void register_rnn_cpu();

/// Calls body(step, first row of it) in the order of time, or against it.
template <class F>
void for_rnn_steps(const RnnShape& p, bool backwards, F&& body) {
  if (p.reverse == backwards) {
    for (int64_t t = 0, first = 0; t < p.steps; first += p.batch_sizes[t++]) body(t, first);
  } else {
    for (int64_t t = p.steps - 1, first = p.rows; t >= 0; --t) body(t, first -= p.batch_sizes[t]);
  }
}

namespace cpu {

/// A tile of a step: `count` hidden units of `rows` sequences. Distances of rows in elements.
struct RnnForwardTile {
  int64_t rows, count, hidden;
  void* kept;  ///< Sums, which become what is to be kept; the values of a unit are `hidden` apart.
  int64_t kept_row;
  void* c;        ///< For LSTM: the state, which becomes the next one, in the type of computation
  const void* h;  ///< For GRU: the state before.
  int64_t state_row;
  void* out;  ///< h after the step, before a projection.
  int64_t out_row;
};
struct RnnBackwardTile {
  int64_t rows, count, hidden;
  const void* kept;
  int64_t kept_row;
  const void* h;  ///< For GRU: the state before.
  int64_t h_row;
  const void* grad_y;  ///< Added to grad_h, or null.
  int64_t grad_y_row;
  /// In the type of computation: the gradient of h after the step, which for GRU becomes what goes round the
  /// gates.
  void* grad_h;
  void* grad_c;
  int64_t state_row;  ///< Of both.
  void *grad_x_gates, *grad_h_gates;
  int64_t gates_row;
};

struct RnnTable {
  void (*forward[kRnnKinds][kNumDTypes])(const RnnForwardTile&);
  void (*backward[kRnnKinds][kNumDTypes])(const RnnBackwardTile&);
};
OPSIN_ISA_TABLE(RnnTable, rnn_table)

}  // namespace cpu

}  // namespace opsin
