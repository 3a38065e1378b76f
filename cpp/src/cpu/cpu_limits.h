// What the operating system and the container leave to this process.
#pragma once

#include <cstddef>
#include <string>

#include <opsin/api.h>

namespace opsin::cpu {

/// CPUs that the affinity mask of the calling thread allows, at least 1.
OPSIN_API int affinity_cpus();

/// CPUs that the quota of the control group (version 1 or 2) and of its ancestors allows, rounded up; 0 when
/// there is no quota. `root` stands before every path that is read, so that a test can bring its own files.
OPSIN_API int quota_cpus(const std::string& root = "");

/// Bytes of memory that the control group (version 1 or 2) and its ancestors allow; 0 when there is no limit.
OPSIN_API size_t cgroup_memory_limit(const std::string& root = "");

/// Bytes of memory this process could use at most: physical memory and swap, or less in a container.
OPSIN_API size_t usable_memory();

}  // namespace opsin::cpu
