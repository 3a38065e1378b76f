#include "cuda/graph.h"

#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include <opsin/error.h>
#include <opsin/random.h>

#include "cuda/api.h"
#include "cuda/backend.h"
#include "cuda/device_report.h"
#include "cuda/pinned.h"
#include "cuda/stream.h"

namespace opsin::cuda {

namespace {

/// What a graph draws from one generator in each replay.
struct Draws {
  Generator generator;
  uint64_t seed;       // as it was at the capture
  uint64_t count = 0;  // offsets of one replay
  /// In the device's memory: what to add to each offset, and what to flip in the seed. See PhiloxSeed.
  uint64_t* words;
};

class CudaGraph;

constinit thread_local CudaGraph* capturing = nullptr;

class CudaGraph final : public BackendGraph {
 public:
  ~CudaGraph() override { reset(); }

  void capture_begin(int device, MemoryPool pool, CaptureMode mode) override {
    OPSIN_CHECK(Error, !capturing, "capture_begin: this thread captures another graph already");
    stream_ = stream_of(device);
    OPSIN_CHECK(
        Error, stream_,
        "capture_begin: the default stream cannot be captured (use opsin.cuda.graph, or capture under "
        "another stream)");
    api::set_device(device);
    allocator(device).hold_pool(pool);
    device_ = device;
    pool_ = pool;
    allocator(device).open_pool(pool);
    try {
      api::begin_capture(stream_, mode);
    } catch (...) {
      allocator(device_).close_pool();
      throw;
    }
    capturing = this;
  }

  void capture_end() override {
    OPSIN_CHECK(Error, capturing == this, "capture_end: this thread does not capture this graph");
    capturing = nullptr;
    allocator(device_).close_pool();
    api::set_device(device_);
    graph_ = api::end_capture(stream_);
  }

  void replay() override {
    OPSIN_CHECK(Error, graph_, "replay: the capture has not ended");
    check_not_capturing("replay");
    api::set_device(device_);
    if (has_device_error(device_)) raise_device_error(device_);
    const api::Stream stream = stream_of(device_);
    for (const Draws& draws : draws_) {
      Generator generator = draws.generator;
      const RandomState now = generator.reserve(draws.count);
      const uint64_t words[2] = {now.offset, now.seed ^ draws.seed};
      // Few bytes: they travel with the command, so that they may go out of scope here.
      api::copy(draws.words, words, sizeof words, api::Copy::kToDevice, stream);
    }
    api::launch_graph(graph_, stream);
  }

  void reset() noexcept override {
    if (device_ < 0) return;
    if (capturing == this) {
      capturing = nullptr;
      allocator(device_).close_pool();
      api::abort_capture(stream_);
    }
    if (graph_) api::destroy_graph(std::exchange(graph_, nullptr));
    // Waits for replays that still run, unless others hold the pool.
    allocator(device_).drop_pool(pool_);
    for (void* data : kept_) deallocate_pinned(data);
    kept_.clear();
    for (const Draws& draws : draws_) allocator(device_).deallocate(draws.words, stream_);
    draws_.clear();
    device_ = -1;
  }

  PhiloxSeed draw(Generator& generator, uint64_t count) {
    Draws* draws = nullptr;
    for (Draws& known : draws_) {
      if (known.generator.is_same(generator)) draws = &known;
    }
    if (!draws) {
      void* const words = allocator(device_).allocate(2 * sizeof(uint64_t), stream_);
      draws = &draws_.emplace_back(generator, generator.initial_seed(), 0, static_cast<uint64_t*>(words));
    }
    const uint64_t offset = draws->count;
    draws->count += count;
    return {draws->seed, offset, draws->words};
  }

  const void* keep(const void* data, size_t bytes) {
    void* const copy = allocate_pinned(bytes);
    kept_.push_back(copy);
    return std::memcpy(copy, data, bytes);
  }

 private:
  int device_ = -1;
  MemoryPool pool_ = 0;
  api::Stream stream_ = nullptr;
  api::GraphExec graph_ = nullptr;
  std::deque<Draws> draws_;
  std::vector<void*> kept_;
};

}  // namespace

std::unique_ptr<BackendGraph> new_graph() { return std::make_unique<CudaGraph>(); }

bool is_capturing_here() { return capturing != nullptr; }

PhiloxSeed capture_random(Generator& generator, uint64_t count) { return capturing->draw(generator, count); }

void check_not_capturing(const char* op) {
  OPSIN_CHECK(Error, !capturing, op,
              ": cannot be captured in a graph, because the CPU would have to wait for the device (keep "
              "values on the device, or take this out of the capture)");
}

const void* keep_for_replays(const void* data, size_t bytes) { return capturing->keep(data, bytes); }

}  // namespace opsin::cuda
