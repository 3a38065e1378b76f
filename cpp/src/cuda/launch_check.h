// The limits of a kernel launch, the same on the GPU and under the emulator.
#pragma once

#include <cstddef>

namespace opsin::cuda {

inline constexpr unsigned kMaxBlockThreads = 1024;
/// Largest second and third size of a grid.
inline constexpr unsigned kMaxGridYZ = 65535;
/// Dynamic shared memory that one block can have, in bytes (compute capability 9.0).
inline constexpr std::size_t kMaxSharedBytes = 227 * 1024;

/// Raises Error unless a GPU could launch this; false for an empty grid, which launches nothing.
bool check_launch(const char* kernel, const unsigned (&grid)[3], const unsigned (&block)[3],
                  std::size_t shared_bytes);

}  // namespace opsin::cuda
