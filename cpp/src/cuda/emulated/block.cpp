// Runs the blocks of a launch; see kernel.h.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include <opsin/error.h>

#include "cpu/thread_pool.h"
#include "cuda/emulated/fiber.h"
#include "cuda/emulated/kernel.h"
#include "cuda/emulated/launch_log.h"

namespace opsin::cuda::emulated {
namespace {

constexpr unsigned kLanes = 32;

const char* name_of(WarpFunction function) {
  switch (function) {
    case WarpFunction::kSyncwarp:
      return "__syncwarp";
    case WarpFunction::kShuffle:
      return "__shfl_sync";
    case WarpFunction::kShuffleUp:
      return "__shfl_up_sync";
    case WarpFunction::kShuffleDown:
      return "__shfl_down_sync";
    case WarpFunction::kShuffleXor:
      return "__shfl_xor_sync";
    case WarpFunction::kBallot:
      break;
  }
  return "__ballot_sync";
}

std::string hex(unsigned mask) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "0x00000000";
  for (int i = 0; i < 8; ++i) text[9 - i] = digits[mask >> (4 * i) & 15];
  return text;
}

/// A stack and the thread of the block that is on it.
struct Thread {
  explicit Thread(void (*entry)(), std::size_t number) : fiber(entry, number) {}

  Fiber fiber;
  Thread* next = nullptr;
  uint3 index{};
  unsigned linear = 0;
};

/// Lanes that wait for each other in a warp function.
struct Group {
  unsigned mask;
  unsigned arrived;
  WarpFunction function;
};

struct Warp {
  unsigned alive;
  unsigned groups;
  Group group[kLanes];
  std::uint64_t value[kLanes];
  std::uint64_t result[kLanes];
  std::uint8_t source[kLanes];
};

struct Place {
  uint3 index;
  unsigned linear;
};

// Launches since the program started, and how many of them there were when the order was set.
std::atomic<std::uint64_t> launches{0};
std::atomic<std::uint64_t> launches_before{0};
std::atomic<int> order_in_force{-1};

/// A launch with its place in the sequence of launches and the order of its blocks.
struct Job {
  explicit Job(const Launch& what)
      : launch(what),
        serial(launches.fetch_add(1) + 1),
        seed(static_cast<unsigned>(serial - launches_before.load())),
        order(emulated::order()),
        blocks(static_cast<std::int64_t>(what.grid.x) * what.grid.y * what.grid.z) {
    // A step without a common divisor reaches every block once.
    constexpr unsigned kPrimes[] = {48611, 65521, 32749, 10007, 7919};
    step = 1;
    for (unsigned i = 0; i < std::size(kPrimes); ++i) {
      const unsigned prime = kPrimes[(seed + i) % std::size(kPrimes)];
      if (blocks % prime != 0) step = prime;
    }
  }

  /// The block that comes `i`-th.
  uint3 block(std::int64_t i) const {
    if (order == Order::kReversed) i = blocks - 1 - i;
    if (order == Order::kShuffled) i = (i + seed) % blocks * step % blocks;
    const std::int64_t row = i / launch.grid.x;
    return {static_cast<unsigned>(i % launch.grid.x), static_cast<unsigned>(row % launch.grid.y),
            static_cast<unsigned>(row / launch.grid.y)};
  }

  const Launch& launch;
  std::uint64_t serial;
  unsigned seed;
  Order order;
  std::int64_t blocks;
  std::int64_t step;
};

}  // namespace

constinit thread_local Context context;

/// Runs blocks on one thread of the machine.
class Worker {
 public:
  Worker() = default;
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void prepare(const Job& job);
  void run_block(uint3 block);

  void barrier();
  std::uint64_t exchange(WarpFunction function, unsigned mask, std::uint64_t value, unsigned source);
  std::string place() const;

 private:
  void arrange(const Job& job);
  static void thread_main();
  void run_threads(Thread& self);
  void end(unsigned linear);
  void suspend();
  Thread* take_ready();
  Thread& take_idle();
  void make_ready(unsigned linear);
  void release_barrier();
  void release(Warp& warp, Group& group);
  [[noreturn]] void fail();
  std::string waiting() const;

  std::uint64_t serial_ = 0;
  Launch launch_{};
  Order order_ = Order::kForward;
  dim3 block_{0, 0, 0};
  unsigned count_ = 0;
  std::vector<Place> places_;  // the threads in the order in which they start
  unsigned lanes_[kLanes];     // the lanes in the order in which they go on
  std::vector<Warp> warps_;
  std::vector<Thread*> waiting_;  // by linear index: who waits in a barrier or warp function
  std::unique_ptr<std::byte[]> shared_;
  std::size_t shared_bytes_ = 0;

  // That of the thread of the machine. In a library loaded at run time it takes a call to find it.
  Context& context_ = context;
  unsigned next_ = 0;        // of places_: the first that has not started
  unsigned alive_ = 0;       // threads that have not ended
  unsigned blocked_ = 0;     // threads that wait
  unsigned at_barrier_ = 0;  // those of them that wait for the whole block
  Thread* ready_ = nullptr;  // threads that need wait no longer
  Thread* current_ = nullptr;
  std::exception_ptr error_;

  Fiber main_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Thread*> idle_;
};

void Worker::prepare(const Job& job) {
  if (serial_ == job.serial) return;
  serial_ = job.serial;
  launch_ = job.launch;
  arrange(job);
  // Exactly as large as asked for, so that AddressSanitizer sees what lies beyond.
  if (shared_bytes_ != launch_.shared_bytes) {
    shared_.reset();
    if (launch_.shared_bytes != 0) shared_.reset(new std::byte[launch_.shared_bytes]);
    shared_bytes_ = launch_.shared_bytes;
  }
  context.block_size = block_;
  context.grid_size = launch_.grid;
  context.shared = shared_.get();
  context.worker = this;
}

/// Lists the threads of a block in the order in which they are to run.
void Worker::arrange(const Job& job) {
  const dim3 block = launch_.block;
  if (job.order != Order::kShuffled && job.order == order_ && block.x == block_.x && block.y == block_.y &&
      block.z == block_.z)
    return;
  order_ = job.order;
  block_ = block;
  count_ = block.x * block.y * block.z;
  places_.resize(count_);
  for (unsigned i = 0; i < count_; ++i) {
    const unsigned linear = order_ == Order::kReversed ? count_ - 1 - i : i;
    places_[i] = {{linear % block.x, linear / block.x % block.y, linear / (block.x * block.y)}, linear};
  }
  for (unsigned i = 0; i < kLanes; ++i) lanes_[i] = order_ == Order::kReversed ? kLanes - 1 - i : i;
  if (order_ == Order::kShuffled) {
    std::minstd_rand random(job.seed + 1);
    std::shuffle(places_.begin(), places_.end(), random);
    std::shuffle(std::begin(lanes_), std::end(lanes_), random);
  }
  warps_.resize((count_ + kLanes - 1) / kLanes);
  waiting_.assign(count_, nullptr);
}

void Worker::run_block(uint3 block) {
  context_.block = block;
  if (shared_bytes_ != 0) std::memset(shared_.get(), 0xff, shared_bytes_);
  next_ = 0;
  alive_ = count_;
  for (std::size_t i = 0; i < warps_.size(); ++i) {
    const unsigned lanes = count_ - static_cast<unsigned>(i) * kLanes;
    warps_[i].alive = lanes >= kLanes ? 0xffffffffu : (1u << lanes) - 1;
    warps_[i].groups = 0;
  }
  current_ = &take_idle();
  main_.switch_to(current_->fiber);
  if (alive_ != 0) fail();
}

void Worker::thread_main() {
  Worker& worker = *context.worker;
  for (;;) {
    Thread& self = *worker.current_;
    try {
      worker.run_threads(self);
    } catch (...) {
      worker.error_ = std::current_exception();
    }
    worker.idle_.push_back(&self);
    worker.current_ = worker.error_ ? nullptr : worker.take_ready();
    self.fiber.switch_to(worker.current_ != nullptr ? worker.current_->fiber : worker.main_);
  }
}

/// Starts one thread after another on the same stack, until some that waited can go on.
void Worker::run_threads(Thread& self) {
  while (next_ < count_ && ready_ == nullptr) {
    const Place& place = places_[next_++];
    self.index = context_.thread = place.index;
    self.linear = context_.linear = place.linear;
    launch_.body(launch_.arguments);
    end(self.linear);
  }
}

/// Who has ended is not waited for.
void Worker::end(unsigned linear) {
  Warp& warp = warps_[linear / kLanes];
  warp.alive &= ~(1u << linear % kLanes);
  --alive_;
  if (blocked_ == 0) return;
  for (unsigned i = warp.groups; i-- > 0;) {
    if (warp.group[i].arrived == (warp.group[i].mask & warp.alive)) release(warp, warp.group[i]);
  }
  if (at_barrier_ != 0 && at_barrier_ == alive_) release_barrier();
}

Thread* Worker::take_ready() {
  Thread* thread = ready_;
  if (thread != nullptr) ready_ = thread->next;
  return thread;
}

Thread& Worker::take_idle() {
  if (idle_.empty()) {
    threads_.push_back(std::make_unique<Thread>(&Worker::thread_main, threads_.size()));
    return *threads_.back();
  }
  Thread* thread = idle_.back();
  idle_.pop_back();
  return *thread;
}

/// Puts a thread that waits in front of those that are ready.
void Worker::make_ready(unsigned linear) {
  Thread* thread = waiting_[linear];
  waiting_[linear] = nullptr;
  thread->next = ready_;
  ready_ = thread;
  --blocked_;
}

/// Stops the current thread until somebody makes it ready, and lets the others run.
void Worker::suspend() {
  Thread& self = *current_;
  Thread* next = take_ready();
  if (next == &self) return;
  if (next == nullptr && next_ < count_) next = &take_idle();
  current_ = next;
  self.fiber.switch_to(next != nullptr ? next->fiber : main_);
  context_.thread = self.index;
  context_.linear = self.linear;
}

void Worker::barrier() {
  waiting_[current_->linear] = current_;
  ++blocked_;
  if (++at_barrier_ == alive_) release_barrier();
  suspend();
}

void Worker::release_barrier() {
  for (unsigned i = count_; i-- > 0;) {
    if (waiting_[places_[i].linear] != nullptr) make_ready(places_[i].linear);
  }
  at_barrier_ = 0;
}

std::uint64_t Worker::exchange(WarpFunction function, unsigned mask, std::uint64_t value, unsigned source) {
  const unsigned linear = current_->linear;
  const unsigned lane = linear % kLanes;
  Warp& warp = warps_[linear / kLanes];
  OPSIN_CHECK(Error, (mask >> lane & 1) != 0, place(), "lane ", lane, " calls ", name_of(function),
              " with mask ", hex(mask), ", which leaves it out");
  unsigned i = 0;
  while (i < warp.groups && warp.group[i].mask != mask) ++i;
  Group& group = warp.group[i];
  if (i == warp.groups) {
    ++warp.groups;
    group = {mask, 0, function};
  }
  OPSIN_CHECK(Error, group.function == function, place(), "lane ", lane, " calls ", name_of(function),
              " while others of mask ", hex(mask), " wait in ", name_of(group.function));
  warp.value[lane] = value;
  warp.source[lane] = static_cast<std::uint8_t>(source);
  waiting_[linear] = current_;
  ++blocked_;
  group.arrived |= 1u << lane;
  if (group.arrived == (mask & warp.alive)) release(warp, group);
  suspend();
  return warp.result[lane];
}

/// Gives the lanes of a group their results and lets them go on.
void Worker::release(Warp& warp, Group& group) {
  const unsigned first = static_cast<unsigned>(&warp - warps_.data()) * kLanes;
  const Group done = group;
  group = warp.group[--warp.groups];
  std::uint64_t ballot = 0;
  if (done.function == WarpFunction::kBallot) {
    for (unsigned i = 0; i < kLanes; ++i) {
      if ((done.arrived >> i & 1) != 0 && warp.value[i] != 0) ballot |= 1u << i;
    }
  }
  for (unsigned i = kLanes; i-- > 0;) {
    const unsigned lane = lanes_[i];
    if ((done.arrived >> lane & 1) == 0) continue;
    const unsigned source = warp.source[lane];
    if (done.function == WarpFunction::kBallot) {
      warp.result[lane] = ballot;
    } else {
      warp.result[lane] = (done.arrived >> source & 1) != 0 ? warp.value[source] : ~std::uint64_t{0};
    }
    make_ready(first + lane);
  }
}

std::string Worker::place() const {
  return opsin::detail::concat(launch_.name, ": block [", context_.block.x, ", ", context_.block.y, ", ",
                               context_.block.z, "]: ");
}

/// Who waits where.
std::string Worker::waiting() const {
  std::string text;
  if (at_barrier_ != 0) text = opsin::detail::concat(at_barrier_, " at __syncthreads");
  for (std::size_t i = 0; i < warps_.size(); ++i) {
    for (unsigned k = 0; k < warps_[i].groups; ++k) {
      const Group& group = warps_[i].group[k];
      if (!text.empty()) text += ", ";
      if (text.size() > 400) return text + "...";
      text += opsin::detail::concat(std::popcount(group.arrived), " of warp ", i, " in ",
                                    name_of(group.function), " with mask ", hex(group.mask));
    }
  }
  return text;
}

/// Gives up the threads of the block that have not ended, and raises why.
void Worker::fail() {
  if (!error_) {
    error_ = std::make_exception_ptr(Error(
        opsin::detail::concat(place(), "a barrier that not all threads reach: of ", count_,
                              " threads these wait: ", waiting(), "; ", count_ - alive_, " have ended")));
  }
  idle_.clear();
  for (const std::unique_ptr<Thread>& thread : threads_) {
    thread->fiber.restart();
    idle_.push_back(thread.get());
  }
  std::fill(waiting_.begin(), waiting_.end(), nullptr);
  blocked_ = at_barrier_ = 0;
  ready_ = nullptr;
  std::rethrow_exception(std::exchange(error_, nullptr));
}

Order order_named(std::string_view name) {
  if (name.empty() || name == "forward") return Order::kForward;
  if (name == "reversed") return Order::kReversed;
  OPSIN_CHECK(ValueError, name == "shuffled",
              "OPSIN_CUDA_ORDER: expected forward, reversed or shuffled, got \"", name, "\"");
  return Order::kShuffled;
}

Order order() {
  int order = order_in_force.load(std::memory_order_relaxed);
  if (order < 0) {
    const char* name = std::getenv("OPSIN_CUDA_ORDER");
    const int initial = static_cast<int>(order_named(name == nullptr ? "" : name));
    if (order_in_force.compare_exchange_strong(order, initial)) order = initial;
  }
  return static_cast<Order>(order);
}

void set_order(Order order) {
  order_in_force.store(static_cast<int>(order));
  launches_before.store(launches.load());
}

Recorder*& recorder() {
  static thread_local Recorder* current = nullptr;
  return current;
}

void barrier() { context.worker->barrier(); }

std::uint64_t exchange(WarpFunction function, unsigned mask, std::uint64_t value, unsigned source) {
  return context.worker->exchange(function, mask, value, source);
}

void fail_width(int width) {
  opsin::detail::raise<Error>(context.worker->place(), "a shuffle has width ", width,
                              ", expected a power of two up to 32");
}

void run(const Launch& launch) {
  log_launch(launch.name);
  // Enough threads for one chunk to outweigh what handing it out costs.
  constexpr std::int64_t kThreadsPerChunk = 1024;
  const Job job(launch);
  const std::int64_t threads = static_cast<std::int64_t>(launch.block.x) * launch.block.y * launch.block.z;
  cpu::parallel_for(job.blocks, kThreadsPerChunk / threads, [&](std::int64_t begin, std::int64_t end) {
    static thread_local Worker worker;
    worker.prepare(job);
    for (std::int64_t i = begin; i < end; ++i) worker.run_block(job.block(i));
  });
}

}  // namespace opsin::cuda::emulated
