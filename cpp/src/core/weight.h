// Weights whose packed form outlives the call (cpu/packed_cache.h).
#pragma once

#include <optional>

#include <opsin/autograd.h>
#include <opsin/tensor.h>

#include "cpu/packed_cache.h"

namespace opsin {

/// Whether a call records no gradient of `weight`. Asked before the call, which records nothing itself.
inline bool is_constant(const Tensor& weight) { return !GradMode::is_enabled() || !weight.requires_grad(); }

/// What a kernel is told about its weight.
class WeightScope {
 public:
  WeightScope(const Tensor& weight, bool keeps) {
    if (!keeps || !weight.device().is_cpu()) return;
    const uint32_t version = weight.version();
    if (cpu::PackedCache* cache = weight.impl()->storage->packed_cache()) kept_ = {cache, version};
  }
  const cpu::KeptWeight* get() const { return kept_ ? &*kept_ : nullptr; }
  /// Whether a batch norm with fixed numbers followed when the weight was used before.
  bool is_normalised() const { return kept_ && kept_->cache->normalised; }

 private:
  std::optional<cpu::KeptWeight> kept_;
};

}  // namespace opsin
