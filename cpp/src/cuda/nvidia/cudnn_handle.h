// cuDNN's handles: one for each thread and device.
#pragma once

#include "cuda/nvidia/cudnn.h"

namespace opsin::cuda::cudnn {

/// This thread's handle for the active device, set to its current stream. Raises an Error where cuDNN is too
/// old or cannot start.
cudnnHandle_t handle();

}  // namespace opsin::cuda::cudnn
