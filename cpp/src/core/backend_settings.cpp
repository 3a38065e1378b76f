#include "core/backend_settings.h"

#include <atomic>
#include <map>
#include <mutex>

namespace opsin {

namespace {

std::atomic<bool> tf32_convolution{true}, tf32_matmul{false}, deterministic{true}, benchmark{false};

constexpr size_t kMostFallbacks = 4096;

struct Fallbacks {
  std::mutex mutex;
  std::map<std::string, int64_t, std::less<>> counts;
};
Fallbacks& all_fallbacks() {
  static Fallbacks* const instance = new Fallbacks;
  return *instance;
}

}  // namespace

bool allow_tf32_convolution() { return tf32_convolution.load(std::memory_order_relaxed); }
void set_allow_tf32_convolution(bool allow) { tf32_convolution.store(allow, std::memory_order_relaxed); }

bool allow_tf32_matmul() { return tf32_matmul.load(std::memory_order_relaxed); }
void set_allow_tf32_matmul(bool allow) { tf32_matmul.store(allow, std::memory_order_relaxed); }

bool deterministic_algorithms() { return deterministic.load(std::memory_order_relaxed); }
void set_deterministic_algorithms(bool only) { deterministic.store(only, std::memory_order_relaxed); }

bool benchmark_algorithms() { return benchmark.load(std::memory_order_relaxed); }
void set_benchmark_algorithms(bool on) { benchmark.store(on, std::memory_order_relaxed); }

void count_fallback(std::string_view what) {
  Fallbacks& all = all_fallbacks();
  const std::lock_guard lock(all.mutex);
  const auto found = all.counts.find(what);
  if (found != all.counts.end()) {
    ++found->second;
  } else if (all.counts.size() < kMostFallbacks) {
    all.counts.emplace(what, 1);
  }
}

std::vector<std::pair<std::string, int64_t>> fallbacks() {
  Fallbacks& all = all_fallbacks();
  const std::lock_guard lock(all.mutex);
  return {all.counts.begin(), all.counts.end()};
}

void clear_fallbacks() {
  Fallbacks& all = all_fallbacks();
  const std::lock_guard lock(all.mutex);
  all.counts.clear();
}

}  // namespace opsin
