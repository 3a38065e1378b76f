// What the files of this folder share.
#pragma once

#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/view.h>

#include "autograd/history.h"

namespace opsin {

class Registry;

/// Another geometry over the storage of `x`, without history.
inline Tensor make_view(const Tensor& x, Dims sizes, Dims strides, int64_t offset) {
  // Strides become visible, so memory must lie by them.
  x.impl()->expose();
  return Tensor(
      make_ref<TensorImpl>(x.impl()->storage, x.dtype(), std::move(sizes), std::move(strides), offset));
}

/// Zeros of `sizes`, with `grad` written to `part(zeros)`: the gradient of a view that leaves elements out.
template <class F>
Tensor embedded(const Tensor& grad, IntSpan sizes, F part) {
  const Tensor result = zeros(sizes, grad.dtype(), grad.device());
  copy_(part(result), grad);
  return result;
}

/// The dimensions 0, 1, ... rank - 1.
inline Dims all_dims(int64_t rank) {
  Dims dims(static_cast<size_t>(rank));
  for (size_t i = 0; i < dims.size(); ++i) dims[i] = static_cast<int64_t>(i);
  return dims;
}

void register_meshgrid(Registry& registry);
void register_view_diagonal(Registry& registry);
void register_view_rearranged(Registry& registry);
void register_view_scattered(Registry& registry);
void register_view_shapes(Registry& registry);
void register_view_split(Registry& registry);

}  // namespace opsin
