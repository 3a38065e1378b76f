// Padding in one pass: each element written finds what it shows, or, for the gradient, all that show it.
#include "pad_kernels.h"

#include <algorithm>
#include <cstring>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
constexpr int kRank = PadParams::kMaxRank;
constexpr int kBatch = 4;

/// Sizes and strides as a kernel counts with them: 32 bits where no tensor has more elements.
template <class I>
struct Dimensions {
  I size, padded, before, stride;
  Divider divider;  ///< By the size of what is written.
};
template <class I>
struct PadDims {
  PadMode mode;
  int rank;
  Dimensions<I> at[kRank];

  /// The index along dimension d of what is written, `length` there; `rest` keeps the dimensions before it.
  __device__ I take(I& rest, int d, I length) const {
    I above;
    if constexpr (sizeof(I) == 4) {
      above = static_cast<I>(at[d].divider.divide(static_cast<uint32_t>(rest)));
    } else {
      above = rest / length;
    }
    const I index = rest - above * length;
    rest = above;
    return index;
  }
};

int64_t product(const int64_t* sizes, int rank) {
  int64_t n = 1;
  for (int d = 0; d < rank; ++d) n *= sizes[d];
  return n;
}

template <class I>
PadDims<I> dims_of(const PadParams& p, const int64_t* written) {
  PadDims<I> dims{};
  dims.mode = p.mode;
  dims.rank = p.rank;
  for (int d = 0; d < p.rank; ++d) {
    dims.at[d] = {static_cast<I>(p.sizes[d]), static_cast<I>(p.padded[d]), static_cast<I>(p.before[d]),
                  static_cast<I>(p.strides[d]),
                  Divider(sizeof(I) == 4 ? static_cast<uint32_t>(written[d]) : 1)};
  }
  return dims;
}

/// Whether 32 bits count all elements and reach all that is read.
bool is_small(const PadParams& p, int64_t n) {
  int64_t reach = 0;
  for (int d = 0; d < p.rank; ++d) reach += std::max(p.sizes[d], p.padded[d]) * p.strides[d];
  constexpr int64_t kMost = INT64_C(0x7fffffff) - 2 * int64_t{kMaxGridBlocks} * kThreads * kBatch;
  return n <= kMost && reach <= kMost;
}

/// The index of the input that index `i` of the output, counted from the start of the input, shows; -1 for
/// none.
template <class I>
__device__ I shown(PadMode mode, I i, I size) {
  if (i >= 0 && i < size) return i;
  switch (mode) {
    case PadMode::kConstant:
      return -1;
    case PadMode::kReflect:
      return i < 0 ? -i : 2 * size - 2 - i;
    case PadMode::kReplicate:
      return i < 0 ? 0 : size - 1;
    default:
      return i < 0 ? i + size : i - size;
  }
}

/// Where element `rest` of what is written comes from; -1: from no element.
template <class I>
__device__ __forceinline__ I source_of(const PadDims<I>& dims, I rest) {
  I at = 0;
  bool inside = true;
  for (int d = dims.rank - 1; d >= 0; --d) {
    const Dimensions<I>& dim = dims.at[d];
    const I place = d == 0 ? rest : dims.take(rest, d, dim.padded);
    const I i = shown<I>(dims.mode, place - dim.before, dim.size);
    inside &= i >= 0;
    at += i * dim.stride;
  }
  return inside ? at : -1;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    pad(const __grid_constant__ PadDims<int32_t> dims, const T* from, T* to, int32_t n, T value) {
  const auto step = static_cast<int32_t>(thread_count());
  for (auto first = static_cast<int32_t>(thread_rank()); first < n; first += kBatch * step) {
    T found[kBatch];
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      found[j] = value;
      if (first + j * step >= n) continue;
      const int32_t at = source_of(dims, first + j * step);
      if (at >= 0) found[j] = from[at];
    }
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      if (first + j * step < n) to[first + j * step] = found[j];
    }
  }
}

/// The same where 32 bits are too few, for units of any size: one copy of the divisions of 64-bit numbers,
/// which take most of the time.
__global__ void __launch_bounds__(kThreads)
    pad_large(const __grid_constant__ PadDims<int64_t> dims, const char* from, char* to, int64_t n,
              int64_t unit, Bits128 value) {
  const auto move = [&]<class T>(int64_t at, int64_t place) {
    T moved;
    memcpy(&moved, &value, sizeof(T));
    if (at >= 0) moved = reinterpret_cast<const T*>(from)[at];
    reinterpret_cast<T*>(to)[place] = moved;
  };
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < n; i += thread_count()) {
    const int64_t at = source_of(dims, i);
    switch (unit) {
      case 1:
        move.template operator()<uint8_t>(at, i);
        break;
      case 2:
        move.template operator()<uint16_t>(at, i);
        break;
      case 4:
        move.template operator()<uint32_t>(at, i);
        break;
      case 8:
        move.template operator()<uint64_t>(at, i);
        break;
      default:
        move.template operator()<Bits128>(at, i);
    }
  }
}

/// The same with `count` elements as one, where the last dimension is not padded.
PadParams widened(PadParams p, int64_t count) {
  const int last = p.rank - 1;
  p.sizes[last] /= count;
  p.padded[last] /= count;
  for (int d = 0; d < last; ++d) p.strides[d] /= count;
  return p;
}

template <class T>
void pad_units(const PadParams& given) {
  const size_t item = item_size(given.dtype);
  const PadParams p = widened(given, static_cast<int64_t>(sizeof(T) / item));
  const int64_t n = product(p.padded, p.rank);
  Bits128 value{};
  for (size_t at = 0; at < sizeof(T); at += item) {
    std::memcpy(reinterpret_cast<char*>(&value) + at, p.value, item);
  }
  if (!is_small(p, n)) {
    OPSIN_LAUNCH(pad_large, grid_for(n, kThreads), kThreads, 0, dims_of<int64_t>(p, p.padded),
                 static_cast<const char*>(p.from), static_cast<char*>(p.to), n,
                 static_cast<int64_t>(sizeof(T)), value);
    return;
  }
  T unit;
  std::memcpy(&unit, &value, sizeof(T));
  OPSIN_LAUNCH((pad<T>), grid_for(n, kThreads * kBatch), kThreads, 0, dims_of<int32_t>(p, p.padded),
               static_cast<const T*>(p.from), static_cast<T*>(p.to), static_cast<int32_t>(n), unit);
}

void run_pad(const PadParams& p) {
  const int last = p.rank - 1;
  const auto item = static_cast<uint64_t>(item_size(p.dtype));
  uint64_t multiple = item;
  if (p.padded[last] == p.sizes[last] && p.strides[last] == 1) {
    multiple = reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to) |
               static_cast<uint64_t>(p.sizes[last]) * item;
    for (int d = 0; d < last; ++d) multiple |= static_cast<uint64_t>(p.strides[d]) * item;
  }
  if (multiple % 16 == 0) {
    pad_units<Bits128>(p);
  } else if (multiple % 8 == 0) {
    pad_units<uint64_t>(p);
  } else if (multiple % 4 == 0) {
    pad_units<uint32_t>(p);
  } else if (multiple % 2 == 0) {
    pad_units<uint16_t>(p);
  } else {
    pad_units<uint8_t>(p);
  }
}

/// The places of the padded dimension that show index `i` of the input.
template <class I>
struct Showing {
  I first, second, third;
  I count;  ///< For kReplicate, neighbours from `first` on; else 1 to 3.

  __device__ Showing(PadMode mode, I i, const Dimensions<I>& dim) {
    first = second = third = dim.before + i;
    count = 1;
    if (mode == PadMode::kReplicate) {
      if (i == 0) {
        first = 0;
        count += dim.before;
      }
      if (i == dim.size - 1) count += dim.padded - dim.before - dim.size;
      return;
    }
    const bool reflects = mode == PadMode::kReflect;
    const I low = reflects ? dim.before - i : dim.before + i - dim.size;
    const I high = reflects ? dim.before + 2 * (dim.size - 1) - i : dim.before + i + dim.size;
    if (low >= 0 && !(reflects && i == 0)) {
      second = low;
      ++count;
    }
    if (high < dim.padded && !(reflects && i == dim.size - 1)) {
      (count == 1 ? second : third) = high;
      ++count;
    }
  }
  __device__ I place(PadMode mode, I k) const {
    if (mode == PadMode::kReplicate) return first + k;
    return k == 0 ? first : k == 1 ? second : third;
  }
};

/// Sums over the places of all dimensions, the last one fastest.
template <class T, class I>
__global__ void __launch_bounds__(kThreads) unpad(const __grid_constant__ PadDims<I> dims, const char* from,
                                                  char* to, DType dtype, I n, int64_t item) {
  OPSIN_NO_UNROLL
  for (I t = static_cast<I>(thread_rank()); t < n; t += static_cast<I>(thread_count())) {
    I rest = t, at = 0, total = 1;
    for (int d = dims.rank - 1; d >= 0; --d) {
      const Dimensions<I>& dim = dims.at[d];
      const Showing<I> showing(dims.mode, d == 0 ? rest : dims.take(rest, d, dim.size), dim);
      at += showing.first * dim.stride;
      total *= showing.count;
    }
    T sum = load<T>(from + at * item, dtype);
    for (I k = 1; k < total; ++k) {
      I part = k;
      rest = t;
      at = 0;
      for (int d = dims.rank - 1; d >= 0; --d) {
        const Dimensions<I>& dim = dims.at[d];
        const Showing<I> showing(dims.mode, d == 0 ? rest : dims.take(rest, d, dim.size), dim);
        const I above = part / showing.count;
        at += showing.place(dims.mode, part - above * showing.count) * dim.stride;
        part = above;
      }
      sum += load<T>(from + at * item, dtype);
    }
    store(sum, to + t * item, dtype);
  }
}

template <class T, class I>
void launch_unpad(const PadParams& p, int64_t n) {
  OPSIN_LAUNCH((unpad<T, I>), grid_for(n, kThreads), kThreads, 0, dims_of<I>(p, p.sizes),
               static_cast<const char*>(p.from), static_cast<char*>(p.to), p.dtype, static_cast<I>(n),
               static_cast<int64_t>(item_size(p.dtype)));
}

template <class T>
void unpad_numbers(const PadParams& p) {
  const int64_t n = product(p.sizes, p.rank);
  if (is_small(p, n)) {
    launch_unpad<T, int32_t>(p, n);
  } else {
    launch_unpad<T, int64_t>(p, n);
  }
}

void run_unpad(const PadParams& p) {
  if (p.dtype == kFloat64) return unpad_numbers<double>(p);
  unpad_numbers<float>(p);
}

}  // namespace

void register_pad_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    pad_forward.set(DeviceType::kCUDA, dtype, run_pad);
    if (is_floating_point(dtype)) pad_backward.set(DeviceType::kCUDA, dtype, run_unpad);
  }
}

}  // namespace opsin
