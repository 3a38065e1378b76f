// Winograd's minimal filtering: no shape has kernels yet.
#include "conv_algorithm.h"

#include <opsin/error.h>

namespace opsin::cpu::conv {

bool winograd_fits(const ConvGeometry&, DType) { return false; }
const char* winograd_needs() { return "has no kernels on this device (have: auto, direct)"; }
bool winograd_pays(const ConvGeometry&, DType, Product) { return false; }

void winograd_forward(const ConvGeometry&, const float*, const float*, const float*, float*) {
  detail::raise<Error>("conv: algorithm='winograd' ", winograd_needs());
}
void winograd_backward_input(const ConvGeometry&, const float*, const float*, float*) {
  detail::raise<Error>("conv_backward_input: algorithm='winograd' ", winograd_needs());
}

}  // namespace opsin::cpu::conv
