// A fixture for tests of kernels: a test that is one runs in each order of threads and blocks.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "cuda/launch.h"

namespace opsin::cuda {

class InOrders : public testing::TestWithParam<emulated::Order> {
 protected:
  void SetUp() override { emulated::set_order(GetParam()); }
  void TearDown() override { emulated::set_order(previous_); }

 private:
  emulated::Order previous_ = emulated::order();
};

inline std::string order_name(const testing::TestParamInfo<emulated::Order>& order) {
  if (order.param == emulated::Order::kForward) return "Forward";
  return order.param == emulated::Order::kReversed ? "Reversed" : "Shuffled";
}

}  // namespace opsin::cuda

/// Makes the fixture `name`, for TEST_P.
#define OPSIN_IN_ALL_ORDERS(name)                                                                          \
  class name : public ::opsin::cuda::InOrders {};                                                          \
  INSTANTIATE_TEST_SUITE_P(                                                                                \
      All, name,                                                                                           \
      testing::Values(::opsin::cuda::emulated::Order::kForward, ::opsin::cuda::emulated::Order::kReversed, \
                      ::opsin::cuda::emulated::Order::kShuffled),                                          \
      ::opsin::cuda::order_name)
