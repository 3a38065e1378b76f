// Resampling on a GPU. One kernel fills the tables of the axes, another gives each thread an element, or some
// neighbouring channels, of the output.
#include "interpolate_kernels.h"

#include <algorithm>
#include <limits>

#include <opsin/error.h>

#include "cuda/block.h"
#include "cuda/scratch.h"
#include "cuda/vectors.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

/// The tables of all axes, one behind the other.
struct Tables {
  AxisRule axis[3];
  bool transposed, narrow;
  int most[3];
  int first_row[3];  ///< Of each axis, in `rows`.
  int64_t first_weight[3];
  int rows_in_all;
  int2* rows;     ///< First index and count.
  void* weights;  ///< float if `narrow`, else double.
};

__global__ void __launch_bounds__(kThreads) fill_tables(const __grid_constant__ Tables tables) {
  const int stride = static_cast<int>(thread_count());
  for (int row = static_cast<int>(thread_rank()); row < tables.rows_in_all; row += stride) {
    const int a = row >= tables.first_row[2] ? 2 : row >= tables.first_row[1] ? 1 : 0;
    const int o = row - tables.first_row[a];
    const int64_t first = tables.first_weight[a] + int64_t{o} * tables.most[a];
    const auto put = [&](int64_t k, double weight) {
      if (tables.narrow) {
        static_cast<float*>(tables.weights)[first + k] = static_cast<float>(weight);
      } else {
        static_cast<double*>(tables.weights)[first + k] = weight;
      }
    };
    const AxisWindow w = axis::fill_row(tables.axis[a], tables.transposed, o, put);
    tables.rows[row] = {static_cast<int>(w.first), static_cast<int>(w.count)};
  }
}

template <class T>
struct Args {
  uint32_t threads;
  Divider groups, pixels[3];  ///< Of the output.
  int in[3];
  int inner;
  DType dtype;
  int most[3];
  const int2* rows[3];
  const T* weights[3];
};

template <class S, int V>
__global__ void __launch_bounds__(kThreads)
    resample_pixels(const __grid_constant__ Args<Computed<S>> a, const S* x, S* y) {
  using T = Computed<S>;
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread >= a.threads) return;
  const auto group = a.groups.divmod(thread);
  const int channel = static_cast<int>(group.remainder) * V;
  uint32_t rest = group.quotient;
  int2 row[3];
  const T* weights[3];
  OPSIN_UNROLL
  for (int axis = 2; axis >= 0; --axis) {
    const auto digit = a.pixels[axis].divmod(rest);
    rest = digit.quotient;
    row[axis] = a.rows[axis][digit.remainder];
    weights[axis] = a.weights[axis] + int64_t{digit.remainder} * a.most[axis];
  }
  x += int64_t{rest} * a.in[0] * a.in[1] * a.in[2] * a.inner + channel;
  T sum[V] = {};
  for (int i = 0; i < row[0].y; ++i) {
    for (int j = 0; j < row[1].y; ++j) {
      const T weight = weights[0][i] * weights[1][j];
      const S* from = x + (((row[0].x + i) * a.in[1] + row[1].x + j) * a.in[2] + row[2].x) * a.inner;
      for (int k = 0; k < row[2].y; ++k) {
        T value[V];
        widen(value, pack_at<S, V>(from + k * a.inner), a.dtype);
        const T w = weight * weights[2][k];
        OPSIN_UNROLL
        for (int v = 0; v < V; ++v) sum[v] += w * value[v];
      }
    }
  }
  pack_at<S, V>(y + int64_t{thread} * V) = narrow<S>(sum, a.dtype);
}

/// The most entries that a row of the table of an axis has.
int64_t most_of(const AxisRule& rule, bool transposed) {
  int64_t most = 1;
  if (!transposed) {
    for (int64_t o = 0; o < rule.out; ++o) most = std::max(most, axis::window_of(rule, o).count);
    return most;
  }
  // The output that ends beyond an index last, and the first that begins beyond it.
  int64_t first = 0, end = 0;
  for (int64_t i = 0; i < rule.in; ++i) {
    const auto stop = [&](int64_t o) {
      const AxisWindow w = axis::window_of(rule, o);
      return w.first + w.count;
    };
    while (first < rule.out && stop(first) <= i) ++first;
    while (end < rule.out && axis::window_of(rule, end).first <= i) ++end;
    most = std::max(most, end - first);
  }
  return most;
}

template <class S>
void run(const ResampleParams& p) {
  using T = Computed<S>;
  Tables tables{};
  int64_t rows = 0, weights = 0, in = p.inner, out = p.inner;
  for (int a = 0; a < 3; ++a) {
    tables.axis[a] = p.axis[a];
    tables.first_row[a] = static_cast<int>(rows);
    tables.first_weight[a] = weights;
    const int64_t most = most_of(p.axis[a], p.transposed);
    tables.most[a] = static_cast<int>(most);
    rows += p.y_size(a);
    weights += p.y_size(a) * most;
    in *= p.x_size(a);
    out *= p.y_size(a);
  }
  const int64_t each = std::max(in, out);
  OPSIN_CHECK(ShapeError, each <= INT32_MAX && rows <= INT32_MAX,
              "interpolate: expected at most 2^31 elements per image on a GPU, got ", each);
  const Scratch<int2> row_memory(rows);
  const Scratch<T> weight_memory(weights);
  tables.transposed = p.transposed;
  tables.rows_in_all = static_cast<int>(rows);
  tables.rows = row_memory.data();
  tables.narrow = sizeof(T) == 4;
  tables.weights = weight_memory.data();
  OPSIN_LAUNCH(fill_tables, grid_for(rows, kThreads), kThreads, 0, tables);

  Args<T> args{};
  for (int a = 0; a < 3; ++a) {
    args.in[a] = static_cast<int>(p.x_size(a));
    args.pixels[a] = Divider(static_cast<uint32_t>(p.y_size(a)));
    args.most[a] = tables.most[a];
    args.rows[a] = tables.rows + tables.first_row[a];
    args.weights[a] = weight_memory.data() + tables.first_weight[a];
  }
  args.inner = static_cast<int>(p.inner);
  args.dtype = p.dtype;
  const auto launch = [&]<int V>() {
    args.groups = Divider(static_cast<uint32_t>(p.inner / V));
    const int64_t most = INT32_MAX / each;
    for (int64_t image = 0; image < p.outer; image += most) {
      const int64_t images = std::min(most, p.outer - image);
      args.threads = static_cast<uint32_t>(images * out / V);
      OPSIN_LAUNCH((resample_pixels<S, V>), (args.threads + kThreads - 1) / kThreads, kThreads, 0, args,
                   static_cast<const S*>(p.x) + image * in, static_cast<S*>(p.y) + image * out);
    }
  };
  if constexpr (sizeof(S) < 8) {
    if (fits_vectors<S>(p.inner, p.x, p.y)) return launch.template operator()<kVector<S>>();
  }
  launch.template operator()<1>();
}

}  // namespace

void register_interpolate_cuda();

void register_interpolate_cuda() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    dispatch_stored(dtype, [&]<class S>() { resample.set(DeviceType::kCUDA, dtype, run<S>); });
  }
}

}  // namespace opsin
