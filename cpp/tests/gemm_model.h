// GEMM against a scalar model of the sum that cpu/gemm.h promises (bit for bit), and that model against
// float64.
#pragma once

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

#include "cpu/gemm.h"
#include "cpu/isa.h"
#include "cpu/kernels/gemm_table.h"
#include "cpu/thread_pool.h"

namespace gemm_model {
using opsin::cpu::GemmKernels;
using opsin::cpu::GemmParams;
using opsin::cpu::GemmTable;

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

inline double value(float x) { return x; }
inline double value(double x) { return x; }
inline double value(Brain x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline double value(Half x) {
  const int exponent = (x.bits >> 10) & 31, mantissa = x.bits & 1023;
  double magnitude = std::ldexp(mantissa + (exponent ? 1024 : 0), (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = mantissa ? NAN : INFINITY;
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

inline void set(double x, float* out) { *out = static_cast<float>(x); }
inline void set(double x, double* out) { *out = x; }
// Rounds to `digits` bits, to nearest even, with subnormals below `least`; an independent formulation.
inline double rounded(double x, int digits, int least) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  const int unit = std::max(exponent - digits, least);
  return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}
inline void set(double x, Brain* out) {
  const double r = rounded(x, 8, -133);
  out->bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(r)) >> 16);
}
inline void set(double x, Half* out) {
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

inline std::string describe(const Case& c) {
  const char* orders[] = {"rows", "columns", "spread"};
  return std::to_string(c.batch) + " x " + std::to_string(c.m) + "x" + std::to_string(c.n) + "x" +
         std::to_string(c.k) + " a=" + orders[static_cast<int>(c.a)] + " b=" + orders[static_cast<int>(c.b)] +
         (c.bias ? " bias" : "") + (c.accumulate ? " accumulate" : "") + (c.broadcast_b ? " broadcast" : "");
}

inline void strides(Order order, int64_t rows, int64_t cols, int64_t* row, int64_t* col) {
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

}  // namespace gemm_model
