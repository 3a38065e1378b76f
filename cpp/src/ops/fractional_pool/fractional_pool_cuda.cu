// Fractional max pooling on a GPU: a thread for each output.
#include "fractional_pool_kernels.h"

#include <limits>

#include "cuda/access.h"
#include "cuda/block.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) fractional_pool(const FractionalPoolParams p, int item) {
  const int64_t in = p.in[0] * p.in[1] * p.in[2], out = p.out[0] * p.out[1] * p.out[2];
  const auto* samples = static_cast<const char*>(p.samples);
  OPSIN_NO_UNROLL
  for (int64_t i = thread_rank(); i < p.planes * out; i += thread_count()) {
    const int64_t plane = i / out;
    int64_t start[3], rest = i % out;
    OPSIN_NO_UNROLL
    for (int a = 2; a >= 0; --a) {
      const T sample =
          p.sample[a] < 0 ? T(0) : load<T>(samples + (plane * p.axes + p.sample[a]) * item, p.dtype);
      start[a] = fractional_start(rest % p.out[a], p.in[a], p.kernel[a], p.out[a], sample);
      rest /= p.out[a];
    }
    const char* x = static_cast<const char*>(p.x) + plane * in * item;
    T best = -std::numeric_limits<T>::infinity();
    int64_t where = (start[0] * p.in[1] + start[1]) * p.in[2] + start[2];
    OPSIN_NO_UNROLL
    for (int64_t i0 = start[0]; i0 < start[0] + p.kernel[0]; ++i0) {
      OPSIN_NO_UNROLL
      for (int64_t i1 = start[1]; i1 < start[1] + p.kernel[1]; ++i1) {
        const int64_t row = (i0 * p.in[1] + i1) * p.in[2];
        OPSIN_NO_UNROLL
        for (int64_t at = row + start[2]; at < row + start[2] + p.kernel[2]; ++at) {
          const T value = load<T>(x + at * item, p.dtype);
          if (value > best || value != value) {
            best = value;
            where = at;
          }
        }
      }
    }
    store(best, static_cast<char*>(p.y) + i * item, p.dtype);
    p.positions[i] = where;
  }
}

void forward(const FractionalPoolParams& p) {
  const unsigned grid = grid_for(p.planes * p.out[0] * p.out[1] * p.out[2], kThreads);
  const auto item = static_cast<int>(item_size(p.dtype));
  if (p.dtype == kFloat64) {
    OPSIN_LAUNCH(fractional_pool<double>, grid, kThreads, 0, p, item);
  } else {
    OPSIN_LAUNCH(fractional_pool<float>, grid, kThreads, 0, p, item);
  }
}

}  // namespace

void register_fractional_pool_cuda();

void register_fractional_pool_cuda() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    fractional_max_pool_forward.set(DeviceType::kCUDA, dtype, forward);
  }
}

}  // namespace opsin
