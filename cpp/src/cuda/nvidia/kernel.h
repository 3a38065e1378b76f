// Launches on the GPU; see cuda/launch.h.
#pragma once

#include <cstddef>
#include <type_traits>

#include <cuda_runtime.h>

#include "cuda/current_stream.h"

namespace opsin::cuda {

/// Checks the limits and gets the device ready; false if there is nothing to launch.
bool begin_launch(const char* name, const void* kernel, dim3 grid, dim3 block, std::size_t shared_bytes);
/// Raises Error if CUDA refused the launch.
void end_launch(const char* name);

#if defined(__CUDACC__)

#define OPSIN_SHARED(T, name)                                      \
  extern __shared__ __align__(16) unsigned char name##_as_bytes[]; \
  T* name = reinterpret_cast<T*>(name##_as_bytes)

// The host compiler, which sees the same functions, does not know these.
#if defined(__CUDA_ARCH__)
#define OPSIN_UNROLL _Pragma("unroll")
#define OPSIN_NO_UNROLL _Pragma("unroll 1")
#else
#define OPSIN_UNROLL
#define OPSIN_NO_UNROLL
#endif
#define OPSIN_NOINLINE __noinline__

template <class... P>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
            std::type_identity_t<P>... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments are copied byte by byte");
  if (!begin_launch(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes)) return;
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(current_stream())>>>(arguments...);
  end_launch(name);
}

#endif

}  // namespace opsin::cuda
