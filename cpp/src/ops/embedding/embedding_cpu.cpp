#include "embedding_kernels.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/dispatch.h"

namespace opsin {

namespace {

void shorten(const ShortenParams& s) {
  std::vector<char> seen(static_cast<size_t>(s.table));
  dispatch_floating(s.dtype, "embedding", [&]<class T>() {
    for (int64_t i = 0; i < s.count; ++i) {
      char& done = seen[static_cast<size_t>(s.rows[i])];
      if (std::exchange(done, 1)) continue;
      T* row = static_cast<T*>(s.weight) + s.rows[i] * s.width;
      double norm = 0;
      for (int64_t k = 0; k < s.width; ++k) {
        const double size = std::abs(static_cast<double>(static_cast<compute_t<T>>(row[k])));
        norm = std::isinf(s.p) ? std::max(norm, size) : norm + std::pow(size, s.p);
      }
      if (!std::isinf(s.p)) norm = std::pow(norm, 1 / s.p);
      if (!(norm > s.max_norm)) continue;
      const auto scale = static_cast<compute_t<T>>(s.max_norm / (norm + 1e-7));
      for (int64_t k = 0; k < s.width; ++k) {
        row[k] = static_cast<T>(static_cast<compute_t<T>>(row[k]) * scale);
      }
    }
  });
}

}  // namespace

void register_embedding_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    embedding_shorten.set(DeviceType::kCPU, dtype, shorten);
  }
}

}  // namespace opsin
