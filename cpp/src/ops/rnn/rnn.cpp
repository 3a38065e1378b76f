// Recurrent cells and layers: checks, stacks of layers and directions.
#include "layer.h"

#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/random.h>
#include <opsin/ops/rnn.h>
#include <opsin/ops/view.h>

#include "autograd/autocast.h"
#include "core/registry.h"

namespace opsin {

namespace {

/// A tensor that an op takes, and what it is called.
struct Named {
  const char* name;
  const Tensor& tensor;
};

void check_shape(const char* op, const Named& x, const Dims& expected, const char* what) {
  OPSIN_CHECK(ShapeError, x.tensor.sizes() == expected, op, ": expected ", x.name, " ", str(expected), " (",
              what, "), got ", str(x.tensor.sizes()));
}
void check_dtype(const char* op, const Named& x, const Tensor& input) {
  OPSIN_CHECK(Error, x.tensor.dtype() == input.dtype(), op, ": expected ", x.name, " of the dtype of input, ",
              name(input.dtype()), ", got ", name(x.tensor.dtype()), " (convert one with to())");
}

void check_weights(const char* op, RnnKind kind, const RnnWeights& w, const Tensor& input, int64_t inputs,
                   int64_t outputs, int64_t hidden) {
  const int64_t gates = rnn_gates(kind) * hidden;
  const auto check = [&](const Named& x, const Dims& expected, const char* what) {
    if (!x.tensor.defined()) return;
    check_shape(op, x, expected, what);
    check_dtype(op, x, input);
  };
  check({"w_ih", w.w_ih}, {gates, inputs}, "gates times hidden size, input size");
  check({"w_hh", w.w_hh}, {gates, outputs}, "gates times hidden size, size of h");
  check({"b_ih", w.b_ih}, {gates}, "gates times hidden size");
  check({"b_hh", w.b_hh}, {gates}, "gates times hidden size");
  check({"w_hr", w.w_hr}, {outputs, hidden}, "size of h, hidden size");
}

void check_input(const char* op, const Tensor& input) {
  OPSIN_CHECK(Error, is_floating_point(input.dtype()), op, ": expected input of a floating-point dtype, got ",
              name(input.dtype()), " (convert with to())");
}

TensorList lower(TensorSpan tensors) {
  TensorList all;
  for (const Tensor& x : tensors) all.push_back(autocast::cast(x, autocast::kLower));
  return all;
}

/// Results under autocast. On the CPU, where PyTorch composes GRUs and the cell of LSTM of functions with
/// policies of their own, what is mixed with a float32 state is float32.
TensorList mixed_with(const Tensor& state, TensorList results) {
  if (!state.device().is_cpu()) return results;
  for (Tensor& x : results) x = to(x, promote_types(x.dtype(), state.dtype()));
  return results;
}

/// {h, c} or {h} after one step.
TensorList run_cell(RnnKind kind, const Tensor& input, TensorSpan states, const RnnWeights& w) {
  if (autocast::is_active()) {
    const TensorList cast = lower(TensorList{input, w.w_ih, w.w_hh, w.b_ih, w.b_hh}),
                     cast_states = lower(states);
    const autocast::Suspend off;
    const TensorList results = run_cell(kind, cast[0], cast_states, {cast[1], cast[2], cast[3], cast[4], {}});
    return kind == RnnKind::kLstm || kind == RnnKind::kGru ? mixed_with(states.back(), results) : results;
  }
  constexpr const char* kNames[] = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"};
  const char* const op = kNames[static_cast<int>(kind)];
  const size_t wanted = kind == RnnKind::kLstm ? 2 : 1;
  OPSIN_CHECK(Error, states.size() == wanted, op, ": expected hx to be the two tensors (h, c), got ",
              states.size());
  check_input(op, input);
  OPSIN_CHECK(ShapeError, input.dim() == 1 || input.dim() == 2, op,
              ": expected input [batch, input size] or [input size], got ", str(input.sizes()));
  const bool batched = input.dim() == 2;
  OPSIN_CHECK(ShapeError, w.w_hh.dim() == 2 && w.w_hh.sizes()[1] > 0, op,
              ": expected w_hh [gates times hidden size, hidden size], got ", str(w.w_hh.sizes()));
  const int64_t hidden = w.w_hh.sizes()[1], batch = batched ? input.sizes()[0] : 1;
  const Dims expected = batched ? Dims{batch, hidden} : Dims{hidden};
  for (size_t i = 0; i < wanted; ++i) {
    const Named state{i == 0 ? "hx" : "cx", states[i]};
    check_shape(op, state, expected, batched ? "batch, hidden size" : "hidden size");
    check_dtype(op, state, input);
  }
  check_weights(op, kind, w, input, input.size(-1), hidden, hidden);
  const auto rows = [&](const Tensor& x) { return batched ? x : unsqueeze(x, 0); };
  const RnnStates next = rnn_layer(kind, {batch}, false, rows(input), rows(states[0]),
                                   wanted == 2 ? rows(states[1]) : Tensor(), w);
  const auto result = [&](const Tensor& x) { return batched ? x : squeeze(x, Dims{0}); };
  if (wanted == 2) return {result(next.y), result(next.c)};
  return {result(next.y)};
}

struct Settings {
  bool has_biases;
  int64_t num_layers;
  double dropout;
  bool train, bidirectional;

  int64_t directions() const { return bidirectional ? 2 : 1; }
};

/// {y, h} or {y, h, c} for rows [rows, I] and states [layers D, batch, ...]; y is [rows, D outputs].
TensorList run_layers(RnnKind kind, const Tensor& data, const std::vector<int64_t>& batch_sizes,
                      TensorSpan states, TensorSpan params, const Settings& s) {
  const char* const op = rnn_name(kind);
  const bool is_lstm = kind == RnnKind::kLstm;
  const int64_t directions = s.directions(), count = s.num_layers * directions, batch = batch_sizes[0];
  const Tensor& h = states[0];
  const int64_t outputs = h.size(-1), hidden = states[is_lstm ? 1 : 0].size(-1);
  OPSIN_CHECK(ShapeError, outputs > 0 && hidden > 0, op, ": expected a hidden size above 0, got hx ",
              str(h.sizes()));
  for (size_t i = 0; i < states.size(); ++i) {
    const Named state{i == 0 ? "h_0" : "c_0", states[i]};
    check_shape(op, state, {count, batch, i == 0 ? outputs : hidden},
                "layers times directions, batch, hidden size");
    check_dtype(op, state, data);
  }
  const bool projects = outputs != hidden;
  const int64_t group = (s.has_biases ? 4 : 2) + projects;
  OPSIN_CHECK(Error, static_cast<int64_t>(params.size()) == count * group, op, ": expected ", count * group,
              " weights for ", count, " layers and directions, got ", params.size());
  Tensor x = data;
  TensorList last_h, last_c;
  for (int64_t layer = 0; layer < s.num_layers; ++layer) {
    TensorList results;
    for (int64_t d = 0; d < directions; ++d) {
      const int64_t i = layer * directions + d;
      const auto weight = [&](int64_t k) { return params[static_cast<size_t>(i * group + k)]; };
      RnnWeights w{weight(0), weight(1), {}, {}, projects ? weight(group - 1) : Tensor()};
      if (s.has_biases) {
        w.b_ih = weight(2);
        w.b_hh = weight(3);
      }
      check_weights(op, kind, w, x, x.size(-1), outputs, hidden);
      const RnnStates result = rnn_layer(kind, batch_sizes, d == 1, x, select(h, 0, i),
                                         is_lstm ? select(states[1], 0, i) : Tensor(), w);
      results.push_back(result.y);
      last_h.push_back(result.h);
      last_c.push_back(result.c);
    }
    x = directions == 1 ? results[0] : cat(results, 1);
    if (s.train && s.dropout > 0 && layer + 1 < s.num_layers) x = dropout(x, s.dropout);
  }
  const auto joined = [](const TensorList& all) {
    return all.size() == 1 ? unsqueeze(all[0], 0) : stack(all);
  };
  if (is_lstm) return {x, joined(last_h), joined(last_c)};
  return {x, joined(last_h)};
}

void check_settings(const char* op, RnnKind kind, const Tensor& input, TensorSpan states, const Settings& s) {
  check_input(op, input);
  OPSIN_CHECK(Error, states.size() == (kind == RnnKind::kLstm ? 2 : 1), op,
              ": expected hx to be the two tensors (h_0, c_0), got ", states.size());
  OPSIN_CHECK(ValueError, s.num_layers >= 1, op, ": expected num_layers of at least 1, got ", s.num_layers);
  OPSIN_CHECK(ValueError, s.dropout >= 0 && s.dropout <= 1, op, ": expected dropout between 0 and 1, got ",
              s.dropout);
}

/// `run(input, states, params)` with all of them in the dtype of autocast.
template <class Run>
TensorList run_lowered(RnnKind kind, const Tensor& input, TensorSpan states, TensorSpan params,
                       const Run& run) {
  const Tensor cast = autocast::cast(input, autocast::kLower);
  const TensorList cast_states = lower(states), cast_params = lower(params);
  const autocast::Suspend off;
  TensorList results = run(cast, cast_states, cast_params);
  return kind == RnnKind::kGru ? mixed_with(states[0], std::move(results)) : results;
}

/// Sequences of one length.
TensorList run_padded(RnnKind kind, const Tensor& input, TensorSpan states, TensorSpan params,
                      const Settings& s, bool batch_first) {
  const char* const op = rnn_name(kind);
  if (autocast::is_active()) {
    return run_lowered(kind, input, states, params, [&](const Tensor& x, TensorSpan h, TensorSpan w) {
      return run_padded(kind, x, h, w, s, batch_first);
    });
  }
  check_settings(op, kind, input, states, s);
  OPSIN_CHECK(ShapeError, input.dim() == 2 || input.dim() == 3, op, ": expected input ",
              batch_first ? "[batch, length, input size]" : "[length, batch, input size]",
              ", or [length, input size] without a batch, got ", str(input.sizes()));
  const bool batched = input.dim() == 3;
  TensorList all(states.begin(), states.end());
  for (Tensor& state : all) {
    OPSIN_CHECK(ShapeError, state.dim() == input.dim(), op, ": expected hx of ", input.dim(),
                " dimensions for input ", str(input.sizes()), ", got ", str(state.sizes()));
    if (!batched) state = unsqueeze(state, 1);
  }
  Tensor x = batched ? input : unsqueeze(input, 1);
  if (batched && batch_first) x = transpose(x, 0, 1);
  const int64_t steps = x.sizes()[0], batch = x.sizes()[1];
  OPSIN_CHECK(ShapeError, steps > 0, op, ": expected a sequence length of at least 1, got input ",
              str(input.sizes()));
  const std::vector<int64_t> batch_sizes(static_cast<size_t>(steps), batch);
  TensorList results =
      run_layers(kind, reshape(x, Dims{steps * batch, x.sizes()[2]}), batch_sizes, all, params, s);
  Tensor& y = results[0];
  y = view(y, Dims{steps, batch, y.sizes()[1]});
  if (batched && batch_first) y = transpose(y, 0, 1);
  if (!batched)
    for (Tensor& result : results) result = squeeze(result, Dims{1});
  return results;
}

/// Packed sequences.
TensorList run_packed(RnnKind kind, const Tensor& data, const Tensor& batch_sizes, TensorSpan states,
                      TensorSpan params, const Settings& s) {
  const char* const op = rnn_name(kind);
  if (autocast::is_active()) {
    return run_lowered(kind, data, states, params, [&](const Tensor& x, TensorSpan h, TensorSpan w) {
      return run_packed(kind, x, batch_sizes, h, w, s);
    });
  }
  check_settings(op, kind, data, states, s);
  OPSIN_CHECK(ShapeError, data.dim() == 2, op, ": expected packed data [rows, input size], got ",
              str(data.sizes()));
  OPSIN_CHECK(Error, batch_sizes.dtype() == kInt64 && batch_sizes.device().is_cpu() && batch_sizes.dim() == 1,
              op, ": expected batch_sizes of int64 on the CPU with one dimension, got ",
              name(batch_sizes.dtype()), " ", str(batch_sizes.sizes()), " on ", batch_sizes.device().str());
  const Tensor dense = contiguous(batch_sizes);
  const int64_t* const sizes = dense.data<int64_t>();
  const std::vector<int64_t> all(sizes, sizes + dense.numel());
  OPSIN_CHECK(ShapeError, !all.empty(), op, ": expected batch_sizes of at least one step, got none");
  int64_t rows = 0;
  for (size_t t = 0; t < all.size(); ++t) {
    OPSIN_CHECK(ValueError, all[t] >= 1 && (t == 0 || all[t] <= all[t - 1]), op,
                ": expected batch_sizes that are positive and never grow, got ", all[t], " at step ", t,
                " (sort the sequences by length, longest first)");
    rows += all[t];
  }
  OPSIN_CHECK(ShapeError, rows == data.sizes()[0], op, ": expected as many rows as batch_sizes add up to, ",
              rows, ", got data ", str(data.sizes()));
  return run_layers(kind, data, all, states, params, s);
}

template <size_t N>
std::array<Tensor, N> as_array(const TensorList& list) {
  std::array<Tensor, N> all;
  std::copy_n(list.begin(), N, all.begin());
  return all;
}

}  // namespace

std::array<Tensor, 2> lstm_cell(const Tensor& input, TensorSpan hx, const Tensor& w_ih, const Tensor& w_hh,
                                const Tensor& b_ih, const Tensor& b_hh) {
  return as_array<2>(run_cell(RnnKind::kLstm, input, hx, {w_ih, w_hh, b_ih, b_hh, {}}));
}
std::array<Tensor, 3> lstm(const Tensor& input, TensorSpan hx, TensorSpan params, bool has_biases,
                           int64_t num_layers, double dropout, bool train, bool bidirectional,
                           bool batch_first) {
  return as_array<3>(run_padded(RnnKind::kLstm, input, hx, params,
                                {has_biases, num_layers, dropout, train, bidirectional}, batch_first));
}
std::array<Tensor, 3> lstm(const Tensor& data, const Tensor& batch_sizes, TensorSpan hx, TensorSpan params,
                           bool has_biases, int64_t num_layers, double dropout, bool train,
                           bool bidirectional) {
  return as_array<3>(run_packed(RnnKind::kLstm, data, batch_sizes, hx, params,
                                {has_biases, num_layers, dropout, train, bidirectional}));
}

#define OPSIN_RNN(op, kind)                                                                               \
  Tensor op##_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,         \
                   const Tensor& b_ih, const Tensor& b_hh) {                                              \
    return run_cell(kind, input, {&hx, 1}, {w_ih, w_hh, b_ih, b_hh, {}})[0];                              \
  }                                                                                                       \
  std::array<Tensor, 2> op(const Tensor& input, const Tensor& hx, TensorSpan params, bool has_biases,     \
                           int64_t num_layers, double dropout, bool train, bool bidirectional,            \
                           bool batch_first) {                                                            \
    return as_array<2>(run_padded(kind, input, {&hx, 1}, params,                                          \
                                  {has_biases, num_layers, dropout, train, bidirectional}, batch_first)); \
  }                                                                                                       \
  std::array<Tensor, 2> op(const Tensor& data, const Tensor& batch_sizes, const Tensor& hx,               \
                           TensorSpan params, bool has_biases, int64_t num_layers, double dropout,        \
                           bool train, bool bidirectional) {                                              \
    return as_array<2>(run_packed(kind, data, batch_sizes, {&hx, 1}, params,                              \
                                  {has_biases, num_layers, dropout, train, bidirectional}));              \
  }
OPSIN_RNN(gru, RnnKind::kGru)
OPSIN_RNN(rnn_tanh, RnnKind::kTanh)
OPSIN_RNN(rnn_relu, RnnKind::kRelu)
#undef OPSIN_RNN

void register_rnn(Registry& registry) {
  register_rnn_cpu();
  constexpr const char* kWeights = ", Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> ";
  constexpr const char* kParams =
      ", Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional";
  constexpr const char* kPadded =
      "Layers over sequences [T, N, I], with the weights of each layer and direction.";
  constexpr const char* kPacked =
      "Layers over packed sequences [rows, I], of which step t has batch_sizes[t].";
  const auto text = [](auto... parts) { return (std::string(parts) + ...); };

  registry.add<&lstm_cell>(text("lstm_cell(Tensor input, Tensor[] hx", kWeights, "(Tensor, Tensor)"),
                           "One step of an LSTM for input [N, I] and hx = (h, c), [N, H] both.");
  using Lstm = std::array<Tensor, 3> (*)(const Tensor&, TensorSpan, TensorSpan, bool, int64_t, double, bool,
                                         bool, bool);
  using PackedLstm = std::array<Tensor, 3> (*)(const Tensor&, const Tensor&, TensorSpan, TensorSpan, bool,
                                               int64_t, double, bool, bool);
  registry.add<Lstm{&lstm}>(
      text("lstm(Tensor input, Tensor[] hx", kParams, ", bool batch_first) -> (Tensor, Tensor, Tensor)"),
      kPadded);
  registry.add<PackedLstm{&lstm}>(
      text("lstm(Tensor data, Tensor batch_sizes, Tensor[] hx", kParams, ") -> (Tensor, Tensor, Tensor)"),
      kPacked);

  using Layer = std::array<Tensor, 2> (*)(const Tensor&, const Tensor&, TensorSpan, bool, int64_t, double,
                                          bool, bool, bool);
  using PackedLayer = std::array<Tensor, 2> (*)(const Tensor&, const Tensor&, const Tensor&, TensorSpan, bool,
                                                int64_t, double, bool, bool);
  const auto add = [&]<auto kCell, Layer kLayer, PackedLayer kPackedLayer>(const char* op, const char* doc) {
    registry.add<kCell>(text(op, "_cell(Tensor input, Tensor hx", kWeights, "Tensor"), doc);
    registry.add<kLayer>(
        text(op, "(Tensor input, Tensor hx", kParams, ", bool batch_first) -> (Tensor, Tensor)"), kPadded);
    registry.add<kPackedLayer>(
        text(op, "(Tensor data, Tensor batch_sizes, Tensor hx", kParams, ") -> (Tensor, Tensor)"), kPacked);
  };
  add.template operator()<&gru_cell, &gru, &gru>("gru", "One step of a GRU for input [N, I] and hx [N, H].");
  add.template operator()<&rnn_tanh_cell, &rnn_tanh, &rnn_tanh>(
      "rnn_tanh", "tanh(w_ih x + b_ih + w_hh h + b_hh), row by row.");
  add.template operator()<&rnn_relu_cell, &rnn_relu, &rnn_relu>(
      "rnn_relu", "relu(w_ih x + b_ih + w_hh h + b_hh), row by row.");
}

}  // namespace opsin
