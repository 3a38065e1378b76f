#include "gemm_model.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "cpu/allocator.h"

namespace {

using namespace gemm_model;

TYPED_TEST_SUITE(Gemm, Types);

TYPED_TEST(Gemm, EveryOrderOfOddSizes) {
  for (const Order a : {Order::rows, Order::columns, Order::spread})
    for (const Order b : {Order::rows, Order::columns, Order::spread})
      for (const bool extra : {false, true}) {
        check<TypeParam>({37, 45, 29, 1, a, b, extra, extra});
        check<TypeParam>({5, 67, 300, 1, a, b, extra, extra});
        check<TypeParam>({3, 5, 7, 1, a, b, extra, extra});
      }
}

TYPED_TEST(Gemm, EveryTileSize) {
  for (int64_t m = 1; m <= 30; ++m)
    check<TypeParam>({m, 33, 17, 1, Order::rows, Order::columns, true, false});
  for (int64_t n = 1; n <= 70; ++n) check<TypeParam>({15, n, 19, 1, Order::rows, Order::rows, false, true});
  for (int64_t k = 1; k <= 40; ++k)
    check<TypeParam>({16, 35, k, 1, Order::rows, Order::columns, false, false});
}

TYPED_TEST(Gemm, EmptySizes) {
  for (const bool bias : {false, true})
    for (const bool accumulate : {false, true}) {
      check<TypeParam>({4, 5, 0, 1, Order::rows, Order::rows, bias, accumulate});
      check<TypeParam>({0, 5, 6, 1, Order::rows, Order::rows, bias, accumulate});
      check<TypeParam>({4, 0, 6, 1, Order::rows, Order::rows, bias, accumulate});
      check<TypeParam>({4, 5, 6, 0, Order::rows, Order::rows, bias, accumulate});
      check<TypeParam>({200, 300, 0, 1, Order::rows, Order::rows, bias, accumulate});
    }
}

TYPED_TEST(Gemm, Vectors) {
  for (const Order order : {Order::rows, Order::columns, Order::spread})
    for (const bool extra : {false, true}) {
      check<TypeParam>({1, 333, 300, 1, Order::rows, order, extra, extra});
      check<TypeParam>({333, 1, 300, 1, order, Order::rows, extra, extra});
      check<TypeParam>({1, 1, 5000, 1, order, order, extra, extra});
      check<TypeParam>({501, 2, 3, 1, order, Order::columns, extra, extra});
    }
}

TYPED_TEST(Gemm, FewElementsOfLongSums) {
  check<TypeParam>({10, 33, 5000, 1, Order::columns, Order::rows, true, true});
  check<TypeParam>({64, 64, 3001, 1, Order::columns, Order::rows, false, true});
  check<TypeParam>({97, 3, 2100, 1, Order::columns, Order::rows, true, false});
  check<TypeParam>({97, 1, 9000, 1, Order::rows, Order::rows, true, true});
}

TYPED_TEST(Gemm, LargeBlocks) {
  check<TypeParam>({230, 530, 130, 1, Order::rows, Order::columns, true, false});
  check<TypeParam>({129, 540, 300, 1, Order::columns, Order::rows, true, true});
}

TYPED_TEST(Gemm, DeepBlocks) {
  check<TypeParam>({141, 300, 2200, 1, Order::rows, Order::columns, true, true});
}

// Blocks are lower with more threads, and the last of them can be a single row.
TYPED_TEST(Gemm, ManyThreads) {
  opsin::cpu::set_num_threads(64);
  check<TypeParam>({211, 320, 130, 1, Order::columns, Order::rows, true, true});
  check<TypeParam>({113, 130, 40, 1, Order::columns, Order::rows, true, false});
  check<TypeParam>({90, 33, 64, 3, Order::columns, Order::columns, false, false});
}

TYPED_TEST(Gemm, Batches) {
  check<TypeParam>({4, 4, 4, 7, Order::rows, Order::rows, false, false});
  check<TypeParam>({33, 20, 40, 9, Order::columns, Order::columns, true, true});
  check<TypeParam>({33, 20, 40, 9, Order::rows, Order::rows, true, false, true});
  check<TypeParam>({33, 20, 40, 5, Order::columns, Order::rows, false, true, true});
  check<TypeParam>({70, 1, 40, 5, Order::rows, Order::rows, true, true});
  check<TypeParam>({20, 30, 1300, 2, Order::rows, Order::rows, true, true});
}

// The same rows alone, in a larger product, and as columns of the transposed product.
TYPED_TEST(Gemm, RowsDependOnNothingElse) {
  const Operands<TypeParam> all = make<TypeParam>({200, 160, 700, 1, Order::rows, Order::columns});
  std::vector<TypeParam> full = all.c;
  GemmParams p = all.params;
  p.c = full.data();
  Traits<TypeParam>::gemm(p);
  for (const int64_t rows : {1, 3, 17}) {
    const int64_t start = 41;
    std::vector<TypeParam> some(static_cast<size_t>(rows * 160));
    GemmParams q = all.params;
    q.m = rows;
    q.a = all.a.data() + start * q.a_row;
    q.c = some.data();
    q.c_row = 160;
    Traits<TypeParam>::gemm(q);
    std::vector<TypeParam> turned(static_cast<size_t>(rows * 160));
    GemmParams t = q;
    t.m = q.n;
    t.n = q.m;
    t.a = q.b;
    t.a_row = q.b_col;
    t.a_col = q.b_row;
    t.b = q.a;
    t.b_row = q.a_col;
    t.b_col = q.a_row;
    t.c = turned.data();
    t.c_row = rows;
    Traits<TypeParam>::gemm(t);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < 160; ++j) {
        const TypeParam& want = full[static_cast<size_t>((start + i) * p.c_row + j)];
        ASSERT_EQ(std::memcmp(&want, &some[static_cast<size_t>(i * 160 + j)], sizeof want), 0);
        ASSERT_EQ(std::memcmp(&want, &turned[static_cast<size_t>(j * rows + i)], sizeof want), 0);
      }
  }
}

// Every 16-bit pattern through the identity: widening and rounding lose nothing, NaNs stay NaNs.
template <class S>
void check_every_pattern() {
  constexpr int64_t side = 256;
  std::vector<S> a(side * side), one(1), c(side * side);
  for (size_t i = 0; i < a.size(); ++i) a[i].bits = static_cast<uint16_t>(i);
  set(1.0, &one[0]);
  for (const Level& level : levels<S>()) {
    // k = 1 keeps infinities and NaNs from spreading; both the direct and the packed path are used.
    for (const int64_t rows : {int64_t{1}, side * side}) {
      GemmParams p;
      p.m = rows;
      p.n = 1;
      p.k = 1;
      p.a_row = p.a_col = p.b_row = p.b_col = p.c_row = 1;
      p.b = one.data();
      for (size_t i = 0; i < a.size(); i += static_cast<size_t>(rows)) {
        p.a = &a[i];
        p.c = &c[i];
        opsin::cpu::run_gemm(*level.kernels, p);
      }
      for (size_t i = 0; i < a.size(); ++i) {
        if (std::isnan(value(a[i]))) {
          ASSERT_TRUE(std::isnan(value(c[i]))) << level.name << " " << i;
        } else {
          // +0 + -0 is +0: the sum starts from zero.
          const bool zero = i == 0x8000 || (level.sums != Sums::single && (i & 0x7f80) == 0);
          const uint16_t want = zero ? 0 : static_cast<uint16_t>(i);
          ASSERT_EQ(c[i].bits, want) << level.name << " rows " << rows;
        }
      }
    }
  }
}

TEST(GemmStorage, EveryHalf) { check_every_pattern<Half>(); }
TEST(GemmStorage, EveryBFloat16) { check_every_pattern<Brain>(); }

TEST(GemmMemory, ScratchIsGivenBack) {
  const Operands<float> o = make<float>({300, 400, 500});
  std::vector<float> c = o.c;
  GemmParams p = o.params;
  p.c = c.data();
  opsin::cpu::gemm_f32(p);
  const size_t before = opsin::cpu::memory_stats().allocated;
  opsin::cpu::gemm_f32(p);
  EXPECT_EQ(opsin::cpu::memory_stats().allocated, before);
}

}  // namespace
