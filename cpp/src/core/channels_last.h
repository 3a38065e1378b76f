// Tensors in the channels-last order that convolution and pooling kernels read and write.
#pragma once

#include <opsin/tensor.h>

namespace opsin {

/// `x` [N, C, spatial...] with dense channels-last memory: itself where it already lies so, else a copy. The
/// result is for kernels, through physical_data(); it is not recorded.
Tensor to_channels_last(const Tensor& x);

}  // namespace opsin
