// Kernels of the elementwise families: one instance for each functor and computing type. How the operands lie
// (dense, strided, broadcast, a number; as which 16-bit float) is told at run time, so that nothing else is
// compiled twice.
#pragma once

#include <cstring>
#include <utility>

#include "core/elementwise.h"
#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin::cuda {

/// How an operand is addressed.
enum class Operand : uint8_t {
  kNumber,   ///< The same value everywhere; it lies in no memory of the device.
  kRuns,     ///< The elements of a chunk are neighbours.
  kSpread,   ///< One element serves a chunk.
  kRepeats,  ///< Element after element, and from the start again after a period.
};

/// N operands: the output, then the inputs, which are computed with as T.
template <class T, int N>
struct ElementArgs {
  uint32_t numel;
  bool flat;     ///< All operands lie element after element, repeat or are numbers.
  bool chunked;  ///< Addresses are aligned for chunks; if strided, sizes[0] and strides[.][0] are theirs.
  uint8_t each;  ///< Chunks of a thread.
  int rank;
  char* data[N];
  Operand kind[N];
  DType dtype[N];
  uint8_t size[N];  ///< Bytes of an element in memory.
  T number[N];      ///< The value of a number.
  Divider period;   ///< Of operands that repeat, in chunks.
  Divider sizes[DevicePlan::kMaxRank];
  int64_t strides[N][DevicePlan::kMaxRank];
};

/// Integers that are computed with as int32_t and cut when they are stored: one kernel serves all four.
inline constexpr DType kShortIntegers[] = {kUInt8, kInt8, kInt16, kInt32};

inline constexpr int kElementThreads = 256;
/// Neighbours that a thread takes at once: 16 bytes in registers, so that loads are as wide as they can be.
template <class T>
inline constexpr int kElementChunk = sizeof(T) <= 4   ? 4
                                     : sizeof(T) == 8 ? 2
                                                      : 1;
/// Chunks of a thread, a block's width apart: several loads are on their way at once, where functors ask for
/// it by a type Chunks. That is what networks spend their time in; the code of the others stays small.
template <class F>
inline constexpr int kElementChunks = 1;
template <class F>
  requires(F::Chunks::value > 1)
inline constexpr int kElementChunks<F> = F::Chunks::value;
/// The same where operands are strided and addresses take more registers; 0: element by element.
template <class F>
inline constexpr int kStridedChunks = kElementChunks<F> > 1 ? 2 : 0;
/// Whether operands that repeat, as rows do that are added to a matrix, count as flat, where functors ask for
/// it by a type TakesRows.
template <class F>
inline constexpr bool kTakesRows = false;
template <class F>
  requires(F::TakesRows::value)
inline constexpr bool kTakesRows<F> = true;
/// Threads that keep every GPU busy; only then does one take more than one chunk.
inline constexpr int64_t kManyThreads = 1 << 18;

/// Chunks of operands that are flat as a whole.
template <class F, class T, size_t... I>
__device__ __forceinline__ void apply_flat(const ElementArgs<T, sizeof...(I) + 1>& args, const F& f) {
  constexpr int kInputs = sizeof...(I), kWidth = kElementChunk<T>, kEach = kElementChunks<F>;
  using Out = decltype(f((static_cast<void>(I), T())...));
  const uint32_t chunks = args.numel / kWidth, first = blockIdx.x * kElementThreads * args.each + threadIdx.x;
  const auto is_mine = [&](int c) { return c < args.each && first + c * kElementThreads < chunks; };
  Chunk<T, kWidth> chunk[kInputs][kEach];
  OPSIN_UNROLL
  for (int i = 0; i < kInputs; ++i) {
    if (args.kind[i + 1] == Operand::kNumber) continue;
    const uint32_t bytes = kWidth * args.size[i + 1];
    OPSIN_UNROLL
    for (int c = 0; c < kEach; ++c) {
      uint32_t at = first + c * kElementThreads;
      if constexpr (kTakesRows<F>) {
        if (args.kind[i + 1] == Operand::kRepeats) at = args.period.modulo(at);
      }
      if (is_mine(c)) chunk[i][c].read(args.data[i + 1] + uint64_t{at} * bytes, args.dtype[i + 1]);
    }
  }
  OPSIN_UNROLL
  for (int c = 0; c < kEach; ++c) {
    if (!is_mine(c)) return;
    T in[kInputs][kWidth];
    OPSIN_UNROLL
    for (int i = 0; i < kInputs; ++i) {
      if (args.kind[i + 1] == Operand::kNumber) {
        OPSIN_UNROLL
        for (int w = 0; w < kWidth; ++w) in[i][w] = args.number[i + 1];
      } else {
        chunk[i][c].get(in[i], args.dtype[i + 1]);
      }
    }
    Out out[kWidth];
    OPSIN_UNROLL
    for (int w = 0; w < kWidth; ++w) out[w] = f(in[I][w]...);
    store(out, args.data[0] + uint64_t{first + c * kElementThreads} * (kWidth * args.size[0]), args.dtype[0]);
  }
}

/// Strided operands in runs of N neighbours, of which a thread takes up to kEach, a block's width apart:
/// entry `first` is its first run of `count`.
template <int N, int kEach, class F, class T, size_t... I>
__device__ __forceinline__ void apply_strided(const ElementArgs<T, sizeof...(I) + 1>& args, const F& f,
                                              uint32_t first, uint32_t count) {
  constexpr int kInputs = sizeof...(I);
  using Out = decltype(f((static_cast<void>(I), T())...));
  const auto is_mine = [&](int c) { return c < args.each && first + c * kElementThreads < count; };
  int64_t offset[kInputs + 1][kEach] = {};
  uint32_t rest[kEach];
  OPSIN_UNROLL
  for (int c = 0; c < kEach; ++c) rest[c] = first + c * kElementThreads;
  OPSIN_NO_UNROLL
  for (int d = 0; d < args.rank; ++d) {
    OPSIN_UNROLL
    for (int c = 0; c < kEach; ++c) {
      const uint32_t above = d + 1 == args.rank ? 0 : args.sizes[d].divide(rest[c]);
      const auto digit = static_cast<int64_t>(rest[c] - above * args.sizes[d].divisor());
      OPSIN_UNROLL
      for (int i = 0; i <= kInputs; ++i) offset[i][c] += digit * args.strides[i][d];
      rest[c] = above;
    }
  }
  Chunk<T, N> chunk[kInputs][kEach];
  OPSIN_UNROLL
  for (int i = 0; i < kInputs; ++i) {
    OPSIN_UNROLL
    for (int c = 0; c < kEach; ++c) {
      const char* from = args.data[i + 1] + offset[i + 1][c];
      if (!is_mine(c) || args.kind[i + 1] == Operand::kNumber) continue;
      if constexpr (N > 1) {
        if (args.kind[i + 1] == Operand::kRuns) {
          chunk[i][c].read(from, args.dtype[i + 1]);
          continue;
        }
      }
      chunk[i][c].read_one(from, args.dtype[i + 1]);
    }
  }
  OPSIN_UNROLL
  for (int c = 0; c < kEach; ++c) {
    if (!is_mine(c)) return;
    T in[kInputs][N];
    OPSIN_UNROLL
    for (int i = 0; i < kInputs; ++i) {
      if constexpr (N > 1) {
        if (args.kind[i + 1] == Operand::kRuns) {
          chunk[i][c].get(in[i], args.dtype[i + 1]);
          continue;
        }
      }
      const T value =
          args.kind[i + 1] == Operand::kNumber ? args.number[i + 1] : chunk[i][c].get_one(args.dtype[i + 1]);
      OPSIN_UNROLL
      for (int w = 0; w < N; ++w) in[i][w] = value;
    }
    Out out[N];
    OPSIN_UNROLL
    for (int w = 0; w < N; ++w) out[w] = f(in[I][w]...);
    store(out, args.data[0] + offset[0][c], args.dtype[0]);
  }
}

template <class F, class T, size_t... I>
__global__ void __launch_bounds__(kElementThreads)
    elementwise_kernel(const ElementArgs<T, sizeof...(I) + 1> args, const F f, std::index_sequence<I...>) {
  constexpr uint32_t kWidth = kElementChunk<T>;
  uint32_t first = blockIdx.x * kElementThreads * args.each + threadIdx.x;
  if (args.chunked && args.flat) {
    apply_flat<F, T, I...>(args, f);
    // The last block has what is behind the last chunk, too.
    if (blockIdx.x + 1 < gridDim.x || threadIdx.x >= args.numel % kWidth) return;
    first = args.numel / kWidth * kWidth + threadIdx.x;
  }
  if constexpr (kStridedChunks<F> > 0) {
    if (args.chunked && !args.flat) {
      return apply_strided<kWidth, kStridedChunks<F>, F, T, I...>(args, f, first, args.numel / kWidth);
    }
  }
  apply_strided<1, 1, F, T, I...>(args, f, first, args.numel);
}

/// A number of a plan, as the kernel computes with it.
template <class T>
T number_of(const char* number, DType dtype) {
  T value[1];
  load(value, number, dtype);
  return value[0];
}

/// How operand i of a plan is addressed in chunks of `width` neighbours, where operands are strided.
struct Addressing {
  Operand kind;
  bool flat, chunked, aligned;
  int64_t period;  ///< After how many elements it repeats; 0 where it does not.

  Addressing(const DevicePlan& plan, int i, int64_t width)
      : kind(Operand::kNumber), flat(true), chunked(true), aligned(true), period(0) {
    if (!plan.data[i]) return;
    const auto item = static_cast<int64_t>(item_size(plan.dtype[i])), bytes = item * width;
    aligned = reinterpret_cast<uintptr_t>(plan.data[i]) % static_cast<size_t>(bytes) == 0;
    bool steps = true, repeats = true;
    int64_t next = item;
    for (int d = 0; d < plan.rank; ++d) {
      const int64_t stride = plan.strides[i][d];
      steps &= d == 0 || stride % bytes == 0;
      if (plan.sizes[d] == 1) continue;
      if (flat && stride == next) {
        next *= plan.sizes[d];
      } else {
        flat = false;
        repeats &= stride == 0;
      }
    }
    if (!flat && repeats && i > 0) period = next / item;
    kind = i > 0 && plan.strides[i][0] == 0 ? Operand::kSpread : Operand::kRuns;
    chunked = flat ? aligned : kind == Operand::kSpread || (aligned && steps && plan.strides[i][0] == item);
  }
};

/// Fills in all of `args` for functors with these numbers of chunks, which take rows or not: the blocks of
/// the launch. What depends on the functor is small, so that hundreds of them do not bring as many copies of
/// this.
template <class T, int N>
OPSIN_NOINLINE unsigned lay_out(const DevicePlan& plan, int chunks, int strided_chunks, bool takes_rows,
                                ElementArgs<T, N>& args) {
  constexpr int64_t kWidth = kElementChunk<T>;
  args.numel = static_cast<uint32_t>(plan.numel);
  args.rank = plan.rank;
  bool flat = true, flat_chunked = true, strided_chunked = strided_chunks > 0 && plan.sizes[0] % kWidth == 0;
  bool repeats[N] = {};
  int64_t period = 0;
  for (int i = 0; i < N; ++i) {
    const Addressing way(plan, i, kWidth);
    args.data[i] = plan.data[i];
    args.dtype[i] = plan.dtype[i];
    args.size[i] = static_cast<uint8_t>(item_size(plan.dtype[i]));
    args.kind[i] = way.kind;
    if (!plan.data[i]) args.number[i] = number_of<T>(plan.number[i], plan.dtype[i]);
    flat_chunked &= way.aligned;
    strided_chunked &= way.chunked;
    repeats[i] = !way.flat;
    if (way.flat) continue;
    flat &= takes_rows && way.period > 0 && way.period % kWidth == 0 && (period == 0 || period == way.period);
    period = way.period;
  }
  args.flat = flat;
  args.chunked = flat ? flat_chunked : strided_chunked;
  if (flat && period > 0) {
    args.period = Divider(static_cast<uint32_t>(period / kWidth));
    for (int i = 0; i < N; ++i) {
      if (repeats[i]) args.kind[i] = Operand::kRepeats;
    }
  }
  for (int d = 0; d < plan.rank; ++d) {
    const int64_t unit = d == 0 && args.chunked && !args.flat ? kWidth : 1;
    args.sizes[d] = Divider(static_cast<uint32_t>(plan.sizes[d] / unit));
    for (int i = 0; i < N; ++i) args.strides[i][d] = plan.strides[i][d] * unit;
  }
  const int64_t entries = args.chunked ? (plan.numel + kWidth - 1) / kWidth : plan.numel;
  const int each = args.flat ? chunks : strided_chunks;
  args.each = static_cast<uint8_t>(args.chunked && entries >= kManyThreads * each ? each : 1);
  const int64_t of_block = int64_t{kElementThreads} * args.each;
  return static_cast<unsigned>((entries + of_block - 1) / of_block);
}

template <class T, class F, size_t... I>
void launch_elementwise(const ElementArgs<T, sizeof...(I) + 1>& args, const F& f, unsigned blocks,
                        std::index_sequence<I...> inputs) {
  OPSIN_LAUNCH((elementwise_kernel<F, T, I...>), blocks, kElementThreads, 0, args, f, inputs);
}

/// Launches f(T...) over a plan of `kInputs` inputs.
template <class T, int kInputs, class F>
void run_elementwise(const DevicePlan& plan, const F& f) {
  ElementArgs<T, kInputs + 1> args{};
  const unsigned blocks = lay_out(plan, kElementChunks<F>, kStridedChunks<F>, kTakesRows<F>, args);
  launch_elementwise(args, f, blocks, std::make_index_sequence<kInputs>());
}

}  // namespace opsin::cuda
