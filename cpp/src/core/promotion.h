// Which dtype an op computes in when its operands differ.
#pragma once

#include <initializer_list>

#include <opsin/tensor.h>

namespace opsin {

/// PyTorch's result type: among operands of the highest category (bool < integer < float < complex), tensors
/// with dimensions win over 0-d tensors, and those over plain numbers. Undefined tensors are skipped.
OPSIN_API DType result_type(std::initializer_list<const Tensor*> tensors);
OPSIN_API DType result_type(TensorSpan tensors);

/// `dtype` itself if it is floating point or complex, else the default float dtype.
inline DType floating_type(DType dtype) { return is_differentiable(dtype) ? dtype : default_dtype(); }

}  // namespace opsin
