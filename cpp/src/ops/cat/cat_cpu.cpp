#include "cat_kernels.h"

#include <algorithm>
#include <cstring>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Pieces of few bytes, whose number the compiler knows.
template <size_t kBytes>
void copy_items(const BlockPiece& piece, int64_t begin, int64_t end) {
  for (int64_t o = begin; o < end; ++o) {
    std::memcpy(piece.to + o * piece.to_stride, piece.from + o * piece.from_stride, kBytes);
  }
}

bool copy_few(const BlockPiece& piece, int64_t begin, int64_t end) {
  switch (piece.bytes) {
    case 1:
      copy_items<1>(piece, begin, end);
      return true;
    case 2:
      copy_items<2>(piece, begin, end);
      return true;
    case 4:
      copy_items<4>(piece, begin, end);
      return true;
    case 8:
      copy_items<8>(piece, begin, end);
      return true;
    case 16:
      copy_items<16>(piece, begin, end);
      return true;
    default:
      return false;
  }
}

void copy(const BlockParams& p) {
  constexpr int64_t kGrain = int64_t{1} << 17;
  if (p.outer == 1) {
    for (int64_t i = 0; i < p.count; ++i) {
      const BlockPiece& piece = p.pieces[i];
      cpu::parallel_for(piece.bytes, kGrain, [&](int64_t begin, int64_t end) {
        std::memcpy(piece.to + begin, piece.from + begin, static_cast<size_t>(end - begin));
      });
    }
    return;
  }
  int64_t block = 0;
  for (int64_t i = 0; i < p.count; ++i) block += p.pieces[i].bytes;
  cpu::parallel_for(p.outer, std::max<int64_t>(1, kGrain / std::max<int64_t>(block, 1)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = 0; i < p.count; ++i) {
                        const BlockPiece& piece = p.pieces[i];
                        if (copy_few(piece, begin, end)) continue;
                        for (int64_t o = begin; o < end; ++o) {
                          std::memcpy(piece.to + o * piece.to_stride, piece.from + o * piece.from_stride,
                                      static_cast<size_t>(piece.bytes));
                        }
                      }
                    });
}

}  // namespace

void register_cat_cpu() {
  for (int i = 0; i < kNumDTypes; ++i) copy_blocks.set(DeviceType::kCPU, static_cast<DType>(i), copy);
}

}  // namespace opsin
