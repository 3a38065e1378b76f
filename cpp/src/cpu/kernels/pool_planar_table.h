// The contract between pooling (cpu/pool.cpp) and its kernels for float32 images that lie row by row
// (pool_planar_isa.cpp). A part is one row of pixels of one plane, which `image` counts; there is one
// channel.
#pragma once

#include "cpu/kernels/pool_table.h"

namespace opsin::cpu {

struct PoolPlanarTable {
  void (*max)(const PoolPart&);
  void (*max_backward)(const PoolPart&);  ///< one plane
  void (*avg)(const PoolPart&);
  void (*avg_backward)(const PoolPart&);
};

OPSIN_ISA_TABLE(PoolPlanarTable, pool_planar_table)

}  // namespace opsin::cpu
