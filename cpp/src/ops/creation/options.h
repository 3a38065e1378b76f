// The options that all functions take that make tensors.
#pragma once

#include <opsin/ops/copy.h>

namespace opsin {

/// `tensor`, just made, as `device` and `requires_grad` want it.
inline Tensor finish(const Tensor& tensor, std::optional<Device> device, bool requires_grad) {
  return to(tensor, device.value_or(tensor.device())).set_requires_grad(requires_grad);
}

}  // namespace opsin
