// The parts of the normalization family register their schemas apart.
#pragma once

#include "core/registry.h"

namespace opsin {

void register_batch_norm(Registry& registry);
void register_layer_norm(Registry& registry);
void register_group_norm(Registry& registry);
void register_composed_norms(Registry& registry);

}  // namespace opsin
