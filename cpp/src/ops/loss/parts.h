// The parts of the loss family register their schemas apart.
#pragma once

#include "core/registry.h"

namespace opsin {

void register_cross_entropy(Registry& registry);
void register_focal(Registry& registry);

}  // namespace opsin
