// The contract between pooling (cpu/pool.cpp, compiled once) and its kernels (pool_isa.cpp and
// pool_gradient_isa.cpp, compiled once per instruction set). Plain data and function pointers only.
#pragma once

#include <cstdint>

#include "cpu/dispatch.h"

namespace opsin::cpu {

/// The windows of one axis, written out. They are ascending: neither begin nor end ever decreases.
struct PoolAxis {
  int64_t in, out, step;
  int64_t kernel;         ///< what taps count by
  const int64_t* begin;   ///< [out] first index inside the input
  const int64_t* end;     ///< [out] one past the last; not above begin if the window is empty
  const int64_t* length;  ///< [out] what the axis contributes to the divisor
  const int64_t* first;   ///< [in] first window that has the index
  const int64_t* last;    ///< [in] one past the last such window
};

inline constexpr int64_t kPoolChannels = 256;

struct PoolWindows {
  PoolAxis axis[3];
  int64_t channels;
  int64_t divisor;  ///< 0: the product of the lengths
  bool dense;       ///< For scatter: there are taps, and every window has pixels, which are neighbours.
  /// Of planar pooling: how far apart windows of the last axis are, and which of them, [low, high), are
  /// whole.
  int64_t stride, low, high;
  bool apart;  ///< No two windows of any axis have a pixel in common, and theirs are neighbours.
};

/// Work on channels [first, last), not more than kPoolChannels, of one row of pixels (along the last axis),
/// or of all pixels of one image.
struct PoolPart {
  const PoolWindows* windows;
  const void* in;
  void* out;
  int64_t* indices;  ///< these, or the taps, or neither; see PoolPositions
  uint8_t* taps;
  int64_t image, row;  ///< of the output for forward, gather and tiles, of the input for backward
  int64_t first, last;
};

struct PoolTable {
  void (*max_f32)(const PoolPart&);
  void (*max_f64)(const PoolPart&);
  void (*max_f16)(const PoolPart&);
  void (*max_bf16)(const PoolPart&);
  void (*max_u8)(const PoolPart&);
  void (*max_i8)(const PoolPart&);
  void (*max_i16)(const PoolPart&);
  void (*max_i32)(const PoolPart&);
  void (*max_i64)(const PoolPart&);
  void (*avg_f32)(const PoolPart&);
  void (*avg_f64)(const PoolPart&);
  void (*avg_f16)(const PoolPart&);
  void (*avg_bf16)(const PoolPart&);
};

struct PoolGradients {
  void (*avg)(const PoolPart&);
  void (*max)(const PoolPart&);  ///< by taps, from windows of step 1, none of them empty
  /// By row of the output, from windows that tile the input; null for 16-bit types.
  void (*avg_tiles)(const PoolPart&);
  void (*max_tiles)(const PoolPart&);
  void (*scatter)(const PoolPart&);  ///< one image
  void (*gather)(const PoolPart&);
};

struct PoolGradientTable {
  PoolGradients f32, f64, f16, bf16;
};

OPSIN_ISA_TABLE(PoolTable, pool_table)
OPSIN_ISA_TABLE(PoolGradientTable, pool_gradient_table)

}  // namespace opsin::cpu
