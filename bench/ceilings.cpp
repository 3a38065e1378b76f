// What the processor can do at most, for roofline.py: `ceilings THREADS` prints a name and a figure per line.
// One thread per core, each pinned; the best of several repetitions, all threads of which run at once.

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#if defined(__AVX512F__)
using Vector = __m512;
static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
static Vector fill(float value) { return _mm512_set1_ps(value); }
#elif defined(__AVX2__) && defined(__FMA__)
using Vector = __m256;
static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
static Vector fill(float value) { return _mm256_set1_ps(value); }
#else
#error "needs AVX2 and FMA"
#endif

constexpr int kChains = 12;  // more than latency times width of any processor, fewer than the registers
constexpr int kSteps = 200'000;
constexpr int kRepetitions = 60;  // short ones: one of them is undisturbed
constexpr std::size_t kBytes = std::size_t{64} << 20;

static int core(int index) {
  cpu_set_t mask;
  sched_getaffinity(0, sizeof mask, &mask);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask) && index-- == 0) return cpu;
  }
  std::fprintf(stderr, "ceilings: more threads than usable cores\n");
  std::exit(1);
}

// Runs `work` on every thread at once; the highest rate of all of them together, in units of 1e9 per second.
static double rate(int threads, double amount, const std::function<void(int)>& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> seconds(kRepetitions);
  Clock::time_point start;
  int turn = 0;
  std::barrier begin(threads, [&]() noexcept { start = Clock::now(); });
  std::barrier end(threads, [&]() noexcept {
    seconds[static_cast<std::size_t>(turn++)] = std::chrono::duration<double>(Clock::now() - start).count();
  });
  std::vector<std::thread> pool;
  for (int index = 0; index < threads; ++index) {
    pool.emplace_back([&, index, cpu = core(index)] {
      cpu_set_t mask;
      CPU_ZERO(&mask);
      CPU_SET(cpu, &mask);
      pthread_setaffinity_np(pthread_self(), sizeof mask, &mask);
      for (int repetition = 0; repetition < kRepetitions; ++repetition) {
        begin.arrive_and_wait();
        work(index);
        end.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
  return threads * amount / *std::min_element(seconds.begin(), seconds.end()) / 1e9;
}

// Independent chains of one instruction, kept in registers.
template <class Step>
static void chains(Step step) {
  Vector sums[kChains];
  for (Vector& sum : sums) sum = fill(0.0F);
  for (int i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (Vector& sum : sums) {
      sum = step(sum);
      asm volatile("" : "+v"(sum));
    }
  }
}

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  const double lanes = sizeof(Vector) / sizeof(float);
  const double instructions = double{kChains} * kSteps;
  const Vector factor = fill(0.5F);
  std::printf("float32 %.2f\n", rate(threads, 2 * lanes * instructions, [&](int) {
                chains([&](Vector sum) { return fma(factor, factor, sum); });
              }));
#if defined(__AVX512BF16__)
  std::printf("bfloat16 %.2f\n", rate(threads, 4 * lanes * instructions, [&](int) {
                const __m512bh pair = _mm512_cvtne2ps_pbh(factor, factor);
                chains([&](Vector sum) { return _mm512_dpbf16_ps(sum, pair, pair); });
              }));
#endif
  std::vector<std::vector<char>> from(static_cast<std::size_t>(threads)), to(from);
  std::printf("copy %.2f\n", rate(threads, 2.0 * kBytes, [&](int index) {
                std::vector<char>& source = from[static_cast<std::size_t>(index)];
                std::vector<char>& target = to[static_cast<std::size_t>(index)];
                source.resize(kBytes);  // by the thread that uses it, in the first repetition only
                target.resize(kBytes);
                std::memcpy(target.data(), source.data(), kBytes);
              }));
  return 0;
}
