// A block computes a tile of C; its threads bring slices of A and B through shared memory and keep 4 x 4 sums
// each.
#include "matmul_cuda.h"

#include <cstdlib>
#include <type_traits>

#include <opsin/error.h>

#include "core/dispatch.h"
#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {
namespace cuda {
namespace {

constexpr int kTile = 64;   // Rows and columns of C in a block.
constexpr int kDepth = 16;  // Steps of k in a slice.
constexpr int kSide = 16;   // Threads along each side of the tile.
constexpr int kSums = kTile / kSide;
constexpr int kThreads = kSide * kSide;

template <class T>
__device__ inline void add_product(Complex<T>& sum, Complex<T> a, Complex<T> b) {
  sum.real += a.real * b.real;
  sum.real -= a.imag * b.imag;
  sum.imag += a.real * b.imag;
  sum.imag += a.imag * b.real;
}
template <class T>
__device__ inline void add(Complex<T>& sum, Complex<T> a) {
  sum.real += a.real;
  sum.imag += a.imag;
}
template <class T>
__device__ inline void add_product(T& sum, T a, T b) {
  sum += a * b;
}
template <class T>
__device__ inline void add(T& sum, T a) {
  sum += a;
}

/// The elements of a matrix in memory.
struct Stored {
  DType dtype;
  int64_t size;  ///< Bytes of one.
};

/// What elements are read as and what they are summed in. Integers wrap around, as unsigned ones do. Which of
/// the floats or integers lies in memory is told at run time: one kernel for all that are summed alike.
template <class T>
struct Types {
  using Value = std::conditional_t<std::is_integral_v<T>, int64_t, compute_t<T>>;
  using Sum = std::conditional_t<std::is_integral_v<T>,
                                 std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>, compute_t<T>>;
};
template <class T>
struct Types<std::complex<T>> {
  using Value = Complex<T>;
  using Sum = Complex<T>;
};

/// Copies rows [first_row, +kTile) and columns [first_step, +kDepth) of a [rows, steps] matrix, zeros outside
/// of it. Neighbouring threads walk along k where that stride is the smaller one.
template <class Value, class Sum>
__device__ inline void fetch(const char* matrix, const Stored& stored, int64_t rows, int64_t steps,
                             int64_t row_stride, int64_t step_stride, int64_t first_row, int64_t first_step,
                             bool along_steps, Sum (&slice)[kDepth][kTile + 1]) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kThreads) {
    const int row = along_steps ? i / kDepth : i % kTile, step = along_steps ? i % kDepth : i / kTile;
    const int64_t r = first_row + row, s = first_step + step;
    Sum value{};
    if (r < rows && s < steps) {
      value = static_cast<Sum>(
          load<Value>(matrix + (r * row_stride + s * step_stride) * stored.size, stored.dtype));
    }
    slice[step][row] = value;
  }
}

template <class Value, class Sum>
__global__ void __launch_bounds__(kThreads) multiply(MatmulParams p, Stored stored, int64_t row_tiles,
                                                     int64_t column_tiles, bool a_along_k, bool b_along_k) {
  __shared__ Sum a_slice[kDepth][kTile + 1];
  __shared__ Sum b_slice[kDepth][kTile + 1];
  int64_t block = blockIdx.x;
  const int64_t first_column = block % column_tiles * kTile;
  block /= column_tiles;
  const int64_t first_row = block % row_tiles * kTile, batch = block / row_tiles;
  const char* a = static_cast<const char*>(p.a) + batch * p.a_batch * stored.size;
  const char* b = static_cast<const char*>(p.b) + batch * p.b_batch * stored.size;
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  Sum sums[kSums][kSums] = {};
  for (int64_t k = 0; k < p.k; k += kDepth) {
    fetch<Value>(a, stored, p.m, p.k, p.a_row, p.a_col, first_row, k, a_along_k, a_slice);
    fetch<Value>(b, stored, p.n, p.k, p.b_col, p.b_row, first_column, k, b_along_k, b_slice);
    __syncthreads();
    // Zeros beyond the end of k would turn an infinity into NaN.
    const int depth = p.k - k < kDepth ? static_cast<int>(p.k - k) : kDepth;
    for (int step = 0; step < depth; ++step) {
      Sum left[kSums], right[kSums];
      for (int i = 0; i < kSums; ++i) left[i] = a_slice[step][y + i * kSide];
      for (int j = 0; j < kSums; ++j) right[j] = b_slice[step][x + j * kSide];
      for (int i = 0; i < kSums; ++i)
        for (int j = 0; j < kSums; ++j) add_product(sums[i][j], left[i], right[j]);
    }
    __syncthreads();
  }
  const char* bias = static_cast<const char*>(p.bias);
  char* c = static_cast<char*>(p.c) + batch * p.c_batch * stored.size;
  for (int i = 0; i < kSums; ++i) {
    const int64_t row = first_row + y + i * kSide;
    for (int j = 0; j < kSums; ++j) {
      const int64_t column = first_column + x + j * kSide;
      if (row >= p.m || column >= p.n) continue;
      char* to = c + (row * p.c_row + column) * stored.size;
      Sum sum = sums[i][j];
      if (bias) add(sum, static_cast<Sum>(load<Value>(bias + column * stored.size, stored.dtype)));
      if (p.accumulate) add(sum, static_cast<Sum>(load<Value>(to, stored.dtype)));
      store(static_cast<Value>(sum), to, stored.dtype);
    }
  }
}

template <class T>
void multiply_all(const MatmulParams& p) {
  using Value = typename Types<T>::Value;
  const int64_t row_tiles = (p.m + kTile - 1) / kTile, column_tiles = (p.n + kTile - 1) / kTile;
  const int64_t blocks = row_tiles * column_tiles * p.batch;
  if (blocks == 0) return;
  OPSIN_CHECK(Error, blocks <= INT32_MAX, "matmul: the result [", p.batch, ", ", p.m, ", ", p.n,
              "] is too large for one launch");
  OPSIN_LAUNCH((multiply<Value, typename Types<T>::Sum>), static_cast<unsigned>(blocks), kThreads, 0, p,
               Stored{dtype_of<T>, sizeof(T)}, row_tiles, column_tiles,
               std::abs(p.a_col) <= std::abs(p.a_row), std::abs(p.b_row) <= std::abs(p.b_col));
}

template <class Word>
__global__ void pack(const Word* from, int64_t count, int64_t rows, int64_t columns, int64_t batch_stride,
                     int64_t row_stride, int64_t column_stride, Word* to) {
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < count; i += thread_count()) {
    const int64_t column = i % columns, row = i / columns % rows, batch = i / columns / rows;
    to[i] = from[batch * batch_stride + row * row_stride + column * column_stride];
  }
}

template <class T>
void set() {
  matmul_forward.set(DeviceType::kCUDA, dtype_of<T>, multiply_all<T>);
}
template <class... Ts>
void set_all() {
  (set<Ts>(), ...);
}

}  // namespace

void matmul(DType dtype, const MatmulParams& params) {
  dispatch_floating(dtype, "matmul", [&]<class T>() { multiply_all<T>(params); });
}

void pack_matrices(const void* from, int64_t batch, int64_t rows, int64_t columns, int64_t batch_stride,
                   int64_t row_stride, int64_t column_stride, size_t item_size, void* to) {
  const int64_t count = batch * rows * columns;
  const auto launch = [&]<class Word>(Word) {
    OPSIN_LAUNCH((pack<Word>), grid_for(count, kThreads), kThreads, 0, static_cast<const Word*>(from), count,
                 rows, columns, batch_stride, row_stride, column_stride, static_cast<Word*>(to));
  };
  if (item_size == 2) return launch(uint16_t{});
  if (item_size == 4) return launch(uint32_t{});
  OPSIN_CHECK(Error, item_size == 8, "matmul: no copies of elements of ", item_size, " bytes");
  launch(uint64_t{});
}

}  // namespace cuda

void register_matmul_cuda() {
  cuda::set_all<uint8_t, int8_t, int16_t, int32_t, int64_t, float16, bfloat16, float, double,
                std::complex<float>, std::complex<double>>();
}

}  // namespace opsin
