#include "cuda/pinned.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include <opsin/error.h>

#include "cuda/graph.h"

namespace opsin::cuda {

namespace {

struct Use {
  int device;
  api::Stream stream;
};

struct Block {
  size_t size;
  std::vector<Use> uses;
  std::vector<std::pair<int, api::Event>> events;  // of the copies that must be done before the next use
};

/// Blocks have the sizes of powers of two, so that one that was freed fits again.
struct Cache {
  std::mutex mutex;
  std::map<char*, Block, std::greater<>> used;
  std::multimap<size_t, std::pair<char*, Block>> free;
};

Cache& cache() {
  static Cache* const cache = new Cache;
  return *cache;
}

bool is_idle(Block& block) {
  while (!block.events.empty()) {
    const auto [device, event] = block.events.back();
    api::set_device(device);
    if (!api::query_event(event)) return false;
    api::destroy_event(event);
    block.events.pop_back();
  }
  return true;
}

/// The used block around `data`; its end where there is none.
auto find_used(const void* data) {
  Cache& all = cache();
  const auto found = all.used.lower_bound(static_cast<char*>(const_cast<void*>(data)));
  const bool inside =
      found != all.used.end() && static_cast<const char*>(data) < found->first + found->second.size;
  return inside ? found : all.used.end();
}

}  // namespace

void* allocate_pinned(size_t bytes) {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  const size_t size = std::bit_ceil(std::max<size_t>(bytes, 512));
  const auto [begin, end] = all.free.equal_range(size);
  for (auto found = begin; found != end; ++found) {
    // No event may be asked during a capture.
    if (is_capturing_here() ? !found->second.second.events.empty() : !is_idle(found->second.second)) continue;
    auto [data, block] = std::move(found->second);
    all.free.erase(found);
    all.used.emplace(data, std::move(block));
    return data;
  }
  auto* const data = static_cast<char*>(api::allocate_pinned(size));
  OPSIN_CHECK(OutOfMemoryError, data, "pin_memory: no page-locked memory left, tried to allocate ", size,
              " bytes (pin less at once)");
  all.used.emplace(data, Block{size, {}, {}});
  return data;
}

void deallocate_pinned(void* data) noexcept {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  const auto found = all.used.find(static_cast<char*>(data));
  if (found == all.used.end()) return;
  Block block = std::move(found->second);
  all.used.erase(found);
  try {
    for (const Use& use : block.uses) {
      api::set_device(use.device);
      const api::Event event = api::create_event(false);
      block.events.emplace_back(use.device, event);
      api::record_event(event, use.stream);
    }
  } catch (const Error&) {
    // The device is lost, and with it whatever still wants the block: it must not be used again.
    return;
  }
  block.uses.clear();
  all.free.emplace(block.size, std::pair(static_cast<char*>(data), std::move(block)));
}

bool is_pinned(const void* data) {
  {
    const std::lock_guard lock(cache().mutex);
    if (find_used(data) != cache().used.end()) return true;
  }
  return api::is_pinned(data);
}

void note_pinned_use(const void* data, int device, api::Stream stream) {
  const std::lock_guard lock(cache().mutex);
  const auto found = find_used(data);
  if (found == cache().used.end()) return;
  std::vector<Use>& uses = found->second.uses;
  const auto same = [&](const Use& use) { return use.device == device && use.stream == stream; };
  if (std::none_of(uses.begin(), uses.end(), same)) uses.push_back({device, stream});
}

void empty_pinned_cache() {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  for (auto next = all.free.begin(); next != all.free.end();) {
    auto& [data, block] = next->second;
    if (!is_idle(block)) {
      ++next;
      continue;
    }
    api::release_pinned(data);
    next = all.free.erase(next);
  }
}

}  // namespace opsin::cuda
