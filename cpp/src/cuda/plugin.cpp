// What the core looks for in this library; everything else in it is hidden.
#include "core/backend.h"
#include "core/build_id.h"
#include "cuda/backend.h"

namespace opsin::cuda {

/// Fills the slots of all kernels here; written by CMake.
void register_all();

}  // namespace opsin::cuda

extern "C" {

OPSIN_API extern const char opsin_cuda_build_id[];
const char opsin_cuda_build_id[] = OPSIN_BUILD_ID;

OPSIN_API opsin::Backend* opsin_cuda_plugin();
opsin::Backend* opsin_cuda_plugin() {
  opsin::cuda::register_all();
  return &opsin::cuda::backend();
}
}
