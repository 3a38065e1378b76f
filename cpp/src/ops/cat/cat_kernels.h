// The contract of the kernel that moves blocks of bytes: joins and their parts.
#pragma once

#include "core/kernel.h"

namespace opsin {

/// `outer` blocks of `bytes` each, from and to memory where they lie a stride apart.
struct BlockPiece {
  const char* from;
  char* to;
  int64_t bytes, from_stride, to_stride;
};
struct BlockParams {
  int64_t outer;
  const BlockPiece* pieces;  ///< None of them empty.
  int64_t count;
};
extern OPSIN_API KernelSlot<void (*)(const BlockParams&)> copy_blocks;

void register_cat_cpu();

}  // namespace opsin
