// Pooling on a GPU with two-dimensional windows of a size that the compiler knows: all of a thread's loads
// are under way before the first value is needed, and neighbouring windows share what they overlap in.
#pragma once

#include <bit>

#include "cuda/vectors.h"

namespace opsin::pool {

using cuda::Divider;
using cuda::Pack;

inline constexpr int kThreads = 128;

/// Sixteen bytes of channels: 32-bit words of one or two numbers.
using Words = Pack<uint32_t, 4>;

template <DType kStored>
using StoredAs = std::conditional_t<kStored == kFloat32, float, uint16_t>;

/// One launch; offsets of elements fit 32 bits.
struct WindowArgs {
  uint32_t threads;
  int in[2], out[2];
  int pad[2];     ///< before the input
  int margin[2];  ///< what a mean counts of it behind
  int channels;
  Divider groups, columns, strips;
  bool count_include_pad;
  float divisor;
};

/// The part of a thread.
struct Part {
  int image, strip, column, channel;
};

__device__ __forceinline__ Part part_of(const WindowArgs& a, uint32_t thread, int width) {
  const auto group = a.groups.divmod(thread);
  const auto column = a.columns.divmod(group.quotient);
  const auto strip = a.strips.divmod(column.quotient);
  return {static_cast<int>(strip.quotient), static_cast<int>(strip.remainder),
          static_cast<int>(column.remainder), static_cast<int>(group.remainder) * width};
}

__device__ __forceinline__ bool inside(int i, int size) {
  return static_cast<unsigned>(i) < static_cast<unsigned>(size);
}

/// How many pixels of window `o` precede the input.
__device__ __forceinline__ int before(const WindowArgs& a, int axis, int o, int stride) {
  return max(a.pad[axis] - o * stride, 0);
}

// Two 16-bit floats in a word.

/// The larger of both, NaN if one is.
template <DType kStored>
__device__ __forceinline__ uint32_t max_pair(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  uint32_t result;
  if constexpr (kStored == kFloat16) {
    asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  } else {
    asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
  }
  return result;
#else
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const auto first = static_cast<uint16_t>(a >> shift), second = static_cast<uint16_t>(b >> shift);
    const float x = cuda::widen(first, kStored);
    result |= uint32_t{x > cuda::widen(second, kStored) || x != x ? first : second} << shift;
  }
  return result;
#endif
}

/// All bits of each half in which a > b or a is NaN. Compute capability 8 does not compare pairs of bfloat16.
template <DType kStored>
__device__ __forceinline__ uint32_t above_pair(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint32_t above, nan;
  if constexpr (kStored == kFloat16) {
    asm("set.gt.u32.f16x2 %0, %1, %2;" : "=r"(above) : "r"(a), "r"(b));
    asm("set.nan.u32.f16x2 %0, %1, %1;" : "=r"(nan) : "r"(a));
  } else {
    asm("set.gt.u32.bf16x2 %0, %1, %2;" : "=r"(above) : "r"(a), "r"(b));
    asm("set.nan.u32.bf16x2 %0, %1, %1;" : "=r"(nan) : "r"(a));
  }
  return above | nan;
#else
  uint32_t result = 0;
  OPSIN_UNROLL
  for (int shift = 0; shift < 32; shift += 16) {
    const float x = cuda::widen(static_cast<uint16_t>(a >> shift), kStored);
    const float y = cuda::widen(static_cast<uint16_t>(b >> shift), kStored);
    if (x > y || x != x) result |= uint32_t{0xffff} << shift;
  }
  return result;
#endif
}

template <DType kStored>
inline constexpr uint32_t kLowest = kStored == kFloat32   ? 0xff800000u
                                    : kStored == kFloat16 ? 0xfc00fc00u
                                                          : 0xff80ff80u;

// The folds: what becomes of the values of a window. take() merges a pixel at column `at` of its row, merge()
// a row whose first pixel is at `at` of the window.

template <DType kStored_>
struct Largest {
  static constexpr DType kStored = kStored_;
  static constexpr bool kTaps = false;
  static constexpr bool kMean = false;
  static constexpr uint32_t kMissing = kLowest<kStored>;
  Words value;

  __device__ __forceinline__ void begin(int /*first*/) {
    OPSIN_UNROLL
    for (uint32_t& word : value.value) word = kMissing;
  }
  __device__ __forceinline__ void take(const Words& x, int /*at*/) {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (kStored == kFloat32) {
        const float a = std::bit_cast<float>(value.value[i]), b = std::bit_cast<float>(x.value[i]);
#if defined(__CUDA_ARCH__)
        float larger;
        asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
        value.value[i] = std::bit_cast<uint32_t>(larger);
#else
        value.value[i] = a > b || a != a ? value.value[i] : x.value[i];
#endif
      } else {
        value.value[i] = max_pair<kStored>(value.value[i], x.value[i]);
      }
    }
  }
  __device__ __forceinline__ void merge(const Largest& row, int at) { take(row.value, at); }
  __device__ __forceinline__ Words result(float) const { return value; }
};

/// With the place of the first of the largest, or of the last NaN, in every number's part of `where`.
template <DType kStored_>
struct LargestAt {
  static constexpr DType kStored = kStored_;
  static constexpr bool kTaps = true;
  static constexpr bool kMean = false;
  static constexpr uint32_t kMissing = kLowest<kStored>;
  static constexpr uint32_t kEach = kStored == kFloat32 ? 1 : 0x10001;
  Words value, where;

  /// `first`: where the window has its first pixel inside the input.
  __device__ __forceinline__ void begin(int first) {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) {
      value.value[i] = kMissing;
      where.value[i] = kEach * static_cast<uint32_t>(first);
    }
  }
  __device__ __forceinline__ void take(int i, uint32_t x, uint32_t at) {
    uint32_t& best = value.value[i];
    uint32_t& place = where.value[i];
    if constexpr (kStored == kFloat32) {
      const float a = std::bit_cast<float>(x);
      const bool above = a > std::bit_cast<float>(best) || a != a;
      best = above ? x : best;
      place = above ? at : place;
    } else {
      const uint32_t above = above_pair<kStored>(x, best);
      best = (above & x) | (~above & best);
      place = (above & at) | (~above & place);
    }
  }
  __device__ __forceinline__ void take(const Words& x, int at) {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) take(i, x.value[i], kEach * static_cast<uint32_t>(at));
  }
  __device__ __forceinline__ void merge(const LargestAt& row, int at) {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) {
      take(i, row.value.value[i], row.where.value[i] + kEach * static_cast<uint32_t>(at));
    }
  }
  __device__ __forceinline__ Words result(float) const { return value; }
  /// The taps, counted from the first pixel inside the input.
  __device__ __forceinline__ Pack<uint8_t, 16 / item_size(kStored)> taps(int first) const {
    Pack<uint8_t, 16 / item_size(kStored)> to;
    constexpr int kParts = kStored == kFloat32 ? 1 : 2;
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = where.value[i] - kEach * static_cast<uint32_t>(first);
      OPSIN_UNROLL
      for (int part = 0; part < kParts; ++part) {
        to.value[i * kParts + part] = static_cast<uint8_t>(word >> 16 * part);
      }
    }
    return to;
  }
};

template <DType kStored_>
struct Mean {
  static constexpr DType kStored = kStored_;
  static constexpr bool kTaps = false;
  static constexpr bool kMean = true;
  static constexpr uint32_t kMissing = 0;
  using Stored = StoredAs<kStored>;
  static constexpr int kWidth = cuda::kVector<Stored>;
  float sum[kWidth];

  __device__ __forceinline__ void begin(int /*first*/) {
    OPSIN_UNROLL
    for (float& x : sum) x = 0;
  }
  __device__ __forceinline__ void take(const Words& x, int /*at*/) {
    float values[kWidth];
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (kStored == kFloat32) {
        values[i] = std::bit_cast<float>(x.value[i]);
      } else if constexpr (kStored == kBFloat16) {
        cuda::bfloats_to_floats(x.value[i], values[2 * i], values[2 * i + 1]);
      } else {
        cuda::halves_to_floats(x.value[i], values[2 * i], values[2 * i + 1]);
      }
    }
    OPSIN_UNROLL
    for (int i = 0; i < kWidth; ++i) sum[i] += values[i];
  }
  __device__ __forceinline__ void merge(const Mean& row, int /*at*/) {
    OPSIN_UNROLL
    for (int i = 0; i < kWidth; ++i) sum[i] += row.sum[i];
  }
  __device__ __forceinline__ Words result(float divisor) const {
    // What is rounded to 16 bits can do without a division for each.
    const float share = 1 / divisor;
    float mean[kWidth];
    OPSIN_UNROLL
    for (int i = 0; i < kWidth; ++i) mean[i] = kStored == kFloat32 ? sum[i] / divisor : sum[i] * share;
    return std::bit_cast<Words>(cuda::narrow<Stored>(mean, kStored));
  }
};

/// What a mean over window (o0, o1) is divided by.
template <int K, int S>
__device__ __forceinline__ float divisor_of(const WindowArgs& a, int o0, int o1) {
  if (a.divisor != 0) return a.divisor;
  const auto length = [&](int axis, int o) {
    const int start = o * S - a.pad[axis];
    return min(start + K, a.in[axis] + a.margin[axis]) - (a.count_include_pad ? start : max(start, 0));
  };
  return static_cast<float>(length(0, o0) * length(1, o1));
}

/// Windows of K x K pixels, S apart; a thread takes R of them, one below the other. `taps` are null or what
/// cpu::PoolPositions says.
template <class Fold, int K, int S, int R, int kBlock = kThreads>
__global__ void __launch_bounds__(kBlock) window_forward(const WindowArgs a, const StoredAs<Fold::kStored>* x,
                                                         StoredAs<Fold::kStored>* y, uint8_t* taps) {
  using Stored = StoredAs<Fold::kStored>;
  constexpr int kWidth = cuda::kVector<Stored>, kRows = (R - 1) * S + K;
  const uint32_t thread = blockIdx.x * kBlock + threadIdx.x;
  if (thread >= a.threads) return;
  const Part p = part_of(a, thread, kWidth);
  const int first = p.strip * R, top = first * S - a.pad[0], left = p.column * S - a.pad[1];
  x += p.image * a.in[0] * a.in[1] * a.channels + p.channel;
  Words pixels[kRows][K];
  OPSIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    OPSIN_UNROLL
    for (int c = 0; c < K; ++c) {
      Words& pixel = pixels[r][c];
      pixel = {Fold::kMissing, Fold::kMissing, Fold::kMissing, Fold::kMissing};
      if (inside(top + r, a.in[0]) && inside(left + c, a.in[1])) {
        pixel = *reinterpret_cast<const Words*>(x + ((top + r) * a.in[1] + left + c) * a.channels);
      }
    }
  }
  const int skipped = before(a, 1, p.column, S);
  const auto skipped_of = [&](int o) { return before(a, 0, o, S) * K + skipped; };
  Fold folds[R];
  OPSIN_UNROLL
  for (int i = 0; i < R; ++i) folds[i].begin(skipped_of(first + i));
  OPSIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Fold row;
    row.begin(skipped);
    OPSIN_UNROLL
    for (int c = 0; c < K; ++c) row.take(pixels[r][c], c);
    OPSIN_UNROLL
    for (int i = 0; i < R; ++i) {
      if (r >= i * S && r < i * S + K) folds[i].merge(row, (r - i * S) * K);
    }
  }
  OPSIN_UNROLL
  for (int i = 0; i < R; ++i) {
    const int o = first + i;
    if (o >= a.out[0]) break;
    const int to = ((p.image * a.out[0] + o) * a.out[1] + p.column) * a.channels + p.channel;
    float divisor = 1;
    if constexpr (Fold::kMean) divisor = divisor_of<K, S>(a, o, p.column);
    *reinterpret_cast<Words*>(y + to) = folds[i].result(divisor);
    if constexpr (Fold::kTaps) cuda::pack_at<uint8_t, kWidth>(taps + to) = folds[i].taps(skipped_of(o));
  }
}

/// The gradients of input pixels, each gathered from the windows that hold it in the order of the windows. A
/// thread has R patches of S x S pixels, one below the other, which begin where a window begins. With taps
/// the gradient of a window goes to one pixel, without an equal share to all.
template <DType kStored, int K, int S, int R, bool kTaps, int kBlock = kThreads>
__global__ void __launch_bounds__(kBlock) window_backward(const WindowArgs a, const StoredAs<kStored>* grad_y,
                                                          const uint8_t* taps, StoredAs<kStored>* grad_x) {
  using Stored = StoredAs<kStored>;
  constexpr int kWidth = cuda::kVector<Stored>;
  constexpr int kReach = (K - 1) / S;  // Windows that begin before a patch and reach into it.
  constexpr int kRows = kReach + R, kColumns = kReach + 1;
  const uint32_t thread = blockIdx.x * kBlock + threadIdx.x;
  if (thread >= a.threads) return;
  const Part p = part_of(a, thread, kWidth);
  const int first = p.strip * R - kReach, left = p.column - kReach;
  Pack<Stored, kWidth> grads[kRows][kColumns];
  Pack<uint32_t, kWidth / 4> places[kRows][kColumns];
  OPSIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    OPSIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      int o0 = first + r, o1 = left + c;
      // Instead of a window that does not exist its neighbour is read: a branch would wait for what it loads.
      o0 = min(max(o0, 0), a.out[0] - 1);
      o1 = min(max(o1, 0), a.out[1] - 1);
      const int from = ((p.image * a.out[0] + o0) * a.out[1] + o1) * a.channels + p.channel;
      grads[r][c] = cuda::pack_at<Stored, kWidth>(grad_y + from);
      if constexpr (kTaps) {
        places[r][c] = *reinterpret_cast<const Pack<uint32_t, kWidth / 4>*>(taps + from);
      }
    }
  }
  float sums[R * S][S][kWidth] = {};
  OPSIN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    OPSIN_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const int o0 = first + r, o1 = left + c;
      float grad[kWidth];
      cuda::widen(grad, grads[r][c], kStored);
      const bool exists = inside(o0, a.out[0]) && inside(o1, a.out[1]);
      if constexpr (kTaps) {
        // Taps counted from the first pixel of the window, inside the input or not.
        const int skipped = before(a, 0, o0, S) * K + before(a, 1, o1, S);
        OPSIN_UNROLL
        for (uint32_t& word : places[r][c].value) {
          word = exists ? word + static_cast<uint32_t>(skipped) * 0x01010101u : ~0u;
        }
      } else {
        const float share = 1 / divisor_of<K, S>(a, o0, o1);
        OPSIN_UNROLL
        for (float& value : grad) value = exists ? value * share : 0;
      }
      OPSIN_UNROLL
      for (int v = 0; v < kWidth; ++v) {
        const uint32_t place = kTaps ? places[r][c].value[v / 4] & 0xffu << 8 * (v % 4) : 0;
        OPSIN_UNROLL
        for (int i = 0; i < R * S; ++i) {
          OPSIN_UNROLL
          for (int j = 0; j < S; ++j) {
            const int t0 = i - (r - kReach) * S, t1 = j - (c - kReach) * S;
            if (t0 < 0 || t0 >= K || t1 < 0 || t1 >= K) continue;
            if (!kTaps || place == static_cast<uint32_t>(t0 * K + t1) << 8 * (v % 4))
              sums[i][j][v] += grad[v];
          }
        }
      }
    }
  }
  OPSIN_UNROLL
  for (int i = 0; i < R * S; ++i) {
    OPSIN_UNROLL
    for (int j = 0; j < S; ++j) {
      const int i0 = p.strip * R * S + i - a.pad[0], i1 = p.column * S + j - a.pad[1];
      if (!inside(i0, a.in[0]) || !inside(i1, a.in[1])) continue;
      const int to = ((p.image * a.in[0] + i0) * a.in[1] + i1) * a.channels + p.channel;
      cuda::pack_at<Stored, kWidth>(grad_x + to) = cuda::narrow<Stored>(sums[i][j], kStored);
    }
  }
}

}  // namespace opsin::pool
