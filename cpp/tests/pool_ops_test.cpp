// What only C++ sees of pooling and shuffles: overloads by name, adaptive maxima, the layout of results.
#include "raises.h"

#include <gtest/gtest.h>

#include <opsin/opsin.h>

namespace opsin {
namespace {

Tensor ramp(const Dims& sizes) { return reshape(arange(0, count_elements(sizes), 1, kFloat32), sizes); }

std::vector<float> values(const Tensor& x) {
  const Tensor flat = contiguous(x);
  return {flat.data<float>(), flat.data<float>() + flat.numel()};
}

TEST(PoolOps, PadPerSideAndByName) {
  const Tensor x = ramp({1, 1, 4});
  EXPECT_EQ(values(max_pool1d(x, Dims{3}, Dims{1}, Dims{2, 0})), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(values(max_pool1d(x, Dims{3}, Dims{1}, "causal")), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(values(max_pool1d(x, Dims{3}, Dims{2}, "same_lower")), (std::vector<float>{1, 3}));
  EXPECT_EQ(values(avg_pool1d(x, Dims{3}, Dims{2}, "same_upper", false, false)),
            (std::vector<float>{1, 2.5}));
  EXPECT_EQ(values(lp_pool1d(x, 1, Dims{2}, Dims{1}, false, "causal")), (std::vector<float>{0, 1, 3, 5}));
  const auto [y, at] = max_pool(ramp({1, 1, 5, 6}), 2, Dims{3}, Dims{2}, "causal");
  EXPECT_EQ(at.data<int64_t>()[0], 2);
  EXPECT_EQ(max_unpool2d(y, at, Dims{3}, Dims{2}, "causal").sizes(), (Dims{1, 1, 6, 6}));
}

TEST(PoolOps, AdaptiveMaximaHavePositions) {
  const Tensor x = ramp({1, 2, 4, 4});
  const auto [y, at] = adaptive_max_pool(x, 2, Dims{2, 1});
  EXPECT_EQ(values(y), (std::vector<float>{7, 15, 23, 31}));
  EXPECT_EQ(at.data<int64_t>()[3], 15);
  EXPECT_EQ(values(adaptive_max_pool2d(x, Dims{1})), (std::vector<float>{15, 31}));
  EXPECT_EQ(values(adaptive_max_pool1d(ramp({1, 1, 4}), Dims{2})), (std::vector<float>{1, 3}));
  EXPECT_EQ(values(adaptive_max_pool3d(ramp({1, 1, 2, 2, 2}), Dims{1})), (std::vector<float>{7}));
  EXPECT_RAISES(adaptive_max_pool(x, 4, Dims{1}), ValueError, "1 to 3 spatial axes, got 4");
}

TEST(PoolOps, ShufflesKeepTheChannelsLast) {
  const Tensor hidden = max_pool2d(ramp({2, 8, 4, 6}), Dims{1});
  ASSERT_TRUE(hidden.impl()->is_hidden());
  EXPECT_TRUE(pixel_shuffle(hidden, 2).impl()->is_hidden());
  EXPECT_TRUE(pixel_unshuffle(hidden, 2).impl()->is_hidden());
  EXPECT_TRUE(channel_shuffle(hidden, 2).impl()->is_hidden());
}

}  // namespace
}  // namespace opsin
