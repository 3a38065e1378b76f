// Random numbers on a GPU: a thread makes what one block of Philox gives. Bit by bit those of the CPU.
#include "random_functors.h"
#include "random_kernels.h"

#include "cuda/access.h"
#include "cuda/block.h"
#include "cuda/device_error.h"
namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// The words of block `index` of a call.
__device__ __forceinline__ philox::Block words_at(const PhiloxSeed& resolved, int64_t index) {
  return philox::block(resolved.seed, resolved.offset + static_cast<uint64_t>(index));
}

/// Whether `data` lies so that N elements of `dtype` can be moved at once.
bool is_aligned(const void* data, DType dtype, int n) {
  return reinterpret_cast<uintptr_t>(data) %
             std::min<size_t>(16, item_size(dtype) * static_cast<size_t>(n)) ==
         0;
}

/// The N neighbours from element `first` on, as far as there are any.
template <class T, int N>
__device__ __forceinline__ void store_some(const T (&values)[N], char* to, DType dtype, int64_t first,
                                           int64_t count, unsigned size, bool aligned) {
  if (aligned && first + N <= count) return store(values, to + first * size, dtype);
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) {
    if (first + i < count) store(values[i], to + (first + i) * size, dtype);
  }
}
template <class T, int N>
__device__ __forceinline__ void load_some(T (&values)[N], const char* from, DType dtype, int64_t first,
                                          int64_t count, unsigned size, bool aligned) {
  if (aligned && first + N <= count) return load(values, from + first * size, dtype);
  OPSIN_UNROLL
  for (int i = 0; i < N; ++i) {
    values[i] = first + i < count ? load<T>(from + (first + i) * size, dtype) : T(0);
  }
}

/// f(words, values) makes the N values of a block.
template <class T, int N, class F>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(F f, char* out, DType dtype, unsigned size, int64_t count, bool aligned, PhiloxSeed random) {
  random = resolve(random);
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i * N < count; i += thread_count()) {
    const philox::Block words = words_at(random, i);
    T values[N];
    f(words.word, values);
    store_some(values, out, dtype, i * N, count, size, aligned);
  }
}

template <class T, int N, class F>
void launch_fill(const FillParams& p, F f) {
  OPSIN_LAUNCH((fill_kernel<T, N, F>), grid_for((p.count + N - 1) / N, kThreads), kThreads, 0, f,
               static_cast<char*>(p.out), p.dtype, static_cast<unsigned>(item_size(p.dtype)), p.count,
               is_aligned(p.out, p.dtype, N), p.random);
}

struct UniformFloat {
  int bits;
  double from, range;
  __device__ void operator()(const uint32_t (&word)[4], float (&y)[4]) const {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) y[i] = philox::uniform_in(word[i], bits, from, range);
  }
};
struct UniformDouble {
  double from, range;
  __device__ void operator()(const uint32_t (&word)[4], double (&y)[2]) const {
    y[0] = philox::uniform_in(word[0], word[1], from, range);
    y[1] = philox::uniform_in(word[2], word[3], from, range);
  }
};
struct NormalFloat {
  double mean, std;
  __device__ void operator()(const uint32_t (&word)[4], float (&y)[4]) const {
    OPSIN_UNROLL
    for (int i = 0; i < 4; i += 2) {
      const auto pair = philox::normal_pair(word[i], word[i + 1]);
      y[i] = philox::normal_with(pair.first, mean, std);
      y[i + 1] = philox::normal_with(pair.second, mean, std);
    }
  }
};
struct NormalDouble {
  double mean, std;
  __device__ void operator()(const uint32_t (&word)[4], double (&y)[2]) const {
    const auto pair = philox::normal_pair(philox::join(word[0], word[1]), philox::join(word[2], word[3]));
    y[0] = philox::normal_with(pair.first, mean, std);
    y[1] = philox::normal_with(pair.second, mean, std);
  }
};
template <class T>
struct Bernoulli {
  uint32_t limit;
  __device__ void operator()(const uint32_t (&word)[4], T (&y)[4]) const {
    OPSIN_UNROLL
    for (int i = 0; i < 4; ++i) y[i] = static_cast<T>(philox::is_below(word[i], limit));
  }
};
template <class T>
struct Integers {
  int64_t low;
  uint64_t range;
  bool is_bool;
  __device__ void operator()(const uint32_t (&word)[4], T (&y)[2]) const {
    OPSIN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int64_t value = philox::integer_in(word[2 * i], word[2 * i + 1], low, range);
      if constexpr (std::is_same_v<T, float>) {
        y[i] = static_cast<float>(static_cast<double>(value));
      } else {
        y[i] = static_cast<T>(is_bool ? value != 0 : value);
      }
    }
  }
};

void fill_uniform(const FillParams& p) {
  if (p.dtype == kFloat64) return launch_fill<double, 2>(p, UniformDouble{p.a, p.b});
  launch_fill<float, 4>(p, UniformFloat{philox::uniform_bits(p.dtype), p.a, p.b});
}

void fill_normal(const FillParams& p) {
  if (p.dtype == kFloat64) return launch_fill<double, 2>(p, NormalDouble{p.a, p.b});
  launch_fill<float, 4>(p, NormalFloat{p.a, p.b});
}

/// Calls body<T>() for the type that values of `dtype` have in registers.
template <class F>
void with_register_type(DType dtype, F body) {
  if (dtype == kFloat64) return body.template operator()<double>();
  if (is_floating_point(dtype)) return body.template operator()<float>();
  body.template operator()<int64_t>();
}

void fill_bernoulli(const FillParams& p) {
  with_register_type(p.dtype, [&]<class T>() { launch_fill<T, 4>(p, Bernoulli<T>{p.limit}); });
}

void fill_randint(const FillParams& p) {
  with_register_type(p.dtype,
                     [&]<class T>() { launch_fill<T, 2>(p, Integers<T>{p.low, p.range, p.dtype == kBool}); });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    bernoulli_kernel(const char* p, char* y, DType dtype, unsigned size, int64_t count, bool aligned,
                     PhiloxSeed random, DeviceError* error, HostText op, HostText rule) {
  random = resolve(random);
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i * 4 < count; i += thread_count()) {
    T values[4];
    load_some(values, p, dtype, i * 4, count, size, aligned);
    const philox::Block words = words_at(random, i);
    OPSIN_UNROLL
    for (int j = 0; j < 4; ++j) {
      const auto probability = static_cast<double>(values[j]);
      if (!(probability >= 0 && probability <= 1)) report_value(error, op, rule, probability);
      values[j] = static_cast<double>(philox::uniform_float(words.word[j])) < probability;
    }
    store_some(values, y, dtype, i * 4, count, size, aligned);
  }
}

void draw_bernoulli(const BernoulliParams& p) {
  with_register_type(p.dtype, [&]<class T>() {
    if constexpr (!std::is_integral_v<T>) {
      OPSIN_LAUNCH(bernoulli_kernel<T>, grid_for((p.count + 3) / 4, kThreads), kThreads, 0,
                   static_cast<const char*>(p.p), static_cast<char*>(p.y), p.dtype,
                   static_cast<unsigned>(item_size(p.dtype)), p.count,
                   is_aligned(p.p, p.dtype, 4) && is_aligned(p.y, p.dtype, 4), p.random, device_error(),
                   "bernoulli", "Expected p_in >= 0 && p_in <= 1");
    }
  });
}

/// Pieces that a thread takes, a block's width apart: their loads are on their way at once.
constexpr int kDropoutPieces = 2;

/// What a piece of dropout is: kBlocks blocks of Philox one after the other, so that it has 16 bytes of a
/// dtype of up to 4 bytes.
template <class T, int kBlocks>
struct DropoutPiece {
  static constexpr int kWidth = 4 * kBlocks;
  static constexpr int64_t kSize = kBlocks == 2 ? 2 : sizeof(T);
  using Loaded = std::conditional_t<kBlocks == 2, HalfChunk<kWidth>, Chunk<T, kWidth>>;
};

/// Words from `limit` on are kept, if any are.
template <class T, int kBlocks>
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(const char* x, char* y, DType dtype, int64_t count, bool aligned, PhiloxSeed random,
                   uint32_t limit, bool any, T scale) {
  using Piece = DropoutPiece<T, kBlocks>;
  constexpr int kWidth = Piece::kWidth;
  constexpr int64_t kSize = Piece::kSize, kOfBlock = int64_t{kThreads} * kDropoutPieces;
  random = resolve(random);
  // 16-bit floats are told apart at run time.
  const DType stored = kBlocks == 2 ? dtype : dtype_of<T>;
  const int64_t base = blockIdx.x * kOfBlock;
  const auto drop = [&](T(&values)[kWidth], int64_t piece) {
    OPSIN_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      const philox::Block words = words_at(random, piece * kBlocks + b);
      OPSIN_UNROLL
      for (int j = 0; j < 4; ++j) {
        T& value = values[4 * b + j];
        value = any && words.word[j] >= limit ? value * scale : T(0);
      }
    }
  };
  if (aligned && (base + kOfBlock) * kWidth <= count) {
    x += base * kWidth * kSize;
    y += base * kWidth * kSize;
    typename Piece::Loaded loaded[kDropoutPieces];
    OPSIN_UNROLL
    for (int p = 0; p < kDropoutPieces; ++p) {
      loaded[p].read(x + (threadIdx.x + p * kThreads) * static_cast<unsigned>(kWidth * kSize), stored);
    }
    OPSIN_UNROLL
    for (int p = 0; p < kDropoutPieces; ++p) {
      T values[kWidth];
      loaded[p].get(values, stored);
      drop(values, base + threadIdx.x + p * kThreads);
      char* to = y + (threadIdx.x + p * kThreads) * static_cast<unsigned>(kWidth * kSize);
      if constexpr (kBlocks == 2) {
        store_words(values, to, stored);
      } else {
        store(values, to, stored);
      }
    }
    return;
  }
  OPSIN_NO_UNROLL
  for (int p = 0; p < kDropoutPieces; ++p) {
    const int64_t piece = base + threadIdx.x + p * kThreads;
    T values[kWidth];
    load_some(values, x, dtype, piece * kWidth, count, kSize, false);
    drop(values, piece);
    store_some(values, y, dtype, piece * kWidth, count, kSize, false);
  }
}

template <class T, int kBlocks>
void launch_dropout(const DropoutParams& p) {
  constexpr int kWidth = DropoutPiece<T, kBlocks>::kWidth;
  constexpr int64_t kOfBlock = int64_t{kWidth} * kDropoutPieces * kThreads;
  OPSIN_LAUNCH((dropout_kernel<T, kBlocks>), static_cast<unsigned>((p.count + kOfBlock - 1) / kOfBlock),
               kThreads, 0, static_cast<const char*>(p.x), static_cast<char*>(p.y), p.dtype, p.count,
               is_aligned(p.x, p.dtype, kWidth) && is_aligned(p.y, p.dtype, kWidth), p.random, p.least << 8,
               p.least < 1u << 24, static_cast<T>(p.scale));
}

void apply_dropout(const DropoutParams& p) {
  if (p.dtype == kFloat64) return launch_dropout<double, 1>(p);
  if (p.dtype == kFloat32) return launch_dropout<float, 1>(p);
  launch_dropout<float, 2>(p);
}

/// Where the running weights of a row pass the draw's share of their sum.
__global__ void __launch_bounds__(kThreads) choose_kernel(ChooseParams p) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.rows * p.samples; i += thread_count()) {
    const double* row = p.cumulative + i / p.samples * p.n;
    const double target = philox::mul(p.draws[i], row[p.n - 1]);
    int64_t low = 0, high = p.n - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (row[middle] > target) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    p.index[i] = low;
  }
}

void choose(const ChooseParams& p) {
  OPSIN_LAUNCH(choose_kernel, grid_for(p.rows * p.samples, kThreads), kThreads, 0, p);
}

}  // namespace

void register_random_cuda();

void register_random_cuda() {
  constexpr auto kDevice = DeviceType::kCUDA;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (is_floating_point(dtype)) {
      uniform_fill.set(kDevice, dtype, fill_uniform);
      normal_fill.set(kDevice, dtype, fill_normal);
      bernoulli_forward.set(kDevice, dtype, draw_bernoulli);
      dropout_forward.set(kDevice, dtype, apply_dropout);
    }
    if (is_complex(dtype)) continue;
    bernoulli_fill.set(kDevice, dtype, fill_bernoulli);
    randint_fill.set(kDevice, dtype, fill_randint);
  }
  multinomial_choose.set(kDevice, kFloat64, choose);
}

}  // namespace opsin
