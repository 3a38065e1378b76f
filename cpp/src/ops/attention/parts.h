// The parts of the attention family register their schemas apart.
#pragma once

#include "core/registry.h"

namespace opsin {

void register_windows(Registry& registry);

}  // namespace opsin
