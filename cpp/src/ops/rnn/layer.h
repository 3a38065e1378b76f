// One recurrent layer in one direction: what cells and stacks of layers are made of.
#pragma once

#include "rnn_kernels.h"

#include <vector>

#include <opsin/tensor.h>

namespace opsin {

struct RnnWeights {
  Tensor w_ih, w_hh;  ///< [gates, inputs], [gates, outputs]
  Tensor b_ih, b_hh;  ///< [gates] or undefined
  Tensor w_hr;        ///< [outputs, hidden] or undefined
};

struct RnnStates {
  Tensor y;     ///< [rows, outputs]
  Tensor h, c;  ///< After the last step, [batch, outputs] and [batch, hidden]; c is undefined but for LSTM.
};

/// The name of the layer.
const char* rnn_name(RnnKind kind);

/// `x` [rows, inputs] holds the steps one after the other, the first batch_sizes[t] sequences of each. Shapes
/// and dtypes fit; `c` is undefined but for LSTM.
RnnStates rnn_layer(RnnKind kind, const std::vector<int64_t>& batch_sizes, bool reverse, const Tensor& x,
                    const Tensor& h, const Tensor& c, const RnnWeights& weights);

/// The same in differentiable functions.
RnnStates composed_rnn_layer(RnnKind kind, const std::vector<int64_t>& batch_sizes, bool reverse,
                             const Tensor& x, const Tensor& h, const Tensor& c, const RnnWeights& weights);

}  // namespace opsin
