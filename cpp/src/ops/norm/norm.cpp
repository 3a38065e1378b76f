#include "parts.h"

namespace opsin {

void register_norm(Registry& registry);

void register_norm(Registry& registry) {
  register_batch_norm(registry);
  register_layer_norm(registry);
  register_group_norm(registry);
  register_composed_norms(registry);
}

}  // namespace opsin
