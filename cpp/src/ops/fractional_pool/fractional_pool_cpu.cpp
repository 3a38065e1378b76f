// Fractional max pooling on the CPU: a task is some planes.
#include "fractional_pool_kernels.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

template <class T>
void forward(const FractionalPoolParams& p) {
  using Value = compute_t<T>;
  const int64_t in = p.in[0] * p.in[1] * p.in[2], out = p.out[0] * p.out[1] * p.out[2];
  const int64_t work = out * p.kernel[0] * p.kernel[1] * p.kernel[2];
  cpu::parallel_for(p.planes, std::max<int64_t>(1, 16384 / work), [&](int64_t begin, int64_t end) {
    std::vector<int64_t> start[3];
    for (int a = 0; a < 3; ++a) start[a].resize(static_cast<size_t>(p.out[a]));
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int a = 0; a < 3; ++a) {
        const auto sample =
            p.sample[a] < 0
                ? Value(0)
                : static_cast<Value>(static_cast<const T*>(p.samples)[plane * p.axes + p.sample[a]]);
        for (int64_t o = 0; o < p.out[a]; ++o) {
          start[a][static_cast<size_t>(o)] = fractional_start(o, p.in[a], p.kernel[a], p.out[a], sample);
        }
      }
      const T* x = static_cast<const T*>(p.x) + plane * in;
      T* y = static_cast<T*>(p.y) + plane * out;
      int64_t* positions = p.positions + plane * out;
      for (const int64_t s0 : start[0]) {
        for (const int64_t s1 : start[1]) {
          for (const int64_t s2 : start[2]) {
            Value best = -std::numeric_limits<Value>::infinity();
            int64_t where = (s0 * p.in[1] + s1) * p.in[2] + s2;
            for (int64_t i0 = s0; i0 < s0 + p.kernel[0]; ++i0) {
              for (int64_t i1 = s1; i1 < s1 + p.kernel[1]; ++i1) {
                const int64_t row = (i0 * p.in[1] + i1) * p.in[2];
                for (int64_t i2 = s2; i2 < s2 + p.kernel[2]; ++i2) {
                  const auto value = static_cast<Value>(x[row + i2]);
                  if (value > best || value != value) {
                    best = value;
                    where = row + i2;
                  }
                }
              }
            }
            *y++ = static_cast<T>(best);
            *positions++ = where;
          }
        }
      }
    }
  });
}

}  // namespace

void register_fractional_pool_cpu() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    dispatch_floating(dtype, "fractional_max_pool", [&]<class T>() {
      fractional_max_pool_forward.set(DeviceType::kCPU, dtype, forward<T>);
    });
  }
}

}  // namespace opsin
