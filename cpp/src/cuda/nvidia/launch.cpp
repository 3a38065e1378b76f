#include <opsin/error.h>

#include "cuda/launch_check.h"
#include "cuda/nvidia/kernel.h"

namespace opsin::cuda {
namespace {

// What a kernel may use without asking for more.
constexpr std::size_t kDefaultSharedBytes = 48 * 1024;

}  // namespace

bool begin_launch(const char* name, const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes) {
  if (!check_launch(name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes)) return false;
  before_launch();
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(shared_bytes));
    OPSIN_CHECK(Error, status == cudaSuccess, name, ": the device refuses ", shared_bytes,
                " bytes of dynamic shared memory: ", cudaGetErrorString(status));
  }
  return true;
}

void end_launch(const char* name) {
  const cudaError_t status = cudaGetLastError();
  OPSIN_CHECK(Error, status == cudaSuccess, name,
              ": CUDA did not launch the kernel: ", cudaGetErrorString(status), " (",
              cudaGetErrorName(status), ")");
}

}  // namespace opsin::cuda
