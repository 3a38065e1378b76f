// Prints what a fork-join region and an allocation cost; asserts nothing, for timings depend on the machine.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <vector>

#include "cpu/allocator.h"
#include "cpu/thread_pool.h"

namespace {

using Clock = std::chrono::steady_clock;

double nanoseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::nano>(duration).count();
}

void wait_microseconds(int microseconds) {
  const auto until = Clock::now() + std::chrono::microseconds(microseconds);
  while (Clock::now() < until) {
  }
}

void region_after(int gap) {
  std::vector<double> times;
  for (int i = 0; i < 2000; ++i) {
    wait_microseconds(gap);
    const auto start = Clock::now();
    opsin::cpu::parallel_for(2, 1, [](int64_t, int64_t) {});
    times.push_back(nanoseconds(Clock::now() - start));
  }
  std::sort(times.begin(), times.end());
  std::printf("empty region %4d us after the last one: median %7.0f ns, 90 %% %7.0f ns\n", gap,
              times[times.size() / 2], times[times.size() * 9 / 10]);
}

void work_of(int microseconds) {
  std::vector<double> times;
  for (int i = 0; i < 300; ++i) {
    wait_microseconds(20);
    const auto start = Clock::now();
    opsin::cpu::parallel_for(64, 1, [&](int64_t, int64_t) {
      const auto until = Clock::now() + std::chrono::nanoseconds(microseconds * 1000 / 64);
      while (Clock::now() < until) {
      }
    });
    times.push_back(nanoseconds(Clock::now() - start));
  }
  std::sort(times.begin(), times.end());
  std::printf("%5d us of work in 64 chunks: median %8.1f us\n", microseconds, times[times.size() / 2] / 1000);
}

void allocation_of(size_t bytes) {
  constexpr int kRounds = 20000;
  for (int live : {1, 16}) {
    void* blocks[16];
    const auto start = Clock::now();
    for (int i = 0; i < kRounds; ++i) {
      for (int j = 0; j < live; ++j) blocks[j] = opsin::cpu::allocate(bytes);
      for (int j = 0; j < live; ++j) opsin::cpu::deallocate(blocks[j], bytes);
    }
    std::printf("allocate + deallocate %9zu bytes, %2d live: %6.1f ns\n", bytes, live,
                nanoseconds(Clock::now() - start) / (kRounds * live));
  }
}

}  // namespace

int main() {
  std::printf("threads: %d\n", opsin::cpu::num_threads());
  for (int gap : {0, 20, 100, 1000}) region_after(gap);
  for (int microseconds : {10, 100, 1000}) work_of(microseconds);
  for (size_t bytes : {16, 1000, 30000, 100000, 3000000, 100000000}) allocation_of(bytes);
}
