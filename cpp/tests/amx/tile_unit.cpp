#include "tile_unit.h"

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace opsin::cpu::tile_unit {
namespace {

constexpr int kTiles = 8, kMostRows = 16, kMostBytes = 64;
constexpr int kMostLanes = kMostBytes / 4;

/// The memory format of LDTILECFG.
struct Config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

struct Tile {
  int rows, row_bytes;
  bool set;  // since the configuration
  uint8_t data[kMostRows][kMostBytes];
};

struct Unit {
  bool configured = false;
  Tile tiles[kTiles] = {};
  ~Unit() {
    if (configured) std::fputs("tile unit: a thread ended with a configuration\n", stderr), std::abort();
  }
};

// The registers of a thread: not in its static storage, of which a library that is loaded late gets little.
Unit& unit() {
  thread_local const std::unique_ptr<Unit> own = std::make_unique<Unit>();
  return *own;
}
std::atomic<int64_t> dot_count{0};

void require(bool fulfilled, const char* rule) {
  if (fulfilled) return;
  std::fprintf(stderr, "tile unit: %s\n", rule);
  std::abort();
}

Tile& configured_tile(int index) {
  require(unit().configured, "expected a configuration before a tile is used");
  require(index >= 0 && index < kTiles, "expected a tile from 0 to 7");
  Tile& tile = unit().tiles[index];
  require(tile.rows > 0, "expected a tile that the configuration gives a shape");
  return tile;
}

// DAZ and FTZ: subnormal numbers are zeros of their sign.
float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float element(const uint8_t* row, int index) {
  uint16_t bits;
  std::memcpy(&bits, row + 2 * index, sizeof bits);
  return flushed(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
}

}  // namespace

void load_config(const void* config) {
  Config c;
  std::memcpy(&c, config, sizeof c);
  require(!unit().configured, "expected the last call to have released the tiles");
  require(c.palette == 1, "expected palette 1");
  require(c.start_row == 0, "expected start row 0");
  for (const uint8_t byte : c.reserved) require(byte == 0, "expected zeros in reserved bytes");
  for (int i = 0; i < 16; ++i) {
    const int rows = c.rows[i], bytes = c.row_bytes[i];
    require(i < kTiles || (rows == 0 && bytes == 0), "expected no shape for tiles from 8 on");
    require(rows <= kMostRows && bytes <= kMostBytes, "expected at most 16 rows of 64 bytes");
    require((rows == 0) == (bytes == 0), "expected rows and bytes, or neither");
    require(bytes % 4 == 0, "expected rows of whole double words");
    if (i < kTiles) {
      unit().tiles[i] = {};
      unit().tiles[i].rows = rows;
      unit().tiles[i].row_bytes = bytes;
    }
  }
  unit().configured = true;
}

void release() {
  require(unit().configured, "expected a configuration to release");
  unit().configured = false;
}

void zero(int index) {
  Tile& tile = configured_tile(index);
  std::memset(tile.data, 0, sizeof tile.data);
  tile.set = true;
}

void load(int index, const void* base, int64_t stride) {
  Tile& tile = configured_tile(index);
  std::memset(tile.data, 0, sizeof tile.data);
  const auto* from = static_cast<const uint8_t*>(base);
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(tile.data[r], from + r * stride, static_cast<size_t>(tile.row_bytes));
  }
  tile.set = true;
}

void store(int index, void* base, int64_t stride) {
  const Tile& tile = configured_tile(index);
  require(tile.set, "expected a tile that was set to be stored");
  auto* to = static_cast<uint8_t*>(base);
  for (int r = 0; r < tile.rows; ++r) {
    std::memcpy(to + r * stride, tile.data[r], static_cast<size_t>(tile.row_bytes));
  }
}

void dot_bf16(int sums, int a, int b) {
  Tile& c = configured_tile(sums);
  const Tile &x = configured_tile(a), &y = configured_tile(b);
  require(sums != a && sums != b && a != b, "expected three different tiles");
  require(c.set && x.set && y.set, "expected tiles that were set to be multiplied");
  require(x.row_bytes / 4 == y.rows, "expected as many pairs in a row of A as rows in B");
  require(c.row_bytes == y.row_bytes, "expected rows of the sums as long as those of B");
  require(c.rows == x.rows, "expected as many rows of sums as of A");
  dot_count.fetch_add(1, std::memory_order_relaxed);
  const int lanes = c.row_bytes / 4;
  float right[2][kMostRows][kMostLanes] = {};
  for (int k = 0; k < y.rows; ++k) {
    for (int n = 0; n < lanes; ++n) {
      for (int half = 0; half < 2; ++half) right[half][k][n] = element(y.data[k], 2 * n + half);
    }
  }
  for (int m = 0; m < c.rows; ++m) {
    // Even and odd steps are summed apart, from zero; every operation rounds to nearest even.
    float part[2][kMostLanes] = {};
    for (int k = 0; k < y.rows; ++k) {
      for (int half = 0; half < 2; ++half) {
        const float left = element(x.data[m], 2 * k + half);
        for (int n = 0; n < kMostLanes; ++n) {
          part[half][n] = flushed(std::fma(left, right[half][k][n], part[half][n]));
        }
      }
    }
    float sum[kMostLanes];
    std::memcpy(sum, c.data[m], sizeof sum);
    for (int n = 0; n < lanes; ++n) sum[n] = flushed(flushed(sum[n]) + flushed(part[0][n] + part[1][n]));
    std::memcpy(c.data[m], sum, static_cast<size_t>(c.row_bytes));
  }
}

int64_t dots() { return dot_count.load(std::memory_order_relaxed); }

}  // namespace opsin::cpu::tile_unit
