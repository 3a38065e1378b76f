// Fills the CPU slots of the losses over classes.
#include "cross_entropy_kernels.h"

#include <algorithm>
#include <string>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

[[noreturn, gnu::cold]] void raise_bad_label(const LabelParams& p, int64_t i) {
  std::string at;
  int64_t rest = i;
  for (size_t d = p.sizes.size(); d-- > 0; rest /= p.sizes[d]) {
    at = std::to_string(rest % p.sizes[d]) + (at.empty() ? "" : ", ") + at;
  }
  detail::raise<IndexError>(p.op, ": Target ", p.target[i], " at position [", at, "] is out of bounds for ",
                            p.classes, " classes (labels run from 0 to ", p.classes - 1, "; ignore_index is ",
                            p.ignore_index, ")");
}

void labels(const LabelParams& p) {
  dispatch_floating(p.dtype, p.op, [&]<class T>() {
    const auto* class_weight = static_cast<const T*>(p.class_weight);
    auto* weight = static_cast<T*>(p.weight);
    cpu::parallel_for(p.count, 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t t = p.target[i];
        const bool counts = t != p.ignore_index;
        if (counts && (t < 0 || t >= p.classes)) raise_bad_label(p, i);
        p.index[i] = counts ? t : 0;
        weight[i] = !counts ? T(0.0f) : class_weight ? class_weight[t] : T(1.0f);
      }
    });
  });
}

/// Calls body(first score, first position, count).
template <class Body>
void for_positions(const CrossEntropyParams& p, Body&& body) {
  constexpr int64_t kWork = 16384;
  const int64_t classes = p.classes, inner = p.inner;
  if (inner == 1) {
    cpu::parallel_for(p.outer, std::max<int64_t>(1, kWork / classes),
                      [&](int64_t begin, int64_t end) { body(begin * classes, begin, end - begin); });
    return;
  }
  const int64_t width = std::min(inner, std::max<int64_t>(64, kWork / classes / 64 * 64));
  const int64_t parts = (inner + width - 1) / width;
  cpu::parallel_for(
      p.outer * parts, std::max<int64_t>(1, kWork / (width * classes)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t from = i % parts * width;
          body(i / parts * classes * inner + from, i / parts * inner + from, std::min(width, inner - from));
        }
      });
}

template <class T>
T* at(T* data, int64_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return data ? static_cast<Byte*>(data) + bytes : nullptr;
}

void run(void (*kernel)(const cpu::CrossEntropyPart&), const CrossEntropyParams& p) {
  const auto item = static_cast<int64_t>(item_size(p.dtype)),
             wide = static_cast<int64_t>(item_size(compute_type(p.dtype)));
  for_positions(p, [&](int64_t score, int64_t position, int64_t count) {
    kernel({at(p.x, score * item), p.target + position, at(p.scale, position * wide),
            at(p.log_sum, position * wide), at(p.loss, position * wide), at(p.grad_x, score * item), count,
            p.classes, p.inner});
  });
}

void forward(const CrossEntropyParams& p) {
  run(OPSIN_ISA_SELECT(cpu::cross_entropy_table).forward[static_cast<int>(p.dtype)], p);
}
void backward(const CrossEntropyParams& p) {
  run(OPSIN_ISA_SELECT(cpu::cross_entropy_table).backward[static_cast<int>(p.dtype)], p);
}

}  // namespace

void register_cross_entropy_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    cross_entropy_forward.set(DeviceType::kCPU, dtype, forward);
    cross_entropy_backward.set(DeviceType::kCPU, dtype, backward);
  }
  for (const DType dtype : {kFloat32, kFloat64}) class_labels.set(DeviceType::kCPU, dtype, labels);
}

}  // namespace opsin
