// Linear interpolation between rows, written in differentiable functions: what the rules of sampling ops turn
// to when their gradients are to be differentiated.
#pragma once

#include <vector>

#include <opsin/tensor.h>

namespace opsin {

/// T samples, each between the 2^d rows at the corners of a cell: corner i takes the upper side of axis a
/// where bit a of i is set.
struct Corners {
  std::vector<Tensor> fractions;  ///< Per axis: [T], how far the sample is from the lower to the upper side.
  std::vector<Tensor> rows;       ///< Per corner: int64 [T].
  std::vector<Tensor> shares;     ///< Per corner: [T], factors of its weight; empty for ones.

  /// The samples [T, C] of rows x [R, C].
  Tensor of(const Tensor& x) const;
  /// The gradient [size, C] of those rows for gradients g [T, C] of the samples.
  Tensor spread(const Tensor& g, int64_t size) const;
  /// The gradients [T] of the fractions.
  std::vector<Tensor> slopes(const Tensor& x, const Tensor& g) const;

 private:
  Tensor weight(size_t corner, size_t without) const;
};

}  // namespace opsin
