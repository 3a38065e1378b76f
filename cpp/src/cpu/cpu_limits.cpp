#include "cpu_limits.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include <sched.h>
#include <sys/sysinfo.h>

namespace opsin::cpu {
namespace {

/// A control group as this process sees it: the mount point of its hierarchy and its path below that.
struct Group {
  std::string mount;
  std::string path;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

/// The path of this process in the hierarchy of `controller` ("" is version 2), "" when it has none.
std::string group_path(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : contains(split(controllers, ','), controller))
      return line.substr(second + 1);
  }
  return "";
}

/// Finds the hierarchy of `controller` ("" is version 2) among the mounts; an empty mount means none.
Group find_group(const std::string& root, const std::string& controller) {
  std::string path = group_path(root, controller);
  if (path.empty()) return {};
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> fields = split(line.substr(0, dash), ' ');
    const std::vector<std::string> source = split(line.substr(dash + 3), ' ');
    if (fields.size() < 5 || source.empty()) continue;
    const bool matches = controller.empty() ? source[0] == "cgroup2"
                                            : source[0] == "cgroup" && source.size() >= 3 &&
                                                  contains(split(source[2], ','), controller);
    if (!matches) continue;
    // Without a namespace of its own, a container sees the host's path but only its subtree is mounted.
    const std::string& subtree = fields[3];
    if (subtree != "/" && path.compare(0, subtree.size(), subtree) == 0) path.erase(0, subtree.size());
    if (path == "/") path.clear();
    return {root + fields[4], path};
  }
  return {};
}

/// Calls `read(folder)` for the group and all its ancestors up to the mount point.
template <class Read>
void walk_up(const Group& group, Read&& read) {
  if (group.mount.empty()) return;
  std::string path = group.path;
  while (true) {
    read(group.mount + path);
    if (path.empty()) return;
    path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

/// The positive number that a file holds, 0 when there is none ("max", -1, no file).
double read_number(const std::string& file_name) {
  std::ifstream file(file_name);
  double value = 0;
  return file >> value && value > 0 ? value : 0;
}

}  // namespace

int affinity_cpus() {
  // The kernel refuses a mask smaller than its own, so grow it for machines above 1024 CPUs.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(cpus);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    const bool done = sched_getaffinity(0, bytes, set) == 0;
    const int count = done ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (done) return std::max(count, 1);
  }
  return 1;
}

int quota_cpus(const std::string& root) {
  double quota = std::numeric_limits<double>::infinity();
  walk_up(find_group(root, ""), [&](const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    double limit = 0;
    double period = 0;
    if (file >> limit >> period && limit > 0 && period > 0) quota = std::min(quota, limit / period);
  });
  walk_up(find_group(root, "cpu"), [&](const std::string& folder) {
    const double limit = read_number(folder + "/cpu.cfs_quota_us");
    const double period = read_number(folder + "/cpu.cfs_period_us");
    if (limit > 0 && period > 0) quota = std::min(quota, limit / period);
  });
  if (quota > 1e6) return 0;
  return std::max(1, static_cast<int>(quota + 0.999));
}

size_t cgroup_memory_limit(const std::string& root) {
  double limit = std::numeric_limits<double>::infinity();
  const auto take = [&](double bytes) {
    if (bytes > 0) limit = std::min(limit, bytes);
  };
  walk_up(find_group(root, ""),
          [&](const std::string& folder) { take(read_number(folder + "/memory.max")); });
  walk_up(find_group(root, "memory"),
          [&](const std::string& folder) { take(read_number(folder + "/memory.limit_in_bytes")); });
  // Version 1 writes "no limit" as a number near 2^63.
  return limit > 1e18 ? 0 : static_cast<size_t>(limit);
}

size_t usable_memory() {
  struct sysinfo info;
  if (sysinfo(&info) != 0) return std::numeric_limits<size_t>::max() / 2;
  const size_t machine = (static_cast<size_t>(info.totalram) + info.totalswap) * info.mem_unit;
  const size_t group = cgroup_memory_limit();
  return group == 0 ? machine : std::min(machine, group);
}

}  // namespace opsin::cpu
