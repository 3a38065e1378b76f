#include "raises.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include <opsin/opsin.h>

namespace opsin {
namespace {

using Kind = ProfilerEvent::Kind;

std::vector<ProfilerEvent> named(const ProfilerResult& result, std::string_view name) {
  std::vector<ProfilerEvent> found;
  for (const ProfilerEvent& event : result.events) {
    if (event.name == name) found.push_back(event);
  }
  return found;
}

TEST(Profiler, RecordsOpsAndTheirArithmetic) {
  const Tensor x = ones({2, 4, 6}), w = ones({3, 4});
  Profiler profiler({.record_shapes = true, .with_flops = true});
  linear(reshape(x, Dims{12, 4}), w);
  mm(ones({5, 6}), ones({6, 7}));
  bmm(ones({3, 5, 6}), ones({3, 6, 7}));
  conv2d(ones({2, 4, 9, 8}), ones({6, 2, 3, 2}), {}, Dims{2}, Dims{1}, Dims{1}, 2);
  const ProfilerResult result = profiler.stop();
  const auto linears = named(result, "linear"), matmuls = named(result, "matmul"),
             convs = named(result, "conv");
  ASSERT_EQ(linears.size(), 1u);
  EXPECT_EQ(linears[0].flops, 2 * 12 * 4 * 3);
  EXPECT_EQ(linears[0].shapes, (std::vector<Dims>{{12, 4}, {3, 4}, {}}));
  EXPECT_EQ(linears[0].kind, Kind::kOp);
  EXPECT_EQ(linears[0].parent, -1);
  ASSERT_EQ(matmuls.size(), 2u);
  EXPECT_EQ(matmuls[0].flops, 2 * 5 * 6 * 7);
  EXPECT_EQ(matmuls[1].flops, 3 * 2 * 5 * 6 * 7);
  ASSERT_EQ(convs.size(), 1u);
  EXPECT_EQ(convs[0].flops, 2 * (2 * 6 * 5 * 5) * (2 * 3 * 2));
  for (const ProfilerEvent& event : result.events) {
    EXPECT_GE(event.start_ns, 0);
    EXPECT_LE(event.start_ns + event.duration_ns, result.duration_ns);
  }
  EXPECT_TRUE(std::is_sorted(result.events.begin(), result.events.end(),
                             [](const auto& a, const auto& b) { return a.start_ns < b.start_ns; }));
}

TEST(Profiler, NestsBackwardPassesAndScopes) {
  const Tensor w = ones({1, 1, 3, 3}).set_requires_grad();
  const Tensor x = ones({1, 1, 5, 5}).set_requires_grad();
  Profiler profiler;
  {
    const RecordFunction outer("outer");
    const RecordFunction inner(std::string("in") + "ner");
    conv2d(x, w).backward(ones({1, 1, 3, 3}));
  }
  const ProfilerResult result = profiler.stop();
  const auto parent_name = [&](const ProfilerEvent& event) {
    return event.parent < 0 ? "" : result.events[static_cast<size_t>(event.parent)].name;
  };
  const auto inner = named(result, "inner"), node = named(result, "ConvBackward");
  ASSERT_EQ(inner.size(), 1u);
  EXPECT_EQ(inner[0].kind, Kind::kUser);
  EXPECT_EQ(parent_name(inner[0]), "outer");
  EXPECT_EQ(parent_name(named(result, "conv").at(0)), "inner");
  ASSERT_EQ(node.size(), 1u);
  EXPECT_EQ(node[0].kind, Kind::kBackward);
  EXPECT_EQ(parent_name(node[0]), "inner");
  EXPECT_EQ(parent_name(named(result, "conv_backward_input").at(0)), "ConvBackward");
  EXPECT_EQ(parent_name(named(result, "conv_backward_weight").at(0)), "ConvBackward");
  EXPECT_EQ(named(result, "AccumulateGrad").size(), 2u);
}

TEST(Profiler, FollowsMemory) {
  Profiler profiler({.profile_memory = true});
  Tensor kept;
  {
    const RecordFunction scope("allocates");
    kept = empty({1024});
    const Tensor dropped = empty({4096});
  }
  kept = {};
  const ProfilerResult result = profiler.stop();
  EXPECT_EQ(named(result, "allocates").at(0).memory_bytes, 4096);
  ASSERT_EQ(result.memory.size(), 4u);
  EXPECT_EQ(result.memory[0].change_bytes, 4096);
  EXPECT_EQ(result.memory[1].change_bytes, 16384);
  EXPECT_EQ(result.memory[2].change_bytes, -16384);
  EXPECT_EQ(result.memory[3].change_bytes, -4096);
  EXPECT_EQ(result.memory[1].allocated_bytes, result.memory[0].allocated_bytes + 16384);
}

TEST(Profiler, OneAtATime) {
  Profiler profiler;
  EXPECT_RAISES(Profiler(), Error, "profile: another profile is running");
  profiler.stop();
  EXPECT_RAISES(profiler.stop(), Error, "stopped before");
  {
    const Profiler dropped;
  }
  Profiler again;
  EXPECT_TRUE(again.stop().events.empty());
}

TEST(Profiler, LeavesOutWhatItSawOnlyAPartOf) {
  const Tensor x = ones({2});
  auto before = std::make_unique<RecordFunction>("before");
  Profiler profiler;
  relu(x);
  before.reset();
  auto after = std::make_unique<RecordFunction>("after");
  neg(x);
  const ProfilerResult result = profiler.stop();
  Profiler next;
  after.reset();
  EXPECT_TRUE(next.stop().events.empty());
  ASSERT_EQ(result.events.size(), 2u);
  EXPECT_EQ(result.events[0].name, "relu");
  EXPECT_EQ(result.events[1].name, "neg");
  EXPECT_EQ(result.events[1].parent, -1);
}

TEST(Profiler, ExceptionsCloseTheirScopes) {
  Profiler profiler;
  try {
    const RecordFunction scope("fails");
    index_select(ones({2}), 0, full(Dims{1}, Scalar(5), kInt64));
    FAIL();
  } catch (const std::exception&) {
  }
  relu(ones({2}));
  const ProfilerResult result = profiler.stop();
  EXPECT_EQ(named(result, "fails").size(), 1u);
  EXPECT_EQ(named(result, "relu").at(0).parent, -1);
}

TEST(Profiler, SeesAllThreads) {
  Profiler profiler;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      const RecordFunction scope("thread");
      for (int k = 0; k < 100; ++k) relu(ones({2}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ProfilerResult result = profiler.stop();
  EXPECT_EQ(named(result, "thread").size(), 4u);
  const auto relus = named(result, "relu");
  ASSERT_EQ(relus.size(), 400u);
  for (const ProfilerEvent& event : relus) {
    const ProfilerEvent& parent = result.events.at(static_cast<size_t>(event.parent));
    EXPECT_EQ(parent.name, "thread");
    EXPECT_EQ(parent.thread, event.thread);
  }
}

}  // namespace
}  // namespace opsin
