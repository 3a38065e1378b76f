#include "cpu/thread_pool.h"

#include "raises.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <opsin/error.h>

#include "cpu/cpu_limits.h"

#if defined(__SANITIZE_THREAD__)
// Threads of a forked child are what some of these tests are about.
extern "C" const char* __tsan_default_options() { return "die_after_fork=0"; }
#endif

namespace opsin::cpu {
namespace {

/// Sets the number of threads for a test and restores it.
class Threads {
 public:
  explicit Threads(int threads) : previous_(num_threads()) { set_num_threads(threads); }
  ~Threads() { set_num_threads(previous_); }

 private:
  int previous_;
};

using Chunks = std::set<std::pair<int64_t, int64_t>>;

Chunks chunks_of(int64_t count, int64_t grain) {
  std::mutex mutex;
  Chunks chunks;
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    EXPECT_TRUE(chunks.emplace(begin, end).second);
  });
  return chunks;
}

/// Runs `body` in a forked child and returns its exit status; a child that hangs is killed by its alarm.
template <class Body>
int exit_status_of_child(Body&& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST(ThreadPool, ChunksDependOnCountAndGrainOnly) {
  const Chunks expected = {{0, 10}, {10, 20}, {20, 27}};
  for (int threads : {1, 2, 3, 7}) {
    const Threads scope(threads);
    EXPECT_EQ(chunks_of(27, 10), expected);
    EXPECT_EQ(chunks_of(10, 10), (Chunks{{0, 10}}));
    EXPECT_EQ(chunks_of(3, 0), (Chunks{{0, 1}, {1, 2}, {2, 3}}));
    EXPECT_EQ(chunks_of(3, -5), (Chunks{{0, 1}, {1, 2}, {2, 3}}));
    EXPECT_EQ(chunks_of(0, 4), Chunks{});
    EXPECT_EQ(chunks_of(-3, 4), Chunks{});
  }
}

TEST(ThreadPool, BoundariesDoNotOverflow) {
  const Threads scope(2);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(chunks_of(kMost, kMost - 1), (Chunks{{0, kMost - 1}, {kMost - 1, kMost}}));
}

TEST(ThreadPool, EveryIndexOnce) {
  const Threads scope(4);
  std::vector<std::atomic<int>> seen(10007);
  for (int round = 0; round < 20; ++round) {
    parallel_for(10007, 13, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)]++;
    });
  }
  for (const auto& count : seen) ASSERT_EQ(count, 20);
}

TEST(ThreadPool, HelpersTakePart) {
  const Threads scope(3);
  std::atomic<int> inside{0};
  // Each chunk waits for the others, so this ends only if three threads are inside at once.
  parallel_for(3, 1, [&](int64_t, int64_t) {
    ++inside;
    while (inside < 3) std::this_thread::yield();
  });
  EXPECT_EQ(inside, 3);
}

TEST(ThreadPool, SleepingHelpersWake) {
  const Threads scope(2);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    std::atomic<int> inside{0};
    parallel_for(2, 1, [&](int64_t, int64_t) {
      ++inside;
      while (inside < 2) std::this_thread::yield();
    });
  }
}

TEST(ThreadPool, NestedRegionsRunInlineWithTheSameChunks) {
  const Threads scope(4);
  std::atomic<int> wrong{0};
  parallel_for(8, 1, [&](int64_t, int64_t) {
    const auto self = std::this_thread::get_id();
    int64_t next = 0;
    parallel_for(100, 7, [&](int64_t begin, int64_t end) {
      if (std::this_thread::get_id() != self || begin != next || end != std::min<int64_t>(begin + 7, 100))
        ++wrong;
      next = end;
    });
    if (next != 100) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, TheExceptionOfTheLowestChunkIsRethrown) {
  for (int threads : {1, 2, 4}) {
    const Threads scope(threads);
    for (int round = 0; round < 50; ++round) {
      EXPECT_RAISES(parallel_for(64, 1,
                                 [](int64_t begin, int64_t) {
                                   if (begin >= 5) throw std::runtime_error("chunk " + std::to_string(begin));
                                 }),
                    std::runtime_error, "chunk 5");
    }
    EXPECT_EQ(chunks_of(20, 10).size(), 2u);
  }
}

TEST(ThreadPool, ALateExceptionOfALowerChunkIsTheOne) {
  const Threads scope(2);
  std::atomic<bool> thrown{false};
  EXPECT_RAISES(parallel_for(64, 1,
                             [&](int64_t begin, int64_t) {
                               if (begin == 32) {
                                 thrown = true;
                                 throw std::runtime_error("chunk 32");
                               }
                               if (begin == 3) {
                                 while (!thrown) std::this_thread::yield();
                                 throw std::runtime_error("chunk 3");
                               }
                             }),
                std::runtime_error, "chunk 3");
}

TEST(ThreadPool, AThreadHasTheSameShareOfEveryRegion) {
  const Threads scope(3);
  // A child has no more helpers than it needs.
  const int status = exit_status_of_child([] {
    std::map<std::thread::id, std::set<int64_t>> thirds;
    for (int round = 0; round < 50; ++round) {
      // The first chunks wait for each other, so nobody is done early and helps.
      const int64_t each = 5 + round;
      std::atomic<int> inside{0};
      std::mutex mutex;
      parallel_for(3 * each, 1, [&](int64_t begin, int64_t) {
        if (begin % each != 0) return;
        ++inside;
        while (inside < 3) std::this_thread::yield();
        const std::lock_guard lock(mutex);
        thirds[std::this_thread::get_id()].insert(begin / each);
      });
    }
    if (thirds.size() != 3 || thirds[std::this_thread::get_id()] != std::set<int64_t>{0}) return 1;
    for (const auto& [thread, parts] : thirds) {
      if (parts.size() != 1) return 2;
    }
    return 0;
  });
  EXPECT_EQ(status, 0);
}

TEST(ThreadPool, AnExceptionSkipsWhatHasNotBegun) {
  const Threads scope(2);
  std::atomic<int> ran{0};
  EXPECT_THROW(parallel_for(1'000'000'000, 1,
                            [&](int64_t, int64_t) {
                              ++ran;
                              throw ValueError("stop");
                            }),
               ValueError);
  // The first of each share, and one that was begun before the lowest had thrown.
  EXPECT_LE(ran, 3);
}

TEST(ThreadPool, ManyCallersAtOnce) {
  const Threads scope(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  // More callers than the pool has places for regions.
  for (int caller = 0; caller < 24; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        parallel_for(16, 1, [&](int64_t begin, int64_t) { sum += begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 24 * 200 * 120);
}

TEST(ThreadPool, ABlockedRegionDoesNotStopOthers) {
  const Threads scope(2);
  std::atomic<bool> release{false};
  std::atomic<int> blocked{0};
  std::thread other([&] {
    parallel_for(2, 1, [&](int64_t, int64_t) {
      ++blocked;
      while (!release) std::this_thread::yield();
    });
  });
  while (blocked < 2) std::this_thread::yield();
  EXPECT_EQ(chunks_of(100, 1).size(), 100u);
  release = true;
  other.join();
}

TEST(ThreadPool, BudgetCapsTheRegionsOfItsThread) {
  const Threads scope(4);
  EXPECT_EQ(detail::region_threads(), 4);
  {
    const ThreadBudget two(2);
    EXPECT_EQ(detail::region_threads(), 2);
    {
      const ThreadBudget wider(3);
      EXPECT_EQ(detail::region_threads(), 2);
      const ThreadBudget one(1);
      EXPECT_EQ(detail::region_threads(), 1);
      const auto self = std::this_thread::get_id();
      parallel_for(50, 1, [&](int64_t, int64_t) { EXPECT_EQ(std::this_thread::get_id(), self); });
    }
    std::thread([] { EXPECT_EQ(detail::region_threads(), 4); }).join();
  }
  EXPECT_EQ(detail::region_threads(), 4);
  EXPECT_EQ(num_threads(), 4);
}

TEST(ThreadPool, BadCountsRaise) {
  EXPECT_RAISES(set_num_threads(0), ValueError, "set_num_threads: expected 1 to 1024 threads, got 0");
  EXPECT_RAISES(set_num_threads(5000), ValueError, "got 5000");
  EXPECT_RAISES(ThreadBudget(-1), ValueError, "ThreadBudget: expected at least 1 thread, got -1");
}

TEST(ThreadPool, AForkedChildGetsItsOwnHelpers) {
  const Threads scope(3);
  chunks_of(100, 1);
  const int status = exit_status_of_child([] {
    std::atomic<int> inside{0};
    parallel_for(3, 1, [&](int64_t, int64_t) {
      ++inside;
      while (inside < 3) std::this_thread::yield();
    });
    return inside == 3 && num_threads() == 3 ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
  EXPECT_EQ(chunks_of(100, 1).size(), 100u);
}

TEST(ThreadPool, AForkBesideBusyRegionsIsSafe) {
  const Threads scope(3);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) parallel_for(64, 1, [](int64_t, int64_t) {});
  });
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(exit_status_of_child([] { return chunks_of(100, 1).size() == 100 ? 0 : 1; }), 0);
  }
  stop = true;
  busy.join();
}

/// Runs this test program anew for one test, with a variable of the environment set, so that the pool starts
/// fresh.
int rerun(const std::string& test, const std::string& variable, const std::string& value) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = variable + "='" + value + "' OPSIN_TEST_RERUN=1 '" + program +
                              "' --gtest_filter=" + test + " > /dev/null 2>&1";
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

TEST(ThreadPoolEnvironment, GoodValue) {
  if (std::getenv("OPSIN_TEST_RERUN") == nullptr) {
    EXPECT_EQ(rerun("ThreadPoolEnvironment.GoodValue", "OPSIN_NUM_THREADS", "5"), 0);
    return;
  }
  EXPECT_EQ(num_threads(), 5);
  EXPECT_EQ(chunks_of(100, 1).size(), 100u);
}

TEST(ThreadPoolEnvironment, BadValue) {
  if (std::getenv("OPSIN_TEST_RERUN") == nullptr) {
    for (const char* value : {"0", "-2", "two", "3x", "1025", "99999999999999999999", "2.5", " "})
      EXPECT_EQ(rerun("ThreadPoolEnvironment.BadValue", "OPSIN_NUM_THREADS", value), 0) << value;
    return;
  }
  // Not only the first use complains.
  for (int round = 0; round < 2; ++round) {
    EXPECT_RAISES(num_threads(), ValueError, "OPSIN_NUM_THREADS: expected a whole number from 1 to 1024");
    EXPECT_THROW(parallel_for(100, 1, [](int64_t, int64_t) {}), ValueError);
  }
}

TEST(ThreadPoolEnvironment, AffinityLimitsTheThreads) {
  if (std::getenv("OPSIN_TEST_RERUN") == nullptr) {
    EXPECT_EQ(rerun("ThreadPoolEnvironment.AffinityLimitsTheThreads", "OPSIN_NUM_THREADS", ""), 0);
    return;
  }
  cpu_set_t all;
  sched_getaffinity(0, sizeof all, &all);
  int first = 0;
  while (!CPU_ISSET(first, &all)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  sched_setaffinity(0, sizeof one, &one);
  EXPECT_EQ(num_threads(), 1);
}

TEST(ThreadPoolEnvironment, ExitWhileHelpersRunIsClean) {
  if (std::getenv("OPSIN_TEST_RERUN") == nullptr) {
    for (int round = 0; round < 3; ++round)
      EXPECT_EQ(rerun("ThreadPoolEnvironment.ExitWhileHelpersRunIsClean", "OPSIN_NUM_THREADS", "4"), 0);
    return;
  }
  std::atomic<int> ran{0};
  parallel_for(64, 1, [&](int64_t, int64_t) { ++ran; });
  std::exit(ran == 64 ? 0 : 1);
}

/// A folder with the files of a container.
class CpuLimits : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "opsin_limits_XXXXXX").string();
    root_ = mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::string root_;
};

TEST_F(CpuLimits, NothingThere) {
  EXPECT_EQ(quota_cpus(root_), 0);
  EXPECT_EQ(cgroup_memory_limit(root_), 0u);
  EXPECT_GE(affinity_cpus(), 1);
  EXPECT_GT(usable_memory(), size_t{1} << 20);
}

TEST_F(CpuLimits, Version2TakesTheTightestAncestor) {
  write("/proc/self/cgroup", "0::/kube/pod/box\n");
  write("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
  write("/sys/fs/cgroup/kube/pod/box/cpu.max", "max 100000\n");
  write("/sys/fs/cgroup/kube/pod/cpu.max", "250000 100000\n");
  write("/sys/fs/cgroup/kube/cpu.max", "800000 100000\n");
  write("/sys/fs/cgroup/kube/memory.max", "1073741824\n");
  write("/sys/fs/cgroup/kube/pod/box/memory.max", "max\n");
  EXPECT_EQ(quota_cpus(root_), 3);
  EXPECT_EQ(cgroup_memory_limit(root_), size_t{1} << 30);
}

TEST_F(CpuLimits, Version2Unlimited) {
  write("/proc/self/cgroup", "0::/\n");
  write("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(quota_cpus(root_), 0);
}

TEST_F(CpuLimits, Version1InAContainerThatSeesTheHostsPath) {
  write("/proc/self/cgroup", "5:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n");
  write("/proc/self/mountinfo",
        "30 23 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:11 - cgroup cgroup rw,cpu,cpuacct\n"
        "31 23 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "nonsense\n");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
  EXPECT_EQ(quota_cpus(root_), 1);
  EXPECT_EQ(cgroup_memory_limit(root_), size_t{512} << 20);
  write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(quota_cpus(root_), 0);
  EXPECT_EQ(cgroup_memory_limit(root_), 0u);
}

}  // namespace
}  // namespace opsin::cpu
