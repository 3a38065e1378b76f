// Every thread has a share of neighbouring chunks, the same part of every region, and takes from the others'
// when it is done: what it wrote in one region it reads in the next, while the caches of other cores can be
// far away (where cores share none, ten times as far).
#include "thread_pool.h"

#include "cpu_limits.h"

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <exception>
#include <limits>
#include <mutex>

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <opsin/error.h>

namespace opsin::cpu {
namespace {

// Long enough to bridge the gap between the ops of a model, short enough not to eat a shared machine.
constexpr int64_t kSpinNanoseconds = 300'000;
constexpr int64_t kYieldAfterNanoseconds = 5'000;
constexpr int kSlots = 16;

// A slot's state word: OPEN | WAITER | permits left for helpers | helpers inside.
constexpr uint32_t kOpen = 1;
constexpr uint32_t kWaiter = 2;
constexpr uint32_t kPermit = 1u << 2;
constexpr uint32_t kPermitMask = 0x3fffu << 2;
constexpr uint32_t kHelper = 1u << 16;
static_assert(kMaxThreads < 0x3fff);

/// Neighbouring chunks that one thread begins with. On a line of its own: other threads come to help.
struct alignas(64) Share {
  int64_t next;
  int64_t end;
};

/// What one `parallel_for` shares with its helpers; lives on the caller's stack.
struct Region {
  Region(int64_t count_, int64_t grain_, detail::Body body_) : count(count_), grain(grain_), body(body_) {}

  /// Into shares for so many threads, which is known when the region has a slot.
  void divide(int threads) {
    const int64_t chunks = (count - 1) / grain + 1;
    share_count = static_cast<int>(std::min<int64_t>({threads, kMaxShares, chunks}));
    const int64_t each = chunks / share_count, longer = chunks % share_count;
    int64_t begin = 0;
    for (int i = 0; i < share_count; ++i) {
      shares[i].next = begin;
      begin += each + (i < longer ? 1 : 0);
      shares[i].end = begin;
    }
  }

  static constexpr int kMaxShares = 64;
  const int64_t count;
  const int64_t grain;
  const detail::Body body;
  std::mutex error_mutex;
  std::exception_ptr error;
  /// The lowest chunk that threw.
  std::atomic<int64_t> failed{std::numeric_limits<int64_t>::max()};
  int share_count = 0;
  Share shares[kMaxShares];
};

struct alignas(64) Slot {
  std::atomic<uint32_t> state{0};
  std::atomic<bool> taken{false};
  Region* region = nullptr;
};

thread_local bool in_region = false;
thread_local int budget = kMaxThreads;

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

/// Spins until `done()` or until the spin time is over; says whether it is done. After the first microseconds
/// it yields: when the machine is busy, the thread waited for may need this very CPU.
template <class Done>
bool spin(bool may_spin, Done&& done) {
  if (done()) return true;
  if (!may_spin) return false;
  const int64_t start = now();
  for (int64_t passed = 0; passed < kSpinNanoseconds; passed = now() - start) {
    if (passed > kYieldAfterNanoseconds) sched_yield();
    for (int i = 0; i < 32; ++i) {
      pause_cpu();
      if (done()) return true;
    }
  }
  return false;
}

/// Takes the chunks of a share until none is left. Never throws.
void work(Region& region, Share& share) {
  const std::atomic_ref next(share.next);
  while (true) {
    const int64_t chunk = next.fetch_add(1, std::memory_order_relaxed);
    // Every chunk below one that failed still runs, so that the lowest that throws is the same in every run.
    if (chunk >= share.end || chunk > region.failed.load(std::memory_order_relaxed)) return;
    const int64_t begin = chunk * region.grain;
    const int64_t end = region.count - begin > region.grain ? begin + region.grain : region.count;
    try {
      region.body.call(region.body.object, begin, end);
    } catch (...) {
      const std::lock_guard lock(region.error_mutex);
      if (chunk < region.failed.load(std::memory_order_relaxed)) {
        region.error = std::current_exception();
        region.failed.store(chunk, std::memory_order_relaxed);
      }
    }
  }
}

/// Works on the share of a thread, the same part of every region: what it wrote in the last one is in its
/// caches, from where other cores get it slowly. Then on what the others have not begun.
void work(Region& region, int thread) {
  for (int i = 0; i < region.share_count; ++i) {
    work(region, region.shares[(thread + i) % region.share_count]);
  }
}

class Pool {
 public:
  Pool() : cpus_(affinity_cpus()), threads_(initial_threads(cpus_)) {}

  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void set_threads(int threads) { threads_.store(threads, std::memory_order_relaxed); }

  void run(Region& region, int threads) {
    Slot* slot = take_slot();
    region.divide(slot == nullptr ? 1 : threads);
    if (slot == nullptr) return work(region, 0);
    const int helpers = static_cast<int>(std::min<int64_t>(threads - 1, (region.count - 1) / region.grain));
    if (helpers_.load(std::memory_order_relaxed) < helpers) start_helpers(helpers);
    slot->region = &region;
    slot->state.store(kOpen | static_cast<uint32_t>(helpers) * kPermit, std::memory_order_release);
    epoch_.fetch_add(1);
    if (sleepers_.load() > 0) {
      const int missing = helpers - spinners_.load(std::memory_order_relaxed);
      if (missing > 0) futex_wake(epoch_, missing);
    }
    work(region, 0);
    close(*slot);
    slot->taken.store(false, std::memory_order_release);
  }

  void before_fork() { start_mutex_.lock(); }
  void after_fork_in_parent() { start_mutex_.unlock(); }

  /// The helpers did not survive the fork: the child starts its own when it needs them.
  void after_fork_in_child() {
    helpers_.store(0);
    started_.store(0);
    sleepers_.store(0);
    spinners_.store(0);
    for (Slot& slot : slots_) {
      slot.state.store(0);
      slot.taken.store(false);
    }
    start_mutex_.unlock();
  }

 private:
  static int initial_threads(int cpus) {
    const char* text = std::getenv("OPSIN_NUM_THREADS");
    if (text != nullptr && *text != '\0') {
      char* end = nullptr;
      errno = 0;
      const long value = std::strtol(text, &end, 10);
      OPSIN_CHECK(ValueError, errno == 0 && *end == '\0' && value >= 1 && value <= kMaxThreads,
                  "OPSIN_NUM_THREADS: expected a whole number from 1 to ", kMaxThreads, ", got \"", text,
                  "\" (unset it to use every CPU that this process may use)");
      return static_cast<int>(value);
    }
    const int quota = quota_cpus();
    return std::min(kMaxThreads, quota == 0 ? cpus : std::min(cpus, quota));
  }

  Slot* take_slot() {
    for (Slot& slot : slots_) {
      if (!slot.taken.load(std::memory_order_relaxed) &&
          !slot.taken.exchange(true, std::memory_order_acquire))
        return &slot;
    }
    return nullptr;
  }

  /// Lets no more helpers in and waits for those that are inside.
  void close(Slot& slot) {
    uint32_t state = slot.state.fetch_and(~(kOpen | kPermitMask), std::memory_order_acq_rel);
    if (state < kHelper) return;
    if (spin(may_spin(), [&] { return slot.state.load(std::memory_order_acquire) < kHelper; })) return;
    state = slot.state.fetch_or(kWaiter, std::memory_order_acq_rel) | kWaiter;
    while (state >= kHelper) {
      futex_wait(slot.state, state);
      state = slot.state.load(std::memory_order_acquire);
    }
  }

  /// Joins any region that wants a helper, until there is none.
  void help(int thread) {
    for (bool found = true; found;) {
      found = false;
      for (Slot& slot : slots_) {
        uint32_t state = slot.state.load(std::memory_order_relaxed);
        while ((state & kOpen) != 0 && (state & kPermitMask) != 0) {
          if (!slot.state.compare_exchange_weak(state, state - kPermit + kHelper, std::memory_order_acquire,
                                                std::memory_order_relaxed))
            continue;
          found = true;
          work(*slot.region, thread);
          state = slot.state.fetch_sub(kHelper, std::memory_order_acq_rel);
          // The slot outlives its regions, so waking after the caller may have left is harmless.
          if ((state & kWaiter) != 0 && state - kHelper < kHelper) futex_wake(slot.state, 1);
          break;
        }
      }
    }
  }

  [[noreturn]] void help_forever() {
    in_region = true;
    const int thread = started_.fetch_add(1, std::memory_order_relaxed) + 1;
    while (true) {
      const uint32_t seen = epoch_.load();
      help(thread);
      spinners_.fetch_add(1, std::memory_order_relaxed);
      const bool changed = spin(may_spin(), [&] { return epoch_.load(std::memory_order_relaxed) != seen; });
      spinners_.fetch_sub(1, std::memory_order_relaxed);
      if (changed) continue;
      sleepers_.fetch_add(1);
      futex_wait(epoch_, seen);
      sleepers_.fetch_sub(1);
    }
  }

  /// With more threads than CPUs a spinning thread would only keep the others from their work.
  bool may_spin() const { return threads() <= cpus_; }

  static void* helper_main(void* pool) { static_cast<Pool*>(pool)->help_forever(); }

  [[gnu::cold, gnu::noinline]] void start_helpers(int wanted) {
    const std::lock_guard lock(start_mutex_);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // Helpers inherit a full mask: signals belong to the threads of the application.
    sigset_t all;
    sigset_t previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    int helpers = helpers_.load(std::memory_order_relaxed);
    for (; helpers < wanted; ++helpers) {
      pthread_t thread;
      // A process at its thread limit works with the helpers it got: the caller alone is enough.
      if (pthread_create(&thread, &attributes, &Pool::helper_main, this) != 0) break;
      pthread_setname_np(thread, "opsin");
    }
    helpers_.store(helpers, std::memory_order_relaxed);
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
    pthread_attr_destroy(&attributes);
  }

  const int cpus_;
  std::atomic<int> threads_;
  std::atomic<int> helpers_{0};
  // Of the helpers, those that run.
  std::atomic<int> started_{0};
  std::mutex start_mutex_;
  // Counts the regions; helpers sleep on it.
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<int> spinners_{0};
  Slot slots_[kSlots];
};

/// Never destroyed: helpers use it until the process is gone.
Pool& pool() {
  static Pool* const instance = [] {
    static Pool* created = new Pool;
    pthread_atfork([] { created->before_fork(); }, [] { created->after_fork_in_parent(); },
                   [] { created->after_fork_in_child(); });
    return created;
  }();
  return *instance;
}

}  // namespace

int num_threads() { return pool().threads(); }

void set_num_threads(int threads) {
  OPSIN_CHECK(ValueError, threads >= 1 && threads <= kMaxThreads, "set_num_threads: expected 1 to ",
              kMaxThreads, " threads, got ", threads);
  pool().set_threads(threads);
}

ThreadBudget::ThreadBudget(int threads) : previous_(budget) {
  OPSIN_CHECK(ValueError, threads >= 1, "ThreadBudget: expected at least 1 thread, got ", threads);
  budget = std::min(budget, threads);
}

ThreadBudget::~ThreadBudget() { budget = previous_; }

namespace detail {

int region_threads() { return in_region ? 1 : std::min(budget, pool().threads()); }

void run_region(int64_t count, int64_t grain, int threads, Body body) {
  Region region(count, grain, body);
  in_region = true;
  pool().run(region, threads);
  in_region = false;
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace detail

}  // namespace opsin::cpu
