// Fills the CPU slots of losses over pairs.
#include "pair_kernels.h"

#include <numeric>
#include <vector>

#include "core/elementwise.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

void run(const PairParams& p) {
  constexpr int64_t kGrain = 32768;
  const auto kernel = OPSIN_ISA_SELECT(cpu::pair_table).squared_error[static_cast<int>(p.dtype)];
  const auto* a = static_cast<const char*>(p.a);
  const auto* b = static_cast<const char*>(p.b);
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  std::vector<double> sums(static_cast<size_t>((p.n + kGrain - 1) / kGrain));
  cpu::parallel_for(p.n, kGrain, [&](int64_t begin, int64_t end) {
    sums[static_cast<size_t>(begin / kGrain)] = kernel(a + begin * item, b + begin * item, end - begin);
  });
  store_scalar(Scalar(std::accumulate(sums.begin(), sums.end(), 0.0) * p.scale), p.dtype, p.y);
}

}  // namespace

void register_pair_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    squared_error.set(DeviceType::kCPU, dtype, run);
  }
}

}  // namespace opsin
