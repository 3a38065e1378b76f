// The model of the tile registers, which the AMX kernels are tested with: what it computes, and what it
// refuses.
#include "amx/tile_unit.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "cpu/conv.h"
#include "cpu/gemm.h"
#include "cpu/isa.h"

namespace opsin::cpu {
namespace {

struct Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void shape(int tile, int lines, int bytes) {
    rows[tile] = static_cast<uint8_t>(lines);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

/// Sums of 3 x 2 elements over 4 steps of k.
Config small() {
  Config c;
  c.shape(0, 3, 8);
  c.shape(1, 3, 8);
  c.shape(2, 2, 8);
  return c;
}

uint16_t bits(float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); }

/// One sum: `c` and the products of a and b.
float dot(std::vector<float> a, std::vector<float> b, float c = 0) {
  uint16_t row[32] = {}, column[16][2] = {};
  Config config;
  config.shape(0, 1, 4);
  config.shape(1, 1, 64);
  config.shape(2, 16, 4);
  for (size_t i = 0; i < a.size(); ++i) {
    row[i] = bits(a[i]);
    column[i / 2][i % 2] = bits(b[i]);
  }
  _tile_loadconfig(&config);
  _tile_loadd(0, &c, 4);
  _tile_loadd(1, row, 64);
  _tile_loadd(2, column, 4);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, &c, 4);
  _tile_release();
  return c;
}

TEST(TileUnit, MultipliesPairs) {
  // [[1 2 3 4], [5 6 7 8], [0 1 0 -1]] times [[1 0], [2 1], [3 0], [4 1]].
  const float a[3][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {0, 1, 0, -1}},
              b[4][2] = {{1, 0}, {2, 1}, {3, 0}, {4, 1}};
  uint16_t x[3][6] = {}, y[2][2][2];
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 4; ++k) x[i][k] = bits(a[i][k]);
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 2; ++j) y[k / 2][j][k % 2] = bits(b[k][j]);
  float c[3][5] = {};
  c[1][1] = 100;
  const Config config = small();
  _tile_loadconfig(&config);
  _tile_loadd(0, c, sizeof c[0]);
  _tile_loadd(1, x, sizeof x[0]);
  _tile_loadd(2, y, sizeof y[0]);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, c, sizeof c[0]);
  _tile_release();
  const float expected[3][5] = {{30, 6}, {70, 114}, {-2, 0}};
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 5; ++j) EXPECT_EQ(c[i][j], expected[i][j]) << i << ", " << j;
}

TEST(TileUnit, SumsEvenAndOddStepsApart) {
  // In one chain 2^24 + 1 would lose the 1 twice.
  EXPECT_EQ(dot({0x1p24f, 1, 0, 1}, {1, 1, 0, 1}), 0x1p24f + 2);
  EXPECT_EQ(dot({0x1p24f, 0, 1, 0, 1, 0}, {1, 0, 1, 0, 1, 0}), 0x1p24f);
  // The tile joins last.
  EXPECT_EQ(dot({1, 1}, {1, 1}, 0x1p24f), 0x1p24f + 2);
  EXPECT_EQ(dot({0x1p24f, -0x1p24f}, {1, 1}, 1), 1);
}

TEST(TileUnit, HasNoSubnormals) {
  const float subnormal = 0x1p-127f;
  EXPECT_EQ(dot({subnormal}, {0x1p100f}), 0);
  EXPECT_EQ(dot({0x1p-100f}, {0x1p-27f}), 0);
  EXPECT_EQ(dot({0x1p-100f}, {0x1p-26f}), 0x1p-126f);
  EXPECT_EQ(dot({1}, {0}, subnormal), 0);
  // The product itself is exact.
  EXPECT_EQ(dot({0x1p-100f, 0, 0x1p-126f, 0}, {0x1p-27f, 0, 1, 0}), 0x1p-126f);
}

TEST(TileUnit, KeepsInfinitiesAndNaN) {
  EXPECT_EQ(dot({INFINITY}, {2}), INFINITY);
  EXPECT_TRUE(std::isnan(dot({INFINITY}, {0})));
  EXPECT_TRUE(std::isnan(dot({NAN}, {1})));
}

using TileUnitDeathTest = testing::Test;

TEST(TileUnitDeathTest, RefusesTilesWithoutAConfiguration) {
  EXPECT_DEATH(_tile_zero(0), "expected a configuration before a tile is used");
  EXPECT_DEATH(_tile_release(), "expected a configuration to release");
}

TEST(TileUnitDeathTest, RefusesBadConfigurations) {
  const auto load = [](auto change) {
    Config c = small();
    change(c);
    _tile_loadconfig(&c);
    _tile_release();
  };
  load([](Config&) {});
  EXPECT_DEATH(load([](Config& c) { c.palette = 2; }), "expected palette 1");
  EXPECT_DEATH(load([](Config& c) { c.reserved[3] = 1; }), "expected zeros in reserved bytes");
  EXPECT_DEATH(load([](Config& c) { c.shape(0, 17, 64); }), "expected at most 16 rows of 64 bytes");
  EXPECT_DEATH(load([](Config& c) { c.shape(0, 16, 68); }), "expected at most 16 rows of 64 bytes");
  EXPECT_DEATH(load([](Config& c) { c.shape(0, 16, 62); }), "expected rows of whole double words");
  EXPECT_DEATH(load([](Config& c) { c.shape(0, 16, 0); }), "expected rows and bytes, or neither");
  EXPECT_DEATH(load([](Config& c) { c.shape(8, 16, 64); }), "expected no shape for tiles from 8 on");
}

TEST(TileUnitDeathTest, RefusesShapesThatDoNotMatch) {
  const auto multiply = [](auto change) {
    Config c = small();
    change(c);
    _tile_loadconfig(&c);
    for (int tile = 0; tile < 3; ++tile) _tile_zero(tile);
    _tile_dpbf16ps(0, 1, 2);
    _tile_release();
  };
  multiply([](Config&) {});
  EXPECT_DEATH(multiply([](Config& c) { c.shape(2, 3, 8); }),
               "expected as many pairs in a row of A as rows in B");
  EXPECT_DEATH(multiply([](Config& c) { c.shape(2, 2, 12); }),
               "expected rows of the sums as long as those of B");
  EXPECT_DEATH(multiply([](Config& c) { c.shape(0, 2, 8); }), "expected as many rows of sums as of A");
}

TEST(TileUnitDeathTest, RefusesWhatWouldGoUnnoticed) {
  const auto configured = [](auto use) {
    const Config c = small();
    _tile_loadconfig(&c);
    use();
    _tile_release();
  };
  EXPECT_DEATH(configured([] { _tile_zero(3); }), "expected a tile that the configuration gives a shape");
  EXPECT_DEATH(configured([] {
                 float c[3][2];
                 _tile_stored(0, c, 8);
               }),
               "expected a tile that was set to be stored");
  EXPECT_DEATH(configured([] { _tile_dpbf16ps(0, 1, 2); }), "expected tiles that were set to be multiplied");
  EXPECT_DEATH(configured([] { _tile_dpbf16ps(0, 1, 1); }), "expected three different tiles");
  EXPECT_DEATH(configured([] {
                 const Config again = small();
                 _tile_loadconfig(&again);
               }),
               "expected the last call to have released the tiles");
}

#if defined(OPSIN_AMX_MODEL)
TEST(TileUnit, RunsTheKernels) {
  if (isa() != Isa::amx_bf16) GTEST_SKIP() << "the level is " << isa_name(isa());
  const auto dots = [](auto run) {
    const int64_t before = tile_unit::dots();
    run();
    return tile_unit::dots() - before;
  };
  std::vector<uint16_t> a(40 * 600), b(600 * 50), c(40 * 50);
  GemmParams p;
  p.m = 40;
  p.n = 50;
  p.k = 600;
  p.a = a.data();
  p.a_row = 600;
  p.b = b.data();
  p.b_row = 50;
  p.c = c.data();
  p.c_row = 50;
  p.a_col = p.b_col = 1;
  // 3 rows of tiles by 4 columns (of 16 each, and the rest) over 19 steps.
  EXPECT_GE(dots([&] { gemm_bf16(p); }), 3 * 4 * 19);

  ConvGeometry g;
  g.batch = 1;
  g.in_channels = g.out_channels = 32;
  for (int axis = 1; axis < 3; ++axis) {
    g.in[axis] = g.out[axis] = 8;
    g.kernel[axis] = 3;
    g.pad_begin[axis] = g.pad_end[axis] = 1;
  }
  std::vector<uint16_t> x(64 * 32), w(9 * 32 * 32), y(64 * 32);
  constexpr int64_t least = 9 * 4 * 2;
  EXPECT_GE(dots([&] { conv_forward(g, kBFloat16, x.data(), w.data(), nullptr, y.data()); }), least);
  EXPECT_GE(dots([&] { conv_backward_input(g, kBFloat16, y.data(), w.data(), x.data()); }), least);
  EXPECT_GE(dots([&] { conv_backward_weight(g, kBFloat16, x.data(), y.data(), w.data(), nullptr); }), least);
}
#endif

}  // namespace
}  // namespace opsin::cpu
