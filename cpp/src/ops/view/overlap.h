// Tensors whose elements share memory because they were expanded.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `x` with one index of each dimension of stride 0: a view that names every place in memory once. `x` itself
/// if there is none.
Tensor without_repeats(const Tensor& x);
/// Whether dimension `d` of `x` shows one place in memory several times.
inline bool repeats(const Tensor& x, size_t d) { return x.sizes()[d] > 1 && x.strides()[d] == 0; }

}  // namespace opsin
