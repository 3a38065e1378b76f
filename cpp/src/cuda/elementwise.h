// Kernels of the elementwise families: one instance for each functor and computing type. How the operands lie
// (dense, strided, broadcast, a number; as which 16-bit float) is told at run time, so that nothing else is
// compiled twice.
#pragma once

#include <cstring>
#include <utility>

#include "core/elementwise.h"
#include "cuda/access.h"
#include "cuda/block.h"

#if defined(__CUDACC__)
// One functor serves signed and unsigned integers, so some of its comparisons say nothing for the latter.
#pragma nv_diag_suppress 186
#endif

namespace opsin::cuda {

/// N operands: the output, then the inputs, which are computed with as T.
template <class T, int N>
struct ElementArgs {
  uint32_t numel;
  int rank;
  bool dense;  ///< Elements follow each other and every address is aligned to a chunk.
  char* data[N];
  DType dtype[N];
  uint8_t size[N];  ///< Bytes of an element in memory.
  T number[N];      ///< The value where data is null.
  Divider sizes[DevicePlan::kMaxRank];
  int64_t strides[N][DevicePlan::kMaxRank];
};

inline constexpr int kElementThreads = 256;
/// Neighbours that a thread takes at once: 16 bytes in registers, so that loads are as wide as they can be.
template <class T>
inline constexpr int kElementChunk = sizeof(T) <= 4   ? 4
                                     : sizeof(T) == 8 ? 2
                                                      : 1;
/// Chunks of a thread, a block's width apart: several loads are on their way at once.
inline constexpr int kElementChunks = 2;

template <class F, class T, size_t... I>
__global__ void __launch_bounds__(kElementThreads)
    elementwise_kernel(const ElementArgs<T, sizeof...(I) + 1> args, const F f, std::index_sequence<I...>) {
  constexpr int kInputs = sizeof...(I), kWidth = kElementChunk<T>, kEach = kWidth * kElementChunks;
  using Out = decltype(f((static_cast<void>(I), T())...));
  const uint32_t first = blockIdx.x * (kElementThreads * kEach);
  if (args.dense && first + kElementThreads * kEach <= args.numel) {
    T in[kInputs][kElementChunks][kWidth];
    Out out[kElementChunks][kWidth];
    uint32_t index[kElementChunks];
    OPSIN_UNROLL
    for (int c = 0; c < kElementChunks; ++c) index[c] = first + (c * kElementThreads + threadIdx.x) * kWidth;
    OPSIN_UNROLL
    for (int i = 0; i < kInputs; ++i) {
      OPSIN_UNROLL
      for (int c = 0; c < kElementChunks; ++c) {
        if (args.data[i + 1]) {
          load(in[i][c], args.data[i + 1] + uint64_t{index[c]} * args.size[i + 1], args.dtype[i + 1]);
        } else {
          OPSIN_UNROLL
          for (int w = 0; w < kWidth; ++w) in[i][c][w] = args.number[i + 1];
        }
      }
    }
    OPSIN_UNROLL
    for (int c = 0; c < kElementChunks; ++c) {
      OPSIN_UNROLL
      for (int w = 0; w < kWidth; ++w) out[c][w] = f(in[I][c][w]...);
      store(out[c], args.data[0] + uint64_t{index[c]} * args.size[0], args.dtype[0]);
    }
    return;
  }

  // Element by element; neighbours go to neighbouring threads.
  OPSIN_NO_UNROLL
  for (int e = 0; e < kEach; ++e) {
    const uint32_t position = first + e * kElementThreads + threadIdx.x;
    if (position >= args.numel) return;
    int64_t offset[kInputs + 1] = {};
    uint32_t rest = position;
    OPSIN_NO_UNROLL
    for (int d = 0; d < args.rank; ++d) {
      const uint32_t above = d + 1 == args.rank ? 0 : args.sizes[d].divide(rest);
      const auto digit = static_cast<int64_t>(rest - above * args.sizes[d].divisor());
      OPSIN_UNROLL
      for (int i = 0; i <= kInputs; ++i) offset[i] += digit * args.strides[i][d];
      rest = above;
    }
    T in[kInputs];
    OPSIN_UNROLL
    for (int i = 0; i < kInputs; ++i) {
      in[i] = args.data[i + 1] ? load<T>(args.data[i + 1] + offset[i + 1], args.dtype[i + 1])
                               : args.number[i + 1];
    }
    store(f(in[I]...), args.data[0] + offset[0], args.dtype[0]);
  }
}

/// A number of a plan, as the kernel computes with it.
template <class T>
T number_of(const char* number, DType dtype) {
  T value[1];
  load(value, number, dtype);
  return value[0];
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
  args.numel = static_cast<uint32_t>(plan.numel);
  args.rank = plan.rank;
  args.dense = plan.dense;
  for (int i = 0; i <= kInputs; ++i) {
    args.data[i] = plan.data[i];
    args.dtype[i] = plan.dtype[i];
    args.size[i] = static_cast<uint8_t>(item_size(plan.dtype[i]));
    if (!plan.data[i]) {
      args.number[i] = number_of<T>(plan.number[i], plan.dtype[i]);
    } else {
      args.dense &=
          reinterpret_cast<uintptr_t>(plan.data[i]) % (item_size(plan.dtype[i]) * kElementChunk<T>) == 0;
    }
    for (int d = 0; d < plan.rank; ++d) args.strides[i][d] = plan.strides[i][d];
  }
  for (int d = 0; d < plan.rank; ++d) args.sizes[d] = Divider(static_cast<uint32_t>(plan.sizes[d]));
  constexpr int64_t kEach = int64_t{kElementThreads} * kElementChunk<T> * kElementChunks;
  const auto blocks = static_cast<unsigned>((plan.numel + kEach - 1) / kEach);
  launch_elementwise(args, f, blocks, std::make_index_sequence<kInputs>());
}

}  // namespace opsin::cuda
