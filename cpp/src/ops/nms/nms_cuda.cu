// Non-maximum suppression on a GPU. Boxes are taken in chunks: a chunk is tried against all boxes that stay
// so far, then against itself, which gives a matrix of bits, and one warp walks through that matrix. Nothing
// is waited for between chunks, and memory grows with the number of boxes alone.
#include "nms_kernels.h"

#include "../boxes/prepared_device.h"
#include "cuda/scan.h"

namespace opsin {

namespace cuda {
namespace {

constexpr unsigned kThreads = 128;
/// Boxes of a chunk: a bit of each lane's word for each.
constexpr unsigned kChunk = kWarpThreads * 32, kWords = kWarpThreads;
constexpr unsigned kSlices = 64;  ///< Of the boxes that stay.

struct Chunk {
  const void* boxes;      ///< [n, kBoxColumns]
  const int64_t* groups;  ///< Null for a single class.
  bool* keep;
  uint32_t* kept;     ///< Positions of the boxes that stay.
  uint32_t* count;    ///< How many.
  uint32_t* removed;  ///< [kWords] bits; 0 between chunks.
  uint32_t* matrix;   ///< [kChunk, kWords] bits.
  int64_t begin;
  unsigned size;
  bool rotated;
  int rank;
  double threshold;

  template <class T>
  __device__ void load(T (&box)[kBoxColumns], int64_t i) const {
    load_box(box, static_cast<const T*>(boxes), i);
  }
  template <class T>
  __device__ bool suppresses(const T (&a)[kBoxColumns], int64_t i, const T (&b)[kBoxColumns],
                             int64_t j) const {
    if (groups && groups[i] != groups[j]) return false;
    const T overlap = rotated ? boxes::overlap(Overlap::kRotated, 2, a, b, T(0))
                              : boxes::overlap(Overlap::kIou, rank, a, b, T(0));
    return overlap > static_cast<T>(threshold);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) try_kept(Chunk c) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  const int64_t at = c.begin + (i < c.size ? i : 0);
  T box[kBoxColumns], other[kBoxColumns];
  c.load(box, at);
  bool hit = false;
  for (unsigned k = blockIdx.y; k < *c.count && !hit; k += kSlices) {
    const int64_t by = c.kept[k];
    c.load(other, by);
    hit = c.suppresses(other, by, box, at);
  }
  const unsigned bits = __ballot_sync(kAllLanes, hit && i < c.size);
  if (threadIdx.x % kWarpThreads == 0 && bits != 0) atomicOr(&c.removed[i / 32], bits);
}

/// One thread for each word of the matrix.
template <class T>
__global__ void __launch_bounds__(kThreads) try_chunk(Chunk c) {
  const unsigned e = blockIdx.x * kThreads + threadIdx.x, i = e / kWords, first = e % kWords * 32;
  const unsigned last = c.size - first < 32 ? c.size : first + 32;
  if (i >= c.size) return;
  uint32_t bits = 0;
  if ((c.removed[i / 32] >> i % 32 & 1) == 0) {
    T box[kBoxColumns], other[kBoxColumns];
    c.load(box, c.begin + i);
    for (unsigned j = first > i ? first : i + 1; j < last && first < c.size; ++j) {
      c.load(other, c.begin + j);
      if (c.suppresses(box, c.begin + i, other, c.begin + j)) bits |= 1u << (j - first);
    }
  }
  c.matrix[e] = bits;
}

/// A single warp, whose lanes have the bits of 32 boxes each.
__global__ void __launch_bounds__(kWarpThreads) walk(Chunk c) {
  const unsigned lane = threadIdx.x;
  uint32_t removed = c.removed[lane];
  c.removed[lane] = 0;
  uint32_t mine = 0;
  for (unsigned first = 0; first < c.size; first += 32) {
    const unsigned group = first / 32, rows = c.size - first < 32 ? c.size - first : 32;
    uint32_t gone = __shfl_sync(kAllLanes, removed, static_cast<int>(group)), stays = 0;
    // Each lane fetches one row's word, so that the walk waits for memory once. All lanes find the same; the
    // rows of what stays are then merged side by side.
    const uint32_t own_row = lane < rows ? c.matrix[(first + lane) * kWords + group] : 0;
    for (unsigned r = 0; r < rows; ++r) {
      const uint32_t row = __shfl_sync(kAllLanes, own_row, static_cast<int>(r));
      if ((gone >> r & 1) != 0) continue;
      stays |= 1u << r;
      gone |= row;
    }
    for (uint32_t left = stays; left != 0; left &= left - 1) {
      removed |= c.matrix[(first + static_cast<unsigned>(__ffs(static_cast<int>(left))) - 1) * kWords + lane];
    }
    if (lane == group) mine = stays;
  }
  const unsigned own = static_cast<unsigned>(__popc(mine));
  const unsigned upto = warp_scan<Sum>(own), before = *c.count;
  unsigned place = before + upto - own;
  for (unsigned r = 0; r < 32 && lane * 32 + r < c.size; ++r) {
    const bool stays = (mine >> r & 1) != 0;
    c.keep[c.begin + lane * 32 + r] = stays;
    if (stays) c.kept[place++] = static_cast<uint32_t>(c.begin + lane * 32 + r);
  }
  __syncwarp();
  if (lane == kWarpThreads - 1) *c.count = before + upto;
}

template <class T>
void run(const NmsParams& p) {
  OPSIN_CHECK(Error, p.n < int64_t{1} << 32, "nms: expected fewer than 2^32 boxes on a GPU, got ", p.n);
  const Scratch<T> boxes = prepare_boxes(p.kind, p.rank, static_cast<const T*>(p.boxes), p.n);
  constexpr int64_t kFixed = kChunk * kWords + kWords + 1;
  const Scratch<uint32_t> memory(p.n + kFixed);
  uint32_t* const matrix = memory.data();
  uint32_t* const removed = matrix + kChunk * kWords;
  clear(removed, (kWords + 1) * sizeof(uint32_t));
  const auto threshold = static_cast<double>(rounded_down<T>(p.threshold));
  Chunk c{boxes.data(), p.groups, p.keep, removed + kWords + 1,        removed + kWords, removed,
          matrix,       0,        0,      p.kind == Overlap::kRotated, p.rank,           threshold};
  for (; c.begin < p.n; c.begin += kChunk) {
    c.size = static_cast<unsigned>(std::min<int64_t>(kChunk, p.n - c.begin));
    const dim3 tries((c.size - 1) / kThreads + 1, kSlices);
    if (c.begin > 0) OPSIN_LAUNCH(try_kept<T>, tries, kThreads, 0, c);
    OPSIN_LAUNCH(try_chunk<T>, (c.size * kWords - 1) / kThreads + 1, kThreads, 0, c);
    OPSIN_LAUNCH(walk, 1, kWarpThreads, 0, c);
  }
}

constexpr unsigned kTakeThreads = 512;

/// A single block takes one box after the other.
template <class T>
__global__ void __launch_bounds__(kTakeThreads) take_boxes(const T* boxes, SoftNmsParams p) {
  __shared__ Indexed<T> shared[kBlockWarps];
  constexpr T kGone = -std::numeric_limits<T>::infinity();
  auto* const scores = static_cast<T*>(p.scores);
  T taken[kBoxColumns], box[kBoxColumns];
  int64_t count = 0;
  for (;; ++count) {
    Indexed<T> best{kGone, p.n};
    for (int64_t j = threadIdx.x; j < p.n; j += kTakeThreads) {
      T score = scores[j];
      if (count > 0) {
        load_box(box, boxes, j);
        const T overlap = boxes::overlap(Overlap::kIou, p.rank, taken, box, T(0));
        score = softened(score, overlap, static_cast<T>(p.threshold), static_cast<T>(p.sigma), p.gaussian);
        scores[j] = score;
      }
      best = ArgMax()(best, Indexed<T>{score, j});
    }
    best = block_reduce<ArgMax>(best, shared);
    if (best.index == p.n || best.value < static_cast<T>(p.min_score)) break;
    load_box(taken, boxes, best.index);
    if (best.index % kTakeThreads == threadIdx.x) scores[best.index] = kGone;
    if (threadIdx.x == 0) {
      p.taken[count] = best.index;
      static_cast<T*>(p.left)[count] = best.value;
    }
  }
  if (threadIdx.x == 0) p.count[0] = count;
}

template <class T>
void take(const SoftNmsParams& p) {
  const Scratch<T> boxes = prepare_boxes(Overlap::kIou, p.rank, static_cast<const T*>(p.boxes), p.n);
  OPSIN_LAUNCH(take_boxes<T>, 1, kTakeThreads, 0, boxes.data(), p);
}

}  // namespace
}  // namespace cuda

void register_nms_cuda();

void register_nms_cuda() {
  nms_suppress.set(DeviceType::kCUDA, kFloat32, cuda::run<float>);
  nms_suppress.set(DeviceType::kCUDA, kFloat64, cuda::run<double>);
  soft_nms_take.set(DeviceType::kCUDA, kFloat32, cuda::take<float>);
  soft_nms_take.set(DeviceType::kCUDA, kFloat64, cuda::take<double>);
}

}  // namespace opsin
