// Fills the CPU slot of the pairwise overlaps.
#include "overlap_kernels.h"

#include <vector>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

template <class T>
void run(const OverlapParams& p) {
  const auto& table = OPSIN_ISA_SELECT(cpu::overlap_table);
  const auto& rows = std::is_same_v<T, float> ? table.float32 : table.float64;
  const cpu::OverlapRow row = rows[static_cast<int>(p.kind)][p.rank - 1];
  const int width = coordinates_of(p.kind, p.rank);
  const auto* a = static_cast<const T*>(p.a);
  const auto* b = static_cast<const T*>(p.b);
  auto* y = static_cast<T*>(p.y);
  std::vector<T> columns(static_cast<size_t>(p.m * kBoxColumns));
  for (int64_t j = 0; j < p.m; ++j) boxes::prepare(p.kind, p.rank, b + j * width, columns.data() + j, p.m);
  constexpr int64_t kPairs = 16384;
  cpu::parallel_for(p.n, std::max<int64_t>(1, kPairs / p.m), [&](int64_t begin, int64_t end) {
    T box[kBoxColumns] = {};
    for (int64_t i = begin; i < end; ++i) {
      boxes::prepare(p.kind, p.rank, a + i * width, box, 1);
      row(box, columns.data(), p.m, p.eps, y + i * p.m);
    }
  });
}

}  // namespace

void register_overlap_cpu() {
  pair_overlap.set(DeviceType::kCPU, kFloat32, run<float>);
  pair_overlap.set(DeviceType::kCPU, kFloat64, run<double>);
}

}  // namespace opsin
