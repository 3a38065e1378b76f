#include "cuda/emulated/launch_log.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

namespace opsin::cuda::emulated {

void log_launch(const char* name) {
  static const char* const path = std::getenv("OPSIN_CUDA_LAUNCHES");
  if (!path || !*path) return;
  static std::mutex mutex;
  static std::set<std::string> seen;
  const std::lock_guard lock(mutex);
  if (!seen.insert(name).second) return;
  // One short write at the end of the file: several processes share it.
  if (std::FILE* file = std::fopen(path, "a")) {
    std::fprintf(file, "%s\n", name);
    std::fclose(file);
  }
}

}  // namespace opsin::cuda::emulated
