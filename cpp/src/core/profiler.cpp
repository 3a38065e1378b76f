#include "core/profiler.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>

#include <pthread.h>

#include <opsin/error.h>

namespace opsin {

namespace profiler {

constinit std::atomic<uint8_t> flags{0};

namespace {

struct RawEvent {
  const char* name;
  ProfilerEvent::Kind kind;
  int thread;
  int depth;
  int64_t start_ns, end_ns, flops, memory_bytes;
  std::vector<Dims> shapes;
};

/// What all threads write to. Ops are long beside the lock, so one for all is enough.
struct Recorder {
  std::mutex mutex;
  std::atomic<uint64_t> session{0};
  int64_t start_ns = 0;
  std::vector<RawEvent> events;
  std::vector<MemorySample> memory;
  std::set<std::string, std::less<>> names;
};

Recorder& recorder() {
  static Recorder* const instance = [] {
    static Recorder* created = new Recorder;
    // A child process goes on without the profile.
    pthread_atfork([] { created->mutex.lock(); }, [] { created->mutex.unlock(); },
                   [] {
                     flags.store(0, std::memory_order_relaxed);
                     created->mutex.unlock();
                   });
    return created;
  }();
  return *instance;
}

/// Plain numbers, so that they outlive every destructor of the thread: memory is freed even after those.
constinit thread_local int own_thread = -1;
constinit thread_local int own_depth = 0;
constinit thread_local int64_t own_bytes = 0;

int thread_number() {
  static std::atomic<int> next{0};
  if (own_thread < 0) own_thread = next.fetch_add(1, std::memory_order_relaxed);
  return own_thread;
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

const char* intern(std::string_view name) {
  Recorder& shared = recorder();
  const std::lock_guard lock(shared.mutex);
  return shared.names.emplace(name).first->c_str();
}

std::vector<ProfilerEvent> with_parents(std::vector<RawEvent> raw) {
  std::stable_sort(raw.begin(), raw.end(), [](const RawEvent& a, const RawEvent& b) {
    return a.start_ns != b.start_ns ? a.start_ns < b.start_ns : a.depth < b.depth;
  });
  std::vector<ProfilerEvent> events;
  events.reserve(raw.size());
  std::vector<std::vector<int64_t>> open;  // By thread.
  for (RawEvent& event : raw) {
    const auto thread = static_cast<size_t>(event.thread);
    if (open.size() <= thread) open.resize(thread + 1);
    std::vector<int64_t>& stack = open[thread];
    const auto is_over = [&](const RawEvent& outer) {
      return outer.depth >= event.depth || outer.end_ns < event.end_ns;
    };
    while (!stack.empty() && is_over(raw[static_cast<size_t>(stack.back())])) stack.pop_back();
    const int64_t parent = stack.empty() ? -1 : stack.back();
    stack.push_back(static_cast<int64_t>(events.size()));
    const bool is_node = event.kind == ProfilerEvent::Kind::kBackward;
    events.push_back({is_node ? node_name(event.name) : event.name, event.kind, event.thread, event.start_ns,
                      event.end_ns - event.start_ns, parent, event.flops, event.memory_bytes,
                      std::move(event.shapes)});
  }
  return events;
}

}  // namespace

void Scope::start(const char* name, ProfilerEvent::Kind kind) {
  kind_ = kind;
  thread_ = thread_number();
  depth_ = own_depth++;
  session_ = recorder().session.load(std::memory_order_acquire);
  start_bytes_ = own_bytes;
  flops_ = 0;
  shapes_ = nullptr;
  name_ = name;
  start_ns_ = now_ns();
}

void Scope::add_shapes(std::span<const Tensor> tensors) {
  if (!shapes_) shapes_ = new std::vector<Dims>;
  for (const Tensor& tensor : tensors) shapes_->push_back(tensor.defined() ? tensor.sizes() : Dims());
}

void Scope::finish() noexcept {
  const int64_t end_ns = now_ns();
  const std::unique_ptr<std::vector<Dims>> shapes(shapes_);
  // A scope of Python may be closed by another thread, where its times mean nothing.
  if (thread_ != own_thread) return;
  own_depth = depth_;
  Recorder& shared = recorder();
  const std::lock_guard lock(shared.mutex);
  if (!wants(kOn) || session_ != shared.session.load(std::memory_order_relaxed)) return;
  try {
    shared.events.push_back({name_, kind_, thread_, depth_, start_ns_ - shared.start_ns,
                             end_ns - shared.start_ns, flops_, own_bytes - start_bytes_,
                             shapes ? std::move(*shapes) : std::vector<Dims>()});
  } catch (const std::bad_alloc&) {
    // An event less is better than the end of the program.
  }
}

void record_memory(int64_t change_bytes, int64_t allocated_bytes) noexcept {
  own_bytes += change_bytes;
  const int64_t time = now_ns();
  Recorder& shared = recorder();
  const std::lock_guard lock(shared.mutex);
  if (!wants(kMemory)) return;
  try {
    shared.memory.push_back({time - shared.start_ns, thread_number(), change_bytes, allocated_bytes});
  } catch (const std::bad_alloc&) {
    // As for events.
  }
}

std::string node_name(std::string_view op) {
  std::string name;
  bool upper = true;
  for (const char c : op) {
    if (c != '_') name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = c == '_';
  }
  return op == "accumulate_grad" ? name : name + "Backward";
}

}  // namespace profiler

using namespace profiler;

Profiler::Profiler(const ProfilerOptions& options) {
  Recorder& shared = recorder();
  const std::lock_guard lock(shared.mutex);
  OPSIN_CHECK(Error, !wants(kOn),
              "profile: another profile is running (one may run at a time: stop it first)");
  shared.events.clear();
  shared.memory.clear();
  shared.names.clear();
  shared.session.fetch_add(1, std::memory_order_release);
  shared.start_ns = now_ns();
  flags.store(static_cast<uint8_t>(kOn | (options.record_shapes ? kShapes : 0) |
                                   (options.profile_memory ? kMemory : 0) |
                                   (options.with_flops ? kFlops : 0)));
}

Profiler::~Profiler() {
  if (running_) flags.store(0);
}

ProfilerResult Profiler::stop() {
  OPSIN_CHECK(Error, running_, "profile: stop() of a profile that was stopped before");
  Recorder& shared = recorder();
  ProfilerResult result;
  std::vector<RawEvent> raw;
  const std::lock_guard lock(shared.mutex);
  flags.store(0);
  running_ = false;
  result.duration_ns = now_ns() - shared.start_ns;
  raw.swap(shared.events);
  result.memory.swap(shared.memory);
  std::stable_sort(result.memory.begin(), result.memory.end(),
                   [](const MemorySample& a, const MemorySample& b) { return a.time_ns < b.time_ns; });
  result.events = with_parents(std::move(raw));
  return result;
}

RecordFunction::RecordFunction(std::string_view name) {
  if (!wants(kOn)) return;
  scope_ = std::make_unique<Scope>();
  scope_->start(intern(name), ProfilerEvent::Kind::kUser);
}

RecordFunction::~RecordFunction() = default;

}  // namespace opsin
