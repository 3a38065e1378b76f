// Blocks that many pieces are put together from: one launch for up to kPieces of them.
#include "cat_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
constexpr int kPieces = 32;
/// Units that a thread moves at once, so that loads wait together.
constexpr int kBatch = 4;

struct Pieces {
  BlockPiece piece[kPieces];
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    copy_pieces(const __grid_constant__ Pieces pieces, int64_t outer) {
  const BlockPiece& piece = pieces.piece[blockIdx.y];
  const int64_t units = piece.bytes / static_cast<int64_t>(sizeof(T)), n = outer * units;
  const int64_t step = thread_count();
  for (int64_t first = thread_rank(); first < n; first += kBatch * step) {
    T unit[kBatch];
    int64_t to[kBatch];
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      const int64_t t = first + j * step;
      if (t >= n) continue;
      const int64_t o = t / units, at = (t - o * units) * static_cast<int64_t>(sizeof(T));
      to[j] = o * piece.to_stride + at;
      unit[j] = *reinterpret_cast<const T*>(piece.from + o * piece.from_stride + at);
    }
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      if (first + j * step < n) *reinterpret_cast<T*>(piece.to + to[j]) = unit[j];
    }
  }
}

template <class T>
void launch(const Pieces& pieces, int64_t count, int64_t outer, int64_t most) {
  const unsigned across = grid_for(outer * (most / static_cast<int64_t>(sizeof(T))), kThreads * kBatch);
  OPSIN_LAUNCH(copy_pieces<T>, dim3(across, static_cast<unsigned>(count)), kThreads, 0, pieces, outer);
}

void copy(const BlockParams& p) {
  for (int64_t begin = 0; begin < p.count; begin += kPieces) {
    const int64_t count = std::min<int64_t>(kPieces, p.count - begin);
    Pieces pieces{};
    uint64_t multiple = 0;
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      BlockPiece& piece = pieces.piece[i];
      piece = p.pieces[begin + i];
      // One block has no stride.
      if (p.outer == 1) piece.from_stride = piece.to_stride = 0;
      multiple |= reinterpret_cast<uintptr_t>(piece.from) | reinterpret_cast<uintptr_t>(piece.to) |
                  static_cast<uint64_t>(piece.bytes | piece.from_stride | piece.to_stride);
      most = std::max(most, piece.bytes);
    }
    // The widest unit that all addresses and sizes are multiples of.
    if (multiple % 16 == 0) {
      launch<Bits128>(pieces, count, p.outer, most);
    } else if (multiple % 8 == 0) {
      launch<uint64_t>(pieces, count, p.outer, most);
    } else if (multiple % 4 == 0) {
      launch<uint32_t>(pieces, count, p.outer, most);
    } else if (multiple % 2 == 0) {
      launch<uint16_t>(pieces, count, p.outer, most);
    } else {
      launch<uint8_t>(pieces, count, p.outer, most);
    }
  }
}

}  // namespace

void register_cat_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) copy_blocks.set(DeviceType::kCUDA, static_cast<DType>(i), copy);
}

}  // namespace opsin
