// GEMM against a scalar model of the sum that cpu/gemm.h promises (bit for bit), and that model against
// float64.
#include "cpu/gemm.h"

#include "leave_nan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cpu/allocator.h"
#include "cpu/isa.h"
#include "cpu/kernels/gemm_table.h"
#include "cpu/thread_pool.h"

namespace {

using opsin::cpu::GemmKernels;
using opsin::cpu::GemmParams;
using opsin::cpu::GemmTable;

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

double value(float x) { return x; }
double value(double x) { return x; }
double value(Brain x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
double value(Half x) {
  const int exponent = (x.bits >> 10) & 31, mantissa = x.bits & 1023;
  double magnitude = std::ldexp(mantissa + (exponent ? 1024 : 0), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = mantissa ? NAN : INFINITY;
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

void set(double x, float* out) { *out = static_cast<float>(x); }
void set(double x, double* out) { *out = x; }
// Rounds to `digits` bits, to nearest even, with subnormals below `least`; an independent formulation.
double rounded(double x, int digits, int least) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - digits, least);
  return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}
void set(double x, Brain* out) {
  const double r = rounded(x, 8, -133);
  out->bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(r)) >> 16);
}
void set(double x, Half* out) {
  const double r = rounded(std::fabs(x), 11, -24);
  uint32_t bits;
  if (std::isnan(r)) {
    bits = 0x7e00;
  } else if (r > 65504) {
    bits = 0x7c00;
  } else if (r < std::ldexp(1.0, -14)) {
    bits = static_cast<uint32_t>(std::ldexp(r, 24));
  } else {
    int exponent;
    const double fraction = std::frexp(r, &exponent);
    bits = static_cast<uint32_t>(exponent + 14) << 10 |
           (static_cast<uint32_t>(std::ldexp(fraction, 11)) & 1023u);
  }
  out->bits = static_cast<uint16_t>(bits | (std::signbit(x) ? 0x8000u : 0u));
}

template <class S>
struct Traits;
template <>
struct Traits<float> {
  using Sum = float;
  static constexpr int64_t slice = 256;
  static constexpr double epsilon = 0x1p-24;
  static const GemmKernels& kernels(const GemmTable& t) { return t.f32; }
  static void gemm(const GemmParams& p) { opsin::cpu::gemm_f32(p); }
};
template <>
struct Traits<double> {
  using Sum = double;
  static constexpr int64_t slice = 128;
  static constexpr double epsilon = 0x1p-53;
  static const GemmKernels& kernels(const GemmTable& t) { return t.f64; }
  static void gemm(const GemmParams& p) { opsin::cpu::gemm_f64(p); }
};
template <>
struct Traits<Brain> {
  using Sum = float;
  static constexpr int64_t slice = 256;
  static constexpr double epsilon = 0x1p-8;
  static const GemmKernels& kernels(const GemmTable& t) { return t.bf16; }
  static void gemm(const GemmParams& p) { opsin::cpu::gemm_bf16(p); }
};
template <>
struct Traits<Half> {
  using Sum = float;
  static constexpr int64_t slice = 256;
  static constexpr double epsilon = 0x1p-11;
  static const GemmKernels& kernels(const GemmTable& t) { return t.f16; }
  static void gemm(const GemmParams& p) { opsin::cpu::gemm_f16(p); }
};

// How products are added: one after the other; in pairs, the second first, where subnormal operands are
// zeros; or, such zeros too, in tiles of 32 steps of k, of which the even and the odd ones are summed apart.
enum class Sums { single, pairs, tiles };

struct Level {
  const char* name;
  const GemmKernels* kernels;
  bool fused;
  Sums sums = Sums::single;
  int64_t slice = 0;  // if not that of the type
};

template <class S>
std::vector<Level> levels() {
  const auto of = [](const GemmTable& table) { return &Traits<S>::kernels(table); };
  std::vector<Level> found = {{"baseline", of(opsin::cpu::baseline::gemm_table()), false}};
#if defined(__x86_64__)
  const opsin::cpu::Isa best = opsin::cpu::best_isa(opsin::cpu::cpu_features());
  if (best >= opsin::cpu::Isa::avx2) found.push_back({"avx2", of(opsin::cpu::avx2::gemm_table()), true});
  if (best >= opsin::cpu::Isa::avx512)
    found.push_back({"avx512", of(opsin::cpu::avx512::gemm_table()), true});
  if (best >= opsin::cpu::Isa::avx512_bf16 && std::is_same_v<S, Brain>)
    found.push_back({"avx512_bf16", &opsin::cpu::avx512_bf16::gemm_kernels(), true, Sums::pairs, 512});
  // Not by the features alone: the system may refuse the tile registers.
  if (opsin::cpu::isa() == opsin::cpu::Isa::amx_bf16 && std::is_same_v<S, Brain>)
    found.push_back({"amx_bf16", &opsin::cpu::amx_bf16::gemm_kernels(), true, Sums::tiles, 512});
#endif
  return found;
}

enum class Order { rows, columns, spread };

struct Case {
  int64_t m, n, k;
  int64_t batch = 1;
  Order a = Order::rows, b = Order::rows;
  bool bias = false, accumulate = false;
  bool broadcast_b = false;
};

std::string describe(const Case& c) {
  const char* orders[] = {"rows", "columns", "spread"};
  return std::to_string(c.batch) + " x " + std::to_string(c.m) + "x" + std::to_string(c.n) + "x" +
         std::to_string(c.k) + " a=" + orders[static_cast<int>(c.a)] + " b=" + orders[static_cast<int>(c.b)] +
         (c.bias ? " bias" : "") + (c.accumulate ? " accumulate" : "") + (c.broadcast_b ? " broadcast" : "");
}

void strides(Order order, int64_t rows, int64_t cols, int64_t* row, int64_t* col) {
  *row = order == Order::rows ? cols : order == Order::columns ? 1 : 2 * cols + 3;
  *col = order == Order::rows ? 1 : order == Order::columns ? rows : 2;
}

template <class S>
struct Operands {
  std::vector<S> a, b, c, bias;
  GemmParams params;
};

template <class S>
Operands<S> make(const Case& t) {
  Operands<S> o;
  GemmParams& p = o.params;
  p.m = t.m;
  p.n = t.n;
  p.k = t.k;
  p.batch = t.batch;
  p.accumulate = t.accumulate;
  strides(t.a, t.m, t.k, &p.a_row, &p.a_col);
  strides(t.b, t.k, t.n, &p.b_row, &p.b_col);
  p.c_row = t.n + (t.batch > 1 ? 0 : 3);
  const auto extent = [](int64_t rows, int64_t cols, int64_t row, int64_t col) {
    return rows && cols ? (rows - 1) * row + (cols - 1) * col + 1 : 0;
  };
  p.a_batch = extent(t.m, t.k, p.a_row, p.a_col);
  p.b_batch = t.broadcast_b ? 0 : extent(t.k, t.n, p.b_row, p.b_col);
  p.c_batch = t.m * p.c_row;
  // Exactly the memory that the operands span, so that a sanitizer sees every element read beyond it.
  o.a.resize(static_cast<size_t>(p.a_batch * t.batch));
  o.b.resize(static_cast<size_t>(t.broadcast_b ? extent(t.k, t.n, p.b_row, p.b_col) : p.b_batch * t.batch));
  o.c.resize(static_cast<size_t>(p.c_batch * t.batch));
  if (t.bias) o.bias.resize(static_cast<size_t>(t.n));
  std::mt19937 random(static_cast<uint32_t>(t.m * 31 + t.n * 7 + t.k));
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (auto* v : {&o.a, &o.b, &o.c, &o.bias})
    for (S& x : *v) set(uniform(random), &x);
  p.a = o.a.data();
  p.b = o.b.data();
  p.c = o.c.data();
  p.bias = t.bias ? o.bias.data() : nullptr;
  return o;
}

template <class S>
void expect_promised(const Operands<S>& before, const std::vector<S>& result, const Level& level,
                     const std::string& what) {
  using Sum = typename Traits<S>::Sum;
  const GemmParams& p = before.params;
  std::vector<S> expected = before.c;
  std::vector<double> a(before.a.size()), b(before.b.size());
  for (size_t i = 0; i < a.size(); ++i) a[i] = value(before.a[i]);
  for (size_t i = 0; i < b.size(); ++i) b[i] = value(before.b[i]);
  for (int64_t item = 0; item < p.batch; ++item) {
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        S& out = expected[static_cast<size_t>(item * p.c_batch + i * p.c_row + j)];
        double exact = 0, magnitude = 0;
        Sum sum = 0;
        const auto finish_first = [&] {
          if (!before.bias.empty()) sum += static_cast<Sum>(value(before.bias[static_cast<size_t>(j)]));
          if (p.accumulate) sum += static_cast<Sum>(value(out));
        };
        const int64_t length = level.slice > 0 ? level.slice : Traits<S>::slice;
        for (int64_t first = 0; first < p.k; first += length) {
          Sum slice = 0, tile[2] = {0, 0};
          const int64_t end = std::min(p.k, first + length);
          for (int64_t step = first; step < end; ++step) {
            int64_t q = step;
            if (level.sums == Sums::pairs) q = step % 2 == 1 ? step - 1 : std::min(step + 1, end - 1);
            const double x = a[static_cast<size_t>(item * p.a_batch + i * p.a_row + q * p.a_col)];
            const double y = b[static_cast<size_t>(item * p.b_batch + q * p.b_row + j * p.b_col)];
            exact += x * y;
            magnitude += std::fabs(x * y);
            const Sum sx = static_cast<Sum>(x), sy = static_cast<Sum>(y);
            if (level.sums == Sums::tiles) {
              tile[step % 2] = std::fma(sx, sy, tile[step % 2]);
              if (step % 32 != 31 && step + 1 != end) continue;
              slice += tile[0] + tile[1];
              tile[0] = tile[1] = 0;
            } else {
              slice = level.fused ? std::fma(sx, sy, slice) : sx * sy + slice;
            }
          }
          sum += slice;
          if (first == 0) finish_first();
        }
        if (p.k == 0) finish_first();
        if (!before.bias.empty()) exact += value(before.bias[static_cast<size_t>(j)]);
        if (p.accumulate) exact += value(out);
        const double bound =
            Traits<S>::epsilon * std::fabs(exact) +
            (sizeof(Sum) == 4 ? 0x1p-24 : 0x1p-53) * (64 + static_cast<double>(p.k) / 64) * (magnitude + 2);
        ASSERT_NEAR(static_cast<double>(sum), exact, bound) << what << " at " << i << ", " << j;
        set(static_cast<double>(sum), &out);
      }
    }
  }
  ASSERT_EQ(expected.size(), result.size());
  for (size_t i = 0; i < result.size(); ++i) {
    ASSERT_EQ(std::memcmp(&expected[i], &result[i], sizeof(S)), 0)
        << what << " element " << i << ": " << value(result[i]) << ", expected " << value(expected[i]);
  }
}

template <class S>
void check(const Case& t) {
  for (const Level& level : levels<S>()) {
    const Operands<S> before = make<S>(t);
    for (const int threads : {1, 2, 3}) {
      const opsin::cpu::ThreadBudget budget(threads);
      std::vector<S> c = before.c;
      GemmParams p = before.params;
      p.c = c.data();
      if (level.sums != Sums::single) opsin::cpu::leave_nan();
      opsin::cpu::run_gemm(*level.kernels, p);
      if (threads == 1) {
        expect_promised(before, c, level, describe(t) + " " + level.name);
        if (testing::Test::HasFatalFailure()) return;
      } else {
        std::vector<S> one = before.c;
        p.c = one.data();
        const opsin::cpu::ThreadBudget single(1);
        opsin::cpu::run_gemm(*level.kernels, p);
        ASSERT_TRUE(c.empty() || std::memcmp(c.data(), one.data(), c.size() * sizeof(S)) == 0)
            << describe(t) << " " << level.name << " differs with " << threads << " threads";
      }
    }
  }
}

template <class S>
class Gemm : public testing::Test {
 protected:
  void SetUp() override {
    before_ = opsin::cpu::num_threads();
    opsin::cpu::set_num_threads(3);
  }
  void TearDown() override { opsin::cpu::set_num_threads(before_); }

 private:
  int before_ = 1;
};

using Types = testing::Types<float, double, Brain, Half>;
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
