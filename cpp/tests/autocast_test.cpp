#include "raises.h"

#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include <opsin/opsin.h>

namespace opsin {
namespace {

Tensor weight(const Dims& sizes) { return ones(sizes).set_requires_grad(); }

TEST(Autocast, PicksTheDtypeByTheOp) {
  const Tensor x = ones({2, 4}), w = weight({3, 4});
  EXPECT_EQ(linear(x, w).dtype(), kFloat32);
  const AutocastGuard autocast;
  const Tensor y = linear(x, w);
  EXPECT_EQ(y.dtype(), kBFloat16);
  EXPECT_EQ(relu(y).dtype(), kBFloat16);
  EXPECT_EQ(mse_loss(y, zeros({2, 3})).dtype(), kFloat32);
  EXPECT_EQ(conv2d(ones({1, 1, 3, 3}), ones({1, 1, 2, 2})).dtype(), kBFloat16);
  EXPECT_EQ(mm(ones({2, 2}, kFloat64), ones({2, 2}, kFloat64)).dtype(), kFloat64);
  EXPECT_EQ(prod(ones({2}, kInt64)).dtype(), kInt64);
}

TEST(Autocast, GuardsNest) {
  const Tensor x = ones({2, 2});
  {
    const AutocastGuard outer(DeviceType::kCPU, kFloat16);
    EXPECT_EQ(mm(x, x).dtype(), kFloat16);
    {
      const AutocastGuard off(DeviceType::kCPU, {}, false);
      EXPECT_FALSE(Autocast::is_enabled());
      EXPECT_EQ(mm(x, x).dtype(), kFloat32);
    }
    {
      const AutocastGuard inner(DeviceType::kCPU, kBFloat16);
      EXPECT_EQ(mm(x, x).dtype(), kBFloat16);
    }
    EXPECT_EQ(Autocast::dtype(), kFloat16);
    // Another device's region is not this one's business.
    const AutocastGuard other(DeviceType::kCUDA, {}, false);
    EXPECT_EQ(mm(x, x).dtype(), kFloat16);
  }
  EXPECT_FALSE(Autocast::is_enabled());
  EXPECT_EQ(Autocast::dtype(), kBFloat16);
}

TEST(Autocast, AnExceptionLeavesTheStateAsItWas) {
  const Tensor x = ones({2, 2});
  const AutocastGuard autocast;
  EXPECT_THROW(mm(x, ones({3, 3})), ShapeError);
  EXPECT_TRUE(Autocast::is_enabled());
  EXPECT_EQ(mm(x, x).dtype(), kBFloat16);
  EXPECT_RAISES(AutocastGuard(DeviceType::kCPU, kFloat32), ValueError,
                "autocast: expected dtype float16 or bfloat16, got float32");
  EXPECT_RAISES(Autocast::set_dtype(DeviceType::kCPU, kInt64), ValueError, "got int64");
  EXPECT_TRUE(Autocast::is_enabled());
}

TEST(Autocast, IsOfOneThread) {
  const AutocastGuard autocast;
  bool enabled = true;
  std::thread([&] { enabled = Autocast::is_enabled(); }).join();
  EXPECT_FALSE(enabled);
}

TEST(Autocast, CastsEachParameterOnce) {
  const Tensor x = ones({2, 4}), w = weight({3, 4});
  const auto cast_of = [&] { return linear(x, w).grad_fn()->edges[1].node; };
  {
    const AutocastGuard autocast;
    const Ref<Node> first = cast_of();
    EXPECT_EQ(cast_of(), first);
    {
      const AutocastGuard inner;
      EXPECT_EQ(cast_of(), first);
    }
    EXPECT_EQ(cast_of(), first);
    // A changed parameter is cast anew, and so is one whose cast was not recorded.
    {
      const NoGradGuard no_grad;
      w.mutable_data<float>()[0] = 2;
      w.bump_version();
      linear(x, w);
    }
    const Ref<Node> second = cast_of();
    EXPECT_NE(second, first);
    EXPECT_EQ(linear(x, w).data<bfloat16>()[0], bfloat16(5.0f));
    const AutocastGuard uncached(DeviceType::kCPU, {}, true, false);
    EXPECT_NE(cast_of(), second);
  }
}

TEST(Autocast, BackwardRunsAsTheForwardDid) {
  const Tensor x = ones({2, 4}), w = weight({3, 4}), plain = weight({3, 4});
  const AutocastGuard autocast;
  Tensor y;
  {
    const AutocastGuard off(DeviceType::kCPU, {}, false);
    y = linear(ones({1, 4}) * Scalar(1.0 + 1.0 / 1024), plain);
  }
  // Started inside the region: the gradient of a float32 op is not rounded to bfloat16.
  sum(y).backward();
  EXPECT_EQ(plain.grad().dtype(), kFloat32);
  EXPECT_EQ(plain.grad().data<float>()[0], 1.0f + 1.0f / 1024);

  DType seen = kFloat64;
  const Tensor z = linear(x, w);
  register_hook(z, [&](const Tensor& grad) {
    seen = grad.dtype();
    return Tensor();
  });
  sum(z).backward();
  EXPECT_EQ(seen, kBFloat16);
  EXPECT_EQ(w.grad().dtype(), kFloat32);
  EXPECT_TRUE(Autocast::is_enabled());
  // The cast that both passes share has nothing to free.
  sum(linear(x, w)).backward();
  EXPECT_EQ(w.grad().data<float>()[0], 4.0f);
}

}  // namespace
}  // namespace opsin
