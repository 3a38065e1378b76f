// Optimizer steps on the CPU: one tensor after the other, each on several threads.
#include "optim_functors.h"

#include <atomic>
#include <cmath>

#include <opsin/dtype.h>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kGrain = 16384;

/// Calls body(data, n) for parts of each tensor; data[column] is null where the column is not there.
template <class Body>
void for_parts(const TensorColumns& tensors, Body body) {
  const auto item = static_cast<int64_t>(item_size(tensors.dtype));
  for (int64_t t = 0; t < tensors.count; ++t) {
    cpu::parallel_for(tensors.numel[t], kGrain, [&](int64_t begin, int64_t end) {
      char* part[TensorColumns::kMost];
      for (int c = 0; c < TensorColumns::kMost; ++c) {
        part[c] = tensors.data[c] ? static_cast<char*>(tensors.data[c][t]) + begin * item : nullptr;
      }
      body(part, end - begin);
    });
  }
}

void sgd(const SgdParams& p) {
  const auto loop = OPSIN_ISA_SELECT(cpu::optim_table).sgd[static_cast<int>(p.tensors.dtype)];
  for_parts(p.tensors, [&](char* const* data, int64_t n) { loop(data, n, &p.args); });
}

void adam(const AdamParams& p) {
  const auto loop = OPSIN_ISA_SELECT(cpu::optim_table).adam[static_cast<int>(p.tensors.dtype)];
  for_parts(p.tensors, [&](char* const* data, int64_t n) { loop(data, n, &p.args); });
}

void unscale(const UnscaleParams& p) {
  const auto loop = OPSIN_ISA_SELECT(cpu::optim_table).unscale[static_cast<int>(p.tensors.dtype)];
  const double factor =
      p.scale ? static_cast<double>(static_cast<float>(1.0 / static_cast<double>(*p.scale))) : p.factor;
  std::atomic<bool> found{false};
  for_parts(p.tensors, [&](char* const* data, int64_t n) {
    if (loop(data[0], n, factor)) found.store(true, std::memory_order_relaxed);
  });
  if (found.load(std::memory_order_relaxed)) *p.found_inf = 1;
}

void scale(const ScaleParams& p) { optim::update_scale(p); }

}  // namespace

void register_optim_cpu() {
  constexpr auto kDevice = DeviceType::kCPU;
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    sgd_update.set(kDevice, dtype, sgd);
    adam_update.set(kDevice, dtype, adam);
    unscale_update.set(kDevice, dtype, unscale);
  }
  scale_update.set(kDevice, kFloat32, scale);
}

}  // namespace opsin
