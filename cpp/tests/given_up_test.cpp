// Activations that are given up between forward and backward: their memory, and graphs that die in any order,
// which the sanitizers watch.
#include <gtest/gtest.h>

#include <opsin/opsin.h>

#include "cpu/allocator.h"

namespace opsin {
namespace {

/// Convolution, batch norm and ReLU, so many times.
Tensor chain(Tensor x, const TensorList& weights) {
  for (const Tensor& weight : weights) {
    x = relu(batch_norm(conv2d(x, weight, {}, {}, Dims{1, 1}), {}, {}, {}, {}, true));
  }
  return x;
}

TensorList make_weights(int64_t channels, size_t count) {
  TensorList weights;
  for (size_t i = 0; i < count; ++i) {
    weights.push_back(randn({channels, channels, 3, 3}));
    weights.back().set_requires_grad();
  }
  return weights;
}

TEST(GivenUp, ActivationsCostOneTensor) {
  const TensorList weights = make_weights(8, 5);
  const Tensor x = randn({2, 8, 32, 32});
  const auto one = static_cast<size_t>(x.numel()) * sizeof(float);
  (void)sum(chain(x, weights));
  const size_t before = cpu::memory_stats().allocated;
  Tensor loss = sum(chain(x, weights));
  const size_t grown = cpu::memory_stats().allocated - before;
  EXPECT_GE(grown, 5 * one);
  EXPECT_LT(grown, 5 * one + one / 2);
  (void)grad(std::array{loss}, weights);
  loss = {};
  EXPECT_LT(cpu::memory_stats().allocated, before + one / 2);
}

TEST(GivenUp, GraphsDieInAnyOrder) {
  const TensorList weights = make_weights(4, 3);
  const Tensor x = randn({1, 4, 9, 9});
  TensorList losses;
  for (size_t step = 0; step < 40; ++step) {
    losses.push_back(sum(chain(x, weights)));
    if (losses.size() < 5) continue;
    const auto chosen = losses.begin() + static_cast<std::ptrdiff_t>(step * 7 % losses.size());
    if (step % 3 != 0) {
      const TensorList grads = grad(std::array{*chosen}, weights, {}, step % 4 == 1);
      for (const Tensor& g : grads) EXPECT_TRUE(all(isfinite(g)).item<bool>());
    }
    losses.erase(chosen);
  }
}

TEST(GivenUp, AnErrorInBackwardLeavesNoHalfGraph) {
  const TensorList weights = make_weights(4, 2);
  const Tensor loss = sum(chain(randn({1, 4, 9, 9}), weights));
  (void)grad(std::array{loss}, std::array{weights[1]});
  EXPECT_THROW((void)grad(std::array{loss}, weights), Error);
}

}  // namespace
}  // namespace opsin
