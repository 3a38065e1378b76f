// Kernels that take several tensors find them all on one device.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// Error unless `other`, if defined, lies where x does.
inline void check_same_device(const char* op, const Tensor& x, const Tensor& other) {
  OPSIN_CHECK(Error, !other.defined() || other.device() == x.device(), op,
              ": Expected all tensors to be on the same device, but found at least two devices, ",
              x.device().str(), " and ", other.device().str(), "!");
}

}  // namespace opsin
