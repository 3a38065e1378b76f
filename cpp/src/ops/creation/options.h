// The options that all functions take that make tensors.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `tensor`, just made on the CPU, as `device` and `requires_grad` want it.
inline Tensor finish(const Tensor& tensor, std::optional<Device> device, bool requires_grad) {
  OPSIN_CHECK(Error, !device || device->is_cpu(), "device: no ", device ? device->str() : "",
              " on this machine (opsin.cuda.is_available() is False)");
  return tensor.set_requires_grad(requires_grad);
}

}  // namespace opsin
