// The object through which the core uses GPUs.
#pragma once

#include "core/backend.h"

namespace opsin::cuda {

/// Lives as long as the process.
Backend& backend();

}  // namespace opsin::cuda
