// Recurrent layers.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

// One step for `input` `[N, I]`, or `[I]` without a batch, with weights `w_ih` `[G H, I]` and `w_hh` `[G H,
// H]` and biases `[G H]` for G gates: with a = w_ih x + b_ih and b = w_hh h + b_hh, cut into gates,
//
//   rnn_tanh, rnn_relu   h' = tanh(a + b) or relu(a + b)
//   lstm                 i, f, o = sigmoid(a + b), g = tanh(a + b); c' = f c + i g; h' = o tanh(c')
//   gru                  r, z = sigmoid(a + b), n = tanh(a + r b); h' = (1 - z) n + z h
//
// Gates lie in the order i, f, g, o and r, z, n. 16-bit floats are computed in float32; the cell state c is
// rounded to them only where it is given back. ShapeError for sizes that do not fit, Error for different
// dtypes. Sources: Hochreiter and Schmidhuber, "Long short-term memory", 1997; Cho et al., "Learning phrase
// representations using RNN encoder-decoder", 2014, with the reset gate after the product.

/// `hx` is {h, c}, `[N, H]` both; gives {h', c'}.
OPSIN_API std::array<Tensor, 2> lstm_cell(const Tensor& input, TensorSpan hx, const Tensor& w_ih,
                                          const Tensor& w_hh, const Tensor& b_ih = {},
                                          const Tensor& b_hh = {});
OPSIN_API Tensor gru_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                          const Tensor& b_ih = {}, const Tensor& b_hh = {});
OPSIN_API Tensor rnn_tanh_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                               const Tensor& b_ih = {}, const Tensor& b_hh = {});
OPSIN_API Tensor rnn_relu_cell(const Tensor& input, const Tensor& hx, const Tensor& w_ih, const Tensor& w_hh,
                               const Tensor& b_ih = {}, const Tensor& b_hh = {});

// Layers of such cells over whole sequences `[T, N, I]`, `[N, T, I]` with `batch_first`, or `[T, I]` without
// a batch; D = 2 directions with `bidirectional`, else 1. They give what the last layer says at every step,
// `[T, N, D H]`, and the last states of all layers, `[layers D, N, H]`, the shape of the first states `hx`.
//
// `params` holds w_ih, w_hh and with `has_biases` b_ih, b_hh of each layer and direction, directions of a
// layer side by side; the weights w_ih of upper layers are `[G H, D H]`. The sequence going backwards is
// computed from its end. `dropout` is the share of what a layer hands to the next one that is zeroed, if
// `train`.
//
// Packed sequences are `data` `[rows, I]`, the steps one after the other, of which step t has the first
// `batch_sizes[t]` sequences (int64 on the CPU, never growing); results are packed alike.
//
// The second derivative is that of the same steps in differentiable functions.

/// `hx` is {h, c}. Where the last size P of h is not that H of c, h' = w_hr (o tanh(c')) with `w_hr` `[P, H]`
/// as the last of each group of `params`, `w_hh` is `[4 H, P]`, and P takes the place of H in results and
/// upper layers (Sak et al., "Long short-term memory based recurrent neural network architectures", 2014).
/// Gives {output, h, c}.
OPSIN_API std::array<Tensor, 3> lstm(const Tensor& input, TensorSpan hx, TensorSpan params, bool has_biases,
                                     int64_t num_layers, double dropout, bool train, bool bidirectional,
                                     bool batch_first);
OPSIN_API std::array<Tensor, 3> lstm(const Tensor& data, const Tensor& batch_sizes, TensorSpan hx,
                                     TensorSpan params, bool has_biases, int64_t num_layers, double dropout,
                                     bool train, bool bidirectional);
/// Gives {output, h}.
OPSIN_API std::array<Tensor, 2> gru(const Tensor& input, const Tensor& hx, TensorSpan params, bool has_biases,
                                    int64_t num_layers, double dropout, bool train, bool bidirectional,
                                    bool batch_first);
OPSIN_API std::array<Tensor, 2> gru(const Tensor& data, const Tensor& batch_sizes, const Tensor& hx,
                                    TensorSpan params, bool has_biases, int64_t num_layers, double dropout,
                                    bool train, bool bidirectional);
OPSIN_API std::array<Tensor, 2> rnn_tanh(const Tensor& input, const Tensor& hx, TensorSpan params,
                                         bool has_biases, int64_t num_layers, double dropout, bool train,
                                         bool bidirectional, bool batch_first);
OPSIN_API std::array<Tensor, 2> rnn_tanh(const Tensor& data, const Tensor& batch_sizes, const Tensor& hx,
                                         TensorSpan params, bool has_biases, int64_t num_layers,
                                         double dropout, bool train, bool bidirectional);
OPSIN_API std::array<Tensor, 2> rnn_relu(const Tensor& input, const Tensor& hx, TensorSpan params,
                                         bool has_biases, int64_t num_layers, double dropout, bool train,
                                         bool bidirectional, bool batch_first);
OPSIN_API std::array<Tensor, 2> rnn_relu(const Tensor& data, const Tensor& batch_sizes, const Tensor& hx,
                                         TensorSpan params, bool has_biases, int64_t num_layers,
                                         double dropout, bool train, bool bidirectional);

}  // namespace opsin
