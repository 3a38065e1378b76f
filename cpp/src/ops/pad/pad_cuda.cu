// Padding in one pass: each element written finds what it shows, or, for the gradient, all that show it.
#include "pad_kernels.h"

#include <cstring>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
constexpr int kRank = PadParams::kMaxRank;
constexpr int kBatch = 4;

/// Splits the number of an element into indices.
struct Shape {
  bool wide;  ///< Too many elements for 32 bits.
  Divider divider[kRank];
  int64_t size[kRank];

  Shape(const int64_t* sizes, int rank) : wide(false), size{} {
    int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= sizes[d];
    wide = n > INT64_C(0xffffffff);
    for (int d = 0; d < rank; ++d) {
      size[d] = sizes[d];
      divider[d] = Divider(wide ? 1 : static_cast<uint32_t>(sizes[d]));
    }
  }
  /// The index along dimension d; `rest` keeps the dimensions before it.
  __device__ int64_t take(int64_t& rest, int d) const {
    int64_t above;
    if (wide) {
      above = rest / size[d];
    } else {
      above = divider[d].divide(static_cast<uint32_t>(rest));
    }
    const int64_t index = rest - above * size[d];
    rest = above;
    return index;
  }
};

/// The index of the input that index `i` of the output, counted from the start of the input, shows; -1 for
/// none.
__device__ int64_t shown(PadMode mode, int64_t i, int64_t size) {
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

template <class T>
__global__ void __launch_bounds__(kThreads)
    pad(const __grid_constant__ PadParams p, const __grid_constant__ Shape shape, int64_t n, T value) {
  const T* const from = static_cast<const T*>(p.from);
  T* const to = static_cast<T*>(p.to);
  const int64_t step = thread_count();
  for (int64_t first = thread_rank(); first < n; first += kBatch * step) {
    T found[kBatch];
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      found[j] = value;
      if (first + j * step >= n) continue;
      int64_t rest = first + j * step, at = 0;
      bool inside = true;
      for (int d = p.rank - 1; d >= 0; --d) {
        const int64_t i = shown(p.mode, shape.take(rest, d) - p.before[d], p.sizes[d]);
        inside &= i >= 0;
        at += i * p.strides[d];
      }
      if (inside) found[j] = from[at];
    }
    OPSIN_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      if (first + j * step < n) to[first + j * step] = found[j];
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
void launch_pad(const PadParams& given) {
  const auto count = static_cast<int64_t>(sizeof(T) / item_size(given.dtype));
  const PadParams p = widened(given, count);
  int64_t n = 1;
  for (int d = 0; d < p.rank; ++d) n *= p.padded[d];
  char value[sizeof(T)];
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(value + static_cast<size_t>(i) * item_size(p.dtype), p.value, item_size(p.dtype));
  }
  T fill;
  std::memcpy(&fill, value, sizeof(T));
  OPSIN_LAUNCH(pad<T>, grid_for(n, kThreads * kBatch), kThreads, 0, p, Shape(p.padded, p.rank), n, fill);
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
    launch_pad<Bits128>(p);
  } else if (multiple % 8 == 0) {
    launch_pad<uint64_t>(p);
  } else if (multiple % 4 == 0) {
    launch_pad<uint32_t>(p);
  } else if (multiple % 2 == 0) {
    launch_pad<uint16_t>(p);
  } else {
    launch_pad<uint8_t>(p);
  }
}

/// The places of the padded dimension that show index `i` of the input.
struct Showing {
  int64_t first[3];
  int64_t count;  ///< For kReplicate, neighbours from first[0] on; else entries of `first`.

  __device__ Showing(PadMode mode, int64_t i, int64_t size, int64_t before, int64_t padded) {
    first[0] = first[1] = first[2] = before + i;
    count = 1;
    if (mode == PadMode::kReplicate) {
      if (i == 0) {
        first[0] = 0;
        count += before;
      }
      if (i == size - 1) count += padded - before - size;
      return;
    }
    const bool reflects = mode == PadMode::kReflect;
    const int64_t low = reflects ? before - i : before + i - size;
    const int64_t high = reflects ? before + 2 * (size - 1) - i : before + i + size;
    if (low >= 0 && !(reflects && i == 0)) first[count++] = low;
    if (high < padded && !(reflects && i == size - 1)) {
      if (count == 1) {
        first[1] = high;
      } else {
        first[2] = high;
      }
      ++count;
    }
  }
  __device__ int64_t place(PadMode mode, int64_t k) const {
    if (mode == PadMode::kReplicate) return first[0] + k;
    return k == 0 ? first[0] : k == 1 ? first[1] : first[2];
  }
};

/// Sums over the places of all dimensions, the last one fastest.
template <class T>
__global__ void __launch_bounds__(kThreads)
    unpad(const __grid_constant__ PadParams p, const __grid_constant__ Shape shape, int64_t n, int64_t item) {
  const char* const from = static_cast<const char*>(p.from);
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    int64_t rest = t, at = 0, total = 1;
    int64_t index[kRank];
    OPSIN_UNROLL
    for (int d = kRank - 1; d >= 0; --d) {
      if (d >= p.rank) continue;
      index[d] = shape.take(rest, d);
      const Showing showing(p.mode, index[d], p.sizes[d], p.before[d], p.padded[d]);
      at += showing.first[0] * p.strides[d];
      total *= showing.count;
    }
    T sum = load<T>(from + at * item, p.dtype);
    for (int64_t k = 1; k < total; ++k) {
      int64_t part = k;
      at = 0;
      OPSIN_UNROLL
      for (int d = kRank - 1; d >= 0; --d) {
        if (d >= p.rank) continue;
        const Showing showing(p.mode, index[d], p.sizes[d], p.before[d], p.padded[d]);
        const int64_t above = part / showing.count;
        at += showing.place(p.mode, part - above * showing.count) * p.strides[d];
        part = above;
      }
      sum += load<T>(from + at * item, p.dtype);
    }
    store(sum, static_cast<char*>(p.to) + t * item, p.dtype);
  }
}

template <class T>
void launch_unpad(const PadParams& p) {
  int64_t n = 1;
  for (int d = 0; d < p.rank; ++d) n *= p.sizes[d];
  OPSIN_LAUNCH(unpad<T>, grid_for(n, kThreads), kThreads, 0, p, Shape(p.sizes, p.rank), n,
               static_cast<int64_t>(item_size(p.dtype)));
}

void run_unpad(const PadParams& p) {
  if (p.dtype == kFloat64) return launch_unpad<double>(p);
  launch_unpad<float>(p);
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
