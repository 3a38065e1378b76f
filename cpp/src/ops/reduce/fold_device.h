// The kernels of all reductions over dimensions, as templates over what is folded. F has
//   T            what elements are computed in
//   Acc          the state of an output
//   identity()   the state of no elements
//   Hot          whether one reduced dimension has code of its own
//   kLoads       how many vectors a thread reads at once: few where take() is long
//   take<N>(acc, x, first, step, shift, numbers)   merges N elements of one output into its state; they are
//   the
//                reduced elements first, first + step, ...
//   Merge        merges two states
//   shift(numbers, output)     what take() gets per output
//   finish(acc, numbers, output)   writes the result
// The order in which elements are merged depends on shape and alignment alone.
#pragma once

#include "fold_kernels.h"

#include "core/math.h"
#include "cuda/quotient.h"
#include "cuda/vectors.h"
#include "cuda/workspace.h"

namespace opsin::cuda {

/// Dimensions of one kind, the fastest first; strides in bytes.
struct FoldDims {
  int rank;
  bool wide;  ///< Too many elements for 32 bits.
  int64_t count;
  int64_t sizes[kMaxFoldRank];
  int64_t strides[kMaxFoldRank];
  Divider dividers[kMaxFoldRank];

  FoldDims(IntSpan dims, IntSpan steps) : rank(static_cast<int>(dims.size())), wide(false), count(1) {
    for (size_t d = 0; d < dims.size(); ++d) {
      count *= dims[d];
      sizes[d] = dims[d];
      strides[d] = steps[d];
      dividers[d] = Divider(static_cast<uint32_t>(dims[d]));
    }
    wide = count > std::numeric_limits<uint32_t>::max();
  }

  /// `flat`: there is one dimension, which is known when the kernel is compiled.
  template <bool flat = false>
  __device__ int64_t offset(int64_t i) const {
    if (flat || rank == 1) return i * strides[0];
    int64_t offset = 0;
    OPSIN_NO_UNROLL
    for (int d = 0; d + 1 < rank; ++d) {
      const int64_t above = wide ? wide_quotient(i, sizes[d])
                                 : static_cast<int64_t>(dividers[d].divide(static_cast<uint32_t>(i)));
      offset += (i - above * sizes[d]) * strides[d];
      i = above;
    }
    return offset + i * strides[rank - 1];
  }

  /// Whether runs of `n` elements of `item` bytes, starting at multiples of n, are neighbours at aligned
  /// addresses.
  bool has_runs(int64_t n, int64_t item) const {
    return strides[0] == item && sizes[0] % n == 0 && has_steps(n * item, 1);
  }
  /// Whether all strides from dimension `from` on are multiples of `bytes` or of 16, whichever is less.
  bool has_steps(int64_t bytes, int from) const {
    for (int d = from; d < rank; ++d) {
      if (strides[d] % std::min<int64_t>(bytes, 16) != 0) return false;
    }
    return true;
  }
};

/// What results are made with.
struct FoldNumbers {
  Fold fold;
  FoldArgs args;
  DType dtype, y_dtype;
  char* y;
  const char* shift;
  int64_t* positions;     ///< For positions of extrema, else null.
  bool lowest, absolute;  ///< For extrema: the smallest, of absolute values.
};

struct FoldLaunch {
  const char* x;
  FoldDims kept, reduced;
  FoldNumbers numbers;
  unsigned width;  ///< Rows: threads that share an output.
  int64_t slices;
  void* parts;  ///< State of [output][slice] if there are several slices.
};

/// Integers of any width, or float32, float16 and bfloat16; which one is told at run time.
struct AnyInteger {};
struct AnyFloat {};
/// How elements are read one by one, where no speed is to be had from knowing their type.
template <class S>
using Single = std::conditional_t<std::is_same_v<S, float> || std::is_same_v<S, uint16_t>, AnyFloat, S>;
template <class S>
struct Element {
  using type = Computed<S>;
  static constexpr int kVector = sizeof(S) < 8 ? cuda::kVector<S> : 1;
};
template <>
struct Element<AnyInteger> {
  using type = int64_t;
  static constexpr int kVector = 1;
};

/// N neighbours as they lie in memory. Read first and converted later, so that several reads are on their way
/// at once: what lies in memory is asked at run time, and compilers move no load past a branch.
template <class S, int N>
struct Fetched {
  Pack<S, N> pack;
  __device__ void read(const char* from, DType) { pack = pack_at<S, N>(reinterpret_cast<const S*>(from)); }
  __device__ void get(Computed<S> (&to)[N], DType stored) const { widen(to, pack, stored); }
};
template <int N>
struct Fetched<AnyInteger, N> {
  int64_t values[N];
  __device__ void read(const char* from, DType stored) { load(values, from, stored); }
  __device__ void get(int64_t (&to)[N], DType) const {
    OPSIN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = values[i];
  }
};

template <>
struct Fetched<AnyFloat, 1> {
  uint32_t bits;
  __device__ void read(const char* from, DType stored) {
    bits = stored == kFloat32 ? *reinterpret_cast<const uint32_t*>(from)
                              : *reinterpret_cast<const uint16_t*>(from);
  }
  __device__ void get(float (&to)[1], DType stored) const {
    to[0] = stored == kFloat32 ? __builtin_bit_cast(float, bits) : widen(static_cast<uint16_t>(bits), stored);
  }
};

inline constexpr unsigned kFoldThreads = 256;

template <class F>
__device__ __forceinline__ void put_state(const FoldLaunch& a, const typename F::Acc& acc, int64_t output) {
  if (a.slices == 1) {
    F::finish(acc, a.numbers, output);
  } else {
    static_cast<typename F::Acc*>(a.parts)[output * a.slices + blockIdx.y] = acc;
  }
}

/// Outputs whose elements are neighbours: `width` threads share one. blockIdx.y is the slice.
template <class F, class S, int V, bool flat>
__global__ void __launch_bounds__(kFoldThreads) fold_rows(const FoldLaunch a) {
  using T = typename F::T;
  constexpr int kLoads = F::kLoads;
  __shared__ typename F::Acc shared[kBlockWarps];
  const int64_t output = static_cast<int64_t>(blockIdx.x) * (blockDim.x / a.width) + threadIdx.x / a.width;
  const unsigned lane = threadIdx.x & (a.width - 1);
  typename F::Acc acc = F::identity();
  if (output < a.kept.count) {
    const char* x = a.x + a.kept.offset(output);
    const auto shift = F::shift(a.numbers, output);
    const int64_t runs = a.reduced.count / V, step = static_cast<int64_t>(a.width) * V;
    const int64_t end = runs * (blockIdx.y + 1) / a.slices * V;
    int64_t r = runs * blockIdx.y / a.slices * V + static_cast<int64_t>(lane) * V;
    for (; kLoads > 1 && r + (kLoads - 1) * step < end; r += kLoads * step) {
      int64_t offsets[kLoads];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) offsets[k] = a.reduced.template offset<flat>(r + k * step);
      Fetched<S, V> fetched[kLoads];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) fetched[k].read(x + offsets[k], a.numbers.dtype);
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) {
        T values[V];
        fetched[k].get(values, a.numbers.dtype);
        F::take(acc, values, r + k * step, 1, shift, a.numbers);
      }
    }
    OPSIN_NO_UNROLL
    for (; r < end; r += step) {
      Fetched<S, V> fetched;
      fetched.read(x + a.reduced.template offset<flat>(r), a.numbers.dtype);
      T values[V];
      fetched.get(values, a.numbers.dtype);
      F::take(acc, values, r, 1, shift, a.numbers);
    }
  }
  acc = group_reduce<typename F::Merge>(acc, a.width, shared);
  if (lane == 0 && output < a.kept.count) put_state<F>(a, acc, output);
}

/// Outputs that are neighbours: a thread has V of them, and a block's rows of threads share the reduced
/// elements.
template <class F, class S, int V, bool flat>
__global__ void __launch_bounds__(kFoldThreads) fold_columns(const FoldLaunch a) {
  using T = typename F::T;
  constexpr int kLoads = F::kLoads;
  OPSIN_SHARED(typename F::Acc, shared);
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  const bool inside = first < a.kept.count;
  typename F::Acc acc[V];
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) acc[v] = F::identity();
  if (inside) {
    const char* x = a.x + a.kept.offset(first);
    decltype(F::shift(a.numbers, first)) shift[V];
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) shift[v] = F::shift(a.numbers, first + v);
    const int64_t end = a.reduced.count * (blockIdx.y + 1) / a.slices, step = blockDim.y;
    int64_t r = a.reduced.count * blockIdx.y / a.slices + threadIdx.y;
    for (; kLoads > 1 && r + (kLoads - 1) * step < end; r += kLoads * step) {
      int64_t offsets[kLoads];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) offsets[k] = a.reduced.template offset<flat>(r + k * step);
      Fetched<S, V> fetched[kLoads];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) fetched[k].read(x + offsets[k], a.numbers.dtype);
      T values[kLoads][V];
      OPSIN_UNROLL
      for (int k = 0; k < kLoads; ++k) fetched[k].get(values[k], a.numbers.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        T column[kLoads];
        OPSIN_UNROLL
        for (int k = 0; k < kLoads; ++k) column[k] = values[k][v];
        F::take(acc[v], column, r, step, shift[v], a.numbers);
      }
    }
    OPSIN_NO_UNROLL
    for (; r < end; r += step) {
      Fetched<S, V> fetched;
      fetched.read(x + a.reduced.template offset<flat>(r), a.numbers.dtype);
      T values[V];
      fetched.get(values, a.numbers.dtype);
      OPSIN_UNROLL
      for (int v = 0; v < V; ++v) {
        const T one[1] = {values[v]};
        F::take(acc[v], one, r, step, shift[v], a.numbers);
      }
    }
  }
  const unsigned row = blockDim.x * V;
  typename F::Acc* own = shared + threadIdx.y * row + threadIdx.x;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) own[v * blockDim.x] = acc[v];
  OPSIN_NO_UNROLL
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y >= half) continue;
    OPSIN_UNROLL
    for (int v = 0; v < V; ++v) {
      own[v * blockDim.x] = typename F::Merge{}(own[v * blockDim.x], own[half * row + v * blockDim.x]);
    }
  }
  if (threadIdx.y != 0 || !inside) return;
  OPSIN_UNROLL
  for (int v = 0; v < V; ++v) put_state<F>(a, own[v * blockDim.x], first + v);
}

/// Merges the slices of each output, which `width` threads share.
template <class F>
__global__ void __launch_bounds__(kFoldThreads) fold_slices(const FoldLaunch a) {
  __shared__ typename F::Acc shared[kBlockWarps];
  constexpr int kLoads = 4;
  const int64_t output = static_cast<int64_t>(blockIdx.x) * (blockDim.x / a.width) + threadIdx.x / a.width;
  const unsigned lane = threadIdx.x & (a.width - 1);
  const auto* parts = static_cast<const typename F::Acc*>(a.parts) + output * a.slices;
  const bool inside = output < a.kept.count;
  typename F::Acc acc = F::identity();
  for (int64_t s = lane; inside && s < a.slices; s += kLoads * static_cast<int64_t>(a.width)) {
    typename F::Acc states[kLoads];
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const int64_t slice = s + k * static_cast<int64_t>(a.width);
      states[k] = slice < a.slices ? parts[slice] : F::identity();
    }
    OPSIN_UNROLL
    for (int k = 0; k < kLoads; ++k) acc = typename F::Merge{}(acc, states[k]);
  }
  acc = group_reduce<typename F::Merge>(acc, a.width, shared);
  if (lane == 0 && inside) F::finish(acc, a.numbers, output);
}

/// Blocks that keep every GPU busy; few outputs are cut into slices until there are as many.
inline constexpr int64_t kFoldBlocks = 528;
/// As many outputs keep it busy with a warp each.
inline constexpr int64_t kManyOutputs = 4096;

inline int64_t count_slices(int64_t blocks, int64_t most, int64_t wanted = kFoldBlocks) {
  return std::clamp<int64_t>(std::min(wanted / std::max<int64_t>(1, blocks), most), 1, wanted);
}

template <class F>
void merge_slices(FoldLaunch a) {
  if (a.slices == 1) return;
  a.width = a.slices > 4 * kWarpThreads ? kFoldThreads : 1;
  while (a.width < kWarpThreads && a.width * 4 < a.slices) a.width *= 2;
  OPSIN_LAUNCH(fold_slices<F>, grid_for(a.kept.count * a.width, kFoldThreads, ~0u), kFoldThreads, 0, a);
}

/// Calls body<Stored, V, flat>() for elements stored as S.
template <class F, class S, class Body>
void dispatch_fold(bool vectors, bool flat, Body&& body) {
  if constexpr (Element<S>::kVector > 1) {
    if constexpr (F::Hot::value) {
      if (vectors && flat) return body.template operator()<S, Element<S>::kVector, true>();
    }
    if (vectors) return body.template operator()<S, Element<S>::kVector, false>();
  }
  body.template operator()<Single<S>, 1, false>();
}

template <class F, class S>
void run_fold(const FoldShape& shape, const FoldNumbers& numbers) {
  constexpr int kVectorWidth = Element<S>::kVector;
  const auto item = static_cast<int64_t>(item_size(shape.dtype));
  FoldLaunch a{shape.x,
               FoldDims(shape.kept_sizes, shape.kept_strides),
               FoldDims(shape.reduced_sizes, shape.reduced_strides),
               numbers,
               1,
               1,
               nullptr};
  const FoldDims &along = shape.rows ? a.reduced : a.kept, &across = shape.rows ? a.kept : a.reduced;
  const bool vectors = kVectorWidth > 1 && reinterpret_cast<uintptr_t>(shape.x) % 16 == 0 &&
                       along.has_runs(kVectorWidth, item) && across.has_steps(kVectorWidth * item, 0);
  const int width = vectors ? kVectorWidth : 1;
  const auto state = static_cast<int64_t>(sizeof(typename F::Acc));

  if (shape.rows) {
    const int64_t runs = a.reduced.count / width;
    while (a.width < kWarpThreads && a.width * 2 < runs) a.width *= 2;
    // A block each where there are few outputs.
    if (runs >= 512 && a.kept.count < kManyOutputs) a.width = kFoldThreads;
    const int64_t of_block = kFoldThreads / a.width, blocks = (a.kept.count + of_block - 1) / of_block;
    a.slices = a.width == kFoldThreads ? count_slices(blocks, runs / (kFoldThreads * 8)) : 1;
    const Workspace parts(a.slices == 1 ? 0 : a.slices * a.kept.count * state);
    a.parts = parts.get();
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(a.slices));
    dispatch_fold<F, S>(vectors, a.reduced.rank == 1, [&]<class Stored, int V, bool flat>() {
      OPSIN_LAUNCH((fold_rows<F, Stored, V, flat>), grid, kFoldThreads, 0, a);
    });
    merge_slices<F>(a);
    return;
  }
  const int64_t runs = a.kept.count / width;
  unsigned x = 1, y = 1;
  while (x < kWarpThreads && x < runs) x *= 2;
  while (x * y < kFoldThreads && y * 8 <= a.reduced.count) y *= 2;
  while (x * y < kFoldThreads && x < runs) x *= 2;
  const int64_t blocks = (runs + x - 1) / x;
  // Threads that have eight columns fill the registers: fewer blocks run at once.
  a.slices = count_slices(blocks, a.reduced.count / (y * 16), width > 4 ? kFoldBlocks * 3 / 4 : kFoldBlocks);
  const Workspace parts(a.slices == 1 ? 0 : a.slices * a.kept.count * state);
  a.parts = parts.get();
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(a.slices));
  const size_t shared_bytes = static_cast<size_t>(x * y * width) * sizeof(typename F::Acc);
  dispatch_fold<F, S>(vectors, a.reduced.rank == 1, [&]<class Stored, int V, bool flat>() {
    OPSIN_LAUNCH((fold_columns<F, Stored, V, flat>), grid, dim3(x, y), shared_bytes, a);
  });
  merge_slices<F>(a);
}

/// Runs a fold whose template parameter is what elements are computed in.
template <template <class> class F>
void run_any_fold(const FoldShape& shape, const FoldNumbers& numbers) {
  if (!is_floating_point(shape.dtype)) return run_fold<F<int64_t>, AnyInteger>(shape, numbers);
  dispatch_stored(shape.dtype, [&]<class S>() { run_fold<F<Computed<S>>, S>(shape, numbers); });
}

/// `op` over N values as a tree.
template <class Op, class T, int N>
__device__ __forceinline__ T tree(const T (&x)[N]) {
  T values[N];
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) values[i] = x[i];
  OPSIN_UNROLL
  for (int half = N / 2; half > 0; half /= 2) {
    OPSIN_UNROLL
    for (int i = 0; i < half; ++i) values[i] = Op{}(values[i], values[i + half]);
  }
  return values[0];
}

/// Stores the result of an output, rounded to its dtype.
__device__ __forceinline__ void put_number(double value, const FoldNumbers& p, int64_t output) {
  if (p.y_dtype == kFloat64) {
    reinterpret_cast<double*>(p.y)[output] = value;
  } else {
    store(static_cast<float>(value), p.y + output * (p.y_dtype == kFloat32 ? 4 : 2), p.y_dtype);
  }
}
__device__ __forceinline__ void put_number(int64_t value, const FoldNumbers& p, int64_t output) {
  const int bytes = p.y_dtype == kInt64 ? 8 : p.y_dtype == kInt32 ? 4 : p.y_dtype == kInt16 ? 2 : 1;
  store(value, p.y + output * bytes, p.y_dtype);
}

}  // namespace opsin::cuda
