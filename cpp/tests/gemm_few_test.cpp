// Products of few steps and of few rows.
#include "gemm_model.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "cpu/allocator.h"

namespace {

using namespace gemm_model;

template <class S>
using GemmFew = Gemm<S>;
TYPED_TEST_SUITE(GemmFew, Types);

// Few steps of k, as in weight gradients of small batches: the rows and columns of the last tile, single
// steps of pairs.
TYPED_TEST(GemmFew, StepsOfLargeResults) {
  for (const int64_t k : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33})
    check<TypeParam>({131 + k % 8, 256 + k, k, 1, Order::columns, Order::rows, false, false});
  for (const Order a : {Order::rows, Order::spread})
    for (const Order b : {Order::rows, Order::columns, Order::spread})
      check<TypeParam>({300, 1100, 7, 1, a, b, false, false});
  for (const bool bias : {false, true})
    check<TypeParam>({300, 512, 8, 1, Order::columns, Order::rows, bias, !bias});
  check<TypeParam>({64, 1100, 4, 3, Order::columns, Order::rows, false, false});
}

// A C that no cache holds, whose rows begin with lines and end within one, is that of a few rows at a time.
TYPED_TEST(GemmFew, StepsPastTheCaches) {
  const int64_t m = 1030, n = 8197, k = 3, row = n + 59, part = 103;
  const Operands<TypeParam> o = make<TypeParam>({m, n, k, 1, Order::columns, Order::rows});
  const auto bytes = static_cast<size_t>(m * row) * sizeof(TypeParam);
  for (const Level& level : levels<TypeParam>()) {
    auto* const c = static_cast<TypeParam*>(opsin::cpu::allocate(bytes));
    std::memset(static_cast<void*>(c), 0x7f, bytes);
    GemmParams p = o.params;
    p.c = c;
    p.c_row = row;
    opsin::cpu::run_gemm(*level.kernels, p);
    std::vector<TypeParam> some(static_cast<size_t>(part * row));
    std::memset(static_cast<void*>(some.data()), 0x7f, bytes * part / m);
    p.c = some.data();
    p.m = part;
    for (int64_t first = 0; first < m; first += part) {
      p.a = o.a.data() + first * p.a_row;
      opsin::cpu::run_gemm(*level.kernels, p);
      EXPECT_EQ(std::memcmp(some.data(), c + first * row, bytes * part / m), 0) << level.name << " " << first;
    }
    opsin::cpu::deallocate(c, bytes);
  }
}

// Few rows with a B that lies by rows: blocks of steps and slices that end within a pair, and columns that
// end within a vector.
TYPED_TEST(GemmFew, RowsOfEveryCount) {
  for (int64_t m = 1; m <= 17; ++m) {
    const bool odd = m % 2 == 1;
    check<TypeParam>({m, 97 + 30 * m, 67 + m, 1, odd ? Order::rows : Order::columns, Order::rows, odd, !odd});
    check<TypeParam>({m, 300, 545, 1, Order::rows, Order::columns, !odd, false});
  }
  for (int64_t n = 1; n <= 70; n += 3)
    check<TypeParam>({7, n, 100 + n, 1, Order::rows, Order::rows, false, true});
  check<TypeParam>({8, 900, 1301, 1, Order::rows, Order::rows, true, true});
  check<TypeParam>({3, 70, 600, 3, Order::columns, Order::rows, true, false});
}

}  // namespace
