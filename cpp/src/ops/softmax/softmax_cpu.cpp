// Fills the CPU slots of softmax.
#include "softmax_kernels.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// Calls body(offset, count, step, stride) over parts of all vectors.
template <class Params, class Body>
void for_parts(const Params& p, Body&& body) {
  constexpr int64_t kWork = 16384;
  const int64_t n = p.n, inner = p.inner;
  if (inner == 1) {
    cpu::parallel_for(p.outer, std::max<int64_t>(1, kWork / n),
                      [&](int64_t begin, int64_t end) { body(begin * n, end - begin, n, int64_t{1}); });
    return;
  }
  // n = 1 steps by rows too, so that the stride tells the two cases apart.
  const int64_t width = std::min<int64_t>(inner, std::max<int64_t>(64, kWork / n / 64 * 64));
  const int64_t parts = (inner + width - 1) / width;
  cpu::parallel_for(p.outer * parts, std::max<int64_t>(1, kWork / (width * n)),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        const int64_t from = i % parts * width;
                        body(i / parts * n * inner + from, std::min(width, inner - from), int64_t{1}, inner);
                      }
                    });
}

void forward(const SoftmaxParams& p) {
  const auto kernel = OPSIN_ISA_SELECT(cpu::softmax_table).forward[static_cast<int>(p.dtype)];
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  for_parts(p, [&](int64_t offset, int64_t count, int64_t step, int64_t stride) {
    kernel({static_cast<const char*>(p.x) + offset * item, static_cast<char*>(p.y) + offset * item, count,
            step, p.n, stride, p.log});
  });
}

void backward(const SoftmaxBackwardParams& p) {
  const auto kernel = OPSIN_ISA_SELECT(cpu::softmax_table).backward[static_cast<int>(p.dtype)];
  const auto item = static_cast<int64_t>(item_size(p.dtype));
  for_parts(p, [&](int64_t offset, int64_t count, int64_t step, int64_t stride) {
    offset *= item;
    kernel({static_cast<const char*>(p.grad_y) + offset, static_cast<const char*>(p.y) + offset,
            static_cast<char*>(p.grad_x) + offset, count, step, p.n, stride, p.log});
  });
}

}  // namespace

void register_softmax_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    softmax_forward.set(DeviceType::kCPU, dtype, forward);
    softmax_backward.set(DeviceType::kCPU, dtype, backward);
  }
}

}  // namespace opsin
