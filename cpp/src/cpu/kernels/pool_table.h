// The contract between pooling (cpu/pool.cpp, compiled once) and its kernels (pool_isa.cpp, compiled once per
// instruction set). Plain data and function pointers only.
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
  int64_t image, row;  ///< of the output for forward, of the input for backward
  int64_t first, last;
};

struct PoolFloating {
  void (*avg)(const PoolPart&);
  void (*avg_backward)(const PoolPart&);
  void (*scatter)(const PoolPart&);  ///< one image
  void (*gather)(const PoolPart&);
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
  PoolFloating f32, f64, f16, bf16;
};

OPSIN_ISA_TABLE(PoolTable, pool_table)

}  // namespace opsin::cpu
