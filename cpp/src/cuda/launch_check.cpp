#include "cuda/launch_check.h"

#include <string>

#include <opsin/error.h>

namespace opsin::cuda {
namespace {

std::string sizes(const unsigned (&size)[3]) {
  return opsin::detail::concat("[", size[0], ", ", size[1], ", ", size[2], "]");
}

}  // namespace

bool check_launch(const char* kernel, const unsigned (&grid)[3], const unsigned (&block)[3],
                  std::size_t shared_bytes) {
  if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return false;
  OPSIN_CHECK(Error, grid[0] <= 0x7fffffff && grid[1] <= kMaxGridYZ && grid[2] <= kMaxGridYZ, kernel,
              ": expected a grid of at most [2147483647, ", kMaxGridYZ, ", ", kMaxGridYZ, "] blocks, got ",
              sizes(grid));
  // Each size has a limit of its own, below which the product cannot overflow.
  OPSIN_CHECK(Error,
              block[0] <= kMaxBlockThreads && block[1] <= kMaxBlockThreads && block[2] <= 64 &&
                  block[0] * block[1] * block[2] - 1 < kMaxBlockThreads,
              kernel, ": expected a block of 1 to ", kMaxBlockThreads, " threads, at most [",
              kMaxBlockThreads, ", ", kMaxBlockThreads, ", 64], got ", sizes(block));
  OPSIN_CHECK(Error, shared_bytes <= kMaxSharedBytes, kernel, ": expected at most ", kMaxSharedBytes,
              " bytes of dynamic shared memory, got ", shared_bytes);
  return true;
}

}  // namespace opsin::cuda
